//! What can keep a run from going on, apart from the run itself.

use crate::id::RunId;
use crate::journal::JournalError;
use crate::scheduler::Rejection;

/// A failure of the engine or its journal.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("there is no run `{0}`; `tol runs list` shows those that there are")]
    NoSuchRun(String),
    #[error("the journal of run {run} cannot be replayed: event {seq} {problem}")]
    Corrupt { run: RunId, seq: u64, problem: String },
    #[error("the definition that run {run} was started with no longer compiles with this version of tol: {problem}")]
    Definition { run: RunId, problem: String },
    #[error("run {run} is driven by {holder}; only one process may drive a run")]
    Held { run: RunId, holder: String },
    #[error("the process that drives run {0} does not answer; try again, or end it and use `tol resume {0}`")]
    NoAnswer(RunId),
    #[error(transparent)]
    Rejected(#[from] Rejection),
    #[error("{0}")]
    Refused(String),
    #[error("the engine has stopped")]
    Stopped,
}
