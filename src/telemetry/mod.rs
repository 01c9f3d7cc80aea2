//! What a long-running process tells of itself over HTTP: figures for Prometheus, and whether it lives and is ready.

mod exposition;
mod http;

pub use exposition::Exposition;
pub use http::{Telling, serve};
