//! Steps of several calls: a plan with its repair turn, a replan, drafts and critiques.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::event::Decision;
use super::names::ScopeNames;
use super::state::{PlanState, ScopeId, Stage, State, SynthesizeState, UnitKey};
use super::status::StepStatus;
use crate::compile::{CompiledBlueprint, PlanRules, blueprint_from_answer};
use crate::model::{Action, OnUnaccepted, PlanSource, PlanStep, Synthesize, WritePolicy};
use crate::task::Failure;

/// How often a run's execute step may ask for another plan.
const MAX_REPLANS: usize = 1;
/// The score from which a draft is accepted where the step says nothing.
const DEFAULT_SCORE: f64 = 0.8;

impl State {
    /// A plan step whose turn has come: a blueprint that is there already, or a call of its agent.
    pub(super) fn begin_plan(&mut self, key: UnitKey, plan: &PlanStep) {
        let ready = self.scope(key.scope).pipeline.blueprints.get(&key.step).cloned();
        let state = PlanState { repairs: plan.repair, ..PlanState::default() };
        let first = !matches!(
            self.unit(key).and_then(|unit| unit.more.as_deref()).map(|more| &more.stage),
            Some(Stage::Plan(_))
        );
        if first {
            self.unit_mut(key).more_mut().stage = Stage::Plan(state);
        }
        match (&plan.source, ready) {
            (PlanSource::Static(_) | PlanSource::File(_), Some(blueprint)) => {
                let now = self.now;
                let unit = self.unit_mut(key);
                unit.started_at = now;
                unit.attempt = 1;
                self.plan_is_good(key, blueprint);
            }
            (PlanSource::Static(_) | PlanSource::File(_), None) => {
                self.give_up(key, Failure::permanent("its blueprint is not part of the run's definition"));
            }
            (PlanSource::Agent { .. }, _) => self.enqueue(key),
        }
    }

    /// The plan step that an execute step names, with the rules that its blueprint must keep.
    pub(super) fn plan_of(&self, key: UnitKey) -> Option<(UnitKey, PlanStep)> {
        let pipeline = &self.scope(key.scope).pipeline;
        let step = match &pipeline.step(key.step).action {
            Action::Plan(_) => key.step,
            _ => *pipeline.plans.get(&key.step)?,
        };
        match &pipeline.step(step).action {
            Action::Plan(plan) => Some((UnitKey::whole(key.scope, step), (**plan).clone())),
            _ => None,
        }
    }

    fn rules(&self, key: UnitKey, plan: &PlanStep) -> PlanRules {
        {
            let pipeline = &self.scope(key.scope).pipeline;
            PlanRules::of(plan, &pipeline.tools, &pipeline.agents)
        }
    }

    /// A planner has answered.
    pub(super) fn plan_answered(&mut self, key: UnitKey, answer: &Arc<Value>) {
        let Some((_, plan)) = self.plan_of(key) else { return };
        match blueprint_from_answer(answer, &self.rules(key, &plan)) {
            Ok(blueprint) => self.plan_is_good(key, Arc::new(blueprint)),
            Err(problems) => {
                let Stage::Plan(state) = &mut self.unit_mut(key).more_mut().stage else { return };
                if state.repairs == 0 {
                    let message = format!("the plan was refused: {}", problems.join("; "));
                    return self.give_up(key, Failure::permanent(message));
                }
                state.repairs -= 1;
                state.refused = Some(((**answer).clone(), problems));
                self.call_again(key);
            }
        }
    }

    /// Another call of the same attempt.
    fn call_again(&mut self, key: UnitKey) {
        let unit = self.unit_mut(key);
        unit.same_attempt = true;
        unit.status = StepStatus::Pending;
        self.enqueue(key);
    }

    fn plan_is_good(&mut self, key: UnitKey, blueprint: Arc<CompiledBlueprint>) {
        let Some((_, plan)) = self.plan_of(key) else { return };
        let asks = plan.write == WritePolicy::Ask && blueprint.calls.iter().any(|call| call.writes);
        let Stage::Plan(state) = &mut self.unit_mut(key).more_mut().stage else { return };
        state.blueprint = Some(blueprint);
        state.refused = None;
        state.asks = asks;
        if asks {
            self.ask(key, Some("the plan writes; look at it and approve it".to_owned()));
        } else {
            self.plan_settled(key);
        }
    }

