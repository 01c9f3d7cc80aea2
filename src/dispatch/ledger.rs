//! The hand-outs of one scheduler and who has them: leases, without a clock and without a wire.
//!
//! Every call takes the time as it has passed since the ledger began, so that leases can be tried out in virtual time,
//! and gives back what is to be sent. A lease ends with its report, or when no heartbeat has named it for the lease
//! time; then the scheduler is told that it is lost, and a new hand-out has a new token.

mod figures;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;

use crate::dispatch::bus_message::BusMessage;
use crate::dispatch::lease::{LeaseKey, Terms};
use crate::dispatch::member::{Lane, Member, lane_of};
use crate::dispatch::remembered::{Remembered, size_of};
use crate::dispatch::{Counters, Lost, Report, Stop, Verdict};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Outcome, Task};

/// Names one connection of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What a worker says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joining {
    /// Its name, the same after it has connected again.
    pub worker: Arc<str>,
    pub queues: BTreeSet<String>,
    pub capabilities: BTreeSet<String>,
    /// How many tasks it does at once.
    pub concurrency: u32,
    /// What it still has in work from before.
    pub leases: Vec<LeaseKey>,
    /// It is part of the scheduler's own process: what it does for a run that is lost to another scheduler is ended.
    pub local: bool,
}

/// What is to be sent, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Sending {
    /// To one session.
    Session(SessionId, Message),
    /// Over the bus: to one worker, or to whoever it concerns.
    Bus(BusMessage),
    /// To the scheduler's loop.
    Report(Report),
}

/// What a worker is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Task(Arc<Task>),
    Stop { key: LeaseKey, how: Stop },
    Answer { key: LeaseKey, verdict: Verdict },
}

enum Standing {
    Queued,
    /// On the bus; nobody has said that they have it.
    Sent {
        again: Duration,
    },
    /// An earlier scheduler handed it out; its worker has until then to say so.
    Expected {
        until: Duration,
    },
    Leased {
        worker: Arc<str>,
        until: Duration,
    },
    /// Its outcome is with the scheduler's loop.
    Reported {
        worker: Arc<str>,
    },
}

struct Entry {
    task: Arc<Task>,
    standing: Standing,
    stop: Option<Stop>,
    /// How often it was sent over the bus.
    copies: u32,
}

/// The hand-outs of one scheduler.
pub struct Ledger {
    terms: Terms,
    has_bus: bool,
    entries: BTreeMap<LeaseKey, Entry>,
    waiting: BTreeMap<Lane, VecDeque<LeaseKey>>,
    sessions: BTreeMap<SessionId, Member>,
    next_session: u64,
    /// The runs that this scheduler drives.
    driven: BTreeSet<RunId>,
    /// Runs that have ended here.
    ended: Remembered<RunId, ()>,
    /// Outcomes of runs that this scheduler does not drive, yet: it may be about to take them over.
    unclaimed: Remembered<LeaseKey, (Arc<str>, Outcome)>,
    /// The runs of outcomes that came since somebody last asked, and that this scheduler does not drive.
    strangers: BTreeSet<RunId>,
    /// Hand-outs of an earlier process whose worker surely has ended.
    gone: BTreeSet<LeaseKey>,
    counters: Counters,
    /// When it was last looked at the time.
    ticked: Option<Duration>,
    out: Vec<Sending>,
}

impl Ledger {
    /// An empty ledger. With a bus, tasks are sent over it; without one they wait for sessions.
    pub fn new(terms: Terms, has_bus: bool) -> Self {
        Self {
            terms,
            has_bus,
            entries: BTreeMap::new(),
            waiting: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            driven: BTreeSet::new(),
            ended: Remembered::default(),
            unclaimed: Remembered::default(),
            strangers: BTreeSet::new(),
            gone: BTreeSet::new(),
            counters: Counters::default(),
            ticked: None,
            out: Vec::new(),
        }
    }

    /// The terms that hold.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The runs that outcomes have come of since the last call, and that nothing is known of here.
    pub fn strangers(&mut self) -> BTreeSet<RunId> {
        std::mem::take(&mut self.strangers)
    }

    /// From now on this scheduler answers for a run: what it does not have of it is stale. A run that is taken over
    /// begins once all that was out is reclaimed; until then nobody is told to stop, and outcomes are kept.
    pub fn begin(&mut self, run: &RunId) {
        self.driven.insert(run.clone());
    }

