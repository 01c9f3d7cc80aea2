//! The durable ordered log of every run: what happened, in order, verified when it is read.
//!
//! A run's events are opaque bytes here; the scheduler writes and reads them. Three journals keep them: one
//! in memory for tests and dry measurements, one in SQLite in the state folder, one in PostgreSQL for several
//! machines. The log of each run is a chain of checksums, and one process at a time owns a run. Beside SQLite's file a
//! high-water mark tells a lost tail from a log that ends there.

mod chain;
mod claim;
mod commit;
mod create;
mod error;
mod fault;
mod folder;
mod jobs;
mod mark;
mod memory;
mod owner;
mod pending;
mod postgres;
mod prune;
mod query;
mod rows;
mod sqlite;
mod store;
mod transaction;
mod types;
mod writer;

#[cfg(test)]
mod corruption_tests;
#[cfg(test)]
mod process_tests;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
mod tests;

pub use error::JournalError;
pub use fault::FaultHook;
pub use folder::StateFolder;
pub use memory::MemoryJournal;
pub use postgres::{Holdings, Looked, Partitions, PostgresJournal, PostgresOptions, Tables, look_at};
pub use sqlite::{OpenMode, Options, SqliteJournal};
pub use store::Journal;
pub use types::{Batch, CachePut, Claim, CommandReply, ListFilter, NewRun, Record, RunRow, RunSummaryRow};