    /// Somebody has looked at a plan that writes.
    pub(super) fn plan_decided(&mut self, key: UnitKey, decision: Decision, by: &str) {
        if let Stage::Plan(state) = &mut self.unit_mut(key).more_mut().stage {
            state.asks = false;
        }
        match decision {
            Decision::Approved => self.plan_settled(key),
            Decision::Rejected => self.give_up(key, Failure::permanent(format!("the plan was rejected by {by}"))),
        }
    }

    fn plan_settled(&mut self, key: UnitKey) {
        let Stage::Plan(state) = &self.unit_mut(key).more_mut().stage else { return };
        let (Some(blueprint), mends) = (state.blueprint.clone(), state.mends) else { return };
        match mends {
            None => {
                let json = blueprint.json.clone();
                self.end_unit(key, StepStatus::Succeeded, Some(json));
            }
            Some(old) => self.go_on_with(key, old, blueprint),
        }
    }

    /// Opens the blueprint of the plan step that an execute step names.
    pub(super) fn open_blueprint(&mut self, key: UnitKey) {
        let Some((plan_key, plan)) = self.plan_of(key) else {
            return self.give_up(key, Failure::permanent("the plan step is not part of the run's definition"));
        };
        let unit = self.unit(plan_key);
        let made = unit.and_then(|unit| unit.more.as_deref()).and_then(|more| match &more.stage {
            Stage::Plan(state) => state.blueprint.clone(),
            Stage::Single | Stage::Child(_) | Stage::Synthesize(_) => None,
        });
        // A plan that was taken over from a parent run is there as its outputs only.
        let blueprint = made.map(Ok).unwrap_or_else(|| {
            let outputs = unit.and_then(|unit| unit.outputs.clone()).unwrap_or_default();
            blueprint_from_answer(&json!({ "output": *outputs }), &self.rules(plan_key, &plan)).map(Arc::new)
        });
        match blueprint {
            Ok(blueprint) => self.open_scope_of_calls(key, blueprint, &[]),
            Err(problems) => {
                self.give_up(key, Failure::permanent(format!("the plan cannot be used: {}", problems.join("; "))))
            }
        }
    }

    /// True if a failed call of this scope may still lead to another plan.
    pub(super) fn may_replan(&self, scope: ScopeId) -> bool {
        let Some(parent) = self.scope(scope).parent else { return false };
        let before = self.scopes.iter().filter(|other| other.superseded && other.parent == Some(parent)).count();
        let by_agent = self.plan_of(parent).is_some_and(|(_, plan)| matches!(plan.source, PlanSource::Agent { .. }));
        by_agent && before < MAX_REPLANS
    }

    /// All that ran under a plan with a failed call has ended: its planner is asked for another.
    pub(super) fn begin_replan(&mut self, key: UnitKey, scope: ScopeId) {
        let repairs = self.plan_of(key).map_or(0, |(_, plan)| plan.repair);
        self.scope_mut(scope).superseded = true;
        self.degrade("replanned");
        self.unit_mut(key).more_mut().stage =
            Stage::Plan(PlanState { repairs, mends: Some(scope), ..PlanState::default() });
        self.call_again(key);
    }

    /// Takes over what the old plan had finished and runs the rest of the new one.
    fn go_on_with(&mut self, key: UnitKey, old: ScopeId, blueprint: Arc<CompiledBlueprint>) {
        let super::state::Body::Blueprint(before) = &self.scope(old).body else { return };
        let finished: Vec<(&str, &Arc<Value>)> = before
            .calls
            .iter()
            .zip(&self.scope(old).steps)
            .filter(|(_, state)| state.unit.status == StepStatus::Succeeded)
            .filter_map(|(call, state)| Some((&*call.content, state.unit.outputs.as_ref()?)))
            .collect();
        let done: Vec<(u32, Arc<Value>)> = blueprint
            .calls
            .iter()
            .enumerate()
            .filter_map(|(number, call)| {
                let (_, outputs) = finished.iter().find(|(content, _)| *content == &*call.content)?;
                Some((number as u32, (*outputs).clone()))
            })
            .collect();
        self.unit_mut(key).status = StepStatus::Running;
        self.arm_deadline(key);
        self.open_scope_of_calls(key, blueprint, &done);
    }