    /// This scheduler has the run no longer: it has ended, or is another's. Workers keep what they have of it.
    pub fn forget(&mut self, run: &RunId, ended: bool) -> Vec<Sending> {
        self.driven.remove(run);
        if ended {
            self.ended.put(run.clone(), (), 0);
        }
        let first = LeaseKey { run: run.clone(), unit: UnitPath::new(""), token: LeaseToken(0) };
        let keys: Vec<LeaseKey> =
            self.entries.range(first..).map(|(key, _)| key).take_while(|key| key.run == *run).cloned().collect();
        for key in keys {
            let holder = self.sessions.iter().find(|(_, session)| session.local && session.has.contains(&key));
            if let Some((id, _)) = holder {
                self.out.push(Sending::Session(*id, Message::Stop { key: key.clone(), how: Stop::Now }));
            }
            // Its outcome was not recorded here. The worker must hear so, or it would wait for an answer and send it to
            // nobody else.
            if let Some(Standing::Reported { worker }) = self.entries.get(&key).map(|entry| &entry.standing) {
                let worker = worker.clone();
                let verdict = if ended { Verdict::Stale } else { Verdict::Unknown };
                self.tell(&worker, Message::Answer { key: key.clone(), verdict });
            }
            self.remove(&key);
        }
        self.sent()
    }

    /// Hands a task out.
    pub fn offer(&mut self, task: Task, now: Duration) -> Vec<Sending> {
        self.counters.handed_out += 1;
        self.insert(task, Standing::Queued);
        self.assign(now);
        self.sent()
    }

    /// These hand-outs of an earlier process ended with it: when they are taken up, nobody is waited for.
    pub fn are_gone(&mut self, keys: BTreeSet<LeaseKey>) {
        self.gone.extend(keys);
    }

    /// Takes up a hand-out of an earlier scheduler: its worker may still have it, or have done it.
    pub fn reclaim(&mut self, task: Task, now: Duration) -> Vec<Sending> {
        let key = LeaseKey::of(&task);
        let holder = self.sessions.values().find(|session| session.has.contains(&key));
        let standing = match holder {
            Some(session) => Standing::Leased { worker: session.worker.clone(), until: now + self.terms.lease },
            // It may still wait on the bus, where it is not to be sent a second time.
            None if self.has_bus && task.place.once => Standing::Expected { until: now + self.terms.once },
            None => Standing::Expected { until: now + self.terms.lease },
        };
        let is_held = holder.is_some();
        self.counters.reclaimed += u64::from(is_held);
        self.insert(task, standing);
        if let Some((worker, outcome)) = self.unclaimed.take(&key) {
            self.reported(&worker, key, outcome);
        } else if self.gone.remove(&key) && !is_held {
            self.lost(key, "it ended with an earlier process of the scheduler".to_owned());
        }
        self.sent()
    }

    /// Asks for the end of a hand-out. One that nobody has is ended here.
    pub fn stop(&mut self, key: &LeaseKey, how: Stop, now: Duration) -> Vec<Sending> {
        let Some(entry) = self.entries.get_mut(key) else { return Vec::new() };
        entry.stop = entry.stop.max(Some(how));
        match &mut entry.standing {
            Standing::Queued => self.ended_unheard(key.clone()),
            Standing::Sent { again } => {
                // Whoever takes it now says so within a heartbeat; after that nobody has it.
                *again = (*again).min(now + self.terms.heartbeat);
                self.out.push(Sending::Bus(BusMessage::to_all(Message::Stop { key: key.clone(), how })));
            }
            Standing::Leased { worker, .. } => {
                let worker = worker.clone();
                self.tell(&worker, Message::Stop { key: key.clone(), how });
            }
            Standing::Expected { .. } | Standing::Reported { .. } => {}
        }
        self.sent()
    }

    /// The scheduler has taken a report in, or refused it. The worker hears of it.
    pub fn answered(&mut self, key: &LeaseKey, verdict: Verdict, now: Duration) -> Vec<Sending> {
        if verdict == Verdict::Stale {
            self.counters.stale += 1;
        }
        if let Some(entry @ Entry { standing: Standing::Reported { worker }, .. }) = self.entries.get(key) {
            let (worker, copies) = (worker.clone(), entry.copies);
            self.remove(key);
            self.tell(&worker, Message::Answer { key: key.clone(), verdict });
            if copies > 1 {
                self.void(key);
            }
        }
        self.assign(now);
        self.sent()
    }

