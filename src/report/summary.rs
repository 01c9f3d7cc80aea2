//! A run as one JSON object: the last line of `--format json`, and what `tol runs show` prints.

use serde_json::{Map, Value, json};

use crate::scheduler::{Body, ScopeId, State, StepState, StepStatus, UnitKey, UnitState};

/// The summary of a run in the contract's shape.
pub fn summary(state: &State) -> Value {
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("summary"));
    object.insert("run_id".to_owned(), json!(state.run.as_str()));
    object.insert("pipeline".to_owned(), json!(&*state.program.root.pipeline.name.value));
    object.insert("status".to_owned(), json!(state.status().as_str()));
    if let Some(reason) = reason(state) {
        object.insert("reason".to_owned(), json!(reason));
    }
    object.insert("outputs".to_owned(), state.outputs.as_deref().cloned().unwrap_or_else(|| json!({})));
    let end = state.ended_at.unwrap_or(state.now);
    object.insert("duration_ms".to_owned(), json!(millis(end.since(state.started_at))));
    if let Some(parent) = &state.accepted.parent {
        object.insert("parent".to_owned(), json!(parent.as_str()));
    }
    if state.tokens_used > 0 {
        object.insert("usage".to_owned(), json!(state.usage()));
    }
    if !state.warnings.is_empty() {
        object.insert("warnings".to_owned(), json!(state.warnings));
    }
    let mut steps = Map::new();
    if !state.scopes.is_empty() {
        scope_steps(state, 0, &mut steps);
    }
    object.insert("steps".to_owned(), Value::Object(steps));
    Value::Object(object)
}

fn reason(state: &State) -> Option<String> {
    if let Some(verdict) = &state.verdict {
        return verdict.reason.clone();
    }
    let waiting: Vec<String> = state.open_questions().map(|key| state.path(key).to_string()).collect();
    (!waiting.is_empty()).then(|| format!("waits for a person at {}", waiting.join(", ")))
}

fn millis(length: std::time::Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

fn scope_steps(state: &State, scope: ScopeId, steps: &mut Map<String, Value>) {
    let Some(entry) = state.scopes.get(scope as usize) else { return };
    if matches!(entry.body, Body::Hooks { .. }) {
        return;
    }
    for (number, step) in entry.steps.iter().enumerate() {
        let key = UnitKey::whole(scope, number as u32);
        steps.insert(state.path(key).to_string(), step_object(step));
        let units = std::iter::once(&step.unit).chain(step.fan.iter().flat_map(|fan| &fan.items));
        for child in units.filter_map(UnitState::child) {
            scope_steps(state, child, steps);
        }
    }
}

fn step_object(step: &StepState) -> Value {
    let mut object = unit_object(&step.unit);
    if let Some(fan) = &step.fan {
        let items = fan.items.iter().map(|unit| Value::Object(unit_object(unit)));
        object.insert("items".to_owned(), items.collect());
    }
    Value::Object(object)
}

fn unit_object(unit: &UnitState) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("status".to_owned(), json!(unit.status.as_str()));
    object.insert("attempts".to_owned(), json!(unit.attempt));
    if let Some(outputs) = &unit.outputs {
        object.insert("outputs".to_owned(), (**outputs).clone());
    }
    if let Some(failure) = unit.failure.as_deref().filter(|_| unit.status != StepStatus::Succeeded) {
        let mut error = Map::new();
        error.insert("class".to_owned(), json!(failure.class));
        error.insert("message".to_owned(), json!(failure.message));
        if let Some(stderr) = &failure.stderr {
            error.insert("stderr".to_owned(), json!(stderr));
        }
        if let Some(code) = failure.exit_code {
            error.insert("exit_code".to_owned(), json!(code));
        }
        object.insert("error".to_owned(), Value::Object(error));
    }
    if let Some(reason) = unit.reason() {
        object.insert("reason".to_owned(), json!(reason));
    }
    if unit.status.is_final() && unit.attempt > 0 {
        object.insert("duration_ms".to_owned(), json!(millis(unit.ended_at.since(unit.started_at))));
    }
    if unit.status == StepStatus::Succeeded {
        object.insert("cached".to_owned(), json!(unit.cached));
        if unit.fallback {
            object.insert("fallback".to_owned(), json!(true));
        }
    }
    if unit.tolerated {
        object.insert("tolerated".to_owned(), json!(true));
    }
    object
}
