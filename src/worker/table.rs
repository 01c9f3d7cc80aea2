//! What a worker has in work, and what it has done and nobody has taken in yet. How tasks come and outcomes go is not
//! known here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::watch;

use crate::dispatch::{Dispatch, InProcess, LeaseKey, Perform, Report, Stop, Verdict};
use crate::task::{Failure, Outcome, Task};

/// How often a table looks whether its process has stood still, and how long is too long.
const LOOK: Duration = Duration::from_secs(1);
const STILL: Duration = Duration::from_secs(5);
/// How many hand-outs are remembered after their outcome was taken in, so that a copy that comes late is known.
const SETTLED_MAX: usize = 4096;
/// How many outcomes are kept that nobody has taken in; beyond it the oldest goes.
const KEPT_MAX: usize = 4096;

/// What became of a task that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Begun,
    /// Every slot is taken: it is begun when one is free.
    Waits,
    /// It is in work, or done, already.
    Known,
}

/// An outcome that nobody has taken in yet.
#[derive(Clone, Debug)]
pub struct Kept {
    pub key: LeaseKey,
    pub outcome: Arc<Outcome>,
    /// Which of the worker's schedulers the task came from.
    pub from: usize,
    /// Since when schedulers say that they do not know the run.
    unknown_since: Option<Instant>,
}

impl Kept {
    /// True once a scheduler has said that it does not know the run.
    pub fn is_unknown(&self) -> bool {
        self.unknown_since.is_some()
    }
}

/// Where a task that is not begun yet came from.
#[derive(Clone, Copy, Debug)]
struct Origin {
    from: usize,
    /// It may be somebody else's by now, unless a heartbeat that was sent later than that is answered.
    doubted: Option<Instant>,
}

/// What a scheduler has answered.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// When the newest heartbeat was sent that it has answered. What came after the answer was handed out later.
    sent: Instant,
    /// For how long after that tasks may be begun.
    holds: Duration,
}

#[derive(Default)]
struct State {
    /// What is in work, and where it came from.
    in_work: BTreeMap<LeaseKey, usize>,
    waiting: VecDeque<(Task, Origin)>,
    /// What is still on its way here, in pieces.
    expected: BTreeMap<LeaseKey, Origin>,
    /// By scheduler; one that is not in here answers no heartbeats, and its tasks are begun as they come.
    heard: BTreeMap<usize, Heard>,
    kept: BTreeMap<LeaseKey, Kept>,
    settled: BTreeSet<LeaseKey>,
    settled_order: VecDeque<LeaseKey>,
    given_up: u64,
}

/// The hand-outs of one worker.
pub struct Table {
    state: Mutex<State>,
    work: InProcess,
    concurrency: usize,
    changes: watch::Sender<u64>,
    /// When this process was last seen to be awake.
    awake: Mutex<Instant>,
}

