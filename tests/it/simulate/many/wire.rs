//! What goes between schedulers and workers.

use std::collections::BTreeSet;

use tol::dispatch::{LeaseKey, Message};
use tol::task::Outcome;

/// From a scheduler to a worker over a session.
#[derive(Clone, Debug)]
pub enum ToWorker {
    /// A join or a heartbeat that was sent then, by the worker's clock, has arrived. What follows was sent later.
    Seen {
        asked: u64,
    },
    Message(Message),
}

/// From a worker to a scheduler.
#[derive(Clone, Debug)]
pub enum FromWorker {
    Join { queues: BTreeSet<String>, concurrency: u32, leases: Vec<LeaseKey>, asked: u64 },
    Heartbeat { leases: Vec<LeaseKey>, asked: u64 },
    Report { key: LeaseKey, outcome: Outcome },
}
