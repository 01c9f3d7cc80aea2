//! The values behind the names that a step's texts and conditions use.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::state::{Body, ScopeId, State, StepState, UnitKey};
use super::status::StepStatus;
use crate::expr::{Fields, Found, Names, ValueTemplate};
use crate::task::{Part, Text};

/// The key of the object that stands for a secret in a parameter: the value itself is only ever known to a worker.
const SECRET_KEY: &str = "$secret";

/// The names that hold at one place of a run.
pub(super) struct ScopeNames<'a> {
    state: &'a State,
    scope: ScopeId,
    unit: Option<UnitKey>,
    extra: Map<String, Value>,
    secrets: Option<SecretNames>,
    for_outputs: bool,
    /// A blueprint's input sees the calls of its plan only; a tool's texts see `input` only.
    calls_only: bool,
}

/// `secrets.NAME` gives a mark that nobody can guess; what was filled in is cut at the marks afterwards.
struct SecretNames {
    mark: String,
}

impl Fields for SecretNames {
    fn field(&self, name: &str) -> Option<Cow<'_, Value>> {
        Some(Cow::Owned(Value::String(format!("{0}{name}{0}", self.mark))))
    }

    fn field_names(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<'a> ScopeNames<'a> {
    /// The names at a unit.
    pub fn new(state: &'a State, unit: UnitKey) -> Self {
        Self { unit: Some(unit), ..Self::of_scope(state, unit.scope) }
    }

    /// The names of a scope as a whole.
    pub fn of_scope(state: &'a State, scope: ScopeId) -> Self {
        Self { state, scope, unit: None, extra: Map::new(), secrets: None, for_outputs: false, calls_only: false }
    }

    /// The same where steps that did not succeed read as null.
    pub fn for_outputs(self) -> Self {
        Self { for_outputs: true, ..self }
    }

    /// The same with more names, which hide others.
    pub fn with(self, extra: Map<String, Value>) -> Self {
        Self { extra, ..self }
    }

    /// The same for the input of a call: the calls of the plan and nothing else.
    pub fn calls_only(self) -> Self {
        Self { calls_only: true, ..self }
    }

    /// The same with secrets, under a mark that must be drawn for this one use.
    pub fn with_secrets(self, mark: &str) -> Self {
        Self { secrets: Some(SecretNames { mark: format!("\u{1}{mark}\u{1}") }), ..self }
    }

    /// The same with secrets that stay names, for the parameters of a child. The mark never leaves this call.
    pub fn keeping_secrets(self) -> Self {
        let mark = format!("{}:{}", self.state.run, self.state.seq);
        let mark = blake3::hash(mark.as_bytes()).to_hex();
        self.with_secrets(mark.as_str())
    }

    /// Puts the objects that name a secret where a value is one whole mark.
    pub fn name_secrets(&self, value: Value) -> Value {
        let Some(secrets) = &self.secrets else { return value };
        match value {
            Value::String(text) => {
                let parts = cut(&text, &secrets.mark);
                match parts.as_slice() {
                    [] | [Part::Plain(_)] => Value::String(text),
                    parts => json!({ SECRET_KEY: parts }),
                }
            }
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.name_secrets(item)).collect()),
            Value::Object(map) => {
                Value::Object(map.into_iter().map(|(key, value)| (key, self.name_secrets(value))).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// A filled text with its secrets as names again.
    pub fn text(&self, filled: &str) -> Text {
        match &self.secrets {
            Some(secrets) if filled.contains(&secrets.mark) => Text(cut(filled, &secrets.mark)),
            _ => Text::plain(filled),
        }
    }

    /// True if a value reads a step that has no outputs.
    pub fn reads_nothing(&self, value: &ValueTemplate) -> bool {
        let mut found = false;
        value.each_template(&mut |template| {
            found |= template.value.references().iter().any(|reference| {
                let scope = self.state.scope(self.step_scope());
                let step = scope.find_step(reference.root());
                step.is_some_and(|step| !self.is_readable(&scope.steps[step as usize]))
            });
        });
        found
    }

    fn is_readable(&self, step: &StepState) -> bool {
        step.unit.outputs.is_some() && (step.unit.status == StepStatus::Succeeded || step.unit.tolerated)
    }

    /// Where the steps stand that can be read here: a hook reads those of its pipeline.
    fn step_scope(&self) -> ScopeId {
        match self.state.scope(self.scope).body {
            Body::Hooks { of, .. } => of,
            Body::Pipeline | Body::Blueprint(_) => self.scope,
        }
    }

    fn item(&self, root: &str) -> Option<Value> {
        let unit = self.unit.filter(|unit| unit.is_item())?;
        let step = &self.state.scope(unit.scope).steps[unit.step as usize];
        let value = step.fan.as_ref()?.values.get(unit.item as usize)?;
        let fan = self.state.scope(unit.scope).pipeline.step(unit.step).fan.as_deref()?;
        match root {
            "item" => Some(json!({ "index": unit.item, "value": **value })),
            "matrix" if matches!(fan, crate::model::Fan::Matrix { .. }) => Some((**value).clone()),
            _ => fan.alias().is_some_and(|alias| *alias.value == *root).then(|| (**value).clone()),
        }
    }

    fn run(&self) -> Value {
        let attempt = self.unit.and_then(|unit| self.state.unit(unit)).map_or(1, |unit| unit.attempt.max(1));
        json!({ "id": self.state.run.as_str(), "attempt": attempt, "started_at": self.state.started_at.to_string() })
    }

    fn params(&self) -> Cow<'_, Value> {
        let params = &*self.state.scope(self.scope).params;
        match &self.secrets {
            Some(secrets) if names_secrets(params) => Cow::Owned(marked(params, &secrets.mark)),
            _ => Cow::Borrowed(params),
        }
    }

    fn step(&self, root: &str) -> Option<Found<'_>> {
        let scope = self.state.scope(self.step_scope());
        let number = scope.find_step(root)?;
        let step = &scope.steps[number as usize];
        if self.for_outputs && !self.is_readable(step) {
            // Null stands for the outputs; everything else about the step can still be asked.
            let mut view = step.view();
            view.insert("outputs".to_owned(), Value::Null);
            return Some(Found::Value(Cow::Owned(Value::Object(view))));
        }
        Some(Found::Fields(step))
    }
}

impl Names for ScopeNames<'_> {
    fn lookup(&self, root: &str) -> Option<Found<'_>> {
        if let Some(value) = self.extra.get(root) {
            return Some(Found::Value(Cow::Borrowed(value)));
        }
        let calls = matches!(self.state.scope(self.scope).body, Body::Blueprint(_));
        if calls && self.calls_only {
            return self.step(root);
        }
        match root {
            "params" => Some(Found::Value(self.params())),
            "env" => Some(Found::Value(Cow::Owned(Value::Object(self.state.accepted.env.clone())))),
            "run" => Some(Found::Value(Cow::Owned(self.run()))),
            "secrets" => self.secrets.as_ref().map(|secrets| Found::Fields(secrets as &dyn Fields)),
            _ => match self.item(root) {
                Some(value) => Some(Found::Value(Cow::Owned(value))),
                None => self.step(root),
            },
        }
    }
}

