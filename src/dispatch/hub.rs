//! Shares tasks out among workers: in this process, on other machines, behind a bus. The ledger decides; the hub has
//! the clock, the lock and the channels.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::HashSet;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::dispatch::lease::{LeaseKey, Terms};
use crate::dispatch::ledger::{Joining, Ledger, Message, Sending, SessionId};
use crate::dispatch::{BusMessage, Counters, Dispatch, InProcess, Perform, Report, Stop, Verdict};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Outcome, Task};

/// How many outcomes of a worker in this process are taken in under one lock.
const REPORTS_AT_ONCE: usize = 64;

/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What a session is to pass on to its worker. The channel holds at most a task for each slot, an answer for each report
/// and for each heartbeat, and a stop for each task that it named.
#[derive(Clone, Debug, PartialEq)]
pub enum ToSession {
    Message(Message),
    /// The heartbeat of this number was taken in; what it led to came before.
    Heard(u64),
    /// The scheduler goes away; the session passes this on and ends.
    GoingAway(String),
}

struct Inner {
    ledger: Ledger,
    sessions: HashMap<SessionId, UnboundedSender<ToSession>>,
    bus: Option<UnboundedSender<BusMessage>>,
    reports: UnboundedSender<Report>,
    draining: bool,
}

/// Hands tasks to the workers that have joined it.
pub struct Hub {
    inner: Mutex<Inner>,
    began: Instant,
    outlives: bool,
}

impl Hub {
    /// A hub on the current tokio runtime; reports go to `reports`. What it hands to a `bus` goes to whoever listens
    /// there; without one, tasks wait for sessions. `outlives` says whether workers may live longer than this process.
    pub fn start(
        terms: Terms,
        reports: UnboundedSender<Report>,
        bus: Option<UnboundedSender<BusMessage>>,
        outlives: bool,
    ) -> Arc<Self> {
        let inner = Inner {
            ledger: Ledger::new(terms, bus.is_some()),
            sessions: HashMap::new(),
            bus,
            reports,
            draining: false,
        };
        let hub = Arc::new(Self { inner: Mutex::new(inner), began: Instant::now(), outlives });
        let weak = Arc::downgrade(&hub);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(hub) = weak.upgrade() else { return };
                hub.with(|ledger, now| ledger.tick(now));
            }
        });
        hub
    }

    /// A ledger whose holder panicked may be half changed; what it still knows is better than nothing, since leases
    /// that are wrong run out.
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, change: impl FnOnce(&mut Ledger, Duration) -> Vec<Sending>) {
        let now = self.began.elapsed();
        let mut inner = self.inner();
        let sendings = change(&mut inner.ledger, now);
        inner.send(sendings);
    }

    /// The terms that workers are told.
    pub fn terms(&self) -> Terms {
        self.inner().ledger.terms()
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.inner().ledger.counters()
    }

    /// How many hand-outs there are.
    pub fn out(&self) -> usize {
        self.inner().ledger.len()
    }

    /// The hand-outs that no worker was given.
    pub fn queued(&self) -> Vec<LeaseKey> {
        self.inner().ledger.queued()
    }

    /// How many hand-outs a worker has.
    pub fn in_work(&self) -> usize {
        self.inner().ledger.in_work()
    }

    /// These hand-outs of an earlier process ended with it: when their runs are taken up, nobody is waited for.
    pub fn are_gone(&self, keys: BTreeSet<LeaseKey>) {
        self.inner().ledger.are_gone(keys);
    }

    /// The runs that outcomes have come of since the last call, and that this scheduler knows nothing of. Those that have
    /// ended are to be forgotten as such: then their workers are told.
    pub fn strangers(&self) -> BTreeSet<RunId> {
        self.inner().ledger.strangers()
    }

    /// How many tasks wait for a worker although none that has joined could do them, by queue.
    pub fn unserved(&self) -> BTreeMap<Arc<str>, usize> {
        self.inner().ledger.unserved()
    }

    /// The workers that have joined, each with its slots and how many of them are taken.
    pub fn workers(&self) -> Vec<(Arc<str>, u32, usize)> {
        self.inner().ledger.workers()
    }

    /// A worker connects: it gets what the channel gives until that ends.
    pub fn join(&self, joining: Joining) -> (SessionId, UnboundedReceiver<ToSession>) {
        let now = self.began.elapsed();
        let (sender, receiver) = unbounded_channel();
        let mut inner = self.inner();
        let (id, sendings) = inner.ledger.join(joining, now);
        if inner.draining {
            inner.ledger.drain(id);
        }
        inner.sessions.insert(id, sender);
        inner.send(sendings);
        (id, receiver)
    }

    /// A connection has ended; the worker's leases run on until they run out.
    pub fn leave(&self, id: SessionId) {
        let mut inner = self.inner();
        inner.ledger.leave(id);
        inner.sessions.remove(&id);
    }

    /// A worker takes nothing more.
    pub fn drain(&self, id: SessionId) {
        self.inner().ledger.drain(id);
    }

    /// No worker gets anything more: this scheduler is about to go away.
    pub fn drain_all(&self) {
        let mut inner = self.inner();
        inner.draining = true;
        let ids: Vec<SessionId> = inner.sessions.keys().copied().collect();
        for id in ids {
            inner.ledger.drain(id);
        }
    }

    /// Tells every connected worker that this scheduler goes away.
    pub fn go_away(&self, reason: &str) {
        for sender in self.inner().sessions.values() {
            let _ = sender.send(ToSession::GoingAway(reason.to_owned()));
        }
    }

    /// A worker lives and has these in work.
    pub fn heartbeat(&self, worker: &Arc<str>, leases: &[LeaseKey]) {
        self.with(|ledger, now| ledger.heartbeat(worker, leases, now));
    }

    /// The same, over a session, which is told behind what it led to.
    pub fn heartbeat_over(&self, id: SessionId, worker: &Arc<str>, leases: &[LeaseKey], number: u64) {
        let now = self.began.elapsed();
        let mut inner = self.inner();
        let sendings = inner.ledger.heartbeat(worker, leases, now);
        inner.send(sendings);
        if let Some(sender) = inner.sessions.get(&id) {
            let _ = sender.send(ToSession::Heard(number));
        }
    }

    /// A worker says how a hand-out ended. The answer comes over its session, or the bus.
    pub fn report(&self, worker: &Arc<str>, key: LeaseKey, outcome: Outcome) {
        self.report_all(worker, std::iter::once((key, outcome)));
    }

    fn report_all(&self, worker: &Arc<str>, ended: impl Iterator<Item = (LeaseKey, Outcome)>) {
        let mut inner = self.inner();
        for (key, outcome) in ended {
            let sendings = inner.ledger.report(worker, key, outcome);
            inner.send(sendings);
        }
    }
}

