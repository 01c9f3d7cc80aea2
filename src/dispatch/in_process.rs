//! Does tasks in this process: one asynchronous task for each, and one report for each, whatever happens.

use std::array;
use std::future::Future;
use std::hash::BuildHasher;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use hashbrown::{DefaultHashBuilder, HashTable};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;

use crate::dispatch::{Dispatch, Report, Stop, StopHandle, StopSignal, stop_channel};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Failure, Outcome, Task};

/// Does one task.
pub trait Perform: Send + Sync + 'static {
    /// Does a task to its end, or until the signal asks for it. Dropping the future ends the work too.
    ///
    /// The call itself is made by whoever hands the task over, who must not wait: what takes time belongs into the
    /// future.
    fn perform(&self, task: Task, stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
}

/// Hands tasks to a [`Perform`] in this process.
pub struct InProcess {
    handle: Handle,
    performer: Arc<dyn Perform>,
    shared: Arc<Shared>,
}

/// Into how many parts the hand-outs in work are divided, so that those who end seldom wait for who hands out.
const PARTS: usize = 16;

/// How many hand-outs may wait for one starter. More of them get a second one, so that no other thread stands idle
/// while the one that hands out goes on.
const STARTS: usize = 32;

/// The hand-outs in work, and where their reports go. The channel needs no bound of its own: it holds at most one
/// report for each task that was handed over.
struct Shared {
    parts: [Part; PARTS],
    hashes: DefaultHashBuilder,
    reports: UnboundedSender<Report>,
    /// What a starter is on its way for.
    waiting: Mutex<Vec<Begun>>,
}

/// Stands alone in its cache lines: the lock of one part is not slowed down by that of the next.
#[derive(Default)]
#[repr(align(128))]
struct Part(Mutex<Running>);

/// By the hash of what names them. A hand-out that ends is found by the hash and its number alone.
#[derive(Default)]
struct Running {
    table: HashTable<HandOut>,
    next: u64,
}

struct HandOut {
    hash: u64,
    number: u64,
    run: RunId,
    unit: UnitPath,
    token: LeaseToken,
    stop: StopHandle,
}

impl Part {
    /// A table whose holder panicked is still whole: every change of it is one call.
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Vec<Begun>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, run: &RunId, unit: &UnitPath, token: LeaseToken) -> u64 {
        self.hashes.hash_one((run, unit, token))
    }

    /// The table looks at the lowest and the highest bits of a hash; those between choose the part.
    fn part(&self, hash: u64) -> MutexGuard<'_, Running> {
        self.parts[(hash >> 40) as usize % PARTS].lock()
    }

    /// Notes a hand-out; it is in work until the reply is dropped.
    fn begin(self: &Arc<Self>, task: &Task, stop: StopHandle) -> Reply {
        let hash = self.hash(&task.run, &task.unit, task.token);
        let (run, unit, token) = (task.run.clone(), task.unit.clone(), task.token);
        let mut running = self.part(hash);
        let number = running.next;
        running.next += 1;
        running.table.insert_unique(hash, HandOut { hash, number, run, unit, token, stop }, |one| one.hash);
        drop(running);
        Reply { shared: self.clone(), hash, number, outcome: Outcome::Stopped }
    }
}

impl InProcess {
    /// Tasks run on the runtime of `handle`, and reports go to `reports`.
    pub fn new(handle: Handle, performer: Arc<dyn Perform>, reports: UnboundedSender<Report>) -> Self {
        let parts = array::from_fn(|_| Part::default());
        let (hashes, waiting) = (DefaultHashBuilder::default(), Mutex::default());
        let shared = Shared { parts, hashes, reports, waiting };
        Self { handle, performer, shared: Arc::new(shared) }
    }

    /// Leaves a hand-out to a starter. To wake a thread of the runtime costs more than all else that is done here, so
    /// whatever comes until that thread is awake is started with it.
    fn start(&self, begun: Begun) {
        let mut waiting = self.shared.waiting();
        waiting.push(begun);
        let calls = waiting.len() % STARTS == 1;
        drop(waiting);
        if calls {
            self.handle.spawn(Starter(Some(self.shared.clone())).start());
        }
    }

    /// How many tasks are in work.
    pub fn running_count(&self) -> usize {
        self.shared.parts.iter().map(|part| part.lock().table.len()).sum()
    }

    /// Asks for the end of everything that is in work.
    pub fn stop_all(&self, how: Stop) {
        for part in &self.shared.parts {
            for one in &part.lock().table {
                one.stop.stop(how);
            }
        }
    }
}

impl Dispatch for InProcess {
    fn dispatch(&self, task: Task) {
        let (handle, signal) = stop_channel();
        let mut reply = self.shared.begin(&task, handle);
        match catch_unwind(AssertUnwindSafe(|| self.performer.perform(task, signal))) {
            Ok(work) => self.start(Begun { work, reply }),
            Err(panic) => reply.outcome_is(panicked(&*panic)),
        }
    }

