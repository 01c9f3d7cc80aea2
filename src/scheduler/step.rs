//! Steps as wholes: whether one runs, how it fans out, and what its end means for the others.

use std::sync::Arc;

use serde_json::Value;

use super::names::ScopeNames;
use super::state::{Body, FanState, Phase, Scope, ScopeId, State, StopReason, Todo, UnitKey, UnitState};
use super::status::StepStatus;
use crate::compile::{Call, CallTarget, CompiledBlueprint, CompiledPipeline};
use crate::graph::StepGraph;
use crate::model::{Action, Condition, Fan, OnError, Retry, Step};
use crate::task::{ErrorClass, Failure};

/// Why an item was not started.
const ANOTHER_ITEM: &str = "another item had failed";

/// Keeps the definition of a unit at hand while the state changes.
#[derive(Clone)]
pub(super) struct Definition {
    pipeline: Arc<CompiledPipeline>,
    place: Place,
    fallback: bool,
}

#[derive(Clone)]
enum Place {
    Step(u32),
    Call(Arc<CompiledBlueprint>, u32),
    Hook(super::state::HookKind, u32),
}

impl Definition {
    /// The step, tool or hook; none for a blueprint's call of an agent.
    pub fn step(&self) -> Option<&Step> {
        use super::state::HookKind;
        let step = match &self.place {
            Place::Step(number) => Some(self.pipeline.step(*number)),
            Place::Call(blueprint, number) => match &blueprint.calls.get(*number as usize)?.target {
                CallTarget::Tool(tool) => Some(&tool.step),
                CallTarget::Agent(_) => None,
            },
            Place::Hook(kind, number) => {
                let hooks = &self.pipeline.pipeline.hooks;
                let list = match kind {
                    HookKind::Success => &hooks.success,
                    HookKind::Failure => &hooks.failure,
                    HookKind::Cancel => &hooks.cancel,
                    HookKind::Exit => &hooks.exit,
                };
                list.get(*number as usize)
            }
        }?;
        if self.fallback { step.fallback.as_deref() } else { Some(step) }
    }

    /// The action that is to be done.
    pub fn action(&self) -> Option<&Action> {
        self.step().map(|step| &step.action)
    }

    /// The call of a blueprint.
    pub fn call(&self) -> Option<&Call> {
        match &self.place {
            Place::Call(blueprint, number) => blueprint.calls.get(*number as usize),
            Place::Step(_) | Place::Hook(..) => None,
        }
    }

    /// The pipeline in which names, tools and folders are looked up.
    pub fn pipeline(&self) -> &Arc<CompiledPipeline> {
        &self.pipeline
    }

    /// True for a step of a pipeline's list, whose `if` and fan-out hold.
    fn own_step(&self) -> Option<&Step> {
        match &self.place {
            Place::Step(number) => Some(self.pipeline.step(*number)),
            Place::Call(..) | Place::Hook(..) => None,
        }
    }

    /// True if the run goes on when this fails.
    pub fn tolerates(&self) -> bool {
        match &self.place {
            Place::Step(number) => self.pipeline.step(*number).continue_on_error,
            Place::Call(blueprint, number) => blueprint
                .calls
                .get(*number as usize)
                .is_some_and(|call| matches!(call.on_error, OnError::Skip | OnError::Default)),
            Place::Hook(..) => true,
        }
    }
}

impl Scope {
    /// The graph of the steps; none for a list of hooks.
    pub(super) fn graph(&self) -> Option<&StepGraph> {
        match &self.body {
            Body::Pipeline => Some(&self.pipeline.graph),
            Body::Blueprint(blueprint) => Some(&blueprint.graph),
            Body::Hooks { .. } => None,
        }
    }

    /// The number of the first step that belongs to `finally`.
    pub(super) fn first_finally(&self) -> u32 {
        match &self.body {
            Body::Pipeline => self.pipeline.graph.first_finally,
            Body::Blueprint(_) | Body::Hooks { .. } => self.steps.len() as u32,
        }
    }

    /// The action of a step as the file has it.
    pub fn action(&self, step: u32) -> Option<&Action> {
        match &self.body {
            Body::Pipeline => Some(&self.pipeline.step(step).action),
            Body::Blueprint(_) | Body::Hooks { .. } => None,
        }
    }
}

impl State {
    pub(super) fn definition(&self, key: UnitKey) -> Definition {
        let scope = self.scope(key.scope);
        let place = match &scope.body {
            Body::Pipeline => Place::Step(key.step),
            Body::Blueprint(blueprint) => Place::Call(blueprint.clone(), key.step),
            Body::Hooks { list, .. } => {
                let (kind, number) = list[key.step as usize];
                Place::Hook(kind, number)
            }
        };
        let fallback = self.unit(key).is_some_and(|unit| unit.fallback);
        Definition { pipeline: scope.pipeline.clone(), place, fallback }
    }

