//! One event's effect on the state. Total over admitted events, and the same every time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::event::{Accepted, Decision, Event, Settlement, Stamped};
use super::ready::{Ready, ReadyKey};
use super::state::{ASKS, About, Effect, Note, State, StopReason, TimerKind, Todo, UnitKey};
use super::status::StepStatus;
use crate::compile::Program;
use crate::id::{LeaseToken, UnitPath};
use crate::model::Action;
use crate::task::{ErrorClass, Failure, Outcome};
use crate::time::Timestamp;

/// A unit that has cost so many workers in a row is taken for the cause.
const LOSSES_MAX: u32 = 5;
/// How many actions a run has out at once if nobody says otherwise.
const DEFAULT_MAX_PARALLEL: u32 = 8;

/// Takes an event into the state and says what is to be done once the event is durable, in order.
pub fn apply(state: &mut State, stamped: &Stamped) -> Vec<Effect> {
    state.seq += 1;
    state.now = stamped.at.max(state.now);
    if let Some(word) = stamped.event.word() {
        state.note_about(About::Run(word));
    }
    match &stamped.event {
        Event::Accepted(_) => state.begin(),
        Event::Started { unit, token } => state.on_started(unit, *token),
        Event::Reported { unit, token, outcome, draw } => state.on_reported(unit, *token, outcome, *draw),
        Event::TimePassed => state.on_time(),
        Event::CancelRequested { now, .. } => state.on_cancel(*now),
        Event::Paused { .. } => state.paused = true,
        Event::Unpaused { .. } => state.paused = false,
        Event::Decided { unit, decision, by, comment } => state.on_decided(unit, *decision, by, comment.as_deref()),
        Event::Settled { unit, settlement, by } => state.on_settled(unit, *settlement, by),
        Event::Idle => state.idle = true,
        Event::Recovered => state.on_recovered(),
        Event::Reclaimed => state.on_reclaimed(),
        Event::Lost { unit, why, .. } => state.on_lost(unit, why),
    }
    state.settle_todo();
    std::mem::take(&mut state.effects)
}

impl State {
    /// The state before the first event. `accepted` must be the one of the first event to be applied.
    pub fn new(program: Arc<Program>, accepted: Arc<Accepted>, at: Timestamp) -> Self {
        let limits = program.root.limits();
        let ready = Ready::new(&limits.queues);
        let file = limits.max_parallel.or(program.settings.engine.max_parallel);
        // What the whole process may have at work bounds each of its runs, too.
        let workers = program.settings.engine.workers.unwrap_or(u32::MAX);
        let asked = accepted.options.max_parallel.or(file).unwrap_or(DEFAULT_MAX_PARALLEL);
        let max_parallel = asked.min(workers).max(1);
        Self {
            run: accepted.run.clone(),
            program,
            accepted,
            scopes: Vec::new(),
            seq: 0,
            started_at: at,
            now: at,
            paused: false,
            idle: false,
            stopping: None,
            stopping_now: false,
            verdict: None,
            ended_at: None,
            outputs: None,
            degraded: Vec::new(),
            warnings: Vec::new(),
            ready,
            held: VecDeque::new(),
            timers: BTreeSet::new(),
            todo: VecDeque::new(),
            effects: Vec::new(),
            running: 0,
            out: 0,
            max_parallel,
            blocking: 0,
            notes: 0,
            next_token: 1,
            tokens_used: 0,
            tokens_reserved: 0,
            cost_used: 0.0,
            steps_ended: 0,
            steps_failed: 0,
            draw: 0.5,
        }
    }

    fn begin(&mut self) {
        let pipeline = self.program.root.clone();
        let whole = pipeline.pipeline.timeout.into_iter().chain(pipeline.limits().max_runtime).min();
        if let Some(length) = whole {
            self.timers.insert((self.started_at.plus(length), RUN_TIMER, TimerKind::Run));
        }
        let params = Arc::new(serde_json::Value::Object(self.accepted.params.clone()));
        self.open_pipeline(pipeline, None, Arc::from(""), params);
    }

    /// Works through everything that an event has set in motion, then hands out what has a slot.
    fn settle_todo(&mut self) {
        loop {
            while let Some(todo) = self.todo.pop_front() {
                match todo {
                    Todo::StepReady(scope, step) => self.step_ready(scope, step),
                    Todo::UnitReady(unit) => self.unit_ready(unit),
                    Todo::StepEnded(scope, step) => self.step_ended(scope, step),
                    Todo::ScopeEmpty(scope) => self.scope_empty(scope),
                }
            }
            self.hand_out();
            if self.todo.is_empty() {
                break;
            }
        }
    }

