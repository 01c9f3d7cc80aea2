//! The rows that one transaction adds to one run's log, before they are written.

use std::path::Path;

use crate::journal::chain::{self, Sum};
use crate::journal::error::JournalError;
use crate::journal::transaction::Head;
use crate::journal::types::Batch;

/// Consecutive events of a run go into one row up to this size: fewer rows cost less, larger ones gain nothing.
const ROW_BYTES: usize = 256 * 1024;
/// The largest batch. SQLite's own limit for a row is 1,000,000,000 bytes.
const BATCH_BYTES: u64 = 512 * 1024 * 1024;

/// One row that is still to be written.
pub(crate) struct PendingRow {
    pub(crate) first_seq: u64,
    pub(crate) count: u64,
    pub(crate) packed: Vec<u8>,
    pub(crate) sum: Sum,
}

/// The rows in order, and where the log ends behind them.
pub(crate) struct PendingRows {
    pub(crate) sealed: Vec<PendingRow>,
    open: Option<PendingRow>,
    pub(crate) next_seq: u64,
    pub(crate) sum: Sum,
}

impl PendingRows {
    /// Continues a log where it ends.
    pub(crate) fn after(head: &Head) -> Self {
        Self { sealed: Vec::new(), open: None, next_seq: head.next_seq, sum: head.row }
    }

    /// Takes a batch's events, all or none: they must follow those before.
    pub(crate) fn take(&mut self, batch: &Batch, file: &Path) -> Result<(), JournalError> {
        if !batch.bodies.is_empty() && batch.first_seq != self.next_seq {
            let what = format!("event {} was to be written where event {} comes next", batch.first_seq, self.next_seq);
            return Err(JournalError::Fenced { run: batch.run.clone(), file: file.to_owned(), what });
        }
        for body in &batch.bodies {
            let first_seq = self.next_seq;
            let sum = self.sum;
            let row = self.open.get_or_insert_with(|| PendingRow { first_seq, count: 0, packed: Vec::new(), sum });
            chain::pack(&mut row.packed, body);
            row.count += 1;
            self.next_seq += 1;
            if row.packed.len() >= ROW_BYTES {
                self.seal();
            }
        }
        Ok(())
    }

    /// Ends the row that is being filled.
    pub(crate) fn seal(&mut self) {
        if let Some(mut row) = self.open.take() {
            row.sum = chain::row(&self.sum, row.first_seq, row.count, &row.packed);
            self.sum = row.sum;
            self.sealed.push(row);
        }
    }
}

/// Refuses a batch that no row can hold.
pub(crate) fn check_size(batch: &Batch, file: &Path) -> Result<(), JournalError> {
    let bodies = batch.bodies.iter().map(|body| body.len());
    let definition = batch.accept.iter().map(|new| new.definition.len());
    let cached = batch.cache.iter().map(|put| put.value.len());
    let replies = batch.handled.iter().map(|reply| reply.body.len());
    let bytes = bodies.chain(definition).chain(cached).chain(replies).map(|bytes| bytes as u64).sum();
    if bytes <= BATCH_BYTES {
        return Ok(());
    }
    Err(JournalError::TooLarge { run: batch.run.clone(), file: file.to_owned(), bytes, limit: BATCH_BYTES })
}
