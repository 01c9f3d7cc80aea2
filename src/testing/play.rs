//! One run from its acceptance to its end, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::mocks::{Answer, Mocks};
use crate::compile::Program;
use crate::id::{LeaseToken, UnitPath};
use crate::model::{Agent, Mocked, ProviderKind};
use crate::scheduler::{
    About, Accepted, Decision, Effect, Event, Input, PreparedWork, RunStatus, Stamped, State, StepStatus, UnitKey,
    admit, apply, prepare,
};
use crate::task::{Outcome, Work};
use crate::time::Timestamp;

/// When every case begins: 2026-01-01T00:00:00Z, so that texts with times in them are the same each time.
const BEGIN: Timestamp = Timestamp(1_767_225_600_000);
/// The chance in every pause before a retry.
const DRAW: f64 = 0.5;
/// A case with more events than this does not end.
const MOST_EVENTS: u64 = 200_000;
/// Keeps secrets apart from text; no text of a test holds it.
const MARK: &str = "tol-test";

/// A run that was played to its end, or to where only a person can move it on.
pub(super) struct Played {
    pub state: State,
    /// Every call by its unit, in order.
    pub calls: BTreeMap<UnitPath, Vec<Work>>,
    /// Units that were seen at work.
    pub ran: BTreeSet<UnitPath>,
}

impl Played {
    /// The virtual time that it took.
    pub fn duration(&self) -> Duration {
        self.state.ended_at.unwrap_or(self.state.now).since(BEGIN)
    }
}

enum Pending {
    Report { unit: UnitPath, token: LeaseToken, outcome: Outcome },
    Decide { unit: UnitPath, decision: Decision, by: String, comment: Option<String> },
}

struct Player<'m> {
    played: Played,
    mocks: &'m Mocks<'m>,
    /// What will happen, by time and then by the order in which it was set in motion.
    due: BTreeMap<(Timestamp, u64), Pending>,
    order: u64,
    asked: BTreeSet<UnitKey>,
}

/// Plays a run. With `stops_waiting` it ends as soon as only a person can move it on; else time goes on until a time
/// limit does.
///
/// # Errors
/// Why it cannot be played on: a step without a mock, or no end in sight.
pub(super) fn play(
    program: &Arc<Program>,
    accepted: Accepted,
    mocks: &Mocks<'_>,
    stops_waiting: bool,
) -> Result<Played, String> {
    let accepted = Arc::new(accepted);
    let state = State::new(callable(program), accepted.clone(), BEGIN);
    let played = Played { state, calls: BTreeMap::new(), ran: BTreeSet::new() };
    let mut player = Player { played, mocks, due: BTreeMap::new(), order: 0, asked: BTreeSet::new() };
    player.record(Event::Accepted(Box::new((*accepted).clone())), BEGIN)?;
    loop {
        let state = &player.played.state;
        if state.verdict.is_some() {
            return Ok(player.played);
        }
        player.answer_questions();
        let state = &player.played.state;
        if player.due.is_empty() && stops_waiting && state.status() == RunStatus::Waiting {
            return Ok(player.played);
        }
        let timer = state.next_timer();
        match player.due.first_key_value().map(|((at, _), _)| *at) {
            Some(at) if timer.is_none_or(|timer| at <= timer) => player.happen(at)?,
            _ => match timer {
                Some(at) => player.offer(Input::Time, at)?,
                // Nothing will ever happen again without a person.
                None => return Ok(player.played),
            },
        }
    }
}

