//! One unit of work from ready to ended: its attempts, pauses, time limits, fallback, approvals and waits.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::event::Decision;
use super::names::ScopeNames;
use super::ready::ReadyKey;
use super::scope::words;
use super::state::{ASKS, Body, Phase, Stage, State, StopReason, TimerKind, Todo, UnitKey, UnitState};
use super::status::StepStatus;
use crate::compile::CallTarget;
use crate::model::{Action, Approve, ApproveMode, OnTimeout, Priority, Retry, Wait};
use crate::task::{ErrorClass, Failure};
use crate::time::{Timestamp, format_duration};

/// Default time limits by action: a plan, a blueprint or an agent or HTTP call, a synthesis, a script.
const PLAN_TIMEOUT: Duration = Duration::from_secs(30);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const SYNTHESIZE_TIMEOUT: Duration = Duration::from_secs(30);
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(3600);

impl State {
    /// Everything that a unit waited for is there.
    pub(super) fn unit_ready(&mut self, key: UnitKey) {
        // Something in the same event may have ended it, or begun it already.
        if self.unit(key).is_none_or(|unit| unit.status != StepStatus::Pending) {
            return;
        }
        if let Some(reason) = self.halted_for(key) {
            return self.cancel_unit(key, &reason);
        }
        if (self.paused || self.blocking > 0) && self.needs_no_slot(key) {
            return self.held.push_back(key);
        }
        let definition = self.definition(key);
        match definition.action() {
            None => self.enqueue(key),
            Some(Action::Run(_) | Action::Http(_) | Action::Agent(_) | Action::Synthesize(_)) => self.enqueue(key),
            Some(Action::Transform(_)) => {
                // It needs no slot: it is computed on the spot.
                if self.holds_back() || self.blocking > 0 { self.enqueue(key) } else { self.dispatch(key, false) }
            }
            Some(Action::Pipeline(_)) => self.begin_parent(key, State::open_child),
            // Its planner is to be asked again for a plan that mends the first.
            Some(Action::Execute(_)) if self.is_planning(key) => self.enqueue(key),
            Some(Action::Execute(_)) => self.begin_parent(key, State::open_blueprint),
            Some(Action::Plan(plan)) => {
                let plan = plan.clone();
                self.begin_plan(key, &plan);
            }
            Some(Action::Wait(wait)) => {
                let wait = wait.clone();
                self.begin_wait(key, &wait);
            }
            Some(Action::Approve(approve)) => {
                let approve = approve.clone();
                self.begin_approve(key, &approve);
            }
        }
    }

    /// True for what begins by itself, without a worker.
    fn needs_no_slot(&self, key: UnitKey) -> bool {
        match self.definition(key).action() {
            Some(Action::Pipeline(_) | Action::Wait(_) | Action::Approve(_)) => true,
            Some(Action::Plan(_) | Action::Execute(_)) => !self.is_planning(key),
            Some(
                Action::Run(_) | Action::Http(_) | Action::Agent(_) | Action::Synthesize(_) | Action::Transform(_),
            )
            | None => false,
        }
    }

    fn halted_for(&self, key: UnitKey) -> Option<StopReason> {
        let scope = self.scope(key.scope);
        let main = key.step < scope.first_finally();
        scope
            .halted
            .clone()
            .filter(|_| (main && !matches!(scope.body, super::state::Body::Hooks { .. })) || self.stopping_now)
    }

    /// Puts a unit among those that wait for a slot.
    pub(super) fn enqueue(&mut self, key: UnitKey) {
        let ready = self.ready_key(key);
        let lane = self.lane_of(key);
        self.ready.insert(ready, lane);
    }

    pub(super) fn dequeue(&mut self, key: UnitKey) {
        let ready = self.ready_key(key);
        self.ready.remove(&ready);
    }

    fn ready_key(&self, key: UnitKey) -> ReadyKey {
        let scope = self.scope(key.scope);
        let critical = scope.graph().and_then(|graph| graph.critical.get(key.step as usize).copied()).unwrap_or(0);
        let priority = match scope.body {
            super::state::Body::Pipeline => scope.pipeline.step(key.step).priority,
            super::state::Body::Blueprint(_) | super::state::Body::Hooks { .. } => Priority::Medium,
        };
        ReadyKey { priority, short_of_critical: u32::MAX - critical, unit: key }
    }

