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

#[derive(Default)]
struct State {
    /// What is in work, and where it came from.
    in_work: BTreeMap<LeaseKey, usize>,
    waiting: VecDeque<(Task, usize)>,
    /// What is still on its way here, in pieces.
    expected: BTreeMap<LeaseKey, usize>,
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
        });
        let weak = Arc::downgrade(&table);
        tokio::spawn(async move {
            while let Some(report) = done.recv().await {
                let Some(table) = weak.upgrade() else { return };
                table.done(report);
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
            state.expected.insert(key.clone(), from);
        }
        is_new
    }

    /// Takes a task that came from one of the worker's schedulers.
    pub fn take(&self, task: Task, from: usize) -> Taken {
        let key = LeaseKey::of(&task);
        let mut state = self.state();
        state.expected.remove(&key);
        if state.knows(&key) {
            return Taken::Known;
        }
        if state.in_work.len() >= self.concurrency {
            state.waiting.push_back((task, from));
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

    fn done(&self, report: Report) {
        let key = LeaseKey { run: report.run, unit: report.unit, token: report.token };
        let mut state = self.state();
        let from = state.in_work.remove(&key).unwrap_or_default();
        if let Ok(outcome) = report.result {
            state.keep(key, from, outcome);
        }
        let next = state.waiting.pop_front();
        if let Some((task, from)) = &next {
            state.in_work.insert(LeaseKey::of(task), *from);
        }
        drop(state);
        if let Some((task, _)) = next {
            self.work.dispatch(task);
        }
        self.changed();
    }

    /// Asks for the end of a hand-out. One that has not been begun ends at once; one that is done is passed over.
    pub fn stop(&self, key: &LeaseKey, how: Stop) {
        let mut state = self.state();
        if let Some(from) = state.expected.remove(key) {
            state.keep(key.clone(), from, Outcome::Stopped);
            drop(state);
            self.changed();
            return;
        }
        let waits = state.waiting.iter().position(|(task, _)| LeaseKey::of(task) == *key);
        if let Some((_, from)) = waits.and_then(|at| state.waiting.remove(at)) {
            state.keep(key.clone(), from, Outcome::Stopped);
            drop(state);
            self.changed();
            return;
        }
        drop(state);
        self.work.stop(&key.run, &key.unit, key.token, how);
    }

    /// Asks for the end of everything.
    pub fn stop_all(&self, how: Stop) {
        let mut state = self.state();
        for (task, from) in std::mem::take(&mut state.waiting) {
            state.keep(LeaseKey::of(&task), from, Outcome::Stopped);
        }
        for (key, from) in std::mem::take(&mut state.expected) {
            state.keep(key, from, Outcome::Stopped);
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

impl State {
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