    /// An agent step's answer: the structured object if the step has a schema, else the text.
    pub(super) fn agent_answered(&mut self, key: UnitKey, schema: Option<&Value>, answer: &Arc<Value>) {
        match answer_of(answer, schema) {
            Ok(outputs) => self.end_unit(key, StepStatus::Succeeded, Some(Arc::new(outputs))),
            Err(message) => {
                let draw = self.draw;
                self.attempt_failed(key, Failure::transient(message), draw);
            }
        }
    }

    /// True while the next call of a synthesis is the critic's.
    pub(super) fn is_critiquing(&self, key: UnitKey) -> bool {
        self.synthesis(key).is_some_and(|state| state.critiquing)
    }

    /// The drafts of a synthesis so far.
    pub(super) fn synthesis(&self, key: UnitKey) -> Option<&SynthesizeState> {
        match &self.unit(key)?.more.as_deref()?.stage {
            Stage::Synthesize(state) => Some(state),
            Stage::Single | Stage::Child(_) | Stage::Plan(_) => None,
        }
    }

    fn synthesis_mut(&mut self, key: UnitKey) -> &mut SynthesizeState {
        let stage = &mut self.unit_mut(key).more_mut().stage;
        if !matches!(stage, Stage::Synthesize(_)) {
            *stage = Stage::Synthesize(Box::default());
        }
        match stage {
            Stage::Synthesize(state) => state,
            Stage::Single | Stage::Child(_) | Stage::Plan(_) => unreachable!("the stage was just set"),
        }
    }

    /// A draft or a critique has come.
    pub(super) fn synthesize_answered(&mut self, key: UnitKey, step: &Synthesize, answer: &Arc<Value>) {
        if self.is_critiquing(key) {
            return self.critique_came(key, step, answer);
        }
        match answer_of(answer, step.schema.as_ref().map(|schema| &schema.value)) {
            Ok(draft) => {
                let state = self.synthesis_mut(key);
                state.cycle += 1;
                state.draft = draft;
                state.critiquing = true;
                self.call_again(key);
            }
            Err(message) => {
                let draw = self.draw;
                self.attempt_failed(key, Failure::transient(message), draw);
            }
        }
    }

    fn critique_came(&mut self, key: UnitKey, step: &Synthesize, answer: &Arc<Value>) {
        let verdict = match Critique::read(answer) {
            Ok(verdict) => verdict,
            Err(message) => return self.give_up(key, Failure::permanent(message)),
        };
        let state = self.synthesis_mut(key);
        state.critiquing = false;
        state.score = verdict.score;
        state.accepted = verdict.accepted;
        state.critiques.extend(verdict.critiques);
        // The score tells whether a draft got better; without one, only the draft itself can.
        let stuck = state.last.as_ref().is_some_and(|(score, draft)| match (score, state.score) {
            (Some(before), Some(now)) => *before == now,
            _ => *draft == state.draft,
        });
        state.last = Some((state.score, state.draft.clone()));
        let cycle = state.cycle;
        match self.draft_is_accepted(key, step) {
            Err(message) => self.give_up(key, Failure::permanent(format!("`accept` cannot be evaluated: {message}"))),
            Ok(true) => {
                let outputs = self.synthesis_outputs(key);
                self.end_unit(key, StepStatus::Succeeded, Some(Arc::new(outputs)));
            }
            Ok(false) if stuck => self.not_accepted(key, step, "no_progress"),
            Ok(false) if cycle >= step.max_cycles => self.not_accepted(key, step, "not_accepted"),
            Ok(false) => self.call_again(key),
        }
    }