    /// Marks the start of a unit that runs through children and needs no slot.
    fn begin_parent(&mut self, key: UnitKey, open: fn(&mut State, UnitKey)) {
        let now = self.now;
        let unit = self.unit_mut(key);
        if unit.attempt == 0 {
            unit.started_at = now;
        }
        unit.status = StepStatus::Running;
        unit.attempt += u32::from(!unit.fallback);
        self.arm_deadline(key);
        self.arm_attempt(key);
        self.note(key, None);
        open(self, key);
    }

    fn begin_wait(&mut self, key: UnitKey, wait: &Wait) {
        let wake = match wait {
            Wait::For(length) => Ok(self.now.plus(*length)),
            Wait::Until(time) => Ok(*time),
            Wait::UntilTime(expression) => match expression.value.evaluate(&ScopeNames::new(self, key)) {
                Ok(value) => time_of(&value)
                    .ok_or_else(|| format!("`wait.until` gives {}, which is no time", super::step::kind_of(&value))),
                Err(error) => Err(format!("`wait.until` cannot be evaluated: {error}")),
            },
        };
        let now = self.now;
        let unit = self.unit_mut(key);
        unit.started_at = now;
        unit.attempt = 1;
        match wake {
            Err(message) => self.give_up(key, Failure::permanent(message)),
            Ok(wake) if wake <= now => self.end_unit(key, StepStatus::Succeeded, Some(Arc::new(json!({})))),
            Ok(wake) => {
                unit.status = StepStatus::Waiting;
                unit.more_mut().wake = Some(wake);
                self.timers.insert((wake, key, TimerKind::Wait));
                self.arm_deadline(key);
                self.note(key, Some(format!("until {wake}")));
            }
        }
    }

    fn begin_approve(&mut self, key: UnitKey, approve: &Approve) {
        let now = self.now;
        let message = approve.message.as_ref().map(|text| text.value.render_text(&ScopeNames::new(self, key)));
        let unit = self.unit_mut(key);
        unit.started_at = now;
        unit.attempt = 1;
        let message = match message {
            Some(Err(error)) => return self.give_up(key, Failure::permanent(format!("`approve.message`: {error}"))),
            Some(Ok(text)) => Some(text),
            None => None,
        };
        if approve.mode == ApproveMode::Autonomous {
            return self.answer(key, Decision::Approved, "tol (mode: autonomous)", None);
        }
        if approve.mode == ApproveMode::Blocking {
            self.blocking += 1;
        }
        self.ask(key, message);
    }

    /// Leaves a unit to a person.
    pub(super) fn ask(&mut self, key: UnitKey, message: Option<String>) {
        let unit = self.unit_mut(key);
        unit.status = StepStatus::Waiting;
        unit.more_mut().reason = Some(ASKS.to_owned());
        if self.timeout_of(key).is_none() {
            self.disarm(key);
        }
        self.arm_deadline(key);
        self.note(key, message);
    }

    /// A person has answered, or nobody in time.
    pub(super) fn decided(&mut self, key: UnitKey, decision: Decision, by: &str, comment: Option<&str>) {
        let plan = self.unit(key).is_some_and(|unit| {
            unit.more.as_deref().is_some_and(|more| matches!(&more.stage, Stage::Plan(plan) if plan.asks))
        });
        if plan { self.plan_decided(key, decision, by) } else { self.answer(key, decision, by, comment) }
    }

    fn answer(&mut self, key: UnitKey, decision: Decision, by: &str, comment: Option<&str>) {
        let outputs = json!({"decision": decision.as_str(), "by": by, "at": self.now.to_string(), "comment": comment});
        self.unblock(key);
        match decision {
            Decision::Approved => self.end_unit(key, StepStatus::Succeeded, Some(Arc::new(outputs))),
            Decision::Rejected => {
                self.unit_mut(key).outputs = Some(Arc::new(outputs));
                let why = comment.map_or(String::new(), |comment| format!(": {comment}"));
                self.give_up(key, Failure::permanent(format!("rejected by {by}{why}")));
            }
        }
    }

    fn unblock(&mut self, key: UnitKey) {
        if !self.unit(key).is_some_and(UnitState::asks_a_person) {
            return;
        }
        if matches!(self.definition(key).action(), Some(Action::Approve(approve)) if approve.mode == ApproveMode::Blocking)
        {
            self.blocking = self.blocking.saturating_sub(1);
            // It asks no more, so that it is not counted again.
            self.unit_mut(key).more_mut().reason = None;
        }
    }

