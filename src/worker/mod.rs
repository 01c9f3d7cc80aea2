//! Receive, handle, reply.
//!
//! [`perform`] picks the handler of a task; [`Worker`] is the same as a [`crate::dispatch::Perform`], for a dispatch
//! that works in this process. A worker of schedulers on other machines keeps what it has in work in a [`Table`], and
//! [`grpc`] connects it to them.

pub mod grpc;
pub mod kafka;
mod lines;
mod perform;
mod place;
mod table;

pub use crate::handler::{LogLine, WorkerContext};
pub use lines::Lines;
pub use perform::{Worker, perform};
pub use place::Elsewhere;
pub use table::{Kept, Table, Taken};