    fn draft_is_accepted(&self, key: UnitKey, step: &Synthesize) -> Result<bool, String> {
        if let Some(verify) = &step.verify {
            let checked = self
                .scope(key.scope)
                .find_step(&verify.value)
                .and_then(|step| self.unit(UnitKey::whole(key.scope, step)));
            if checked.is_none_or(|unit| unit.status != StepStatus::Succeeded) {
                return Ok(false);
            }
        }
        let Some(state) = self.synthesis(key) else { return Ok(false) };
        let Some(accept) = &step.accept else {
            return Ok(state.accepted && state.score.is_none_or(|score| score >= DEFAULT_SCORE));
        };
        let mut extra = Map::new();
        extra.insert("score".to_owned(), json!(state.score));
        extra.insert("accepted".to_owned(), json!(state.accepted));
        extra.insert("outputs".to_owned(), self.synthesis_outputs(key));
        if let Some(verify) = &step.verify {
            extra.insert("verify".to_owned(), self.step_view(key.scope, &verify.value));
        }
        match accept.value.evaluate(&ScopeNames::new(self, key).with(extra)).map_err(|error| error.to_string())? {
            Value::Bool(value) => Ok(value),
            other => Err(format!("it gives {}, not true or false", super::step::kind_of(&other))),
        }
    }

    fn not_accepted(&mut self, key: UnitKey, step: &Synthesize, reason: &str) {
        let outputs = Arc::new(self.synthesis_outputs(key));
        let unit = self.unit_mut(key);
        unit.more_mut().reason = Some(reason.to_owned());
        unit.outputs = Some(outputs);
        let words = match reason {
            "no_progress" => "the drafts got no better (no_progress)",
            _ => "no draft was accepted within max_cycles (not_accepted)",
        };
        if step.on_unaccepted == OnUnaccepted::Keep {
            self.degrade(reason);
            let unit = self.unit_mut(key);
            unit.tolerated = true;
            unit.failure = Some(Box::new(Failure::permanent(words)));
            let outputs = unit.outputs.take();
            return self.end_unit(key, StepStatus::Failed, outputs);
        }
        self.give_up(key, Failure::permanent(words));
    }

    /// The last draft with its score, its number and all critiques.
    fn synthesis_outputs(&self, key: UnitKey) -> Value {
        let Some(state) = self.synthesis(key) else { return Value::Null };
        let mut outputs = match &state.draft {
            Value::Object(map) => map.clone(),
            other => Map::from_iter([("output".to_owned(), other.clone())]),
        };
        outputs.insert("score".to_owned(), json!(state.score));
        outputs.insert("cycles".to_owned(), json!(state.cycle));
        outputs.insert("critiques".to_owned(), Value::Array(state.critiques.clone()));
        Value::Object(outputs)
    }
}

/// What an agent said, as a step's outputs.
fn answer_of(answer: &Value, schema: Option<&Value>) -> Result<Value, String> {
    let text = answer.get("text").and_then(Value::as_str).unwrap_or_default();
    let object = answer.get("output").filter(|output| !output.is_null());
    match (schema, object) {
        (None, None) => Ok(json!({ "text": text })),
        (None, Some(object)) => {
            let mut outputs =
                object.as_object().cloned().unwrap_or_else(|| Map::from_iter([("output".to_owned(), object.clone())]));
            if !text.is_empty() {
                outputs.entry("text").or_insert_with(|| json!(text));
            }
            Ok(Value::Object(outputs))
        }
        (Some(schema), object) => {
            let object = match object {
                Some(object) => object.clone(),
                None => serde_json::from_str(text)
                    .map_err(|error| format!("the answer is no JSON, as its schema asks: {error}"))?,
            };
            crate::compile::hold_against(schema, &object)
                .map_err(|problem| format!("the answer does not fit its schema: {problem}"))?;
            Ok(object)
        }
    }
}

/// A critic's verdict.
struct Critique {
    score: Option<f64>,
    accepted: bool,
    critiques: Vec<Value>,
}

impl Critique {
    fn read(answer: &Value) -> Result<Self, String> {
        let text = answer.get("text").and_then(Value::as_str).unwrap_or_default();
        let verdict = match answer.get("output").filter(|output| output.is_object()) {
            Some(object) => object.clone(),
            None => serde_json::from_str(text).map_err(|_| "the critique is no JSON object with a score".to_owned())?,
        };
        let score = verdict.get("score").and_then(Value::as_f64);
        let accepted = verdict.get("accepted").and_then(Value::as_bool);
        if score.is_none() && accepted.is_none() {
            return Err("the critique has neither `score` nor `accepted`".to_owned());
        }
        let critiques = verdict.get("critiques").and_then(Value::as_array).cloned().unwrap_or_default();
        Ok(Self { score, accepted: accepted.unwrap_or(false), critiques })
    }
}