    /// The step's own time limit is set at its first start and never again.
    pub(super) fn arm_deadline(&mut self, key: UnitKey) {
        if self.unit(key).is_none_or(|unit| unit.deadline.is_some()) {
            return;
        }
        let Some(length) = self.timeout_of(key) else { return };
        let at = self.now.plus(length);
        self.unit_mut(key).deadline = Some(at);
        self.timers.insert((at, key, TimerKind::Deadline));
    }

    pub(super) fn timeout_of(&self, key: UnitKey) -> Option<Duration> {
        let definition = self.definition(key);
        let Some(step) = definition.step() else {
            return definition.call().map(|_| CALL_TIMEOUT);
        };
        let own = step.timeout;
        if self.unit(key).is_some_and(|unit| unit.status == StepStatus::Waiting && unit.asks_a_person()) {
            // Only what the file says bounds how long a person may take.
            return match &step.action {
                Action::Approve(approve) => own.or(approve.timeout),
                _ => own,
            };
        }
        match &step.action {
            Action::Approve(approve) => own.or(approve.timeout),
            Action::Wait(_) | Action::Pipeline(_) | Action::Transform(_) => own,
            Action::Plan(_) => own.or(Some(PLAN_TIMEOUT)),
            Action::Execute(_) | Action::Agent(_) | Action::Http(_) => own.or(Some(CALL_TIMEOUT)),
            Action::Synthesize(_) => own.or(Some(SYNTHESIZE_TIMEOUT)),
            Action::Run(_) => own.or(Some(SCRIPT_TIMEOUT)),
        }
    }

    /// The time limit of the attempt that begins now.
    pub(super) fn arm_attempt(&mut self, key: UnitKey) {
        let Some(length) = self.attempt_timeout_of(key) else { return };
        let at = self.now.plus(length);
        self.unit_mut(key).more_mut().attempt_deadline = Some(at);
        self.timers.insert((at, key, TimerKind::AttemptDeadline));
    }

    pub(super) fn disarm_attempt(&mut self, key: UnitKey) {
        let attempt_deadline = self.unit_mut(key).more.as_deref_mut().and_then(|more| more.attempt_deadline.take());
        if let Some(at) = attempt_deadline {
            self.timers.remove(&(at, key, TimerKind::AttemptDeadline));
        }
    }

    /// The attempt's time is over: what is out is asked to stop, and so is what runs below.
    pub(super) fn attempt_over(&mut self, key: UnitKey) {
        let child = self.unit(key).filter(|unit| unit.token == 0).and_then(UnitState::child);
        match child.filter(|child| self.scope(*child).phase != Phase::Done) {
            Some(child) => {
                self.unit_mut(key).more_mut().stop.get_or_insert(StopReason::AttemptTimeout);
                self.halt(child, &StopReason::OuterTimeout, false);
            }
            None => self.stop_unit(key, StopReason::AttemptTimeout, false),
        }
    }

    fn attempt_timeout_of(&self, key: UnitKey) -> Option<Duration> {
        self.definition(key).step().and_then(|step| step.attempt_timeout)
    }

    /// The step's time is over.
    pub(super) fn deadline_over(&mut self, key: UnitKey) {
        let Some(unit) = self.unit(key) else { return };
        if unit.status.is_final() || unit.status == StepStatus::Unknown {
            return;
        }
        if unit.token != 0 {
            return self.stop_unit(key, StopReason::StepTimeout, false);
        }
        if let Some(child) = unit.child()
            && self.scope(child).phase != Phase::Done
        {
            self.unit_mut(key).more_mut().stop.get_or_insert(StopReason::StepTimeout);
            return self.halt(child, &StopReason::OuterTimeout, false);
        }
        if unit.asks_a_person()
            && let Some(Action::Approve(approve)) = self.definition(key).action()
        {
            let by = "tol (on_timeout)";
            match approve.on_timeout {
                OnTimeout::Approve => return self.answer(key, Decision::Approved, by, Some("nobody answered in time")),
                OnTimeout::Reject => return self.answer(key, Decision::Rejected, by, Some("nobody answered in time")),
                OnTimeout::Fail => {}
            }
        }
        self.unblock(key);
        self.stopped(key, StopReason::StepTimeout, 0.0);
    }

