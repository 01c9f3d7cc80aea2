//! One worker: it has tasks in work, says so, and keeps what came of them until a scheduler has it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tol::dispatch::{LeaseKey, Message, Stop, Terms, Verdict};
use tol::task::{Outcome, Task};

use super::super::outcome::outcome;
use super::super::rng::Rng;
use super::wire::{FromWorker, ToWorker};

/// A connection that has shown no sign of life for so long is given up, in milliseconds.
const SILENCE: u64 = 12_000;

/// A worker's end of a session.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    number: u64,
    /// When the newest message was sent that the scheduler has seen: what comes now was sent after that.
    seen: Option<u64>,
}

/// A task that may be another's already: it is begun once a later heartbeat is answered, if no stop came first.
struct Doubted {
    task: Arc<Task>,
    node: usize,
    since: u64,
}

struct Doing {
    task: Arc<Task>,
    stop: Option<Stop>,
    ends_at: u64,
}

/// What a worker sends.
pub enum Sent {
    Session { node: usize, link: u64, what: FromWorker },
    Bus(FromWorker),
}

/// One worker.
pub struct Worker {
    pub life: u32,
    pub up: bool,
    pub frozen: bool,
    /// Its work takes no time to speak of.
    pub hurries: bool,
    pub queues: BTreeSet<String>,
    concurrency: u32,
    links: Vec<Link>,
    doubted: BTreeMap<LeaseKey, Doubted>,
    work: BTreeMap<LeaseKey, Doing>,
    /// Outcomes that no scheduler has said it has.
    kept: BTreeMap<LeaseKey, Outcome>,
    pub sent: Vec<Sent>,
    /// What it has begun since somebody looked.
    pub begun: Vec<Arc<Task>>,
    /// When to look whether something is done.
    pub due: Vec<(LeaseKey, u64)>,
    bus: bool,
}

impl Worker {
    pub fn new(nodes: usize, queues: BTreeSet<String>, concurrency: u32, bus: bool) -> Self {
        Self {
            life: 0,
            up: true,
            frozen: false,
            hurries: false,
            queues,
            concurrency,
            links: vec![Link::default(); nodes],
            doubted: BTreeMap::new(),
            work: BTreeMap::new(),
            kept: BTreeMap::new(),
            sent: Vec::new(),
            begun: Vec::new(),
            due: Vec::new(),
            bus,
        }
    }

    /// Starts again with nothing in memory; the numbers of its connections go on.
    pub fn reborn(&mut self) {
        let links = self.links.iter().map(|link| Link { number: link.number, ..Link::default() }).collect();
        let fresh = Self::new(0, std::mem::take(&mut self.queues), self.concurrency, self.bus);
        *self = Self { life: self.life + 1, hurries: self.hurries, links, ..fresh };
    }

    pub fn is_idle(&self) -> bool {
        self.work.is_empty() && self.kept.is_empty() && self.doubted.is_empty()
    }

    /// True if the connection is the current one.
    pub fn is_current(&self, node: usize, link: u64) -> bool {
        self.links[node].number == link
    }

    fn leases(&self) -> Vec<LeaseKey> {
        self.work.keys().chain(self.kept.keys()).chain(self.doubted.keys()).cloned().collect()
    }

    /// Says what it has in work; connects again where a connection is silent.
    pub fn beat(&mut self, now: u64) {
        let leases = self.leases();
        if self.bus {
            self.sent.push(Sent::Bus(FromWorker::Heartbeat { leases, asked: now }));
        } else {
            for node in 0..self.links.len() {
                let link = &mut self.links[node];
                let silent = link.seen.is_none_or(|seen| now >= seen + SILENCE);
                if silent {
                    // The stops for what is lost come behind the answer to the join.
                    self.doubted.values_mut().filter(|one| one.node == node).for_each(|one| one.since = now);
                    *link = Link { number: link.number + 1, seen: None };
                    let (queues, concurrency, leases) = (self.queues.clone(), self.concurrency, leases.clone());
                    let what = FromWorker::Join { queues, concurrency, leases, asked: now };
                    self.sent.push(Sent::Session { node, link: self.links[node].number, what });
                } else {
                    let what = FromWorker::Heartbeat { leases: leases.clone(), asked: now };
                    self.sent.push(Sent::Session { node, link: link.number, what });
                }
            }
        }
        for (key, outcome) in self.kept.clone() {
            self.report(key, outcome);
        }
    }

