//! One scheduler process: it claims partitions, drives their runs as the engine does, and shares work out by a ledger.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tol::compile::Program;
use tol::dispatch::{BusMessage, Joining, LeaseKey, Ledger, Report, Sending, SessionId, Stop, Terms, Verdict};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::runtime::replay;
use tol::scheduler::{
    Accepted, Effect, Event, Input, Options, PreparedWork, Stamped, State, UnitKey, admit, apply, prepare,
};
use tol::task::Outcome;
use tol::time::Timestamp;

use super::super::rng::Rng;
use super::super::watch::projection;
use super::store::{Answer, OWNED, Request};
use super::wire::{FromWorker, ToWorker};

const START: u64 = 1_700_000_000_000;
/// How often a scheduler renews what it owns.
const RENEW: u64 = 3000;
/// A write that is not answered for so long is taken for lost.
const PATIENCE: u64 = 8000;

/// What a scheduler sends.
pub enum Out {
    Store(Request),
    Session { worker: usize, link: u64, what: ToWorker },
    Bus(BusMessage),
}

struct Owned {
    epoch: u64,
    /// By its own steady clock: until then no other scheduler can have taken over.
    until: u64,
    renewed: u64,
    loading: Option<u64>,
    loaded: bool,
}

struct Live {
    state: State,
    epoch: u64,
    tag: u64,
    lines: Vec<String>,
    held: VecDeque<(u64, Vec<Effect>)>,
    reported: VecDeque<(u64, UnitPath, LeaseToken)>,
    asked: VecDeque<(u64, u64)>,
    unannounced: bool,
}

/// One scheduler.
pub struct Node {
    name: usize,
    program: Arc<Program>,
    partitions: usize,
    pub life: u32,
    pub up: bool,
    pub frozen: bool,
    pub cut: bool,
    /// Since when nothing has been wrong with it.
    pub well_since: u64,
    /// What its wall clock is off by.
    pub skew: i64,
    born: u64,
    pub ledger: Ledger,
    owned: BTreeMap<usize, Owned>,
    live: BTreeMap<usize, Live>,
    sessions: BTreeMap<usize, (SessionId, u64)>,
    reports: VecDeque<Report>,
    next_tag: u64,
    pub out: Vec<Out>,
}

pub fn run_id(run: usize) -> RunId {
    RunId::new(&format!("r{run}"))
}

pub fn run_number(run: &RunId) -> usize {
    run.to_string()[1..].parse().unwrap()
}

pub fn worker_name(worker: usize) -> Arc<str> {
    Arc::from(format!("w{worker}"))
}

impl Node {
    pub fn new(name: usize, program: Arc<Program>, partitions: usize, bus: bool) -> Self {
        Self {
            name,
            program,
            partitions,
            life: 0,
            up: true,
            frozen: false,
            cut: false,
            well_since: 0,
            skew: 0,
            born: 0,
            ledger: Ledger::new(Terms::default(), bus),
            owned: BTreeMap::new(),
            live: BTreeMap::new(),
            sessions: BTreeMap::new(),
            reports: VecDeque::new(),
            next_tag: 1,
            out: Vec::new(),
        }
    }

    /// Starts again with nothing in memory.
    pub fn reborn(&mut self, bus: bool, now: u64) {
        let next_tag = self.next_tag;
        let life = self.life + 1;
        let fresh = Self::new(self.name, self.program.clone(), self.partitions, bus);
        *self = Self { life, next_tag, skew: self.skew, cut: self.cut, born: now, well_since: now, ..fresh };
    }

    fn steady(&self, now: u64) -> Duration {
        Duration::from_millis(now - self.born)
    }

    fn wall(&self, now: u64) -> Timestamp {
        Timestamp((START + now).saturating_add_signed(self.skew))
    }

    /// True while no other scheduler can have taken the partition of a run over.
    pub fn owns(&self, run: usize, now: u64) -> bool {
        self.owned.get(&(run % self.partitions)).is_some_and(|owned| now < owned.until)
    }

    /// The state of a run that it drives.
    pub fn state(&self, run: usize) -> Option<&State> {
        self.live.get(&run).map(|live| &live.state)
    }

    pub fn is_idle(&self) -> bool {
        self.live.is_empty() && self.ledger.is_empty()
    }

