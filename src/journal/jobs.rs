//! What waits for a journal's writer, in order, and how much of it goes into one transaction.

use std::collections::VecDeque;

use crate::journal::store::Done;
use crate::journal::types::Batch;

/// The most batches of one transaction, so that the first of them does not wait for ever.
const GROUP_BATCHES: usize = 4096;
/// The most bytes of events of one transaction, unless a single batch has more.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// Something to write: a batch of events, or a change of another kind.
pub(crate) enum Job<C> {
    Write(Batch, Done),
    Change(C),
}

/// What goes into one transaction.
pub(crate) enum Group<C> {
    Writes(Vec<(Batch, Done)>),
    Change(C),
}

impl<C> Group<C> {
    /// Takes what comes first: a change by itself, or as many batches as stand before the next change and fit.
    pub(crate) fn take(jobs: &mut VecDeque<Job<C>>) -> Option<Self> {
        let mut writes = Vec::new();
        let mut bytes = 0;
        while writes.len() < GROUP_BATCHES && bytes < GROUP_BYTES {
            match jobs.pop_front() {
                Some(Job::Write(batch, done)) => {
                    bytes += batch.bodies.iter().map(|body| body.len()).sum::<usize>();
                    writes.push((batch, done));
                }
                Some(Job::Change(change)) if writes.is_empty() => return Some(Self::Change(change)),
                Some(change @ Job::Change(_)) => {
                    jobs.push_front(change);
                    break;
                }
                None => break,
            }
        }
        if writes.is_empty() { None } else { Some(Self::Writes(writes)) }
    }
}
