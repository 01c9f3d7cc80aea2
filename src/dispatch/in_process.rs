//! Does tasks in this process: one asynchronous task for each, and one report for each, whatever happens.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use crate::dispatch::{Dispatch, Report, Stop, StopHandle, StopSignal, stop_channel};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Failure, Outcome, Task};

/// Does one task.
pub trait Perform: Send + Sync + 'static {
    /// Does a task to its end, or until the signal asks for it. Dropping the future ends the work too.
    fn perform(&self, task: Task, stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
}

type Key = (RunId, UnitPath, LeaseToken);

/// Hands tasks to a [`Perform`] in this process.
pub struct InProcess {
    handle: Handle,
    performer: Arc<dyn Perform>,
    shared: Arc<Shared>,
}

/// The hand-outs in work, and where their reports go. The channel needs no bound of its own: it holds at most one
/// report for each task that was handed over.
struct Shared {
    running: Mutex<HashMap<Key, StopHandle>>,
    reports: UnboundedSender<Report>,
}

impl Shared {
    /// A map whose holder panicked is still whole: every change of it is one call.
    fn running(&self) -> MutexGuard<'_, HashMap<Key, StopHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InProcess {
    /// Tasks run on the runtime of `handle`, and reports go to `reports`.
    pub fn new(handle: Handle, performer: Arc<dyn Perform>, reports: UnboundedSender<Report>) -> Self {
        Self { handle, performer, shared: Arc::new(Shared { running: Mutex::new(HashMap::new()), reports }) }
    }

    /// How many tasks are in work.
    pub fn running_count(&self) -> usize {
        self.shared.running().len()
    }

    /// Asks for the end of everything that is in work.
    pub fn stop_all(&self, how: Stop) {
        for handle in self.shared.running().values() {
            handle.stop(how);
        }
    }
}

impl Dispatch for InProcess {
    fn dispatch(&self, task: Task) {
        let (handle, signal) = stop_channel();
        let key = (task.run.clone(), task.unit.clone(), task.token);
        self.shared.running().insert(key.clone(), handle);
        let mut reply = Reply { shared: self.shared.clone(), key, outcome: Outcome::Stopped };
        let performer = self.performer.clone();
        self.handle.spawn(async move {
            // The performer is called inside, so that its panic is caught before the first await too.
            let work = async move { performer.perform(task, signal).await };
            let outcome = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(outcome) => outcome,
                Err(panic) => Outcome::failed(Failure::permanent(format!("internal error: {}", words_of(&*panic)))),
            };
            reply.outcome_is(outcome);
        });
    }

    fn stop(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, how: Stop) {
        if let Some(handle) = self.shared.running().get(&(run.clone(), unit.clone(), token)) {
            handle.stop(how);
        }
    }
}

/// Reports when it is dropped, so that a report is sent exactly once even if the runtime ends under the work.
struct Reply {
    shared: Arc<Shared>,
    key: Key,
    outcome: Outcome,
}

impl Reply {
    fn outcome_is(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.shared.running().remove(&self.key);
        let (run, unit, token) = self.key.clone();
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Stopped);
        // Nobody listens any more when the run's loop is gone; then nobody misses the report.
        let _ = self.shared.reports.send(Report { run, unit, token, outcome });
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(words) = panic.downcast_ref::<&str>() {
        words
    } else if let Some(words) = panic.downcast_ref::<String>() {
        words
    } else {
        "a worker stopped without words"
    }
}