    /// The pause before the next attempt is over.
    pub(super) fn pause_over(&mut self, key: UnitKey) {
        let unit = self.unit_mut(key);
        if unit.status != StepStatus::Waiting {
            return;
        }
        unit.more_mut().wake = None;
        unit.status = StepStatus::Pending;
        self.todo.push_back(Todo::UnitReady(key));
    }

    /// A `wait` is over.
    pub(super) fn wait_over(&mut self, key: UnitKey) {
        let unit = self.unit_mut(key);
        if unit.status == StepStatus::Waiting {
            unit.more_mut().wake = None;
            self.end_unit(key, StepStatus::Succeeded, Some(Arc::new(json!({}))));
        }
    }

    fn is_planning(&self, key: UnitKey) -> bool {
        self.unit(key).and_then(|unit| unit.more.as_deref()).is_some_and(|more| matches!(more.stage, Stage::Plan(_)))
    }

    /// An attempt gave outputs.
    pub(super) fn succeeded(&mut self, key: UnitKey, outputs: Arc<Value>) {
        let definition = self.definition(key);
        if self.is_planning(key) && self.unit(key).is_some_and(|unit| unit.status == StepStatus::Running) {
            return self.plan_answered(key, &outputs);
        }
        match definition.action() {
            Some(Action::Synthesize(synthesize)) => {
                let synthesize = synthesize.clone();
                self.synthesize_answered(key, &synthesize, &outputs);
            }
            Some(Action::Agent(agent)) => {
                let schema = agent.schema.as_ref().map(|schema| schema.value.clone());
                self.agent_answered(key, schema.as_ref(), &outputs);
            }
            None if matches!(definition.call().map(|call| &call.target), Some(CallTarget::Agent(_))) => {
                self.agent_answered(key, None, &outputs);
            }
            _ => self.end_unit(key, StepStatus::Succeeded, Some(outputs)),
        }
    }

    /// An attempt failed: another one, the fallback, or the end.
    pub(super) fn attempt_failed(&mut self, key: UnitKey, failure: Failure, draw: f64) {
        let retry = self.retry_of(key).unwrap_or_else(Retry::once);
        let Some(unit) = self.unit(key) else { return };
        let again = !retry.never
            && unit.retries < retry.limit
            && retry.on.contains(&failure.class)
            && self.halted_for(key).is_none();
        if !again {
            return self.give_up(key, failure);
        }
        let pause = match failure.retry_after_ms {
            Some(millis) => Duration::from_millis(millis),
            None => retry.pause(unit.retries + 1, draw),
        };
        let wake = self.now.plus(pause);
        if unit.deadline.is_some_and(|deadline| wake >= deadline) {
            // The pause cannot fit: to wait for the deadline would tell nobody anything.
            return self.give_up(key, failure);
        }
        let message = format!("{}; tries again in {}", failure.message, format_duration(pause));
        let unit = self.unit_mut(key);
        unit.retries += 1;
        unit.status = StepStatus::Waiting;
        unit.failure = Some(Box::new(failure));
        let more = unit.more_mut();
        more.wake = Some(wake);
        more.stop = None;
        self.timers.insert((wake, key, TimerKind::Retry));
        self.note(key, Some(message));
    }

    /// No attempt is left: the fallback takes over, or the unit has failed.
    pub(super) fn give_up(&mut self, key: UnitKey, failure: Failure) {
        let definition = self.definition(key);
        let hook = matches!(self.scope(key.scope).body, Body::Hooks { .. });
        let has_fallback = definition.step().is_some_and(|step| step.fallback.is_some());
        if has_fallback && self.halted_for(key).is_none() {
            self.disarm(key);
            self.dequeue(key);
            let unit = self.unit_mut(key);
            unit.fallback = true;
            unit.retries = 0;
            unit.failure = Some(Box::new(failure));
            unit.status = StepStatus::Pending;
            if let Some(more) = unit.more.as_deref_mut() {
                more.stop = None;
                more.stage = Stage::Single;
            }
            if !hook {
                self.degrade("fallback_used");
            }
            self.todo.push_back(Todo::UnitReady(key));
            return;
        }
        let tolerated = definition.tolerates() && !key.is_item();
        let default = definition.call().and_then(|call| call.default.clone()).filter(|_| tolerated);
        if tolerated && !hook {
            self.degrade(if definition.call().is_some() { "evidence_missing" } else { "failure_tolerated" });
        }
        let status = if failure.class == ErrorClass::Timeout { StepStatus::TimedOut } else { StepStatus::Failed };
        let unit = self.unit_mut(key);
        unit.tolerated = tolerated;
        let more = unit.more_mut();
        more.exit_code = failure.exit_code.or(more.exit_code);
        more.stderr = failure.stderr.clone().or_else(|| more.stderr.take());
        unit.failure = Some(Box::new(failure));
        let outputs = default.or_else(|| unit.outputs.take());
        self.end_unit(key, status, outputs);
    }