    /// A worker connects. What it has in work from before stays with it, where it is still current.
    pub fn join(&mut self, joining: Joining, now: Duration) -> (SessionId, Vec<Sending>) {
        let id = SessionId(self.next_session);
        self.next_session += 1;
        let Joining { worker, queues, capabilities, concurrency, leases, local } = joining;
        // An older connection of the same worker is dead, even if nobody has noticed yet.
        self.sessions.retain(|_, session| session.worker != worker);
        let (has, draining) = (HashSet::new(), false);
        let session = Member { worker: worker.clone(), queues, capabilities, concurrency, draining, local, has };
        self.sessions.insert(id, session);
        self.renew(&worker, &leases, now);
        let has: HashSet<&LeaseKey> = leases.iter().collect();
        let gone = |(key, entry): (&LeaseKey, &Entry)| match &entry.standing {
            Standing::Leased { worker: holder, .. } if *holder == worker && !has.contains(key) => Some(key.clone()),
            Standing::Leased { .. }
            | Standing::Queued
            | Standing::Sent { .. }
            | Standing::Expected { .. }
            | Standing::Reported { .. } => None,
        };
        let gone: Vec<LeaseKey> = self.entries.iter().filter_map(gone).collect();
        for key in gone {
            self.lost(key, format!("worker {worker} came back without it"));
        }
        self.assign(now);
        (id, self.sent())
    }

    /// A connection has ended. Its worker may come back: its leases run on.
    pub fn leave(&mut self, id: SessionId) {
        self.sessions.remove(&id);
    }

