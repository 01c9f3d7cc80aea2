//! What goes between schedulers and workers.

use std::collections::BTreeSet;

use tol::dispatch::{LeaseKey, Message};
use tol::task::Outcome;

use super::node::run_number;

/// From a scheduler to a worker over a session.
#[derive(Clone, Debug)]
pub enum ToWorker {
    /// A join or a heartbeat that was sent then, by the worker's clock, has arrived. What follows was sent later; what a
    /// heartbeat led to came before.
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

/// The run that a message is about, and the message in words.
pub fn shown(message: &Message) -> (usize, String) {
    match message {
        Message::Task(task) => (run_number(&task.run), format!("task {} {}", task.unit, task.token.0)),
        Message::Stop { key, how } => (run_number(&key.run), format!("stop {} {} {how:?}", key.unit, key.token.0)),
        Message::Answer { key, verdict } => {
            (run_number(&key.run), format!("{} {} is {verdict:?}", key.unit, key.token.0))
        }
    }
}