    /// The connection to a scheduler is reset.
    pub fn reset(&mut self, node: usize) {
        self.links[node] = Link { number: self.links[node].number + 1, seen: None };
    }

    fn report(&mut self, key: LeaseKey, outcome: Outcome) {
        if self.bus {
            return self.sent.push(Sent::Bus(FromWorker::Report { key, outcome }));
        }
        for node in 0..self.links.len() {
            let what = FromWorker::Report { key: key.clone(), outcome: outcome.clone() };
            let link = self.links[node].number;
            self.sent.push(Sent::Session { node, link, what });
        }
    }

    pub fn receive(&mut self, node: usize, what: ToWorker, now: u64, rng: &mut Rng) {
        let message = match what {
            ToWorker::Seen { asked } => {
                self.links[node].seen = self.links[node].seen.max(Some(asked));
                if self.is_fresh(node, now) {
                    let sure = |one: &Doubted| one.node == node && one.since < asked;
                    let sure: Vec<LeaseKey> =
                        self.doubted.iter().filter(|(_, one)| sure(one)).map(|(key, _)| key.clone()).collect();
                    for key in sure {
                        let one = self.doubted.remove(&key).unwrap();
                        self.begin(one.task, now, rng);
                    }
                }
                return;
            }
            ToWorker::Message(message) => message,
        };
        match message {
            Message::Task(task) => {
                let key = LeaseKey::of(&task);
                if self.work.contains_key(&key) || self.kept.contains_key(&key) || self.doubted.contains_key(&key) {
                    return;
                }
                if self.is_fresh(node, now) {
                    self.begin(task, now, rng);
                } else {
                    self.doubted.insert(key, Doubted { task, node, since: now });
                }
            }
            Message::Stop { key, .. } if self.doubted.contains_key(&key) => {
                self.doubted.remove(&key);
                self.kept.insert(key.clone(), Outcome::Stopped);
                self.report(key, Outcome::Stopped);
            }
            Message::Stop { key, how } => {
                if let Some(doing) = self.work.get_mut(&key) {
                    doing.stop = doing.stop.max(Some(how));
                    let grace = if how == Stop::Now { 100 } else { 3000 };
                    doing.ends_at = doing.ends_at.min(now + 1 + rng.next() % grace);
                    self.due.push((key, doing.ends_at));
                }
            }
            Message::Answer { key, verdict: Verdict::Recorded | Verdict::Stale } => drop(self.kept.remove(&key)),
            Message::Answer { key, verdict: Verdict::Unknown } => {
                if self.doubted.get(&key).is_some_and(|one| one.node == node) {
                    self.doubted.remove(&key);
                }
            }
        }
    }

    /// Whatever comes over a connection was sent after `seen`. If that is less than half of a lease ago, the lease of
    /// a task still holds; otherwise it may be another's already.
    fn is_fresh(&self, node: usize, now: u64) -> bool {
        let half = Terms::default().lease.as_millis() as u64 / 2;
        self.bus || self.links[node].seen.is_some_and(|seen| now < seen + half)
    }

    fn begin(&mut self, task: Arc<Task>, now: u64, rng: &mut Rng) {
        let key = LeaseKey::of(&task);
        let length = match (self.hurries, rng.percent(70)) {
            (true, _) => rng.next() % 100,
            (false, true) => rng.next() % 3000,
            (false, false) => rng.next() % 30_000,
        };
        let ends_at = now + 1 + length;
        self.begun.push(task.clone());
        self.due.push((key.clone(), ends_at));
        self.work.insert(key, Doing { task, stop: None, ends_at });
        if self.bus {
            let leases = self.leases();
            self.sent.push(Sent::Bus(FromWorker::Heartbeat { leases, asked: now }));
        }
    }

    /// Looks whether some work is done.
    pub fn finish(&mut self, key: &LeaseKey, now: u64, rng: &mut Rng) {
        if self.work.get(key).is_none_or(|doing| now < doing.ends_at) {
            return;
        }
        let doing = self.work.remove(key).unwrap();
        let outcome = outcome(rng, &doing.task.work, doing.stop.is_some());
        self.kept.insert(key.clone(), outcome.clone());
        self.report(key.clone(), outcome.clone());
        if rng.percent(10) {
            self.report(key.clone(), outcome);
        }
    }
}