    /// Somebody submits a run here.
    pub fn submit(&mut self, run: usize, now: u64, rng: &mut Rng) {
        let ready = self.owned.get(&(run % self.partitions)).filter(|owned| owned.loaded);
        let Some(epoch) = ready.map(|owned| owned.epoch) else { return };
        if self.live.contains_key(&run) {
            return;
        }
        let accepted = Arc::new(Accepted {
            run: run_id(run),
            definition_hash: self.program.hash.to_string(),
            params: serde_json::Map::from_iter([("n".to_owned(), 2.into())]),
            env: serde_json::Map::new(),
            options: Options::default(),
            parent: None,
            reused: Vec::new(),
        });
        let state = State::new(self.program.clone(), accepted.clone(), self.wall(now));
        self.adopt(run, state, epoch);
        self.ledger.begin(&run_id(run));
        self.record(run, Event::Accepted(Box::new((*accepted).clone())), now);
        self.settle(now, rng);
    }

    /// Somebody asks something of a run here.
    pub fn command(&mut self, run: usize, input: Input, now: u64, rng: &mut Rng) -> bool {
        let taken = self.take_in(run, input, now);
        self.settle(now, rng);
        taken
    }

    /// Gives everything up in good order.
    pub fn go_away(&mut self, now: u64) {
        let owned = std::mem::take(&mut self.owned);
        for (partition, owned) in owned {
            self.out.push(Out::Store(Request::Release { partition, epoch: owned.epoch }));
        }
        for run in self.live.keys().copied().collect::<Vec<_>>() {
            self.lose(run, now);
        }
    }

    pub fn wake(&mut self, now: u64, rng: &mut Rng) {
        for partition in 0..self.partitions {
            match self.owned.get_mut(&partition) {
                Some(owned) if now >= owned.until => self.dispossessed(partition, now),
                Some(owned) => {
                    let epoch = owned.epoch;
                    if now >= owned.renewed + RENEW {
                        owned.renewed = now;
                        self.out.push(Out::Store(Request::Renew { partition, epoch, asked: now }));
                    }
                    if !owned.loaded && owned.loading.is_none_or(|at| now >= at + PATIENCE) {
                        owned.loading = Some(now);
                        self.out.push(Out::Store(Request::Load { partition, epoch }));
                    }
                }
                None => self.out.push(Out::Store(Request::Claim { partition, asked: now })),
            }
        }
        for run in self.live.keys().copied().collect::<Vec<_>>() {
            let late = self.live[&run].asked.front().is_some_and(|(_, at)| now >= at + PATIENCE);
            if late {
                self.lose(run, now);
                continue;
            }
            while self.take_in(run, Input::Time, now) {}
        }
        let sendings = self.ledger.tick(self.steady(now));
        self.send(sendings);
        self.settle(now, rng);
    }