impl Fields for StepState {
    fn field(&self, name: &str) -> Option<Cow<'_, Value>> {
        let unit = &self.unit;
        match name {
            "outputs" => Some(unit.outputs.as_deref().map_or(Cow::Owned(Value::Null), Cow::Borrowed)),
            "status" => Some(Cow::Owned(json!(unit.status.as_str()))),
            "exit_code" | "stderr" | "duration" | "error" => self.view().remove(name).map(Cow::Owned),
            _ => None,
        }
    }

    fn field_names(&self) -> Vec<String> {
        ["outputs", "status", "exit_code", "stderr", "duration", "error"].map(str::to_owned).to_vec()
    }
}

impl StepState {
    /// Everything that can be asked about a step, but for its outputs.
    pub(super) fn view(&self) -> Map<String, Value> {
        let unit = &self.unit;
        let more = unit.more.as_deref();
        let seconds = unit.ended_at.since(unit.started_at).as_secs_f64();
        Map::from_iter([
            ("status".to_owned(), json!(unit.status.as_str())),
            ("exit_code".to_owned(), json!(more.and_then(|more| more.exit_code))),
            ("stderr".to_owned(), json!(more.and_then(|more| more.stderr.as_deref()).unwrap_or_default())),
            ("duration".to_owned(), json!(seconds)),
            ("error".to_owned(), json!(unit.failure.as_deref())),
        ])
    }
}