impl Table {
    /// A table whose tasks are done on the current tokio runtime, so many at once.
    pub fn start(performer: Arc<dyn Perform>, concurrency: usize) -> Arc<Self> {
        let (reports, mut done) = unbounded_channel();
        let table = Arc::new(Self {
            state: Mutex::default(),
            work: InProcess::new(Handle::current(), performer, reports),
            concurrency,
            changes: watch::Sender::new(0),
            awake: Mutex::new(Instant::now()),
        });
        let weak = Arc::downgrade(&table);
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    biased;
                    report = done.recv() => match (report, weak.upgrade()) {
                        (Some(report), Some(table)) => table.done(report),
                        (None, _) | (_, None) => return,
                    },
                    _ = looks.tick() => match weak.upgrade() {
                        Some(table) => table.look(),
                        None => return,
                    },
                }
            }
        });
        table
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Changes whenever an outcome is there, or work has ended.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A task is on its way: it is this worker's from now on. False if it is known already.
    pub fn expect(&self, key: &LeaseKey, from: usize) -> bool {
        let mut state = self.state();
        let is_new = !state.knows(key);
        if is_new {
            let origin = state.origin(from);
            state.expected.insert(key.clone(), origin);
        }
        is_new
    }

    /// A scheduler has taken the worker in, upon a registration that was sent then. It answers heartbeats: what comes
    /// from it is begun at most so long after the newest was sent that it has answered. That must be at most half of
    /// a lease: a heartbeat may be sent while the task is on its way, and be answered without having named it.
    pub fn registered(&self, from: usize, sent: Instant, holds: Duration) {
        let mut state = self.state();
        state.heard.insert(from, Heard { sent, holds });
        // What came over an earlier connection may be lost; the stops for that are yet to come.
        let now = Instant::now();
        let expected = state.expected.values_mut().filter(|origin| origin.from == from);
        expected.for_each(|origin| origin.doubted = Some(now));
        let waiting = state.waiting.iter_mut().filter(|(_, origin)| origin.from == from);
        waiting.for_each(|(_, origin)| origin.doubted = Some(now));
    }

    /// A scheduler has answered a heartbeat that was sent then, and named all that had come until then.
    pub fn heard(&self, from: usize, sent: Instant) {
        let mut state = self.state();
        if let Some(heard) = state.heard.get_mut(&from) {
            heard.sent = heard.sent.max(sent);
        }
        self.begin(state);
    }

    /// Begins what waits and may be begun, while there are slots.
    fn begin(&self, mut state: MutexGuard<'_, State>) {
        let mut begun = Vec::new();
        while state.in_work.len() < self.concurrency
            && let Some(at) = state.waiting.iter().position(|(_, origin)| state.may_begin(*origin))
            && let Some((task, origin)) = state.waiting.remove(at)
        {
            state.in_work.insert(LeaseKey::of(&task), origin.from);
            begun.push(task);
        }
        drop(state);
        for task in begun {
            self.work.dispatch(task);
        }
    }

    /// Takes a task that came from one of the worker's schedulers.
    pub fn take(&self, task: Task, from: usize) -> Taken {
        let key = LeaseKey::of(&task);
        let mut state = self.state();
        let expected = state.expected.remove(&key);
        if state.knows(&key) {
            return Taken::Known;
        }
        let origin = expected.unwrap_or_else(|| state.origin(from));
        if state.in_work.len() >= self.concurrency || !state.may_begin(origin) {
            state.waiting.push_back((task, origin));
            return Taken::Waits;
        }
        state.in_work.insert(key, from);
        drop(state);
        self.work.dispatch(task);
        Taken::Begun
    }

    /// Keeps a failure for a hand-out that cannot be begun.
    pub fn refuse(&self, key: LeaseKey, from: usize, failure: Failure) {
        let mut state = self.state();
        state.expected.remove(&key);
        if !state.knows(&key) {
            state.keep(key, from, Outcome::failed(failure));
        }
        drop(state);
        self.changed();
    }

    /// Notes that this process lives. After it has stood still, what waited for its turn may be somebody else's: it is
    /// not begun. Its scheduler hears that it is not here, or loses it by the lease.
    fn look(&self) {
        let now = Instant::now();
        let mut awake = self.awake.lock().unwrap_or_else(PoisonError::into_inner);
        let still = now.duration_since(std::mem::replace(&mut *awake, now));
        drop(awake);
        if still >= STILL {
            self.state().waiting.clear();
        }
    }

    fn done(&self, report: Report) {
        self.look();
        let key = LeaseKey { run: report.run, unit: report.unit, token: report.token };
        let mut state = self.state();
        let from = state.in_work.remove(&key).unwrap_or_default();
        if let Ok(outcome) = report.result {
            state.keep(key, from, outcome);
        }
        self.begin(state);
        self.changed();
    }

    /// Asks for the end of a hand-out. One that has not been begun ends at once; one that is done is passed over.
    pub fn stop(&self, key: &LeaseKey, how: Stop) {
        let mut state = self.state();
        if let Some(origin) = state.expected.remove(key) {
            state.keep(key.clone(), origin.from, Outcome::Stopped);
            drop(state);
            self.changed();
            return;
        }
        let waits = state.waiting.iter().position(|(task, _)| LeaseKey::of(task) == *key);
        if let Some((_, origin)) = waits.and_then(|at| state.waiting.remove(at)) {
            state.keep(key.clone(), origin.from, Outcome::Stopped);
            drop(state);
            self.changed();
            return;
        }
        drop(state);
        self.work.stop(&key.run, &key.unit, key.token, how);
    }

    /// The scheduler that a hand-out came from does not have its run any more. If it is not begun it never will be: who
    /// has the run misses it in the heartbeats, and hands it out anew.
    pub fn disowned(&self, key: &LeaseKey, from: usize) {
        let mut state = self.state();
        let is_it = |origin: &Origin| origin.from == from;
        let mut gone = state.expected.get(key).is_some_and(is_it);
        if gone {
            state.expected.remove(key);
        }
        let before = state.waiting.len();
        state.waiting.retain(|(task, origin)| !(is_it(origin) && LeaseKey::of(task) == *key));
        gone |= state.waiting.len() < before;
        if gone {
            state.settle(key.clone());
            drop(state);
            self.changed();
        }
    }

    /// Asks for the end of everything.
    pub fn stop_all(&self, how: Stop) {
        let mut state = self.state();
        for (task, origin) in std::mem::take(&mut state.waiting) {
            state.keep(LeaseKey::of(&task), origin.from, Outcome::Stopped);
        }
        for (key, origin) in std::mem::take(&mut state.expected) {
            state.keep(key, origin.from, Outcome::Stopped);
        }
        drop(state);
        self.changed();
        self.work.stop_all(how);
    }

    /// What a scheduler said about an outcome. True if it may be forgotten, and is.
    pub fn answered(&self, key: &LeaseKey, verdict: Verdict) -> bool {
        let mut state = self.state();
        match verdict {
            Verdict::Recorded | Verdict::Stale => {
                let kept = state.kept.remove(key).is_some();
                if kept {
                    state.settle(key.clone());
                }
                drop(state);
                self.changed();
                kept
            }
            Verdict::Unknown => {
                if let Some(kept) = state.kept.get_mut(key) {
                    kept.unknown_since.get_or_insert_with(Instant::now);
                }
                false
            }
        }
    }

    /// Puts another outcome in the place of one that cannot be sent as it is.
    pub fn replace(&self, key: &LeaseKey, outcome: Outcome) {
        if let Some(kept) = self.state().kept.get_mut(key) {
            kept.outcome = Arc::new(outcome);
        }
        self.changed();
    }

    /// Forgets the outcomes that no scheduler has known for so long, and says which.
    pub fn give_up(&self, after: Duration) -> Vec<LeaseKey> {
        let mut state = self.state();
        let old = |kept: &Kept| kept.unknown_since.is_some_and(|since| since.elapsed() >= after);
        let keys: Vec<LeaseKey> = state.kept.values().filter(|kept| old(kept)).map(|kept| kept.key.clone()).collect();
        for key in &keys {
            state.kept.remove(key);
            state.settle(key.clone());
            state.given_up += 1;
        }
        keys
    }

    /// How many outcomes were given up.
    pub fn given_up(&self) -> u64 {
        self.state().given_up
    }

    /// What is in work or about to be, for a heartbeat.
    pub fn in_work(&self) -> Vec<LeaseKey> {
        let state = self.state();
        let waiting = state.waiting.iter().map(|(task, _)| LeaseKey::of(task));
        state.in_work.keys().chain(state.expected.keys()).cloned().chain(waiting).collect()
    }

    /// Which scheduler a hand-out in work came from.
    pub fn origin(&self, key: &LeaseKey) -> Option<usize> {
        let state = self.state();
        state.in_work.get(key).copied().or_else(|| state.kept.get(key).map(|kept| kept.from))
    }

    /// The outcomes that nobody has taken in yet.
    pub fn kept(&self) -> Vec<Kept> {
        self.state().kept.values().cloned().collect()
    }

    /// How many more tasks would be begun at once.
    pub fn free(&self) -> usize {
        self.concurrency.saturating_sub(self.state().in_work.len())
    }

    /// True if nothing is in work.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        state.in_work.is_empty() && state.waiting.is_empty() && state.expected.is_empty()
    }

    /// True if nothing is in work and every outcome is taken in.
    pub fn is_empty(&self) -> bool {
        self.is_idle() && self.state().kept.is_empty()
    }
}