    /// Gives slots to what is ready, best first.
    fn hand_out(&mut self) {
        // One at a time: it may be a question that holds the others again.
        if !self.paused
            && self.blocking == 0
            && let Some(unit) = self.held.pop_front()
        {
            return self.todo.push_back(Todo::UnitReady(unit));
        }
        while !self.holds_back() && self.running < self.max_parallel && self.blocking == 0 {
            let Some(key) = self.next_affordable() else { break };
            self.ready.remove(&key);
            self.dispatch(key.unit, true);
            if !self.todo.is_empty() {
                break;
            }
        }
    }

    /// True while nothing may be handed out.
    pub(super) fn holds_back(&self) -> bool {
        self.paused || self.idle || self.verdict.is_some()
    }

    fn next_affordable(&mut self) -> Option<ReadyKey> {
        let first = self.ready.best()?;
        if self.affordable(first.unit) {
            return Some(first);
        }
        // The best one waits for tokens that others may give back; what needs none may go first.
        let other = self.ready.best_that(|unit| self.affordable(unit));
        if other.is_none() && self.tokens_reserved == 0 && self.running == 0 {
            let limit = self.exhausted_limit();
            self.stop_run(StopReason::Budget(limit.clone()));
            // What must run although the run ends (`finally`, hooks) is not cancelled by that.
            // The end of one item may take others out of the queue.
            while let Some(key) = self.ready.any() {
                self.dequeue(key);
                let words = format!("the run's limit `{limit}` is reached");
                self.give_up(key, Failure::new(ErrorClass::Budget, words));
            }
        }
        other
    }

    fn on_started(&mut self, path: &UnitPath, token: LeaseToken) {
        let Some(key) = self.find(path) else { return };
        if let Some(reason) = self.unit(key).and_then(|unit| unit.stop().cloned()) {
            // It was to be stopped before it had begun.
            self.take_back(key, None);
            self.stopped(key, reason, 0.0);
            return;
        }
        self.unit_mut(key).start_recorded = true;
        self.effects.push(Effect::Dispatch { unit: key, token });
    }

    fn on_reported(&mut self, path: &UnitPath, token: LeaseToken, outcome: &Outcome, draw: f64) {
        let Some(key) = self.find(path) else { return };
        let unit = self.unit_mut(key);
        if unit.token != token.0 {
            return;
        }
        unit.start_recorded = false;
        if let Some(more) = unit.more.as_deref_mut() {
            more.losses = 0;
        }
        self.draw = draw;
        self.take_back(key, outcome.usage());
        let stop = self.unit(key).and_then(|unit| unit.stop().cloned());
        match (stop, outcome) {
            (Some(reason), _) if !self.is_done_by(key, outcome) => self.stopped(key, reason, draw),
            (Some(_) | None, Outcome::Succeeded { outputs, exit_code, stderr, cached, .. }) => {
                let unit = self.unit_mut(key);
                unit.cached = *cached;
                if exit_code.is_some() || stderr.is_some() {
                    let more = unit.more_mut();
                    more.exit_code = *exit_code;
                    more.stderr.clone_from(stderr);
                }
                self.succeeded(key, outputs.clone());
            }
            (Some(_) | None, Outcome::Failed { failure, .. }) => self.attempt_failed(key, failure.clone(), draw),
            (Some(_) | None, Outcome::Stopped) if self.retry_of(key).is_some_and(|retry| retry.never) => {
                self.becomes_unknown(key)
            }
            (Some(_) | None, Outcome::Stopped) => {
                // Nobody asked for it here: the worker went away by itself.
                self.attempt_failed(key, Failure::transient("the worker stopped in the middle"), draw);
            }
        }
    }

    /// True if the outcome is all that the unit was to do, and not one call of several.
    fn is_done_by(&self, key: UnitKey, outcome: &Outcome) -> bool {
        let several = match self.definition(key).action() {
            Some(Action::Plan(_) | Action::Execute(_) | Action::Synthesize(_)) => true,
            Some(
                Action::Run(_)
                | Action::Http(_)
                | Action::Transform(_)
                | Action::Pipeline(_)
                | Action::Wait(_)
                | Action::Approve(_)
                | Action::Agent(_),
            )
            | None => false,
        };
        matches!(outcome, Outcome::Succeeded { .. }) && !several
    }

    fn on_time(&mut self) {
        while let Some(&(at, key, kind)) = self.timers.first() {
            if at > self.now {
                break;
            }
            self.timers.pop_first();
            match kind {
                TimerKind::Run => self.stop_run(StopReason::TimedOut),
                TimerKind::Deadline => self.deadline_over(key),
                TimerKind::AttemptDeadline => self.attempt_over(key),
                TimerKind::Retry => self.pause_over(key),
                TimerKind::Wait => self.wait_over(key),
            }
        }
    }

    fn on_cancel(&mut self, now: bool) {
        if now {
            self.stopping_now = true;
        }
        self.stop_run(StopReason::Cancelled);
    }

