//! The rooms of `tol`, in the order in which they may import each other.
//!
//! `docs/architecture.md` is the map; `tests/it/tidy.rs` holds the code to it. Everything down to
//! `report` is pure: it reads no clock, file, socket or environment, and draws no random number.

#![forbid(unsafe_code)]

pub mod compile;
pub mod diagnostic;
pub mod expr;
pub mod graph;
pub mod id;
pub mod model;
pub mod proto;
pub mod report;
pub mod scheduler;
pub mod schema;
pub mod task;
pub mod testing;
pub mod time;
pub mod yaml;
// Below this line: input and output.

pub mod artifact;
pub mod cli;
pub mod database;
pub mod dispatch;
pub mod gateway;
pub mod handler;
pub mod journal;
pub mod llm;
pub mod project;
pub mod runtime;
pub mod server;
pub mod telemetry;
pub mod watch;
pub mod worker;

#[cfg(test)]
#[path = "../tests/support/postgres.rs"]
mod test_postgres;
