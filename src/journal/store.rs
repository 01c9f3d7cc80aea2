//! What every journal can do, whatever keeps it.

use crate::id::RunId;
use crate::journal::error::JournalError;
use crate::journal::types::{Batch, Claim, ListFilter, Record, RunRow};
use crate::time::Timestamp;

/// Called once with the fate of a batch.
pub type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// The durable ordered log of every run.
pub trait Journal: Send + Sync {
    /// Queues a batch behind all earlier ones. `done` is called once, in the order of the calls: with `Ok` when the
    /// batch is durable, else with the error.
    ///
    /// `Fenced`, `NoSuchRun` and `TooLarge` concern the batch's run alone: nothing of the batch was written, and
    /// later batches of that run fail too. Every other error ends the journal: all queued and later calls fail
    /// with it, and nothing is tried again. `done` must be quick and must not wait for this journal: it runs in
    /// the writer's thread (in the caller's, when the journal is dead or in memory).
    fn append(&self, batch: Batch, done: Done);

    /// All events of a run in order, none for a run that is not known. Every checksum and the gap-free sequence are
    /// verified; what does not fit is `Corrupt`, never left out.
    fn load(&self, run: &RunId) -> Result<Vec<Record>, JournalError>;

    /// The events of a run from that number on, for whoever has read the earlier ones. What is read is verified.
    fn load_from(&self, run: &RunId, seq: u64) -> Result<Vec<Record>, JournalError> {
        let mut records = self.load(run)?;
        records.retain(|record| record.seq >= seq);
        Ok(records)
    }

    /// The definition of that name, if there is one.
    fn definition(&self, hash: &str) -> Result<Option<Vec<u8>>, JournalError>;

    /// One run's row.
    fn run(&self, run: &RunId) -> Result<Option<RunRow>, JournalError>;

    /// The runs whose names begin so, newest first, at most 100: more than one means that the prefix is ambiguous.
    fn find_run(&self, prefix: &str) -> Result<Vec<RunRow>, JournalError>;

    /// The runs that pass a filter, newest first.
    fn list(&self, filter: &ListFilter) -> Result<Vec<RunRow>, JournalError>;

    /// Makes this process the owner of a run, unless another living process is.
    fn claim(&self, run: &RunId) -> Result<Claim, JournalError>;

    /// Whether no other process can have taken a run over that this one owns, by this process's own steady clock. A
    /// process that stood still for long is not sure any more until it has asked again.
    fn is_sure(&self, _run: &RunId) -> bool {
        true
    }

    /// Gives a run up; a run that this process does not own stays as it is.
    fn release(&self, run: &RunId) -> Result<(), JournalError>;

    /// The remembered result of a key, unless it has expired at `now`.
    fn cached(&self, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, JournalError>;

    /// Leaves a command for a run's owner; gives the command's number.
    fn send_command(&self, run: &RunId, body: &[u8]) -> Result<i64, JournalError>;

    /// The commands of a run that no batch has answered, in the order in which they were sent.
    fn pending_commands(&self, run: &RunId) -> Result<Vec<(i64, Vec<u8>)>, JournalError>;

    /// The runs that have such commands.
    fn runs_with_commands(&self) -> Result<Vec<RunId>, JournalError>;

    /// The answer to a command, once there is one.
    fn command_reply(&self, id: i64) -> Result<Option<Vec<u8>>, JournalError>;

    /// How many writes were refused because another process has the run.
    fn refused(&self) -> u64 {
        0
    }

    /// Whether another process (or another journal of this one) has written since the last call. Costs microseconds.
    fn changed(&self) -> Result<bool, JournalError>;

    /// Tells of changes by others as they come, for whoever would rather wait than ask `changed`: each one makes the
    /// number grow. `None` if the journal cannot tell; then there is only `changed`.
    fn subscribe(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        None
    }

    /// Removes finished runs with their events, commands, unused definitions and, by the machine's clock, expired
    /// results. A run goes if it ended before `older_than` (when given) and is not among the `keep_newest` finished
    /// ones (when given); a run whose parent has not ended stays. Gives the names, newest first; their folders are
    /// the caller's to remove. With `dry_run` nothing is removed.
    fn prune(
        &self,
        older_than: Option<Timestamp>,
        keep_newest: Option<u64>,
        dry_run: bool,
    ) -> Result<Vec<RunId>, JournalError>;

    /// Writes what is queued, gives up every run that this process owns, and ends. Later calls fail.
    fn close(&self);
}
