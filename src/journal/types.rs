//! What is written to a journal and what is read from it. No behaviour.

use std::sync::Arc;

use crate::id::RunId;
use crate::time::Timestamp;

/// What one write consists of; it becomes durable as a whole or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The run that all of it belongs to.
    pub run: RunId,
    /// The sequence number of the first body; the others follow without a gap.
    pub first_seq: u64,
    /// The events in order; may be empty when only other parts change.
    pub bodies: Vec<Box<[u8]>>,
    /// Present when this batch is the first of a new run: the run's row.
    pub accept: Option<Box<NewRun>>,
    /// The columns of the run's row that changed.
    pub summary: Option<RunSummaryRow>,
    /// Results to remember under their keys; an older one of the same key is replaced.
    pub cache: Vec<CachePut>,
    /// The commands that this batch answers.
    pub handled: Vec<CommandReply>,
}

impl Batch {
    /// Events alone.
    pub fn events(run: RunId, first_seq: u64, bodies: Vec<Box<[u8]>>) -> Self {
        Self { run, first_seq, bodies, accept: None, summary: None, cache: Vec::new(), handled: Vec::new() }
    }
}

/// A run as it is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRun {
    /// The pipeline's name.
    pub pipeline: String,
    /// The path of the pipeline's file, as given.
    pub path: String,
    /// Names the definition; the definition is stored once for each name.
    pub definition_hash: String,
    /// Everything that is needed to resume the run although its files have changed.
    pub definition: Arc<[u8]>,
    /// The commit that was checked out.
    pub git_commit: Option<String>,
    /// Whether files differed from that commit.
    pub git_dirty: Option<bool>,
    /// The run that started this one.
    pub parent: Option<RunId>,
    /// When the run was accepted.
    pub started_at: Timestamp,
}

/// The columns of a run's row that change while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSummaryRow {
    /// The status, in the words of the contract.
    pub status: String,
    /// Whether the run is paused.
    pub paused: bool,
    /// When the run ended; `None` while it goes on.
    pub finished_at: Option<Timestamp>,
}

/// A result to remember.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePut {
    /// What the result is found by.
    pub key: String,
    /// The result.
    pub value: Vec<u8>,
    /// From this time on it is not found any more; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// The answer to a command of another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReply {
    /// The command's number, as `send_command` gave it.
    pub id: i64,
    /// The answer.
    pub body: Vec<u8>,
}

/// A run as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRow {
    /// The run's name.
    pub run: RunId,
    /// The pipeline's name.
    pub pipeline: String,
    /// The path of the pipeline's file.
    pub path: String,
    /// The status; `running` until a summary says otherwise.
    pub status: String,
    /// Whether the run is paused.
    pub paused: bool,
    /// When the run was accepted.
    pub started_at: Timestamp,
    /// When the run ended.
    pub finished_at: Option<Timestamp>,
    /// The run that started this one.
    pub parent: Option<RunId>,
    /// Names the definition.
    pub definition_hash: String,
    /// The commit that was checked out.
    pub git_commit: Option<String>,
    /// Whether files differed from that commit.
    pub git_dirty: Option<bool>,
    /// The living process that owns the run (`process 12 on host, since …`); `None` if none does or it is dead.
    pub owner: Option<String>,
}

/// One event as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its sequence number.
    pub seq: u64,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// Which runs to list; the default is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Only runs with this status.
    pub status: Option<String>,
    /// Only runs of this pipeline.
    pub pipeline: Option<String>,
    /// At most so many, the newest.
    pub limit: Option<u64>,
}

/// Whether a process became a run's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This process owns the run now.
    Taken,
    /// Another living process owns it.
    Held {
        /// That process: `process 12 on host, since …`.
        holder: String,
    },
}
