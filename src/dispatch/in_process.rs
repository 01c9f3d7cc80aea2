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
        let _ = self.shared.reports.send(Report { run, unit, token, result: Ok(outcome) });
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use crate::task::{Command, ErrorClass, Script, Work};

    /// Does what the name of a unit says.
    struct Player;

    impl Perform for Player {
        fn perform(&self, task: Task, mut stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
            assert_ne!(task.unit.as_str(), "panics_at_once");
            Box::pin(async move {
                match task.unit.as_str() {
                    "succeeds" => Outcome::success(task.token.0.into()),
                    "panics" => panic!("the floor gave way"),
                    _ => match stop.wait(Stop::Graceful).await {
                        Stop::Graceful => Outcome::Stopped,
                        Stop::Now => Outcome::success("now".into()),
                    },
                }
            })
        }
    }

    fn task(unit: &str, token: u64) -> Task {
        let script = Script {
            command: Command::Argv(Vec::new()),
            env: Vec::new(),
            inherit_env: Vec::new(),
            dir: String::new(),
            json: false,
            permanent_exit_codes: Vec::new(),
            max_output: 0,
        };
        Task {
            run: RunId::new("r"),
            pipeline: Arc::from("p"),
            unit: UnitPath::new(unit),
            attempt: 1,
            token: LeaseToken(token),
            idempotency_key: String::new(),
            deadline: None,
            place: Default::default(),
            work: Work::Run(script),
        }
    }

    fn start() -> (InProcess, UnboundedReceiver<Report>) {
        let (sender, receiver) = unbounded_channel();
        (InProcess::new(Handle::current(), Arc::new(Player), sender), receiver)
    }

    async fn next(reports: &mut UnboundedReceiver<Report>) -> (String, u64, Outcome) {
        let report = tokio::time::timeout(Duration::from_secs(5), reports.recv()).await.unwrap().unwrap();
        (report.unit.to_string(), report.token.0, report.result.unwrap())
    }

    #[tokio::test]
    async fn every_task_is_reported_once() {
        let (dispatch, mut reports) = start();
        dispatch.dispatch(task("succeeds", 1));
        assert_eq!(next(&mut reports).await, ("succeeds".to_owned(), 1, Outcome::success(1.into())));
        for unit in ["panics", "panics_at_once"] {
            dispatch.dispatch(task(unit, 2));
            let (name, token, outcome) = next(&mut reports).await;
            let Outcome::Failed { failure, .. } = outcome else { panic!("{outcome:?}") };
            assert_eq!((name.as_str(), token, failure.class), (unit, 2, ErrorClass::Permanent));
            assert!(failure.message.starts_with("internal error: "), "{failure:?}");
        }
        assert_eq!(dispatch.running_count(), 0);
        assert!(reports.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_stop_reaches_its_own_hand_out_only() {
        let (dispatch, mut reports) = start();
        for token in 1..=3 {
            dispatch.dispatch(task("waits", token));
        }
        let (run, unit) = (RunId::new("r"), UnitPath::new("waits"));
        dispatch.stop(&run, &unit, LeaseToken(9), Stop::Now);
        dispatch.stop(&RunId::new("other"), &unit, LeaseToken(1), Stop::Now);
        dispatch.stop(&run, &unit, LeaseToken(2), Stop::Graceful);
        assert_eq!(next(&mut reports).await, ("waits".to_owned(), 2, Outcome::Stopped));
        assert_eq!(dispatch.running_count(), 2);
        dispatch.stop_all(Stop::Now);
        for _ in 0..2 {
            assert_eq!(next(&mut reports).await.2, Outcome::success("now".into()));
        }
        assert!(reports.try_recv().is_err());
    }

    #[test]
    fn a_runtime_that_ends_reports_what_it_drops() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, mut reports) = unbounded_channel();
        let dispatch = InProcess::new(runtime.handle().clone(), Arc::new(Player), sender);
        dispatch.dispatch(task("waits", 1));
        drop(runtime);
        assert_eq!(reports.try_recv().unwrap().result, Ok(Outcome::Stopped));
    }
}
