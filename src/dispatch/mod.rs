//! Sends tasks, receives outcomes.
//!
//! A scheduler's runtime knows only [`Dispatch`]: it hands a task over, may ask for its end, and reads one [`Report`]
//! for each task from the channel that it gave. [`InProcess`] does the tasks in this very process; a [`Hub`] shares
//! them out among workers in this process, on other machines and behind a bus. How a task is done is not known here:
//! that is what a [`Perform`] is for.

mod bus_message;
mod counters;
mod hub;
mod in_process;
pub mod kafka;
mod lease;
mod ledger;
mod log;
mod member;
mod remembered;
mod stop;
mod wire;

pub use bus_message::BusMessage;
pub use counters::Counters;
pub use hub::{Hub, LocalSession, ToSession};
pub use in_process::{InProcess, Perform};
pub use lease::{LeaseKey, Terms};
pub use ledger::{Joining, Ledger, Message, Sending, SessionId};
pub use log::{LogSink, LogStream, WorkerLine};
pub use member::ANYTHING;
pub use stop::{Stop, StopHandle, StopSignal, stop_channel};

use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Outcome, Task};

/// Hands tasks to workers.
pub trait Dispatch: Send + Sync {
    /// Hands one task over and returns at once. Its outcome comes as one [`Report`], always.
    fn dispatch(&self, task: Task);

    /// Asks for the end of one hand-out of work; the report still comes. A hand-out that has ended, or that was never
    /// made, is passed over.
    fn stop(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, how: Stop);

    /// Whether work may outlive this process: then a run that is taken up again reclaims what was handed out.
    fn outlives(&self) -> bool {
        false
    }

    /// Takes up a hand-out of an earlier process. Its report comes from the worker that has it, or says that it is
    /// lost.
    fn reclaim(&self, task: Task) {
        self.dispatch(task);
    }

    /// This process drives a run from now on.
    fn begin(&self, _run: &RunId) {}

    /// What became of a report. A worker keeps its outcome until it hears this.
    fn answered(&self, _run: &RunId, _unit: &UnitPath, _token: LeaseToken, _verdict: Verdict) {}

    /// This process drives a run no longer: it has ended, or another process has it.
    fn forget(&self, _run: &RunId, _ended: bool) {}
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is recorded and durable.
    Recorded,
    /// The hand-out was no longer the current one.
    Stale,
    /// This scheduler does not have the run; another may.
    Unknown,
}

/// A hand-out whose worker was not heard of for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub why: String,
}

/// How one hand-out of work ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub run: RunId,
    pub unit: UnitPath,
    pub token: LeaseToken,
    pub result: Result<Outcome, Lost>,
}
