//! The rooms of `tol`, in the order in which they may import each other.
//!
//! `docs/architecture.md` is the map; `tests/it/tidy.rs` holds the code to it. Everything down to
//! `report` is pure: it reads no clock, file, socket or environment, and draws no random number.

#![forbid(unsafe_code)]

pub mod id;
pub mod time;
pub mod diagnostic;
pub mod task;
pub mod yaml;
pub mod expr;
pub mod schema;
pub mod model;
pub mod graph;
pub mod compile;
pub mod scheduler;
pub mod report;
pub mod testing;
// Below this line: input and output.

pub mod project;
pub mod journal;
pub mod dispatch;
pub mod llm;
pub mod handler;
pub mod worker;
pub mod runtime;
pub mod cli;