    pub fn answered_by_store(&mut self, answer: Answer, now: u64, rng: &mut Rng) {
        match answer {
            Answer::Owned { partition, epoch, asked } => {
                let until = asked + OWNED;
                match self.owned.get_mut(&partition) {
                    Some(owned) if owned.epoch == epoch => owned.until = owned.until.max(until),
                    Some(owned) if owned.epoch > epoch => {}
                    Some(_) | None => {
                        self.dispossessed(partition, now);
                        let owned = Owned { epoch, until, renewed: now, loading: Some(now), loaded: false };
                        self.owned.insert(partition, owned);
                        self.out.push(Out::Store(Request::Load { partition, epoch }));
                    }
                }
            }
            Answer::NotOwned { partition } => self.dispossessed(partition, now),
            Answer::Loaded { partition, epoch, logs } => {
                let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.epoch == epoch) else { return };
                owned.loading = None;
                owned.loaded = true;
                for (run, lines) in logs {
                    if !self.live.contains_key(&run) && !lines.is_empty() {
                        self.take_up(run, &lines, epoch, now);
                    }
                }
            }
            Answer::Appended { run, tag, through } => self.durable(run, tag, through, now, rng),
            Answer::Refused { run, tag } => {
                if self.live.get(&run).is_some_and(|live| live.tag == tag) {
                    self.lose(run, now);
                }
            }
        }
        self.settle(now, rng);
    }

    pub fn told_by_worker(&mut self, worker: usize, link: u64, message: FromWorker, now: u64, rng: &mut Rng) {
        let name = worker_name(worker);
        let steady = self.steady(now);
        match message {
            FromWorker::Join { queues, concurrency, leases, asked } => {
                let joining = Joining {
                    worker: name,
                    queues,
                    capabilities: std::collections::BTreeSet::new(),
                    concurrency,
                    leases,
                    local: false,
                };
                let (id, sendings) = self.ledger.join(joining, steady);
                self.sessions.insert(worker, (id, link));
                self.out.push(Out::Session { worker, link, what: ToWorker::Seen { asked } });
                self.send(sendings);
            }
            FromWorker::Heartbeat { leases, asked } => {
                if link > 0 && self.sessions.get(&worker).is_none_or(|(_, current)| *current != link) {
                    return;
                }
                let sendings = self.ledger.heartbeat(&name, &leases, steady);
                self.send(sendings);
                self.out.push(Out::Session { worker, link, what: ToWorker::Seen { asked } });
            }
            FromWorker::Report { key, outcome } => {
                let sendings = self.ledger.report(&name, key, outcome);
                self.send(sendings);
            }
        }
        self.settle(now, rng);
    }

    /// The connection of a worker is found broken.
    pub fn left(&mut self, worker: usize, link: u64) {
        if self.sessions.get(&worker).is_some_and(|(_, current)| *current == link) {
            let (id, _) = self.sessions.remove(&worker).unwrap();
            self.ledger.leave(id);
        }
    }

    fn dispossessed(&mut self, partition: usize, now: u64) {
        if self.owned.remove(&partition).is_none() {
            return;
        }
        for run in self.live.keys().copied().filter(|run| run % self.partitions == partition).collect::<Vec<_>>() {
            self.lose(run, now);
        }
    }

    /// Forgets a run; if the partition is still its own, the run is read again.
    fn lose(&mut self, run: usize, now: u64) {
        self.live.remove(&run);
        let sendings = self.ledger.forget(&run_id(run), false);
        self.send(sendings);
        if let Some(owned) = self.owned.get_mut(&(run % self.partitions)) {
            owned.loaded = false;
            owned.loading = None;
            owned.renewed = owned.renewed.min(now);
        }
    }

    fn adopt(&mut self, run: usize, state: State, epoch: u64) {
        let tag = self.next_tag;
        self.next_tag += 1;
        let live = Live {
            state,
            epoch,
            tag,
            lines: Vec::new(),
            held: VecDeque::new(),
            reported: VecDeque::new(),
            asked: VecDeque::new(),
            unannounced: false,
        };
        self.live.insert(run, live);
    }

    fn take_up(&mut self, run: usize, lines: &[String], epoch: u64, now: u64) {
        let history: Vec<Stamped> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let Event::Accepted(accepted) = &history[0].event else { panic!("a run begins with its acceptance") };
        let accepted = Arc::new((**accepted).clone());
        let state = replay(self.program.clone(), accepted, history[0].at, &history)
            .unwrap_or_else(|(seq, problem)| panic!("I5: event {seq} of run {run} {problem}"));
        if state.verdict.is_some() {
            let sendings = self.ledger.forget(&run_id(run), true);
            return self.send(sendings);
        }
        self.adopt(run, state, epoch);
        self.live.get_mut(&run).unwrap().unannounced = true;
        self.take_in(run, Input::Reclaim, now);
    }

    fn take_in(&mut self, run: usize, input: Input, now: u64) -> bool {
        let wall = self.wall(now);
        let Some(live) = self.live.get_mut(&run) else { return false };
        let Ok(event) = admit(&live.state, input, wall.max(live.state.now)) else { return false };
        self.record(run, event, now);
        true
    }

    fn record(&mut self, run: usize, event: Event, now: u64) {
        let wall = self.wall(now);
        let Some(live) = self.live.get_mut(&run) else { return };
        let stamped = Stamped::new(wall.max(live.state.now), event);
        live.lines.push(serde_json::to_string(&stamped).unwrap());
        let effects = apply(&mut live.state, &stamped);
        live.held.push_back((live.state.seq, effects));
    }

    fn durable(&mut self, run: usize, tag: u64, through: u64, now: u64, rng: &mut Rng) {
        let Some(live) = self.live.get_mut(&run).filter(|live| live.tag == tag) else { return };
        while live.asked.pop_front_if(|(seq, _)| *seq <= through).is_some() {}
        let mut answered = Vec::new();
        while let Some((_, unit, token)) = live.reported.pop_front_if(|(seq, _, _)| *seq <= through) {
            answered.push(LeaseKey { run: run_id(run), unit, token });
        }
        let steady = self.steady(now);
        for key in answered {
            let sendings = self.ledger.answered(&key, Verdict::Recorded, steady);
            self.send(sendings);
        }
        loop {
            // What follows from an event is another's to do once the partition may be another's.
            if !self.owns(run, now) {
                return self.lose(run, now);
            }
            let Some(live) = self.live.get_mut(&run) else { return };
            let Some((_, effects)) = live.held.pop_front_if(|(seq, _)| *seq <= through) else { return };
            for effect in effects {
                self.perform(run, effect, now, rng);
            }
            if let Some(live) = self.live.get_mut(&run)
                && std::mem::take(&mut live.unannounced)
            {
                self.ledger.begin(&run_id(run));
            }
        }
    }

    fn perform(&mut self, run: usize, effect: Effect, now: u64, rng: &mut Rng) {
        let Some(live) = self.live.get_mut(&run) else { return };
        match effect {
            Effect::Note(_) => {}
            Effect::Dispatch { unit, token } => self.hand_out(run, unit, token, false, now, rng),
            Effect::Reclaim { unit, token } => self.hand_out(run, unit, token, true, now, rng),
            Effect::RecordStart { unit, token } => {
                let unit = live.state.path(unit);
                self.take_in(run, Input::Start { unit, token }, now);
            }
            Effect::Stop { unit, token, now: at_once } => {
                let key = LeaseKey { run: run_id(run), unit: live.state.path(unit), token };
                let how = if at_once { Stop::Now } else { Stop::Graceful };
                let sendings = self.ledger.stop(&key, how, self.steady(now));
                self.send(sendings);
            }
            Effect::Finish => {
                self.live.remove(&run);
                let sendings = self.ledger.forget(&run_id(run), true);
                self.send(sendings);
            }
        }
    }

    fn hand_out(&mut self, run: usize, unit: UnitKey, token: LeaseToken, reclaim: bool, now: u64, rng: &mut Rng) {
        let Some(live) = self.live.get_mut(&run) else { return };
        if live.state.unit(unit).is_none_or(|at| at.token != token.0) {
            return;
        }
        let prepared = prepare(&live.state, unit, token, "/project", "mark");
        let path = live.state.path(unit);
        let draw = rng.unit();
        let outcome = match prepared.work {
            PreparedWork::Outcome(outcome) => outcome,
            PreparedWork::Task(_) if prepared.cache.is_some() && !reclaim && rng.percent(20) => {
                let outputs = Arc::new(serde_json::json!({ "text": "kept" }));
                Outcome::Succeeded { outputs, exit_code: None, stderr: None, usage: None, cached: true }
            }
            PreparedWork::Task(task) => {
                let steady = self.steady(now);
                let sendings =
                    if reclaim { self.ledger.reclaim(*task, steady) } else { self.ledger.offer(*task, steady) };
                return self.send(sendings);
            }
        };
        self.take_in(run, Input::Report { unit: path, token, outcome, draw }, now);
    }

    fn send(&mut self, sendings: Vec<Sending>) {
        for sending in sendings {
            match sending {
                Sending::Session(id, message) => {
                    let to = self.sessions.iter().find(|(_, (session, _))| *session == id);
                    if let Some((worker, (_, link))) = to {
                        let what = ToWorker::Message(message);
                        self.out.push(Out::Session { worker: *worker, link: *link, what });
                    }
                }
                Sending::Bus(message) => self.out.push(Out::Bus(message)),
                Sending::Report(report) => self.reports.push_back(report),
            }
        }
    }

    /// Takes in what workers have reported, then writes what has come of it all.
    fn settle(&mut self, now: u64, rng: &mut Rng) {
        while let Some(Report { run, unit, token, result }) = self.reports.pop_front() {
            let number = run_number(&run);
            let input = match result {
                Ok(outcome) => Input::Report { unit: unit.clone(), token, outcome, draw: rng.unit() },
                Err(lost) => Input::Lost { unit: unit.clone(), token, why: lost.why },
            };
            if self.take_in(number, input, now) {
                let live = self.live.get_mut(&number).unwrap();
                live.reported.push_back((live.state.seq, unit, token));
            } else {
                let key = LeaseKey { run, unit, token };
                let sendings = self.ledger.answered(&key, Verdict::Stale, self.steady(now));
                self.send(sendings);
            }
        }
        for (run, live) in &mut self.live {
            if live.lines.is_empty() {
                continue;
            }
            let lines = std::mem::take(&mut live.lines);
            live.asked.push_back((live.state.seq, now));
            let first = live.state.seq + 1 - lines.len() as u64;
            self.out.push(Out::Store(Request::Append { run: *run, epoch: live.epoch, tag: live.tag, first, lines }));
        }
    }

    /// What its memory holds of a run that is written to the end, to be held against the store's.
    pub fn projected(&self, run: usize) -> Option<String> {
        let live = self.live.get(&run).filter(|live| live.asked.is_empty() && live.lines.is_empty())?;
        Some(projection(&live.state))
    }
}
