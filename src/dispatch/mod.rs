//! Sends tasks, receives outcomes.
//!
//! A scheduler's runtime knows only [`Dispatch`]: it hands a task over, may ask for its end, and reads one [`Report`]
//! for each task from the channel that it gave. [`InProcess`] does the tasks in this very process. How a task is done
//! is not known here: that is what a [`Perform`] is for.

mod in_process;
mod stop;

pub use in_process::{InProcess, Perform};
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
}

/// How one hand-out of work ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub run: RunId,
    pub unit: UnitPath,
    pub token: LeaseToken,
    pub outcome: Outcome,
}