    /// The retry that holds for a unit: its own, else that of the agent that it calls.
    pub(super) fn retry_of(&self, key: UnitKey) -> Option<Retry> {
        let definition = self.definition(key);
        if let Some(retry) = definition.step().and_then(|step| step.retry.as_deref()) {
            return Some(retry.clone());
        }
        match definition.action() {
            Some(Action::Agent(_) | Action::Plan(_) | Action::Synthesize(_)) | None => {
                self.agent_of(key)?.retry.clone()
            }
            Some(_) => None,
        }
    }

    /// A step whose dependencies have all ended: does it run?
    pub(super) fn step_ready(&mut self, scope: ScopeId, step: u32) {
        let key = UnitKey::whole(scope, step);
        if self.unit(key).is_none_or(|unit| unit.status != StepStatus::Pending) {
            return;
        }
        let entry = self.scope(scope);
        if let Some(reason) = entry.halted.clone()
            && (entry.phase == Phase::Main || self.stopping_now)
        {
            self.cancel_unit(key, &reason);
            return;
        }
        if let Some(reason) = self.blocked_by(scope, step) {
            self.skip_unit(key, reason);
            return;
        }
        let definition = self.definition(key);
        let Some(own) = definition.own_step() else {
            self.todo.push_back(Todo::UnitReady(key));
            return;
        };
        match self.condition_holds(key, own) {
            Ok(true) => {}
            Ok(false) => return self.skip_unit(key, "its condition is false".to_owned()),
            Err(message) => {
                return self.give_up(key, Failure::permanent(format!("`if` cannot be evaluated: {message}")));
            }
        }
        match &own.fan {
            None => self.todo.push_back(Todo::UnitReady(key)),
            Some(fan) => self.fan_out(key, fan),
        }
    }