impl Heard {
    fn is_fresh(&self) -> bool {
        self.sent.elapsed() < self.holds
    }
}

impl State {
    /// The origin of what comes now.
    fn origin(&self, from: usize) -> Origin {
        let is_fresh = self.heard.get(&from).is_none_or(Heard::is_fresh);
        Origin { from, doubted: (!is_fresh).then(Instant::now) }
    }

    fn may_begin(&self, origin: Origin) -> bool {
        self.heard
            .get(&origin.from)
            .is_none_or(|heard| heard.is_fresh() && origin.doubted.is_none_or(|doubted| heard.sent > doubted))
    }

    fn knows(&self, key: &LeaseKey) -> bool {
        self.in_work.contains_key(key)
            || self.kept.contains_key(key)
            || self.expected.contains_key(key)
            || self.settled.contains(key)
            || self.waiting.iter().any(|(task, _)| LeaseKey::of(task) == *key)
    }

    fn keep(&mut self, key: LeaseKey, from: usize, outcome: Outcome) {
        if self.kept.len() >= KEPT_MAX
            && let Some(oldest) = self.kept.keys().next().cloned()
        {
            self.kept.remove(&oldest);
            self.settle(oldest);
            self.given_up += 1;
        }
        let kept = Kept { key: key.clone(), outcome: Arc::new(outcome), from, unknown_since: None };
        self.kept.insert(key, kept);
    }

