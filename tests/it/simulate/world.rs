//! One simulated run: a scheduler, workers that answer late, twice or never, a clock that jumps, and a process that dies.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::json;
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::runtime::replay;
use tol::scheduler::{
    Accepted, Decision, Effect, Event, Input, Options, Phase, PreparedWork, Rejection, Settlement, Stamped, State,
    StepStatus, UnitKey, admit, apply, prepare,
};
use tol::task::{Outcome, Work};
use tol::time::Timestamp;

use super::generate::Project;
use super::outcome::outcome;
use super::rng::Rng;
use super::watch::{Watch, projection, units};

/// More steps than any run of the generated size needs once nothing goes wrong any more.
const PATIENCE: usize = 4000;

/// Work that a worker has.
struct Held {
    path: UnitPath,
    token: LeaseToken,
    work: Work,
    stop: bool,
    lost: bool,
}

pub struct World<'r> {
    rng: &'r mut Rng,
    project: &'r Project,
    accepted: Arc<Accepted>,
    state: State,
    /// The journal: what is durable.
    log: Vec<String>,
    clock: u64,
    effects: VecDeque<Effect>,
    held: Vec<Held>,
    late: Vec<(UnitPath, LeaseToken, Outcome)>,
    watch: Watch,
    faults: bool,
    finished: bool,
    pub trace: Vec<String>,
}

const START: u64 = 1_700_000_000_000;

impl<'r> World<'r> {
    pub fn new(rng: &'r mut Rng, project: &'r Project) -> Self {
        let accepted = Arc::new(Accepted {
            run: RunId::new("01900000-0000-7000-8000-000000000000"),
            definition_hash: project.program.hash.to_string(),
            params: serde_json::Map::from_iter([("n".to_owned(), json!(2))]),
            env: serde_json::Map::new(),
            options: Options::default(),
            parent: None,
            reused: Vec::new(),
        });
        let state = State::new(project.program.clone(), accepted.clone(), Timestamp(START));
        Self {
            rng,
            project,
            accepted,
            state,
            log: Vec::new(),
            clock: START,
            effects: VecDeque::new(),
            held: Vec::new(),
            late: Vec::new(),
            watch: Watch::default(),
            faults: true,
            finished: false,
            trace: Vec::new(),
        }
    }