    /// The dependency that keeps a step from running, in words.
    fn blocked_by(&self, scope: ScopeId, step: u32) -> Option<String> {
        let entry = self.scope(scope);
        if step >= entry.first_finally() {
            return None;
        }
        let blueprint = matches!(entry.body, Body::Blueprint(_));
        let mut worst: Option<(u32, &'static str)> = None;
        for (dependency, edge) in entry.graph()?.dependencies(step) {
            let unit = &entry.steps[dependency as usize].unit;
            let passes = match unit.status {
                StepStatus::Succeeded => true,
                // A call of a plan passes its failure on only as a default value.
                StepStatus::Failed | StepStatus::TimedOut if blueprint => unit.tolerated && unit.outputs.is_some(),
                StepStatus::Failed | StepStatus::TimedOut => unit.tolerated,
                StepStatus::Pending
                | StepStatus::Running
                | StepStatus::Waiting
                | StepStatus::Skipped
                | StepStatus::Cancelled
                | StepStatus::Unknown => false,
            };
            if !passes && !edge.reads_status && worst.is_none_or(|(number, _)| dependency < number) {
                worst = Some((dependency, verb(unit.status)));
            }
        }
        worst.map(|(number, verb)| format!("dependency `{}` {verb}", entry.step_name(number)))
    }

    fn condition_holds(&self, key: UnitKey, step: &Step) -> Result<bool, String> {
        let Some(condition) = &step.condition else { return Ok(true) };
        match &condition.value {
            Condition::Constant(value) => Ok(*value),
            Condition::Expression(expression) => {
                match expression.evaluate(&ScopeNames::new(self, key)).map_err(|error| error.to_string())? {
                    Value::Bool(value) => Ok(value),
                    other => Err(format!("it gives {}, not true or false", kind_of(&other))),
                }
            }
        }
    }

    fn fan_out(&mut self, key: UnitKey, fan: &Fan) {
        let values = match self.fan_values(key, fan) {
            Ok(values) => values,
            Err(message) => return self.give_up(key, Failure::permanent(message)),
        };
        let now = self.now;
        let state = FanState {
            items: vec![UnitState::default(); values.len()],
            values: values.into_iter().map(Arc::new).collect(),
            ..FanState::default()
        };
        let empty = state.items.is_empty();
        let step = &mut self.scope_mut(key.scope).steps[key.step as usize];
        step.unit.status = StepStatus::Running;
        step.unit.started_at = now;
        step.unit.attempt = 1;
        step.fan = Some(Box::new(state));
        self.note(key, None);
        if empty {
            self.fan_ended(key);
        } else {
            self.fan_fill(key);
        }
    }

    fn fan_values(&self, key: UnitKey, fan: &Fan) -> Result<Vec<Value>, String> {
        let names = ScopeNames::new(self, key);
        match fan {
            Fan::Static { items, .. } => items
                .iter()
                .map(|item| {
                    item.render(&names).map_err(|error| format!("`foreach.items` cannot be filled in: {error}"))
                })
                .collect(),
            Fan::Matrix { combinations, .. } => Ok(combinations.clone()),
            Fan::Dynamic { items, max_items, .. } => {
                let value = items
                    .value
                    .evaluate(&names)
                    .map_err(|error| format!("`foreach.items` cannot be evaluated: {error}"))?;
                let Value::Array(values) = value else {
                    return Err(format!("`foreach.items` gives {}, not a list", kind_of(&value)));
                };
                match max_items {
                    Some(most) if values.len() > *most as usize => {
                        Err(format!("`foreach` has {} items, more than its `max_items` of {most}", values.len()))
                    }
                    _ => Ok(values),
                }
            }
        }
    }

    /// Starts as many items as the step lets run at once.
    pub(super) fn fan_fill(&mut self, key: UnitKey) {
        let limit =
            self.definition(key).own_step().and_then(|step| step.fan.as_ref()?.max_parallel()).unwrap_or(u32::MAX);
        let halted = self.scope(key.scope).halted.is_some() && self.scope(key.scope).phase == Phase::Main;
        let Some(fan) = self.scope_mut(key.scope).steps[key.step as usize].fan.as_deref_mut() else { return };
        let mut started = Vec::new();
        while !fan.failed && !halted && fan.in_flight < limit && (fan.next as usize) < fan.items.len() {
            started.push(fan.next);
            fan.next += 1;
            fan.in_flight += 1;
        }
        self.todo.extend(started.into_iter().map(|item| Todo::UnitReady(UnitKey { item, ..key })));
    }

    /// One item has ended.
    pub(super) fn item_ended(&mut self, key: UnitKey) {
        let whole = UnitKey::whole(key.scope, key.step);
        let tolerates = self.definition(whole).tolerates();
        let Some(fan) = self.scope_mut(key.scope).steps[key.step as usize].fan.as_deref_mut() else { return };
        let unit = &mut fan.items[key.item as usize];
        fan.in_flight = fan.in_flight.saturating_sub(1);
        fan.ended += 1;
        let bad = unit.status.is_failure();
        if bad {
            unit.tolerated = tolerates;
            fan.failed |= !tolerates;
        }
        if bad && tolerates {
            self.degrade("failure_tolerated");
        } else if bad {
            self.cancel_queued_items(whole);
        }
        self.fan_fill(whole);
        let Some(fan) = self.scope(key.scope).steps[key.step as usize].fan.as_deref() else { return };
        if fan.in_flight == 0 {
            self.fan_ended(whole);
        }
    }

    /// Ends an item that has not begun if another one has failed; true if it did.
    pub(super) fn cancel_late_item(&mut self, key: UnitKey) -> bool {
        let fan = self.scope(key.scope).steps[key.step as usize].fan.as_deref();
        let late = key.is_item()
            && fan.is_some_and(|fan| fan.failed)
            && self.unit(key).is_some_and(|unit| unit.attempt == 0 && !unit.fallback);
        if late {
            self.unit_mut(key).more_mut().reason = Some(ANOTHER_ITEM.to_owned());
            self.end_unit(key, StepStatus::Cancelled, None);
        }
        late
    }

    /// Items that wait for their first slot start no more.
    fn cancel_queued_items(&mut self, whole: UnitKey) {
        let Some(fan) = self.scope(whole.scope).steps[whole.step as usize].fan.as_deref() else { return };
        let queued: Vec<u32> = (0..fan.next)
            .filter(|item| {
                let unit = &fan.items[*item as usize];
                unit.status == StepStatus::Pending && unit.attempt == 0 && !unit.fallback
            })
            .collect();
        for item in queued {
            let key = UnitKey { item, ..whole };
            self.dequeue(key);
            let unit = self.unit_mut(key);
            unit.status = StepStatus::Cancelled;
            unit.more_mut().reason = Some(ANOTHER_ITEM.to_owned());
            if let Some(fan) = self.scope_mut(whole.scope).steps[whole.step as usize].fan.as_deref_mut() {
                fan.in_flight = fan.in_flight.saturating_sub(1);
                fan.ended += 1;
            }
        }
    }

    /// No item runs any more: the step's own end.
    pub(super) fn fan_ended(&mut self, key: UnitKey) {
        let stop = self.scope(key.scope).halted.clone();
        let Some(fan) = self.scope_mut(key.scope).steps[key.step as usize].fan.as_deref_mut() else { return };
        if fan.in_flight > 0 {
            return;
        }
        let mut cause = None;
        let mut cancelled = false;
        for (number, item) in fan.items.iter_mut().enumerate() {
            if item.status == StepStatus::Pending {
                item.status = StepStatus::Cancelled;
                item.more_mut().reason = Some(ANOTHER_ITEM.to_owned());
            }
            cancelled |= item.status == StepStatus::Cancelled;
            if item.status.is_failure() && !item.tolerated && cause.is_none() {
                let failure = item.failure.as_deref().cloned();
                cause = Some((number, failure.unwrap_or_else(|| Failure::permanent("it failed"))));
            }
        }
        if let Some((number, failure)) = cause {
            let failure = Failure { message: format!("item {number}: {}", failure.message), ..failure };
            return self.fail_step(key, failure);
        }
        if cancelled && let Some(reason) = stop {
            return self.cancel_unit(key, &reason);
        }
        let outputs: Vec<Value> = fan
            .items
            .iter()
            .map(|item| match item.status {
                StepStatus::Succeeded => item.outputs.as_deref().cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            })
            .collect();
        self.end_unit(key, StepStatus::Succeeded, Some(Arc::new(Value::Array(outputs))));
    }

    /// A step has ended: its dependants hear of it, and its scope counts it.
    pub(super) fn step_ended(&mut self, scope: ScopeId, step: u32) {
        let key = UnitKey::whole(scope, step);
        let Some(unit) = self.unit(key) else { return };
        let (status, tolerated) = (unit.status, unit.tolerated);
        let hook = matches!(self.scope(scope).body, Body::Hooks { .. });
        if status.is_failure() && !tolerated {
            self.scope_mut(scope).failed.get_or_insert(step);
            if self.call_asks_for_replan(key) {
                self.scope_mut(scope).replan = true;
                self.halt(scope, &StopReason::Replan, false);
            } else if self.scope(scope).pipeline.pipeline.fail_fast && matches!(self.scope(scope).body, Body::Pipeline)
            {
                self.halt(scope, &StopReason::FailFast, false);
            }
        }
        let entry = self.scope(scope);
        let dependants: Vec<u32> = match &entry.body {
            Body::Pipeline | Body::Blueprint(_) => {
                entry.graph().into_iter().flat_map(|graph| graph.dependants(step)).collect()
            }
            // Hooks run one after the other.
            Body::Hooks { .. } => (step + 1..entry.steps.len() as u32).take(1).collect(),
        };
        let phase = entry.phase;
        let first_finally = entry.first_finally();
        for dependant in dependants {
            let state = &mut self.scope_mut(scope).steps[dependant as usize];
            state.waiting_on = state.waiting_on.saturating_sub(1);
            if state.waiting_on == 0 && (dependant < first_finally) == (phase != Phase::Finally) {
                self.todo.push_back(Todo::StepReady(scope, dependant));
            }
        }
        let entry = self.scope_mut(scope);
        entry.open = entry.open.saturating_sub(1);
        if entry.open == 0 {
            self.todo.push_back(Todo::ScopeEmpty(scope));
        }
        if !hook {
            self.count_step(status);
        }
    }

    fn call_asks_for_replan(&self, key: UnitKey) -> bool {
        self.definition(key).call().is_some_and(|call| call.on_error == OnError::Replan) && self.may_replan(key.scope)
    }

    /// Ends a step, not one of its items, as failed or timed out.
    fn fail_step(&mut self, key: UnitKey, failure: Failure) {
        let definition = self.definition(key);
        let tolerated = definition.tolerates();
        if tolerated {
            self.degrade("failure_tolerated");
        }
        let status = if failure.class == ErrorClass::Timeout { StepStatus::TimedOut } else { StepStatus::Failed };
        let unit = self.unit_mut(key);
        unit.tolerated = tolerated;
        unit.failure = Some(Box::new(failure));
        self.end_unit(key, status, None);
    }

    /// Notes once why the run is no plain success.
    pub(super) fn degrade(&mut self, reason: &str) {
        if !self.degraded.iter().any(|known| known == reason) {
            self.degraded.push(reason.to_owned());
        }
    }
}

fn verb(status: StepStatus) -> &'static str {
    match status {
        StepStatus::Failed => "failed",
        StepStatus::TimedOut => "timed out",
        StepStatus::Skipped => "was skipped",
        StepStatus::Cancelled => "was cancelled",
        StepStatus::Unknown => "is unknown",
        StepStatus::Pending | StepStatus::Running | StepStatus::Waiting | StepStatus::Succeeded => "has not ended",
    }
}

/// What a value is, for messages.
pub(super) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}
