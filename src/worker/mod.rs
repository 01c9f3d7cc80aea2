//! Receive, handle, reply.
//!
//! [`perform`] picks the handler of a task; [`Worker`] is the same as a [`crate::dispatch::Perform`], for a dispatch
//! that works in this process.

pub mod kafka;
mod perform;

pub use crate::handler::{LogLine, WorkerContext};
pub use perform::{Worker, perform};