    /// Runs to the end, first with faults, then without. Gives the number of events.
    pub fn run(&mut self) -> usize {
        self.record(Event::Accepted(Box::new((*self.accepted).clone())));
        self.drain();
        for _ in 0..self.rng.below(120) {
            if self.state.verdict.is_some() {
                break;
            }
            self.act();
            self.drain();
        }
        self.faults = false;
        for _ in 0..PATIENCE {
            if self.state.verdict.is_some() {
                break;
            }
            self.settle();
            self.drain();
        }
        assert!(self.state.verdict.is_some(), "I1: the run does not end");
        assert!(self.finished, "the end was not told");
        self.late_reports_change_nothing();
        self.replayed();
        self.log.len()
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock).max(self.state.now)
    }

    fn record(&mut self, event: Event) {
        let stamped = Stamped::new(self.now(), event);
        let line = serde_json::to_string(&stamped).unwrap();
        self.trace.push(line.chars().take(400).collect());
        self.log.push(line);
        let effects = apply(&mut self.state, &stamped);
        let starts = matches!(stamped.event, Event::Started { .. });
        self.watch.effects(&self.state, starts, &effects);
        self.watch.check(&self.state);
        self.effects.extend(effects);
    }

    fn offer(&mut self, input: Input) -> Result<(), Rejection> {
        let event = admit(&self.state, input, self.now())?;
        self.record(event);
        Ok(())
    }

    /// Performs what is durable; the process may die before any of it.
    fn drain(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            if self.faults && self.rng.percent(1) {
                self.trace.push(format!("dies before {effect:?}"));
                self.crash();
                continue;
            }
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Note(_) => {}
            Effect::Finish => self.finished = true,
            Effect::RecordStart { unit, token } => {
                let unit = self.state.path(unit);
                let _ = self.offer(Input::Start { unit, token });
            }
            Effect::Stop { unit, token, .. } => {
                let path = self.state.path(unit);
                for held in self.held.iter_mut().filter(|held| held.path == path && held.token == token) {
                    held.stop = true;
                }
            }
            Effect::Dispatch { unit, token } | Effect::Reclaim { unit, token } => self.hand_out(unit, token),
        }
    }

    fn hand_out(&mut self, unit: UnitKey, token: LeaseToken) {
        if self.state.unit(unit).is_none_or(|at| at.token != token.0) {
            return;
        }
        let path = self.state.path(unit);
        assert_eq!(self.state.find(&path), Some(unit), "the path {path} leads elsewhere");
        self.watch.executed(&self.state, unit, token);
        let prepared = prepare(&self.state, unit, token, "/project", "mark");
        match prepared.work {
            PreparedWork::Outcome(outcome) => {
                let draw = self.rng.unit();
                let _ = self.offer(Input::Report { unit: path, token, outcome, draw });
            }
            PreparedWork::Task(_) if prepared.cache.is_some() && self.rng.percent(30) => {
                let outputs = Arc::new(json!({ "text": "kept" }));
                let outcome = Outcome::Succeeded { outputs, exit_code: None, stderr: None, usage: None, cached: true };
                let draw = self.rng.unit();
                let _ = self.offer(Input::Report { unit: path, token, outcome, draw });
            }
            PreparedWork::Task(task) => {
                assert_eq!(task.unit, path);
                self.held.push(Held { path, token, work: task.work, stop: false, lost: false });
            }
        }
    }

    /// Something happens, or goes wrong.
    fn act(&mut self) {
        match self.rng.below(100) {
            0..=39 => self.deliver(),
            40..=54 => self.time(),
            55..=60 => self.late_report(),
            61..=63 => {
                if !self.held.is_empty() {
                    let number = self.rng.below(self.held.len());
                    self.held[number].lost = true;
                }
            }
            64 => self.cancel(),
            65..=66 => drop(self.offer(Input::Pause { by: "p".to_owned() })),
            67..=71 => drop(self.offer(Input::Unpause { by: "p".to_owned() })),
            72..=81 => self.answer(),
            82..=84 => self.answer_anything(),
            85..=88 => self.crash(),
            _ => self.time(),
        }
    }

    /// Nothing goes wrong any more: whatever can happen does.
    fn settle(&mut self) {
        if self.state.idle {
            let _ = self.offer(Input::Recover);
        } else if self.state.paused {
            let _ = self.offer(Input::Unpause { by: "p".to_owned() });
        } else if !self.held.is_empty() {
            self.deliver();
        } else if self.state.open_questions().next().is_some() && self.rng.percent(70) {
            self.answer();
        } else if let Some(at) = self.state.next_timer() {
            self.clock = self.clock.max(at.0);
            self.offer(Input::Time).unwrap_or_else(|refusal| panic!("time passes in vain: {refusal}"));
        } else {
            assert!(self.state.open_questions().next().is_some(), "I1: the run is stuck: nothing can move it on");
            assert_eq!(self.state.status().as_str(), "waiting", "only a person can move it on");
            self.answer();
        }
    }

    fn time(&mut self) {
        match self.rng.below(10) {
            0 => self.clock += self.rng.next() % 200_000,
            1 => self.clock -= self.rng.next() % 50_000,
            2..=4 => self.clock += self.rng.next() % 3000,
            _ => {
                if let Some(at) = self.state.next_timer() {
                    self.clock = self.clock.max(at.0);
                }
            }
        }
        let due = self.state.next_timer().is_some_and(|at| at <= self.now());
        assert_eq!(self.offer(Input::Time).is_ok(), due, "a time limit is over exactly when it is");
    }

    fn deliver(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let number = self.rng.below(self.held.len());
        let lost = self.held[number].lost;
        if lost && self.faults && self.rng.percent(80) {
            return;
        }
        let held = self.held.swap_remove(number);
        let outcome = if lost { Outcome::Stopped } else { self.outcome_of(&held) };
        let draw = self.rng.unit();
        let Held { path: unit, token, .. } = held;
        self.late.push((unit.clone(), token, outcome.clone()));
        self.offer(Input::Report { unit, token, outcome, draw })
            .unwrap_or_else(|refusal| panic!("a report is refused: {refusal}"));
    }

    /// A report that came already, or whose attempt was given up, comes again.
    fn late_report(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let number = self.rng.below(self.late.len());
        let (unit, token, outcome) = self.late[number].clone();
        let refusal = self.offer(Input::Report { unit: unit.clone(), token, outcome, draw: 0.5 });
        assert_eq!(refusal, Err(Rejection::Stale(unit)), "a late report is taken for a current one");
    }

    fn late_reports_change_nothing(&mut self) {
        for _ in 0..self.late.len().min(3) {
            self.late_report();
        }
        let refusal = self.offer(Input::Cancel { by: "p".to_owned(), now: true });
        assert!(matches!(refusal, Err(Rejection::Ended(_))), "{refusal:?}");
    }

    fn cancel(&mut self) {
        let now = self.rng.percent(40);
        let late = matches!(self.state.scopes[0].phase, Phase::Hooks | Phase::Done);
        if self.offer(Input::Cancel { by: "p".to_owned(), now }).is_ok() {
            self.watch.late_stop |= late;
        }
    }

    fn answer(&mut self) {
        let questions: Vec<UnitKey> = self.state.open_questions().collect();
        if questions.is_empty() {
            return;
        }
        let key = questions[self.rng.below(questions.len())];
        self.answer_one(key);
    }

    fn answer_anything(&mut self) {
        let all: Vec<UnitKey> = units(&self.state).into_iter().map(|(key, _)| key).collect();
        let key = all[self.rng.below(all.len())];
        self.answer_one(key);
    }

    fn answer_one(&mut self, key: UnitKey) {
        let unit = self.state.path(key);
        // A child that was run again has taken the paths of the one before.
        let key = self.state.find(&unit).unwrap_or(key);
        let unknown = self.state.unit(key).is_some_and(|unit| unit.status == StepStatus::Unknown);
        if unknown || self.rng.percent(10) {
            let settlement = [Settlement::Succeeded, Settlement::Failed, Settlement::Retry][self.rng.below(3)];
            let taken = self.offer(Input::Settle { unit, settlement, by: "ada".to_owned() });
            assert_eq!(taken.is_ok(), unknown);
            if taken.is_ok() && settlement == Settlement::Retry {
                *self.watch.let_again.entry(key).or_default() += 1;
            }
            return;
        }
        let asked = self.state.unit(key).is_some_and(|unit| unit.asks_a_person());
        let decision = if self.rng.percent(60) { Decision::Approved } else { Decision::Rejected };
        let by = if self.faults { self.rng.pick(&["ada", "bob"]) } else { "ada" };
        let comment = self.rng.percent(20).then(|| "because".to_owned());
        let taken = self.offer(Input::Decide { unit: unit.clone(), decision, by: by.to_owned(), comment });
        match taken {
            Ok(()) => {
                assert!(asked, "{unit} took an answer to no question");
                if self.state.find(&unit) != Some(key) {
                    // The answer has led to another child or a fallback, which may ask anew under the same path.
                    return;
                }
                let again = self.offer(Input::Decide { unit, decision, by: by.to_owned(), comment: None });
                assert!(again.is_err(), "an answer is taken twice");
            }
            Err(Rejection::NotApprover { .. }) => assert_eq!(by, "bob"),
            Err(_) => assert!(!asked, "{unit} asks and refuses an answer: {taken:?}"),
        }
    }

    /// The process dies: what it had in memory is gone, what its workers did is never heard of (or too late).
    fn crash(&mut self) {
        self.effects.clear();
        for held in std::mem::take(&mut self.held) {
            let outcome = self.outcome_of(&held);
            self.late.push((held.path, held.token, outcome));
        }
        self.state = self.replayed();
        self.finished |= self.state.verdict.is_some();
        if self.state.verdict.is_some() {
            return;
        }
        if self.rng.percent(30) {
            // Another process leaves commands while nobody drives the run.
            let _ = self.offer(Input::Idle);
            for _ in 0..1 + self.rng.below(3) {
                match self.rng.below(6) {
                    0 => self.cancel(),
                    1 => drop(self.offer(Input::Pause { by: "p".to_owned() })),
                    2 => drop(self.offer(Input::Unpause { by: "p".to_owned() })),
                    _ => self.answer(),
                }
                let handed_out = self.effects.drain(..).any(|effect| match effect {
                    Effect::Dispatch { .. } | Effect::Reclaim { .. } | Effect::RecordStart { .. } => true,
                    Effect::Stop { .. } | Effect::Note(_) | Effect::Finish => false,
                });
                assert!(!handed_out, "something is handed out while nobody drives the run");
            }
        }
        // Whoever left the last command has told of the end.
        self.finished |= self.state.verdict.is_some();
        if self.state.verdict.is_none() && self.rng.percent(90) {
            self.offer(Input::Recover).unwrap();
        } else if self.state.verdict.is_none() {
            // It dies again before it has recovered anything.
            self.state = self.replayed();
            self.offer(Input::Recover).unwrap();
        }
    }

    fn outcome_of(&mut self, held: &Held) -> Outcome {
        outcome(self.rng, &held.work, held.stop)
    }

    /// I5: what the log says is what was in memory.
    fn replayed(&self) -> State {
        let history: Vec<Stamped> = self.log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let state = replay(self.project.program.clone(), self.accepted.clone(), Timestamp(START), &history)
            .unwrap_or_else(|(seq, problem)| panic!("I5: event {seq} {problem}"));
        assert_eq!(projection(&state), projection(&self.state), "I5: the replay differs");
        state
    }
}
