//! A worker of schedulers that it reaches over gRPC: one session with each gateway for as long as it lives.

mod backoff;
mod client;
mod connect;
mod payload;
mod session;

pub use client::{About, Client, Notice};
pub use connect::{Access, ConnectError, GatewayAddress, TlsSettings};
