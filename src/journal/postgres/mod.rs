//! The journal in PostgreSQL: several processes on several machines write to it, each to the runs that it holds.
//!
//! Every write of a run is conditional on the epoch under which this process holds it, in the same transaction. Whoever
//! takes a run over raises the epoch, so that nothing of a former holder is ever written behind its back.

mod check;
mod claim;
mod commit;
mod grants;
mod group;
mod journal;
mod keeper;
mod partitions;
mod prune;
mod reader;
mod schema;
mod shared;
mod sql;
mod writer;

#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;

pub use check::{Looked, Tables, look_at};
pub use journal::{PostgresJournal, PostgresOptions};
pub use partitions::{Holdings, Partitions};
