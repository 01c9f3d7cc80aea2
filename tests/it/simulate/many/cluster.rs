//! The virtual world: what happens in which order, what goes wrong, and what must have come of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tol::dispatch::{BusMessage, LeaseKey, Message};
use tol::task::Task;

use super::super::generate::Project;
use super::super::rng::Rng;
use super::super::watch::projection;
use super::fault::{Fault, Shape};
use super::node::{Node, Out, run_number, worker_name};
use super::store::{Answer, Request, Store};
use super::truth::Truth;
use super::wire::{FromWorker, ToWorker, shown};
use super::worker::{Sent, Worker};

/// How often schedulers look around, workers send heartbeats, and people look for questions, in milliseconds.
const WAKE: u64 = 1000;
const BEAT: u64 = 5000;
const LOOK: u64 = 2000;
/// Once nothing goes wrong any more something happens at least so often until every run has ended: no time limit, pause
/// or lease is as long, even after the clocks have jumped.
const PATIENCE: u64 = 1_500_000;
/// A partition whose owner is gone is taken over within this time after its lease, by a scheduler that is well.
const TAKEOVER: u64 = 5000;

pub(super) enum Happening {
    NodeWakes(usize, u32),
    WorkerBeats(usize, u32),
    PeopleLook,
    Submit(usize),
    AtStore(usize, u32, Request),
    FromStore(usize, u32, Answer),
    ToNode {
        node: usize,
        life: u32,
        worker: usize,
        link: u64,
        what: FromWorker,
    },
    ToWorker {
        worker: usize,
        life: u32,
        node: usize,
        link: u64,
        what: ToWorker,
    },
    /// A task on the bus that no worker has taken yet.
    OnBus(Arc<Task>),
    Done(usize, u32, LeaseKey),
    Left {
        node: usize,
        life: u32,
        worker: usize,
        link: u64,
    },
    Goes(usize),
    Thaw {
        node: bool,
        number: usize,
        life: u32,
    },
    Starts {
        node: bool,
        number: usize,
    },
    Mended(usize),
}

/// A whole cluster.
pub struct Cluster<'r> {
    pub(super) rng: &'r mut Rng,
    pub(super) shape: Shape,
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) faulty: bool,
    pub(super) now: u64,
    pub(super) count: u64,
    pub(super) queue: BTreeMap<(u64, u64), Happening>,
    /// The last arrival on each way, so that nothing on it overtakes.
    pub(super) ways: BTreeMap<(u8, usize, usize), u64>,
    pub store: Store,
    pub(super) nodes: Vec<Node>,
    pub(super) workers: Vec<Worker>,
    /// What a stopped process finds when it goes on.
    pub(super) node_buffers: Vec<VecDeque<Happening>>,
    pub(super) worker_buffers: Vec<VecDeque<Happening>>,
    /// Who is stopped or killed at the next write, or task.
    pub(super) node_traps: BTreeMap<usize, (bool, u64)>,
    pub(super) worker_traps: BTreeMap<usize, (bool, u64)>,
    pub(super) slow_store_until: u64,
    pub(super) bus_lost_until: u64,
    pub(super) bus_slow_until: u64,
    pub(super) links_cut: BTreeMap<(usize, usize), (u64, bool)>,
    /// Connections that have lost something: nothing more comes through.
    pub(super) broken: BTreeSet<(usize, usize, u64)>,
    pub trace: Option<Vec<String>>,
    pub stats: Stats,
}

/// What a cluster has been through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub runs: u64,
    pub events: u64,
    pub begun: u64,
    pub late: u64,
    pub fenced: u64,
    pub takeovers: u64,
    pub lost: u64,
    pub reclaimed: u64,
    pub stale: u64,
}

impl Stats {
    pub fn plus(self, other: Self) -> Self {
        Self {
            runs: self.runs + other.runs,
            events: self.events + other.events,
            begun: self.begun + other.begun,
            late: self.late + other.late,
            fenced: self.fenced + other.fenced,
            takeovers: self.takeovers + other.takeovers,
            lost: self.lost + other.lost,
            reclaimed: self.reclaimed + other.reclaimed,
            stale: self.stale + other.stale,
        }
    }
}