    /// What was asked to stop has stopped.
    pub(super) fn stopped(&mut self, key: UnitKey, reason: StopReason, draw: f64) {
        match reason {
            StopReason::AttemptTimeout => {
                let length = self
                    .attempt_timeout_of(key)
                    .map_or(String::new(), |length| format!(" of {}", format_duration(length)));
                let failure = Failure::new(
                    ErrorClass::Timeout,
                    format!("the attempt took longer than its attempt_timeout{length}"),
                );
                if let Some(more) = self.unit_mut(key).more.as_deref_mut() {
                    more.stop = None;
                }
                self.attempt_failed(key, failure, draw);
            }
            StopReason::StepTimeout => {
                let length =
                    self.timeout_of(key).map_or(String::new(), |length| format!(" of {}", format_duration(length)));
                self.give_up(
                    key,
                    Failure::new(ErrorClass::Timeout, format!("it took longer than its timeout{length}")),
                );
            }
            StopReason::Cancelled
            | StopReason::TimedOut
            | StopReason::Budget(_)
            | StopReason::FailFast
            | StopReason::OuterTimeout
            | StopReason::Replan => self.cancel_unit(key, &reason),
        }
    }

    /// Ends a unit because something larger ended.
    pub(super) fn cancel_unit(&mut self, key: UnitKey, reason: &StopReason) {
        let class = Self::class_of(reason);
        self.unblock(key);
        let unit = self.unit_mut(key);
        let ran = unit.attempt > 0;
        unit.more_mut().reason = Some(words(reason));
        if ran {
            unit.failure = Some(Box::new(Failure::new(class, words(reason))));
        }
        self.end_unit(key, StepStatus::Cancelled, None);
    }

    /// Ends a step that is not to run.
    pub(super) fn skip_unit(&mut self, key: UnitKey, reason: String) {
        self.unit_mut(key).more_mut().reason = Some(reason);
        self.end_unit(key, StepStatus::Skipped, None);
    }

    pub(super) fn disarm(&mut self, key: UnitKey) {
        self.disarm_attempt(key);
        let unit = self.unit_mut(key);
        let deadline = unit.deadline.take();
        let wake = unit.more.as_deref_mut().and_then(|more| more.wake.take());
        if let Some(at) = deadline {
            self.timers.remove(&(at, key, TimerKind::Deadline));
        }
        if let Some(at) = wake {
            self.timers.remove(&(at, key, TimerKind::Retry));
            self.timers.remove(&(at, key, TimerKind::Wait));
        }
    }

    /// The end of a unit, whatever it is.
    pub(super) fn end_unit(&mut self, key: UnitKey, status: StepStatus, outputs: Option<Arc<Value>>) {
        self.unblock(key);
        self.disarm(key);
        self.dequeue(key);
        let now = self.now;
        let unit = self.unit_mut(key);
        unit.status = status;
        unit.ended_at = now;
        if unit.started_at == Timestamp::default() {
            unit.started_at = now;
        }
        if status == StepStatus::Succeeded {
            unit.failure = None;
        }
        if let Some(more) = unit.more.as_deref_mut()
            && more.reason.as_deref() == Some(ASKS)
        {
            more.reason = None;
        }
        unit.outputs = outputs;
        let message =
            unit.failure.as_deref().map(|failure| failure.message.clone()).or_else(|| unit.reason().map(str::to_owned));
        self.note(key, message);
        if key.is_item() {
            self.item_ended(key);
        } else {
            self.todo.push_back(Todo::StepEnded(key.scope, key.step));
        }
    }
}

/// A time that an expression gave: RFC 3339 text, or seconds since 1970.
fn time_of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => {
            let time: jiff::Timestamp = text.parse().ok()?;
            Some(Timestamp(u64::try_from(time.as_millisecond()).unwrap_or(0)))
        }
        Value::Number(number) => Some(Timestamp((number.as_f64()?.max(0.0) * 1000.0) as u64)),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}