impl State {
    /// A step as an agent or a critic's condition sees it: outputs, status, error.
    pub(super) fn step_view(&self, scope: ScopeId, name: &str) -> Value {
        let Some(number) = self.scope(scope).find_step(name) else { return Value::Null };
        let step = &self.scope(scope).steps[number as usize];
        let mut view = step.view();
        view.insert("outputs".to_owned(), step.unit.outputs.as_deref().cloned().unwrap_or(Value::Null));
        Value::Object(view)
    }

    /// What synthesize is told of a step: its outputs, and for an execute step each call's own, failures typed.
    pub(super) fn evidence_view(&self, scope: ScopeId, name: &str) -> Value {
        let Some(number) = self.scope(scope).find_step(name) else { return Value::Null };
        let unit = &self.scope(scope).steps[number as usize].unit;
        let Some(child) = unit.child().filter(|child| matches!(self.scope(*child).body, Body::Blueprint(_))) else {
            return if unit.status == StepStatus::Succeeded {
                unit.outputs.as_deref().cloned().unwrap_or(Value::Null)
            } else {
                self.step_view(scope, name)
            };
        };
        let entry = self.scope(child);
        let calls = entry.steps.iter().enumerate().map(|(step, state)| {
            let id = entry.step_name(step as u32).into_owned();
            let unit = &state.unit;
            let value = match (unit.status, &unit.failure) {
                (StepStatus::Succeeded, _) => unit.outputs.as_deref().cloned().unwrap_or(Value::Null),
                (status, Some(failure)) => {
                    json!({ "status": status.as_str(), "error": **failure, "default": unit.outputs.as_deref() })
                }
                (status, None) => json!({ "status": status.as_str(), "reason": unit.reason() }),
            };
            (id, value)
        });
        Value::Object(calls.collect())
    }

    /// The ids and failures of a plan's calls that did not succeed.
    pub(super) fn missing_evidence(&self, scope: ScopeId) -> Map<String, Value> {
        let entry = self.scope(scope);
        let missing = entry.steps.iter().enumerate().filter(|(_, state)| state.unit.status != StepStatus::Succeeded);
        missing
            .map(|(step, state)| {
                let unit = &state.unit;
                let why = unit.failure.as_deref().map_or_else(|| json!(unit.reason()), |failure| json!(failure));
                (entry.step_name(step as u32).into_owned(), json!({ "status": unit.status.as_str(), "error": why }))
            })
            .collect()
    }
}

/// Cuts a text at its marks: plain, secret's name, plain, …
fn cut(text: &str, mark: &str) -> Vec<Part> {
    let pieces = text.split(mark).enumerate();
    pieces
        .filter(|(_, piece)| !piece.is_empty())
        .map(
            |(number, piece)| {
                if number % 2 == 1 { Part::Secret(piece.to_owned()) } else { Part::Plain(piece.to_owned()) }
            },
        )
        .collect()
}

fn names_secrets(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.contains_key(SECRET_KEY) || map.values().any(names_secrets),
        Value::Array(items) => items.iter().any(names_secrets),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn marked(value: &Value, mark: &str) -> Value {
    match value {
        Value::Object(map) => {
            match map.get(SECRET_KEY).and_then(|parts| serde_json::from_value::<Vec<Part>>(parts.clone()).ok()) {
                Some(parts) => Value::String(
                    parts
                        .into_iter()
                        .map(|part| match part {
                            Part::Plain(text) => text,
                            Part::Secret(name) => format!("{mark}{name}{mark}"),
                        })
                        .collect(),
                ),
                None => Value::Object(map.iter().map(|(key, value)| (key.clone(), marked(value, mark))).collect()),
            }
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| marked(item, mark)).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