impl<'r> Cluster<'r> {
    pub fn new(rng: &'r mut Rng, project: &Project, shape: Shape, faults: Vec<(u64, Fault)>) -> Self {
        let truths = (0..shape.runs).map(|run| Truth::new(run, project.program.clone(), shape.gentle)).collect();
        let nodes = (0..shape.nodes).map(|node| Node::new(node, project.program.clone(), shape.partitions, shape.bus));
        let nodes = nodes.collect();
        let workers = (0..shape.workers)
            .map(|worker| {
                // The first serves everything, so that nothing waits for ever.
                let queues: &[&str] =
                    if worker == 0 { &["default", "gpu"] } else { &[["default", "gpu"][rng.below(2)]] };
                let queues = queues.iter().map(|&queue| queue.to_owned()).collect();
                Worker::new(shape.nodes, queues, 1 + rng.below(4) as u32, shape.bus)
            })
            .collect();
        Self {
            rng,
            shape,
            faults,
            faulty: true,
            now: 0,
            count: 0,
            queue: BTreeMap::new(),
            ways: BTreeMap::new(),
            store: Store::new(shape.partitions, truths),
            nodes,
            workers,
            node_buffers: (0..shape.nodes).map(|_| VecDeque::new()).collect(),
            worker_buffers: (0..shape.workers).map(|_| VecDeque::new()).collect(),
            node_traps: BTreeMap::new(),
            worker_traps: BTreeMap::new(),
            slow_store_until: 0,
            bus_lost_until: 0,
            bus_slow_until: 0,
            links_cut: BTreeMap::new(),
            broken: BTreeSet::new(),
            trace: None,
            stats: Stats::default(),
        }
    }

    /// Lives through the faults, and then until everything has ended.
    pub fn run(&mut self) {
        for node in 0..self.shape.nodes {
            let at = self.rng.next() % WAKE;
            self.at(at, Happening::NodeWakes(node, 0));
        }
        for worker in 0..self.shape.workers {
            let at = self.rng.next() % 300;
            self.at(at, Happening::WorkerBeats(worker, 0));
        }
        for run in 0..self.shape.runs {
            let at = 200 + self.rng.next() % 50_000;
            self.at(at, Happening::Submit(run));
        }
        for (number, (at, _)) in self.faults.clone().into_iter().enumerate() {
            self.at(at, Happening::Goes(number));
        }
        let end_of_faults = self.faults.last().map_or(0, |(at, _)| *at) + 45_000;
        let (mut progress, mut events) = (0, 0);
        loop {
            let ((at, _), happening) = self.queue.pop_first().expect("schedulers and workers never sleep");
            self.now = at;
            if self.faulty && at >= end_of_faults {
                self.faulty = false;
                self.node_traps.clear();
                self.worker_traps.clear();
                self.nodes.iter_mut().for_each(|node| node.skew = 0);
                self.workers.iter_mut().for_each(|worker| worker.hurries = true);
                self.at(at, Happening::PeopleLook);
            }
            self.happen(happening);
            self.sends();
            if !self.faulty && self.is_over() {
                break;
            }
            let count = self.store.truths.iter().map(|truth| truth.lines.len()).sum();
            if self.faulty || count > events {
                (progress, events) = (self.now, count);
            } else if self.now > progress + PATIENCE {
                self.stuck();
            }
        }
        self.look_back();
    }

    fn is_over(&self) -> bool {
        self.store.truths.iter().all(Truth::has_ended)
            && self.nodes.iter().all(|node| node.is_idle())
            && self.workers.iter().all(Worker::is_idle)
    }

    fn stuck(&self) {
        let open: Vec<usize> = (0..self.shape.runs).filter(|run| !self.store.truths[*run].has_ended()).collect();
        let idle: Vec<bool> = self.workers.iter().map(Worker::is_idle).collect();
        let ledgers: Vec<usize> = self.nodes.iter().map(|node| node.ledger.len()).collect();
        let first = open.first().copied().unwrap_or(usize::MAX);
        panic!("I1: r{first} of runs {open:?} does not end (idle workers {idle:?}, hand-outs {ledgers:?})");
    }

    fn look_back(&mut self) {
        let stats = &mut self.stats;
        stats.runs = self.shape.runs as u64;
        stats.fenced = self.store.fenced;
        stats.takeovers = self.store.takeovers;
        for truth in &self.store.truths {
            stats.events += truth.lines.len() as u64;
            stats.begun += truth.begun as u64;
            stats.late += truth.late as u64;
        }
        for node in &self.nodes {
            let counters = node.ledger.counters();
            stats.lost += counters.lost;
            stats.reclaimed += counters.reclaimed;
            stats.stale += counters.stale;
        }
    }

