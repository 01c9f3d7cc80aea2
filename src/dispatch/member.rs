//! A worker's connection as a ledger sees it: what it serves, what it is able to do, what it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::dispatch::lease::LeaseKey;
use crate::task::Task;

/// The queue or capability of a worker that takes whatever there is.
pub const ANYTHING: &str = "*";

/// One connection of a worker, and what it has.
pub(super) struct Member {
    pub(super) worker: Arc<str>,
    pub(super) queues: BTreeSet<String>,
    pub(super) capabilities: BTreeSet<String>,
    pub(super) concurrency: u32,
    pub(super) draining: bool,
    pub(super) local: bool,
    pub(super) has: HashSet<LeaseKey>,
}

/// Where tasks of one kind wait: the same queue, the same capabilities.
pub(super) type Lane = (Arc<str>, Vec<Box<str>>);

/// Where a task waits.
pub(super) fn lane_of(task: &Task) -> Lane {
    (task.place.queue.clone(), task.place.capabilities.clone())
}

impl Member {
    /// Whether it may be given what waits there.
    pub(super) fn serves(&self, (queue, capabilities): &Lane) -> bool {
        let has = |words: &BTreeSet<String>, word: &str| words.contains(word) || words.contains(ANYTHING);
        has(&self.queues, queue) && capabilities.iter().all(|one| has(&self.capabilities, one))
    }

    /// Whether it has room for one more.
    pub(super) fn is_free(&self) -> bool {
        !self.draining && self.has.len() < self.concurrency as usize
    }
}
