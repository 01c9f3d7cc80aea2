//! Which hand-out a lease is for, and how long leases last.

use std::time::Duration;

use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::Task;

/// Names one hand-out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    pub run: RunId,
    pub unit: UnitPath,
    pub token: LeaseToken,
}

impl LeaseKey {
    /// The key of a task.
    pub fn of(task: &Task) -> Self {
        Self { run: task.run.clone(), unit: task.unit.clone(), token: task.token }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A hand-out that no heartbeat has named for so long is lost.
    pub lease: Duration,
    /// How often a worker says what it has in work.
    pub heartbeat: Duration,
    /// What was sent over a bus and taken by nobody for so long is sent again.
    pub resend: Duration,
    /// What must not begin twice is sent over a bus once. It may wait there for so long, behind busy workers; what
    /// nobody has said to have by then is lost.
    pub once: Duration,
}

impl Terms {
    /// How long a task may wait on a bus before anything is done about it.
    pub fn on_bus(&self, task: &Task) -> Duration {
        if task.place.once { self.once } else { self.resend }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            heartbeat: Duration::from_secs(5),
            resend: Duration::from_secs(20),
            once: Duration::from_mins(10),
        }
    }
}
