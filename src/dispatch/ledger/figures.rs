//! What a ledger tells of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dispatch::lease::LeaseKey;
use crate::dispatch::ledger::{Entry, Ledger, Standing};

impl Ledger {
    /// How many hand-outs there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Those that no worker was given.
    pub fn queued(&self) -> Vec<LeaseKey> {
        let waits = |entry: &Entry| matches!(entry.standing, Standing::Queued);
        self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(key, _)| key.clone()).collect()
    }

    /// How many of them a worker has.
    pub fn in_work(&self) -> usize {
        let has = |entry: &&Entry| matches!(entry.standing, Standing::Leased { .. } | Standing::Reported { .. });
        self.entries.values().filter(has).count()
    }

    /// True if nothing is handed out.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The tasks that wait because no session serves their queue or has what they need, by queue.
    pub fn unserved(&self) -> BTreeMap<Arc<str>, usize> {
        let mut queues = BTreeMap::new();
        for (lane, keys) in self.waiting.iter().filter(|(_, keys)| !keys.is_empty()) {
            if !self.sessions.values().any(|session| session.serves(lane)) {
                *queues.entry(lane.0.clone()).or_default() += keys.len();
            }
        }
        queues
    }

    /// The sessions' workers, each with its slots and how many of them are taken.
    pub fn workers(&self) -> Vec<(Arc<str>, u32, usize)> {
        self.sessions.values().map(|session| (session.worker.clone(), session.concurrency, session.has.len())).collect()
    }
}