    fn on_decided(&mut self, path: &UnitPath, decision: Decision, by: &str, comment: Option<&str>) {
        if let Some(key) = self.find(path) {
            self.decided(key, decision, by, comment);
        }
    }

    fn on_settled(&mut self, path: &UnitPath, settlement: Settlement, by: &str) {
        let Some(key) = self.find(path) else { return };
        let unit = self.unit_mut(key);
        unit.more_mut().reason = Some(format!("settled by {by}"));
        match settlement {
            Settlement::Succeeded => self.end_unit(key, StepStatus::Succeeded, Some(Arc::new(serde_json::json!({})))),
            Settlement::Failed => self.give_up(key, Failure::permanent(format!("settled as failed by {by}"))),
            Settlement::Retry => {
                self.disarm(key);
                self.unit_mut(key).status = StepStatus::Pending;
                self.enqueue(key);
            }
        }
    }

    /// A new process has the run: whatever was handed out before is gone with the old one.
    fn on_recovered(&mut self) {
        self.idle = false;
        let stops = self.handed_out().into_iter().filter_map(|key| self.back_in_line(key)).collect();
        self.end_stopped(stops);
    }

    /// A new process has the run, and the workers of the old one may still have their work.
    fn on_reclaimed(&mut self) {
        self.idle = false;
        let mut stops = Vec::new();
        for key in self.handed_out() {
            let never = self.retry_of(key).is_some_and(|retry| retry.never);
            let Some(unit) = self.unit(key) else { continue };
            if never && !unit.start_recorded {
                stops.extend(self.back_in_line(key));
                continue;
            }
            let token = LeaseToken(unit.token);
            let asked = unit.stop().is_some();
            self.effects.push(Effect::Reclaim { unit: key, token });
            if asked {
                self.effects.push(Effect::Stop { unit: key, token, now: self.stopping_now });
            }
        }
        self.end_stopped(stops);
    }

    /// The worker that had a unit is gone, and its work with it.
    fn on_lost(&mut self, path: &UnitPath, why: &str) {
        let Some(key) = self.find(path) else { return };
        let more = self.unit_mut(key).more_mut();
        more.losses += 1;
        let often = more.losses >= LOSSES_MAX && more.stop.is_none();
        if often {
            more.losses = 0;
        }
        if often && !self.retry_of(key).is_some_and(|retry| retry.never) {
            self.take_back(key, None);
            let words = format!("{LOSSES_MAX} workers in a row were lost with it (the last: {why})");
            return self.attempt_failed(key, Failure::transient(words), 0.5);
        }
        let stops = self.back_in_line(key).into_iter().collect();
        self.end_stopped(stops);
    }

    /// Takes a lost hand-out back and lets the unit wait for the next one; gives the reason if it was to be stopped.
    fn back_in_line(&mut self, key: UnitKey) -> Option<(UnitKey, StopReason)> {
        let never = self.retry_of(key).is_some_and(|retry| retry.never);
        let unit = self.unit_mut(key);
        let recorded = std::mem::take(&mut unit.start_recorded);
        let stop = unit.stop().cloned();
        self.take_back(key, None);
        match stop {
            Some(reason) => return Some((key, reason)),
            None if never && !recorded => {
                // Nothing was started. A fallback's hand-outs are not counted.
                let unit = self.unit_mut(key);
                unit.attempt = unit.attempt.saturating_sub(u32::from(!unit.fallback));
                unit.status = StepStatus::Pending;
                if !self.cancel_late_item(key) {
                    self.enqueue(key);
                }
            }
            None if never => self.becomes_unknown(key),
            None => {
                self.unit_mut(key).status = StepStatus::Pending;
                self.enqueue(key);
            }
        }
        None
    }

    /// Ends what was to be stopped and has come true by the loss of its worker.
    fn end_stopped(&mut self, stops: Vec<(UnitKey, StopReason)>) {
        // What follows from these must see the rest in its place.
        for (key, reason) in stops {
            if self.unit(key).is_some_and(|unit| !unit.status.is_final()) {
                self.stopped(key, reason, 0.0);
            }
        }
        // What ran out of time meanwhile is not begun again first.
        self.on_time();
    }

    fn becomes_unknown(&mut self, key: UnitKey) {
        let unit = self.unit_mut(key);
        unit.status = StepStatus::Unknown;
        unit.more_mut().reason = Some("its process died in the middle, and it must not run twice".to_owned());
        self.note(key, None);
    }

    pub(super) fn handed_out(&self) -> Vec<UnitKey> {
        let mut keys = Vec::new();
        for (scope, entry) in self.scopes.iter().enumerate() {
            for (step, state) in entry.steps.iter().enumerate() {
                let whole = UnitKey::whole(scope as u32, step as u32);
                if state.unit.token != 0 {
                    keys.push(whole);
                }
                let items = state.fan.iter().flat_map(|fan| fan.items.iter().enumerate());
                keys.extend(
                    items.filter(|(_, unit)| unit.token != 0).map(|(item, _)| UnitKey { item: item as u32, ..whole }),
                );
            }
        }
        keys
    }