    /// A worker takes nothing more; what it has it finishes.
    pub fn drain(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.draining = true;
        }
    }

    /// A worker lives and has these in work.
    pub fn heartbeat(&mut self, worker: &Arc<str>, leases: &[LeaseKey], now: Duration) -> Vec<Sending> {
        self.renew(worker, leases, now);
        self.assign(now);
        self.sent()
    }

    /// A worker says how a hand-out ended.
    pub fn report(&mut self, worker: &Arc<str>, key: LeaseKey, outcome: Outcome) -> Vec<Sending> {
        if let Some(session) = self.sessions.values_mut().find(|session| session.worker == *worker) {
            session.has.remove(&key);
        }
        self.reported(worker, key, outcome);
        self.sent()
    }

    /// Time has passed: leases run out, messages are sent again. It is to be called much more often than heartbeats
    /// come: after a longer silence this scheduler itself has stood still, and what workers have said meanwhile is yet
    /// to be read, so that nothing runs out for having been unheard in that time.
    pub fn tick(&mut self, now: Duration) -> Vec<Sending> {
        let silence = now.saturating_sub(self.ticked.replace(now).unwrap_or(now));
        if silence > self.terms.heartbeat {
            for entry in self.entries.values_mut() {
                if let Standing::Sent { again: until } | Standing::Expected { until } | Standing::Leased { until, .. } =
                    &mut entry.standing
                {
                    *until += silence;
                }
            }
        }
        let due = |entry: &Entry| match &entry.standing {
            Standing::Sent { again: until } | Standing::Expected { until } | Standing::Leased { until, .. } => {
                now >= *until
            }
            Standing::Queued | Standing::Reported { .. } => false,
        };
        let keys: Vec<LeaseKey> =
            self.entries.iter().filter(|(_, entry)| due(entry)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let why = match &mut entry.standing {
                Standing::Sent { .. } if entry.stop.is_some() => {
                    self.ended_unheard(key);
                    continue;
                }
                // A worker may have begun it without having been heard of: a second copy could begin it again.
                Standing::Sent { .. } if entry.task.place.once => {
                    "no worker has said that it has it, and it must not be sent twice".to_owned()
                }
                Standing::Sent { again } => {
                    *again = now + self.terms.on_bus(&entry.task);
                    entry.copies += 1;
                    self.counters.resent += 1;
                    self.out.push(Sending::Bus(BusMessage::to_all(Message::Task(entry.task.clone()))));
                    continue;
                }
                Standing::Expected { .. } => "no worker has said that it still has it".to_owned(),
                Standing::Leased { worker, .. } => format!("worker {worker} was not heard of"),
                Standing::Queued | Standing::Reported { .. } => continue,
            };
            self.lost(key, why);
        }
        self.assign(now);
        self.sent()
    }

    fn lost(&mut self, key: LeaseKey, why: String) {
        self.counters.lost += 1;
        self.remove(&key);
        self.void(&key);
        let result = Err(Lost { why });
        self.out.push(Sending::Report(Report { run: key.run, unit: key.unit, token: key.token, result }));
    }

    /// Copies of a hand-out may still wait on the bus. Whoever has one, or comes to read one, is to leave it.
    fn void(&mut self, key: &LeaseKey) {
        if self.has_bus {
            let message = Message::Stop { key: key.clone(), how: Stop::Now };
            self.out.push(Sending::Bus(BusMessage::to_all(message)));
        }
    }

    fn insert(&mut self, task: Task, standing: Standing) {
        let key = LeaseKey::of(&task);
        if matches!(standing, Standing::Queued) {
            self.waiting.entry(lane_of(&task)).or_default().push_back(key.clone());
        }
        self.entries.insert(key, Entry { task: Arc::new(task), standing, stop: None, copies: 0 });
    }

    fn remove(&mut self, key: &LeaseKey) {
        let Some(entry) = self.entries.remove(key) else { return };
        if matches!(entry.standing, Standing::Queued) {
            self.leave_line(key, &entry.task);
        }
    }

    fn leave_line(&mut self, key: &LeaseKey, task: &Task) {
        let lane = lane_of(task);
        if let Some(keys) = self.waiting.get_mut(&lane) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.waiting.remove(&lane);
            }
        }
    }

    /// Ends a hand-out that no worker has, as if one had stopped it.
    fn ended_unheard(&mut self, key: LeaseKey) {
        self.remove(&key);
        let result = Ok(Outcome::Stopped);
        self.out.push(Sending::Report(Report { run: key.run, unit: key.unit, token: key.token, result }));
    }

    fn renew(&mut self, worker: &Arc<str>, leases: &[LeaseKey], now: Duration) {
        let until = now + self.terms.lease;
        for key in leases {
            // What a run still has out when it ends nobody waits for.
            let known = self.driven.contains(&key.run) || self.ended.has(&key.run);
            let verdict = match self.entries.get_mut(key) {
                Some(entry) => {
                    let mine = match &entry.standing {
                        Standing::Leased { worker: holder, .. } | Standing::Reported { worker: holder } => {
                            holder == worker
                        }
                        Standing::Sent { .. } => true,
                        Standing::Expected { .. } => {
                            self.counters.reclaimed += 1;
                            true
                        }
                        Standing::Queued => false,
                    };
                    if mine && !matches!(entry.standing, Standing::Reported { .. }) {
                        entry.standing = Standing::Leased { worker: worker.clone(), until };
                        // Said again each time: it may not have heard of it.
                        entry.stop
                    } else if mine {
                        None
                    } else {
                        Some(Stop::Now)
                    }
                }
                // Another hand-out of the unit is current, or none at all.
                None if known => Some(Stop::Now),
                None => {
                    // It goes on with what it has begun, for the scheduler that has the run; what it has not begun
                    // this scheduler cannot vouch for. Over a bus each scheduler speaks of its own runs only.
                    let session = self.sessions.iter().find(|(_, session)| session.worker == *worker);
                    if let Some((id, _)) = session {
                        let message = Message::Answer { key: key.clone(), verdict: Verdict::Unknown };
                        self.out.push(Sending::Session(*id, message));
                    }
                    None
                }
            };
            if let Some(how) = verdict {
                self.tell(worker, Message::Stop { key: key.clone(), how });
            }
        }
        if let Some(session) = self.sessions.values_mut().find(|session| session.worker == *worker) {
            // What was just given to it may not stand in its heartbeat yet.
            let entries = &self.entries;
            session.has.retain(|key| entries.get(key).is_some_and(|entry| entry.is_leased_to(worker)));
            session.has.extend(leases.iter().cloned());
        }
    }

    fn reported(&mut self, worker: &Arc<str>, key: LeaseKey, outcome: Outcome) {
        let verdict = match self.entries.get_mut(&key) {
            Some(entry) if matches!(entry.standing, Standing::Reported { .. }) => {
                // It came twice; the answer goes to who came last.
                entry.standing = Standing::Reported { worker: worker.clone() };
                return;
            }
            // It was told to leave it to the worker that had it first.
            Some(entry) if outcome == Outcome::Stopped && entry.is_leased_to_other(worker) => {
                self.counters.stale += 1;
                Verdict::Stale
            }
            Some(entry) => {
                let before = std::mem::replace(&mut entry.standing, Standing::Reported { worker: worker.clone() });
                let task = entry.task.clone();
                if matches!(before, Standing::Queued) {
                    self.leave_line(&key, &task);
                }
                self.counters.reported += 1;
                let LeaseKey { run, unit, token } = key;
                self.out.push(Sending::Report(Report { run, unit, token, result: Ok(outcome) }));
                return;
            }
            None if self.driven.contains(&key.run) || self.ended.has(&key.run) => {
                self.counters.stale += 1;
                Verdict::Stale
            }
            None => {
                self.counters.unknown += 1;
                self.strangers.insert(key.run.clone());
                let bytes = size_of(&outcome);
                self.unclaimed.put(key.clone(), (worker.clone(), outcome), bytes);
                Verdict::Unknown
            }
        };
        self.tell(worker, Message::Answer { key, verdict });
    }

    fn tell(&mut self, worker: &Arc<str>, message: Message) {
        match self.sessions.iter().find(|(_, session)| session.worker == *worker) {
            Some((id, _)) => self.out.push(Sending::Session(*id, message)),
            // A bus reaches everybody. Over a connection that is gone nobody is reached; it is told when it is back.
            None if self.has_bus => self.out.push(Sending::Bus(BusMessage { to: Some(worker.clone()), message })),
            None => {}
        }
    }

    /// Gives what waits to who can do it: the least loaded session that serves its queue and has what it needs.
    fn assign(&mut self, now: Duration) {
        let lanes: Vec<Lane> = self.waiting.keys().cloned().collect();
        for lane in lanes {
            while let Some(key) = self.waiting.get(&lane).and_then(|keys| keys.front().cloned()) {
                let chosen = self.least_loaded(&lane);
                if chosen.is_none() && !self.has_bus {
                    break;
                }
                if let Some(keys) = self.waiting.get_mut(&lane) {
                    keys.pop_front();
                }
                let Some(entry) = self.entries.get_mut(&key) else { continue };
                let message = Message::Task(entry.task.clone());
                match chosen.and_then(|id| Some((id, self.sessions.get_mut(&id)?))) {
                    Some((id, session)) => {
                        session.has.insert(key);
                        entry.standing =
                            Standing::Leased { worker: session.worker.clone(), until: now + self.terms.lease };
                        self.out.push(Sending::Session(id, message));
                    }
                    None => {
                        entry.standing = Standing::Sent { again: now + self.terms.on_bus(&entry.task) };
                        entry.copies += 1;
                        self.out.push(Sending::Bus(BusMessage::to_all(message)));
                    }
                }
            }
            if self.waiting.get(&lane).is_some_and(VecDeque::is_empty) {
                self.waiting.remove(&lane);
            }
        }
    }

    fn least_loaded(&self, lane: &Lane) -> Option<SessionId> {
        let free = self.sessions.iter().filter(|(_, session)| session.serves(lane) && session.is_free());
        free.min_by(|(_, one), (_, other)| {
            // One half of four is as much as two quarters: compared without division.
            let load = one.has.len() as u64 * u64::from(other.concurrency);
            load.cmp(&(other.has.len() as u64 * u64::from(one.concurrency)))
        })
        .map(|(id, _)| *id)
    }

    fn sent(&mut self) -> Vec<Sending> {
        std::mem::take(&mut self.out)
    }
}

impl Entry {
    fn is_leased_to(&self, worker: &Arc<str>) -> bool {
        matches!(&self.standing, Standing::Leased { worker: holder, .. } if holder == worker)
    }

    fn is_leased_to_other(&self, worker: &Arc<str>) -> bool {
        matches!(&self.standing, Standing::Leased { worker: holder, .. } if holder != worker)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