impl Inner {
    fn send(&mut self, sendings: Vec<Sending>) {
        // Who does not listen any more has left, or the loop has ended; leases run out by themselves.
        for sending in sendings {
            match sending {
                Sending::Session(id, message) => {
                    if let Some(sender) = self.sessions.get(&id) {
                        let _ = sender.send(ToSession::Message(message));
                    }
                }
                Sending::Bus(message) => {
                    if let Some(bus) = &self.bus {
                        let _ = bus.send(message);
                    }
                }
                Sending::Report(report) => {
                    let _ = self.reports.send(report);
                }
            }
        }
    }
}

impl Dispatch for Hub {
    fn dispatch(&self, task: Task) {
        self.with(|ledger, now| ledger.offer(task, now));
    }

    fn stop(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, how: Stop) {
        let key = LeaseKey { run: run.clone(), unit: unit.clone(), token };
        self.with(|ledger, now| ledger.stop(&key, how, now));
    }

    fn outlives(&self) -> bool {
        self.outlives
    }

    fn reclaim(&self, task: Task) {
        self.with(|ledger, now| ledger.reclaim(task, now));
    }

    fn begin(&self, run: &RunId) {
        self.inner().ledger.begin(run);
    }

    fn answered(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, verdict: Verdict) {
        let key = LeaseKey { run: run.clone(), unit: unit.clone(), token };
        self.with(|ledger, now| ledger.answered(&key, verdict, now));
    }

    fn forget(&self, run: &RunId, ended: bool) {
        self.with(|ledger, _| ledger.forget(run, ended));
    }
}

/// A worker in the hub's own process.
pub struct LocalSession {
    work: Arc<InProcess>,
}

impl LocalSession {
    /// Joins a hub and does its tasks until the hub ends.
    pub fn start(hub: &Arc<Hub>, joining: Joining, performer: Arc<dyn Perform>) -> Self {
        let worker = joining.worker.clone();
        let (_, mut inbox) = hub.join(joining);
        let (reports, mut done) = unbounded_channel();
        let work = Arc::new(InProcess::new(Handle::current(), performer, reports));
        let hub = Arc::downgrade(hub);
        let beat = hub.upgrade().map_or(Duration::from_secs(5), |hub| hub.terms().heartbeat);
        let does = work.clone();
        tokio::spawn(async move {
            let mut has: HashSet<LeaseKey> = HashSet::new();
            let mut ended = Vec::new();
            let mut beats = tokio::time::interval(beat);
            loop {
                tokio::select! {
                    message = inbox.recv() => match message {
                        Some(ToSession::Message(Message::Task(task))) => {
                            has.insert(LeaseKey::of(&task));
                            does.dispatch(Arc::unwrap_or_clone(task));
                        }
                        Some(ToSession::Message(Message::Stop { key, how })) => {
                            does.stop(&key.run, &key.unit, key.token, how);
                        }
                        // In one process an outcome cannot get lost on the way.
                        Some(
                            ToSession::Message(Message::Answer { .. }) | ToSession::Heard(_) | ToSession::GoingAway(_),
                        ) => {}
                        None => return,
                    },
                    _ = done.recv_many(&mut ended, REPORTS_AT_ONCE) => {
                        let Some(hub) = hub.upgrade() else { return };
                        hub.report_all(&worker, ended.drain(..).filter_map(|report| {
                            let key = LeaseKey { run: report.run, unit: report.unit, token: report.token };
                            has.remove(&key);
                            Some((key, report.result.ok()?))
                        }));
                    }
                    _ = beats.tick() => {
                        let Some(hub) = hub.upgrade() else { return };
                        let leases: Vec<LeaseKey> = has.iter().cloned().collect();
                        hub.heartbeat(&worker, &leases);
                    }
                }
            }
        });
        Self { work }
    }

    /// How many tasks are in work.
    pub fn running_count(&self) -> usize {
        self.work.running_count()
    }

    /// Asks for the end of everything that is in work.
    pub fn stop_all(&self, how: Stop) {
        self.work.stop_all(how);
    }
}