impl Player<'_> {
    /// Takes in the next thing that is due.
    fn happen(&mut self, at: Timestamp) -> Result<(), String> {
        let Some((_, pending)) = self.due.pop_first() else { return Ok(()) };
        let input = match pending {
            Pending::Report { unit, token, outcome } => Input::Report { unit, token, outcome, draw: DRAW },
            Pending::Decide { unit, decision, by, comment } => Input::Decide { unit, decision, by, comment },
        };
        self.offer(input, at)
    }

    /// Offers an input. What comes too late is dropped, as it is in a run; an answer that is refused ends the case.
    fn offer(&mut self, input: Input, at: Timestamp) -> Result<(), String> {
        let is_answer = matches!(input, Input::Decide { .. });
        let at = at.max(self.played.state.now);
        match admit(&self.played.state, input, at) {
            Ok(event) => self.record(event, at),
            Err(rejection) if is_answer => Err(format!("the mocked answer is refused: {rejection}")),
            Err(_) => Ok(()),
        }
    }

    fn record(&mut self, event: Event, at: Timestamp) -> Result<(), String> {
        if self.played.state.seq >= MOST_EVENTS {
            return Err(format!("the run has not ended after {MOST_EVENTS} events"));
        }
        let effects = apply(&mut self.played.state, &Stamped::new(at, event));
        for effect in effects {
            self.perform(effect)?;
        }
        Ok(())
    }

    fn perform(&mut self, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Dispatch { unit, token } | Effect::Reclaim { unit, token } => self.hand_out(unit, token),
            Effect::RecordStart { unit, token } => {
                let now = self.played.state.now;
                let unit = self.played.state.path(unit);
                self.offer(Input::Start { unit, token }, now)
            }
            Effect::Stop { unit, token, .. } => {
                let unit = self.played.state.path(unit);
                self.due
                    .retain(|_, pending| !matches!(pending, Pending::Report { token: other, .. } if *other == token));
                self.later(Duration::ZERO, Pending::Report { unit, token, outcome: Outcome::Stopped });
                Ok(())
            }
            Effect::Note(note) => {
                if let About::Unit { path, status, .. } = note.about
                    && matches!(status, StepStatus::Running | StepStatus::Waiting | StepStatus::Succeeded)
                {
                    self.played.ran.insert(path);
                }
                Ok(())
            }
            Effect::Finish => Ok(()),
        }
    }

    fn hand_out(&mut self, key: UnitKey, token: LeaseToken) -> Result<(), String> {
        let state = &self.played.state;
        if state.unit(key).is_none_or(|unit| unit.token != token.0) {
            return Ok(());
        }
        let unit = state.path(key);
        match prepare(state, key, token, "", MARK).work {
            PreparedWork::Outcome(outcome) => self.later(Duration::ZERO, Pending::Report { unit, token, outcome }),
            PreparedWork::Task(task) => {
                let calls = self.played.calls.entry(unit.clone()).or_default();
                let answer = self.mocks.answer(unit.as_str(), &task.work, calls.len())?;
                calls.push(task.work);
                self.played.ran.insert(unit.clone());
                match answer {
                    Answer::Ends(takes, outcome) => self.later(takes, Pending::Report { unit, token, outcome }),
                    Answer::Hangs => {}
                }
            }
        }
        Ok(())
    }

    /// Sets in motion the answers to questions that have come up.
    fn answer_questions(&mut self) {
        let state = &self.played.state;
        let open: Vec<UnitKey> = state.open_questions().filter(|key| !self.asked.contains(key)).collect();
        for key in open {
            self.asked.insert(key);
            let unit = self.played.state.path(key);
            let Some(outcome) = self.mocks.decision(unit.as_str()) else { continue };
            let takes = outcome.takes.unwrap_or_default();
            if let Mocked::Decide { approved, by, comment } = &outcome.what {
                let decision = if *approved { Decision::Approved } else { Decision::Rejected };
                let comment = comment.as_deref().map(str::to_owned);
                self.later(takes, Pending::Decide { unit, decision, by: by.to_string(), comment });
            }
        }
    }

    fn later(&mut self, takes: Duration, pending: Pending) {
        self.order += 1;
        self.due.insert((self.played.state.now.plus(takes), self.order), pending);
    }
}

/// The program with agents that can all be asked: their answers are made up, whoever gives them in a run.
fn callable(program: &Arc<Program>) -> Arc<Program> {
    let mut program = (**program).clone();
    let mut settings = (*program.settings).clone();
    settings.provider = Some(ProviderKind::Command);
    program.settings = Arc::new(settings);
    for pipeline in program.pipelines.values_mut() {
        let agents = pipeline
            .agents
            .iter()
            .map(|(name, agent)| (name.clone(), Arc::new(Agent { provider: None, ..(**agent).clone() })));
        let agents = Arc::new(agents.collect());
        Arc::make_mut(pipeline).agents = agents;
    }
    if let Some(root) = program.pipelines.get(&program.root.pipeline.path) {
        program.root = root.clone();
    }
    Arc::new(program)
}