    /// Tells watchers how a unit stands now.
    pub(super) fn note(&mut self, key: UnitKey, message: Option<String>) {
        let Some(unit) = self.unit(key) else { return };
        let ended = unit.status.is_final() && unit.attempt > 0;
        let about = About::Unit {
            path: self.path(key),
            status: unit.status,
            attempt: unit.attempt,
            cached: unit.cached,
            duration_ms: ended.then(|| unit.ended_at.0.saturating_sub(unit.started_at.0)),
            message,
        };
        self.note_about(about);
    }

    fn note_about(&mut self, about: About) {
        self.notes += 1;
        self.effects.push(Effect::Note(Note { seq: self.notes, about }));
    }

    /// Hands a unit out: a new token, a new attempt unless it is another call of the same one.
    pub(super) fn dispatch(&mut self, key: UnitKey, slot: bool) {
        let token = self.next_token;
        self.next_token += 1;
        let now = self.now;
        let never = self.retry_of(key).is_some_and(|retry| retry.never);
        let first = self.unit(key).is_some_and(|unit| unit.attempt == 0);
        if first {
            self.unit_mut(key).started_at = now;
        }
        self.arm_deadline(key);
        let lane = self.lane_of(key);
        self.ready.went_out(lane);
        let unit = self.unit_mut(key);
        unit.status = StepStatus::Running;
        unit.token = token;
        unit.attempt += u32::from(!unit.fallback && !std::mem::take(&mut unit.same_attempt));
        unit.holds_slot = slot;
        if lane.is_some() {
            unit.more_mut().lane = lane;
        }
        if let Some(more) = unit.more.as_deref_mut() {
            more.stop = None;
            if more.reason.as_deref() == Some(ASKS) {
                more.reason = None;
            }
        }
        self.out += 1;
        self.running += u32::from(slot);
        self.arm_attempt(key);
        self.reserve(key);
        let token = LeaseToken(token);
        let effect =
            if never { Effect::RecordStart { unit: key, token } } else { Effect::Dispatch { unit: key, token } };
        self.effects.push(effect);
        self.note(key, None);
    }

    /// Undoes what handing out has taken: slot, token, attempt timer, reserved tokens.
    pub(super) fn take_back(&mut self, key: UnitKey, usage: Option<crate::task::Usage>) {
        let unit = self.unit_mut(key);
        let slot = std::mem::take(&mut unit.holds_slot);
        unit.token = 0;
        let lane = unit.more.as_deref_mut().and_then(|more| more.lane.take());
        self.ready.came_back(lane);
        self.out = self.out.saturating_sub(1);
        self.running -= u32::from(slot);
        self.disarm_attempt(key);
        self.settle_usage(key, usage);
    }

    /// Asks the shell to stop a unit that is out; the report that follows says that it has.
    pub(super) fn stop_unit(&mut self, key: UnitKey, reason: StopReason, now: bool) {
        let unit = self.unit_mut(key);
        if unit.token == 0 {
            return;
        }
        let token = LeaseToken(unit.token);
        let never = self.retry_of(key).is_some_and(|retry| retry.never);
        let unit = self.unit_mut(key);
        let not_out_yet = never && !unit.start_recorded;
        let more = unit.more_mut();
        let first = more.stop.is_none();
        if first || matches!(reason, StopReason::Cancelled | StopReason::TimedOut) {
            more.stop = Some(reason);
        }
        if (first || now) && !not_out_yet {
            self.effects.push(Effect::Stop { unit: key, token, now });
        }
    }

    /// The child scope or the single call behind a failure class that the run's end gives.
    pub(super) fn class_of(reason: &StopReason) -> ErrorClass {
        match reason {
            StopReason::Cancelled | StopReason::FailFast | StopReason::Replan => ErrorClass::Cancelled,
            StopReason::TimedOut | StopReason::StepTimeout | StopReason::OuterTimeout | StopReason::AttemptTimeout => {
                ErrorClass::Timeout
            }
            StopReason::Budget(_) => ErrorClass::Budget,
        }
    }
}

/// The key under which the run's own time limit stands.
pub(super) const RUN_TIMER: UnitKey = UnitKey { scope: 0, step: u32::MAX, item: UnitKey::WHOLE };

impl Outcome {
    /// The tokens that the attempt used, where it called an agent.
    pub fn usage(&self) -> Option<crate::task::Usage> {
        match self {
            Self::Succeeded { usage, .. } | Self::Failed { usage, .. } => *usage,
            Self::Stopped => None,
        }
    }
}