    fn stop(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, how: Stop) {
        let hash = self.shared.hash(run, unit, token);
        let is_it = |one: &HandOut| one.token == token && one.unit == *unit && one.run == *run;
        if let Some(one) = self.shared.part(hash).table.find(hash, is_it) {
            one.stop.stop(how);
        }
    }
}

/// A hand-out whose work may go on whenever it is asked to.
struct Begun {
    work: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    /// Behind the work: what is dropped half done has let go of everything before that is reported.
    reply: Reply,
}

impl Begun {
    async fn run(mut self) {
        let ended = AssertUnwindSafe(self.work.as_mut()).catch_unwind().await;
        self.reply.outcome_is(ended.unwrap_or_else(|panic| panicked(&*panic)));
    }
}

/// Gives each hand-out that waits a task of its own. If the runtime ends before that they end with the starter.
struct Starter(Option<Arc<Shared>>);

impl Starter {
    async fn start(mut self) {
        let mut waiting = self.take().into_iter();
        let Some(first) = waiting.next() else { return };
        for begun in waiting {
            tokio::spawn(begun.run());
        }
        // The oldest gets the starter's own task, which runs already.
        first.run().await;
    }

    fn take(&mut self) -> Vec<Begun> {
        self.0.take().map_or_else(Vec::new, |shared| mem::take(&mut *shared.waiting()))
    }
}

impl Drop for Starter {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Reports when it is dropped, so that a report is sent exactly once even if the runtime ends under the work.
struct Reply {
    shared: Arc<Shared>,
    hash: u64,
    number: u64,
    outcome: Outcome,
}

impl Reply {
    fn outcome_is(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let is_it = |one: &HandOut| one.hash == self.hash && one.number == self.number;
        let ended = match self.shared.part(self.hash).table.find_entry(self.hash, is_it) {
            Ok(found) => found.remove().0,
            // Only this reply takes it out.
            Err(_) => return,
        };
        let HandOut { run, unit, token, .. } = ended;
        let outcome = mem::replace(&mut self.outcome, Outcome::Stopped);
        // Nobody listens any more when the run's loop is gone; then nobody misses the report.
        let _ = self.shared.reports.send(Report { run, unit, token, result: Ok(outcome) });
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Outcome {
    Outcome::failed(Failure::permanent(format!("internal error: {}", words_of(panic))))
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
    use std::collections::BTreeSet;
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
    async fn on_one_thread_they_are_begun_as_they_came() {
        let (dispatch, mut reports) = start();
        for token in 1..=100 {
            dispatch.dispatch(task("succeeds", token));
        }
        for token in 1..=100 {
            assert_eq!(next(&mut reports).await.1, token);
        }
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

    #[tokio::test]
    async fn hand_outs_that_differ_in_one_word_are_told_apart() {
        let (dispatch, mut reports) = start();
        let mut all = BTreeSet::new();
        for (run, unit, token) in (0..2_000).map(|n| (n % 10, n / 10 % 10, n / 100)) {
            let mut task = task(&format!("waits{unit}"), token);
            task.run = RunId::new(&format!("r{run}"));
            all.insert((task.run.clone(), task.unit.clone(), task.token));
            dispatch.dispatch(task);
        }
        assert_eq!((all.len(), dispatch.running_count()), (2_000, 2_000));
        while let Some((run, unit, token)) = all.pop_last() {
            dispatch.stop(&run, &unit, token, Stop::Graceful);
            let report = reports.recv().await.unwrap();
            let expected = Report { run, unit, token, result: Ok(Outcome::Stopped) };
            assert_eq!((report, dispatch.running_count()), (expected, all.len()));
        }
    }

    #[test]
    fn a_runtime_that_ends_reports_what_it_drops() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, mut reports) = unbounded_channel();
        let dispatch = InProcess::new(runtime.handle().clone(), Arc::new(Player), sender);
        dispatch.dispatch(task("waits", 1));
        runtime.block_on(tokio::task::yield_now());
        // These are not even begun.
        for token in 2..=100 {
            dispatch.dispatch(task("waits", token));
        }
        assert!(reports.try_recv().is_err());
        drop(runtime);
        // Nor is this one ever.
        dispatch.dispatch(task("waits", 101));
        let mut ended: Vec<u64> = Vec::new();
        while let Ok(report) = reports.try_recv() {
            assert_eq!(report.result, Ok(Outcome::Stopped));
            ended.push(report.token.0);
        }
        ended.sort_unstable();
        assert_eq!((ended, dispatch.running_count()), ((1..=101).collect(), 0));
    }
}