    pub(super) fn at(&mut self, at: u64, happening: Happening) {
        self.count += 1;
        self.queue.insert((at.max(self.now), self.count), happening);
    }

    pub(super) fn after(&mut self, delay: u64, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    pub(super) fn say(&mut self, run: Option<usize>, words: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let run = run.map_or(String::new(), |run| format!("r{run} "));
            trace.push(format!("{:>8} {run}{}", self.now, words()));
        }
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::NodeWakes(node, life) => {
                if self.nodes[node].life != life || !self.nodes[node].up {
                    return;
                }
                if self.nodes[node].frozen {
                    return self.node_buffers[node].push_back(Happening::NodeWakes(node, life));
                }
                self.nodes[node].wake(now, self.rng);
                let pause = WAKE - 100 + self.rng.next() % 200;
                self.after(pause, Happening::NodeWakes(node, life));
            }
            Happening::WorkerBeats(worker, life) => {
                if self.workers[worker].life != life || !self.workers[worker].up {
                    return;
                }
                if self.workers[worker].frozen {
                    return self.worker_buffers[worker].push_back(Happening::WorkerBeats(worker, life));
                }
                self.workers[worker].beat(now);
                self.after(BEAT, Happening::WorkerBeats(worker, life));
            }
            Happening::PeopleLook => {
                self.people_look();
                self.after(LOOK, Happening::PeopleLook);
            }
            Happening::Submit(run) => self.submit(run),
            Happening::AtStore(node, life, request) => self.at_store(node, life, request),
            Happening::FromStore(node, life, answer) => {
                let at = &mut self.nodes[node];
                if at.life != life || !at.up || at.cut {
                    return;
                }
                if at.frozen {
                    return self.node_buffers[node].push_back(Happening::FromStore(node, life, answer));
                }
                at.store_answered(answer, now, self.rng);
                self.compare(node);
            }
            Happening::ToNode { node, life, worker, link, what } => {
                let at = &mut self.nodes[node];
                if at.life != life || !at.up {
                    return;
                }
                if at.frozen {
                    return self.node_buffers[node].push_back(Happening::ToNode { node, life, worker, link, what });
                }
                at.worker_said(worker, link, what, now, self.rng);
            }
            Happening::ToWorker { worker, life, node, link, what } => {
                let at = &mut self.workers[worker];
                if at.life != life || !at.up || (link > 0 && !at.is_current(node, link)) {
                    return;
                }
                if at.frozen {
                    let happening = Happening::ToWorker { worker, life, node, link, what };
                    return self.worker_buffers[worker].push_back(happening);
                }
                at.receive(node, what, now, self.rng);
            }
            Happening::OnBus(task) => self.on_bus(task),
            Happening::Done(worker, life, key) => {
                let at = &mut self.workers[worker];
                if at.life != life || !at.up {
                    return;
                }
                if at.frozen {
                    return self.worker_buffers[worker].push_back(Happening::Done(worker, life, key));
                }
                at.finish(&key, now, self.rng);
            }
            Happening::Left { node, life, worker, link } => {
                if self.nodes[node].life == life {
                    self.nodes[node].left(worker, link);
                }
            }
            Happening::Goes(number) => self.goes_wrong(self.faults[number].1),
            Happening::Thaw { node, number, life } => self.thaw(node, number, life),
            Happening::Starts { node, number } => self.start(node, number),
            Happening::Mended(node) => {
                self.nodes[node].cut = false;
                self.nodes[node].well_since = now;
            }
        }
    }

    /// What a scheduler has in memory is what the store has, whenever nothing is under way.
    fn compare(&mut self, node: usize) {
        for run in 0..self.shape.runs {
            let truth = self.store.truths[run].state.as_ref();
            let (Some(truth), Some(state)) = (truth, self.nodes[node].state(run)) else { continue };
            if state.seq != truth.seq || !self.rng.percent(20) {
                continue;
            }
            if let Some(projected) = self.nodes[node].projected(run) {
                assert_eq!(
                    projected,
                    projection(truth),
                    "I5: scheduler {node} has run r{run} otherwise than the store"
                );
            }
        }
    }

    fn at_store(&mut self, node: usize, life: u32, request: Request) {
        let now = self.now;
        if let Request::Claim { partition, .. } = &request {
            self.check_takeover(*partition);
        }
        if let Request::Append { run, epoch, first, lines, .. } = &request {
            let (run, epoch, first) = (*run, *epoch, *first);
            let lines = lines.clone();
            self.say(Some(run), || {
                let cut = |line: &String| line.chars().take(300).collect::<String>();
                let lines: Vec<String> = lines.iter().map(cut).collect();
                format!("n{node} epoch {epoch} writes {first}: {}", lines.join("\n             "))
            });
        }
        let claims = matches!(request, Request::Claim { .. });
        let answer = self.store.serve(node, request, now);
        match &answer {
            Answer::Refused { run, .. } => {
                let run = *run;
                self.say(Some(run), || format!("n{node} is refused"));
            }
            Answer::Owned { partition, epoch, .. } if claims => {
                let (partition, epoch) = (*partition, *epoch);
                self.say(None, || format!("n{node} owns partition {partition} in epoch {epoch}"));
            }
            _ => {}
        }
        if matches!(answer, Answer::Appended { .. })
            && let Some((kill, length)) = self.node_traps.remove(&node)
        {
            self.goes_wrong(if kill { Fault::KillNode(node, length) } else { Fault::FreezeNode(node, length) });
        }
        if self.nodes[node].cut {
            // It was done, and nobody hears of it.
            return;
        }
        let at = self.arrival(1, node, 0, 1, 6);
        self.at(at, Happening::FromStore(node, life, answer));
    }

    /// Takeover happens in time, where a scheduler was well all along.
    fn check_takeover(&self, partition: usize) {
        let over = self.store.until(partition);
        let well = |node: &Node| node.up && !node.frozen && !node.cut && node.well_since + 2 * WAKE <= over;
        let slow = self.slow_store_until + 10_000 > over;
        let late = self.now > over + TAKEOVER;
        assert!(
            over == 0 || slow || !late || !self.nodes.iter().any(well),
            "partition {partition} is taken over {} ms after it was free",
            self.now - over
        );
    }

    fn submit(&mut self, run: usize) {
        if self.store.truths[run].state.is_some() {
            return;
        }
        let now = self.now;
        let ready = (0..self.shape.nodes).find(|node| {
            let at = &self.nodes[*node];
            at.up && !at.frozen && at.owns(run, now)
        });
        if let Some(node) = ready {
            self.nodes[node].submit(run, now, self.rng);
        }
        self.after(1500, Happening::Submit(run));
    }

    /// When a message arrives that goes out now; nothing on a way overtakes.
    fn arrival(&mut self, kind: u8, from: usize, to: usize, least: u64, spread: u64) -> u64 {
        let at = self.now + least + self.rng.next() % spread;
        let last = self.ways.entry((kind, from, to)).or_default();
        *last = at.max(*last);
        *last
    }

    /// Carries what schedulers and workers have sent.
    pub(super) fn sends(&mut self) {
        for node in 0..self.shape.nodes {
            for out in std::mem::take(&mut self.nodes[node].out) {
                match out {
                    Out::Store(request) => self.store_asked(node, request),
                    Out::Session { worker, link, what } => self.worker_told(node, worker, link, what),
                    Out::Bus(message) => self.bus_told(node, message),
                }
            }
        }
        for worker in 0..self.shape.workers {
            for sent in std::mem::take(&mut self.workers[worker].sent) {
                match sent {
                    Sent::Session { node, link, what } => self.node_told(worker, node, link, what),
                    Sent::Bus(what) => self.nodes_told(worker, what),
                }
            }
            for task in std::mem::take(&mut self.workers[worker].begun) {
                let run = run_number(&task.run);
                self.say(Some(run), || format!("w{worker} begins {} {}", task.unit, task.token.0));
                let bus = self.shape.bus;
                self.store.truths[run].begin(&task.unit, task.token.0, task.place.once, worker, bus);
            }
            for (key, at) in std::mem::take(&mut self.workers[worker].due) {
                let life = self.workers[worker].life;
                self.at(at, Happening::Done(worker, life, key));
            }
        }
    }

    fn store_asked(&mut self, node: usize, request: Request) {
        if self.nodes[node].cut && self.rng.percent(70) {
            return;
        }
        let spread = if self.now < self.slow_store_until { 9000 } else { 8 };
        let at = self.arrival(0, node, 0, 1, spread);
        let life = self.nodes[node].life;
        self.at(at, Happening::AtStore(node, life, request));
    }

    /// When a message over a session arrives, if it does.
    fn over_link(&mut self, kind: u8, worker: usize, node: usize, link: u64) -> Option<u64> {
        if self.broken.contains(&(worker, node, link)) {
            return None;
        }
        match self.links_cut.get(&(worker, node)) {
            Some((until, stall)) if self.now < *until => {
                if *stall {
                    let last = self.ways.entry((kind, worker, node)).or_default();
                    *last = (*last).max(*until);
                } else {
                    self.broken.insert((worker, node, link));
                    let life = self.nodes[node].life;
                    let delay = 500 + self.rng.next() % 20_000;
                    self.after(delay, Happening::Left { node, life, worker, link });
                    return None;
                }
            }
            Some(_) | None => {}
        }
        Some(self.arrival(kind, worker, node, 1, 30))
    }

    fn worker_told(&mut self, node: usize, worker: usize, link: u64, what: ToWorker) {
        let life = self.workers[worker].life;
        if let ToWorker::Message(message) = &what {
            let (run, words) = shown(message);
            self.say(Some(run), || format!("n{node} -> w{worker}: {words}"));
        }
        if link == 0 {
            // Over a bus nobody hears how far a scheduler has read.
            return;
        }
        if let Some(at) = self.over_link(2, worker, node, link) {
            if matches!(what, ToWorker::Message(Message::Task(_))) {
                self.spring(worker);
            }
            self.at(at, Happening::ToWorker { worker, life, node, link, what });
        }
    }

    fn node_told(&mut self, worker: usize, node: usize, link: u64, what: FromWorker) {
        let life = self.nodes[node].life;
        if let FromWorker::Report { key, .. } = &what {
            let (run, words) = (run_number(&key.run), format!("{} {}", key.unit, key.token.0));
            self.say(Some(run), || format!("w{worker} -> n{node}: report of {words}"));
        }
        if let Some(at) = self.over_link(3, worker, node, link) {
            self.at(at, Happening::ToNode { node, life, worker, link, what });
        }
    }

    fn bus_delay(&mut self) -> Option<u64> {
        if self.now < self.bus_lost_until || (self.faulty && self.rng.percent(2)) {
            return None;
        }
        let spread = if self.now < self.bus_slow_until { 12_000 } else { 60 };
        Some(1 + self.rng.next() % spread)
    }

    fn nodes_told(&mut self, worker: usize, what: FromWorker) {
        for node in 0..self.shape.nodes {
            let copies = if self.faulty && self.rng.percent(5) { 2 } else { 1 };
            for _ in 0..copies {
                let Some(delay) = self.bus_delay() else { continue };
                let life = self.nodes[node].life;
                self.after(delay, Happening::ToNode { node, life, worker, link: 0, what: what.clone() });
            }
        }
    }

    fn bus_told(&mut self, node: usize, message: BusMessage) {
        let BusMessage { to, message } = message;
        let (run, words) = shown(&message);
        self.say(Some(run), || format!("n{node} -> bus: {words}"));
        if let Message::Task(task) = message {
            // A consumer commits what must not run twice before it begins: no second consumer gets it.
            let copies = if self.faulty && !task.place.once && self.rng.percent(8) { 2 } else { 1 };
            for _ in 0..copies {
                let Some(delay) = self.bus_delay() else { continue };
                self.after(delay, Happening::OnBus(task.clone()));
            }
            return;
        }
        for worker in 0..self.shape.workers {
            if to.as_ref().is_some_and(|to| *to != worker_name(worker)) {
                continue;
            }
            let Some(delay) = self.bus_delay() else { continue };
            let life = self.workers[worker].life;
            let what = ToWorker::Message(message.clone());
            self.after(delay, Happening::ToWorker { worker, life, node, link: 0, what });
        }
    }

    fn on_bus(&mut self, task: Arc<Task>) {
        let able: Vec<usize> = (0..self.shape.workers)
            .filter(|worker| self.workers[*worker].up && self.workers[*worker].queues.contains(&*task.place.queue))
            .collect();
        if able.is_empty() {
            return self.after(1000, Happening::OnBus(task));
        }
        let worker = able[self.rng.below(able.len())];
        let life = self.workers[worker].life;
        let what = ToWorker::Message(Message::Task(task));
        self.spring(worker);
        self.after(1, Happening::ToWorker { worker, life, node: 0, link: 0, what });
    }
}