    fn settle(&mut self, key: LeaseKey) {
        if self.settled.insert(key.clone()) {
            self.settled_order.push_back(key);
        }
        while self.settled_order.len() > SETTLED_MAX {
            if let Some(oldest) = self.settled_order.pop_front() {
                self.settled.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;

    use super::*;
    use crate::dispatch::StopSignal;
    use crate::id::{LeaseToken, RunId, UnitPath};
    use crate::task::{Command, Script, Work};

    /// Works until it is stopped, or as its name says.
    struct Player;

    impl Perform for Player {
        fn perform(&self, task: Task, mut stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
            Box::pin(async move {
                if task.unit.as_str() == "works" {
                    stop.wait(Stop::Graceful).await;
                    return Outcome::Stopped;
                }
                Outcome::success(1.into())
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

    async fn kept(table: &Table, count: usize) -> Vec<Kept> {
        let mut changes = table.changes();
        while table.kept().len() < count {
            changes.changed().await.unwrap();
        }
        table.kept()
    }

    #[tokio::test]
    async fn an_outcome_is_kept_until_it_is_taken_in_and_never_made_twice() {
        let table = Table::start(Arc::new(Player), 2);
        assert_eq!(table.take(task("a", 1), 0), Taken::Begun);
        assert_eq!(table.take(task("a", 1), 1), Taken::Known);
        let key = kept(&table, 1).await.remove(0).key;
        assert_eq!(table.take(task("a", 1), 0), Taken::Known);
        assert!(table.is_idle() && !table.is_empty());
        assert!(!table.answered(&key, Verdict::Unknown));
        assert!(table.kept()[0].is_unknown());
        assert!(table.give_up(Duration::from_secs(60)).is_empty());
        assert!(table.answered(&key, Verdict::Recorded));
        assert!(table.is_empty());
        // The bus, or another gateway, brings it once more.
        assert_eq!(table.take(task("a", 1), 0), Taken::Known);
        assert_eq!(table.take(task("a", 2), 0), Taken::Begun);
        let key = kept(&table, 1).await.remove(0).key;
        assert!(!table.answered(&key, Verdict::Unknown));
        assert_eq!(table.give_up(Duration::ZERO), [key]);
        assert_eq!((table.given_up(), table.is_empty()), (1, true));
    }

    #[tokio::test]
    async fn what_may_be_lost_already_waits_until_a_heartbeat_that_named_it_is_answered() {
        let table = Table::start(Arc::new(Player), 9);
        let (began, long) = (Instant::now(), Duration::from_secs(600));
        table.registered(0, began, long);
        assert_eq!(table.take(task("fresh", 1), 0), Taken::Begun);
        table.registered(0, began, Duration::ZERO);
        assert_eq!(table.take(task("stale", 2), 0), Taken::Waits);
        assert_eq!(table.take(task("stopped", 3), 0), Taken::Waits);
        assert_eq!(table.take(task("disowned", 4), 0), Taken::Waits);
        assert_eq!(table.take(task("elsewhere", 5), 1), Taken::Begun);
        kept(&table, 2).await;
        assert_eq!(table.in_work().len(), 3);
        // Fresh again; but what came before may be lost, and the stops for it come with the next heartbeat's answer.
        table.registered(0, began, long);
        table.heard(0, began);
        assert_eq!(table.in_work().len(), 3);
        table.stop(&LeaseKey::of(&task("stopped", 3)), Stop::Now);
        table.disowned(&LeaseKey::of(&task("disowned", 4)), 1);
        assert_eq!(table.in_work().len(), 2);
        table.disowned(&LeaseKey::of(&task("disowned", 4)), 0);
        assert_eq!(table.take(task("disowned", 4), 0), Taken::Known);
        table.heard(0, Instant::now());
        let done = kept(&table, 4).await;
        let outcome = |token: u64| done.iter().find(|kept| kept.key.token.0 == token).map(|kept| &*kept.outcome);
        assert_eq!(outcome(2), Some(&Outcome::success(1.into())));
        assert_eq!(outcome(3), Some(&Outcome::Stopped));
        assert_eq!(outcome(4), None);
    }

    #[tokio::test]
    async fn what_is_too_much_waits_and_can_be_stopped_waiting() {
        let table = Table::start(Arc::new(Player), 1);
        assert_eq!(table.take(task("works", 1), 0), Taken::Begun);
        assert_eq!(table.take(task("b", 2), 0), Taken::Waits);
        assert_eq!(table.take(task("c", 3), 1), Taken::Waits);
        let expected = LeaseKey::of(&task("d", 4));
        assert!(table.expect(&expected, 0) && !table.expect(&expected, 0));
        assert_eq!((table.in_work().len(), table.free()), (4, 0));
        table.stop(&LeaseKey::of(&task("b", 2)), Stop::Graceful);
        table.stop(&expected, Stop::Now);
        assert_eq!(table.take(task("d", 4), 0), Taken::Known);
        let stopped = kept(&table, 2).await;
        assert!(stopped.iter().all(|kept| *kept.outcome == Outcome::Stopped), "{stopped:?}");
        table.stop(&LeaseKey::of(&task("works", 1)), Stop::Now);
        let all = kept(&table, 4).await;
        let outcome = |token: u64| all.iter().find(|kept| kept.key.token.0 == token).unwrap();
        assert_eq!((&*outcome(1).outcome, &*outcome(3).outcome), (&Outcome::Stopped, &Outcome::success(1.into())));
        assert_eq!(outcome(3).from, 1);
        table.refuse(LeaseKey::of(&task("e", 5)), 0, Failure::permanent("no"));
        assert_eq!(table.kept().len(), 5);
    }

    #[tokio::test]
    async fn what_waited_while_the_process_stood_still_is_not_begun() {
        let table = Table::start(Arc::new(Player), 1);
        assert_eq!(table.take(task("works", 1), 0), Taken::Begun);
        assert_eq!(table.take(task("b", 2), 0), Taken::Waits);
        *table.awake.lock().unwrap() -= STILL;
        table.stop(&LeaseKey::of(&task("works", 1)), Stop::Now);
        let all = kept(&table, 1).await;
        assert_eq!(*all[0].outcome, Outcome::Stopped);
        assert!(table.is_idle(), "{:?}", table.in_work());
    }
}
