//! Scopes: pipelines, blueprints and hooks as they open, are halted, and close; and the end of the run.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::names::ScopeNames;
use super::state::{Body, Effect, HookKind, Phase, Scope, ScopeId, Stage, State, StepState, StopReason, Todo, UnitKey};
use super::status::{RunStatus, StepStatus, Verdict};
use crate::compile::{CompiledBlueprint, CompiledPipeline};
use crate::graph::StepGraph;
use crate::model::Action;
use crate::task::{ErrorClass, Failure};

impl State {
    /// Opens a pipeline: the root, or a child under a unit.
    pub(super) fn open_pipeline(
        &mut self,
        pipeline: Arc<CompiledPipeline>,
        parent: Option<UnitKey>,
        prefix: Arc<str>,
        params: Arc<Value>,
    ) {
        let count = pipeline.len();
        let first_finally = pipeline.graph.first_finally;
        let steps = fresh_steps(&pipeline.graph, count);
        let scope = Scope {
            body: Body::Pipeline,
            pipeline,
            parent,
            prefix,
            params,
            steps,
            phase: Phase::Main,
            open: first_finally,
            failed: None,
            halted: None,
            replan: false,
            superseded: false,
        };
        let number = self.push_scope(scope);
        if parent.is_none() {
            self.reuse_steps();
        }
        self.start_ready(number, 0..first_finally);
    }

    fn push_scope(&mut self, scope: Scope) -> ScopeId {
        self.scopes.push(scope);
        (self.scopes.len() - 1) as ScopeId
    }

    fn start_ready(&mut self, scope: ScopeId, steps: std::ops::Range<u32>) {
        let entry = self.scope(scope);
        let ready: Vec<Todo> = steps
            .clone()
            .filter(|step| entry.steps[*step as usize].waiting_on == 0)
            .map(|step| Todo::StepReady(scope, step))
            .collect();
        let empty = steps.is_empty();
        self.todo.extend(ready);
        if empty {
            self.todo.push_back(Todo::ScopeEmpty(scope));
        }
    }

    /// Takes over what a rerun need not run again.
    fn reuse_steps(&mut self) {
        let accepted = self.accepted.clone();
        for reused in &accepted.reused {
            let Some(step) = self.scope(0).find_step(&reused.step) else { continue };
            let key = UnitKey::whole(0, step);
            let tolerated = reused.status.is_failure() && self.definition(key).tolerates();
            let now = self.now;
            let unit = self.unit_mut(key);
            unit.status = reused.status;
            unit.outputs.clone_from(&reused.outputs);
            unit.failure = reused.failure.clone().map(Box::new);
            unit.attempt = reused.attempts;
            unit.tolerated = tolerated;
            unit.fallback = reused.fallback;
            unit.started_at = now;
            unit.ended_at = now;
            unit.more_mut().reason =
                Some(reused.reason.clone().unwrap_or_else(|| "taken over from the parent run".to_owned()));
            if tolerated {
                self.degrade("failure_tolerated");
            }
            if reused.fallback {
                self.degrade("fallback_used");
            }
            self.todo.push_back(Todo::StepEnded(0, step));
        }
    }

    /// Opens the sub-pipeline of a unit.
    pub(super) fn open_child(&mut self, key: UnitKey) {
        let definition = self.definition(key);
        let Some(Action::Pipeline(action)) = definition.action() else { return };
        let fallback = self.unit(key).is_some_and(|unit| unit.fallback);
        let lookup = if fallback { u32::MAX - key.step } else { key.step };
        let child =
            definition.pipeline().children.get(&lookup).and_then(|path| self.program.pipelines.get(path)).cloned();
        let Some(child) = child else {
            return self.give_up(
                key,
                Failure::permanent(format!("`{}` is not part of the run's definition", action.path.value)),
            );
        };
        match self.child_params(key, action, &child) {
            Err(message) => self.give_up(key, Failure::permanent(message)),
            Ok(params) => {
                let prefix = Arc::from(format!("{}/", self.path(key)));
                let scope = self.scopes.len() as ScopeId;
                self.unit_mut(key).more_mut().stage = Stage::Child(scope);
                self.open_pipeline(child, Some(key), prefix, Arc::new(Value::Object(params)));
            }
        }
    }

    fn child_params(
        &self,
        key: UnitKey,
        action: &crate::model::SubPipeline,
        child: &CompiledPipeline,
    ) -> Result<Map<String, Value>, String> {
        let names = ScopeNames::new(self, key).keeping_secrets();
        let mut given = Map::new();
        for (name, template) in &action.with {
            let value = template
                .value
                .render(&names)
                .map_err(|error| format!("`with.{}` cannot be filled in: {error}", name.value))?;
            given.insert(name.value.to_string(), names.name_secrets(value));
        }
        crate::compile::complete_params(child, given).map_err(|problems| problems.join("; "))
    }

    /// Opens a checked blueprint under an execute step.
    pub(super) fn open_scope_of_calls(
        &mut self,
        key: UnitKey,
        blueprint: Arc<CompiledBlueprint>,
        done: &[(u32, Arc<Value>)],
    ) {
        let pipeline = self.scope(key.scope).pipeline.clone();
        let params = self.scope(key.scope).params.clone();
        let count = blueprint.graph.names.len();
        let steps = fresh_steps(&blueprint.graph, count);
        let scope = Scope {
            body: Body::Blueprint(blueprint),
            pipeline,
            parent: Some(key),
            prefix: Arc::from(format!("{}/", self.path(key))),
            params,
            steps,
            phase: Phase::Main,
            open: count as u32,
            failed: None,
            halted: None,
            replan: false,
            superseded: false,
        };
        let number = self.push_scope(scope);
        self.unit_mut(key).more_mut().stage = Stage::Child(number);
        let now = self.now;
        for (step, outputs) in done {
            let unit = self.unit_mut(UnitKey::whole(number, *step));
            unit.status = StepStatus::Succeeded;
            unit.outputs = Some(outputs.clone());
            unit.attempt = 1;
            unit.started_at = now;
            unit.ended_at = now;
            unit.more_mut().reason = Some("taken over from the plan before".to_owned());
            self.todo.push_back(Todo::StepEnded(number, *step));
        }
        self.start_ready(number, 0..count as u32);
    }

    /// No step of a scope's phase is open any more.
    pub(super) fn scope_empty(&mut self, scope: ScopeId) {
        let entry = self.scope(scope);
        if entry.open > 0 {
            return;
        }
        let first_finally = entry.first_finally();
        let count = entry.steps.len() as u32;
        match (&entry.body, entry.phase) {
            (Body::Hooks { of, .. }, Phase::Main) => {
                let of = *of;
                self.collect_hook_warnings(scope);
                self.scope_mut(scope).phase = Phase::Done;
                self.scope_closed(of);
            }
            (Body::Blueprint(_), Phase::Main) => {
                self.scope_mut(scope).phase = Phase::Hooks;
                self.scope_closed(scope);
            }
            (Body::Pipeline, Phase::Main) if first_finally < count => {
                let entry = self.scope_mut(scope);
                entry.phase = Phase::Finally;
                entry.open = count - first_finally;
                self.start_ready(scope, first_finally..count);
            }
            (Body::Pipeline, Phase::Main | Phase::Finally) => self.open_hooks(scope),
            (_, Phase::Finally | Phase::Hooks | Phase::Done) => {}
        }
    }

    fn open_hooks(&mut self, scope: ScopeId) {
        self.scope_mut(scope).phase = Phase::Hooks;
        let entry = self.scope(scope);
        let hooks = &entry.pipeline.pipeline.hooks;
        let has_hooks = !hooks.success.is_empty() || !hooks.failure.is_empty();
        let (kind, length) = match (&entry.halted, entry.failed) {
            // A child may be halted without a failure of its own.
            (Some(StopReason::Cancelled), _) | (Some(StopReason::FailFast | StopReason::Replan), None) => {
                (HookKind::Cancel, hooks.cancel.len())
            }
            (Some(StopReason::TimedOut | StopReason::Budget(_) | StopReason::OuterTimeout), _) | (_, Some(_)) => {
                (HookKind::Failure, hooks.failure.len())
            }
            (Some(StopReason::StepTimeout | StopReason::AttemptTimeout) | None, None)
                if has_hooks && self.pipeline_outputs(scope).is_err() =>
            {
                (HookKind::Failure, hooks.failure.len())
            }
            (Some(StopReason::StepTimeout | StopReason::AttemptTimeout) | None, None) => {
                (HookKind::Success, hooks.success.len())
            }
        };
        let list: Arc<[(HookKind, u32)]> = (0..length as u32)
            .map(|number| (kind, number))
            .chain((0..hooks.exit.len() as u32).map(|number| (HookKind::Exit, number)))
            .collect();
        if list.is_empty() || self.stopping_now {
            return self.scope_closed(scope);
        }
        let mut steps = vec![StepState::default(); list.len()];
        for step in steps.iter_mut().skip(1) {
            step.waiting_on = 1;
        }
        let hook_scope = Scope {
            pipeline: entry.pipeline.clone(),
            parent: None,
            prefix: Arc::from(format!("{}hooks:", entry.prefix)),
            params: entry.params.clone(),
            open: list.len() as u32,
            body: Body::Hooks { list, of: scope },
            steps,
            phase: Phase::Main,
            failed: None,
            halted: None,
            replan: false,
            superseded: false,
        };
        let number = self.push_scope(hook_scope);
        self.todo.push_back(Todo::StepReady(number, 0));
    }

    fn collect_hook_warnings(&mut self, scope: ScopeId) {
        let mut warnings = Vec::new();
        for (step, state) in self.scope(scope).steps.iter().enumerate() {
            if let Some(failure) = &state.unit.failure {
                warnings.push(format!(
                    "hook `{}` failed: {}",
                    self.scope(scope).step_name(step as u32),
                    failure.message
                ));
            }
        }
        self.warnings.extend(warnings);
    }

    /// A scope has done all that it had to.
    fn scope_closed(&mut self, scope: ScopeId) {
        self.scope_mut(scope).phase = Phase::Done;
        match self.scope(scope).parent {
            None => self.finish(),
            Some(parent) => self.child_closed(parent, scope),
        }
    }

    fn child_closed(&mut self, parent: UnitKey, scope: ScopeId) {
        self.disarm_attempt(parent);
        if let Some(reason) = self.unit(parent).and_then(|unit| unit.stop().cloned()) {
            return self.stopped(parent, reason, self.draw);
        }
        let entry = self.scope(scope);
        if entry.replan {
            return self.begin_replan(parent, scope);
        }
        let blueprint = matches!(entry.body, Body::Blueprint(_));
        if let Some(failure) = self.scope_failure(scope) {
            let draw = self.draw;
            return if blueprint { self.give_up(parent, failure) } else { self.attempt_failed(parent, failure, draw) };
        }
        let outputs = if blueprint { Ok(self.evidence(scope)) } else { self.pipeline_outputs(scope) };
        match outputs {
            Ok(outputs) => self.end_unit(parent, StepStatus::Succeeded, Some(Arc::new(outputs))),
            Err(message) => self.give_up(parent, Failure::permanent(message)),
        }
    }

    /// Why a scope has failed, in its parent's words.
    fn scope_failure(&self, scope: ScopeId) -> Option<Failure> {
        let entry = self.scope(scope);
        let step = entry.failed?;
        let unit = &entry.steps[step as usize].unit;
        let inner = unit.failure.as_deref();
        let message = inner.map_or("it failed", |failure| failure.message.as_str());
        let class = match inner.map(|failure| failure.class) {
            // A child's own time limit is not the parent's.
            Some(ErrorClass::Timeout) | None => ErrorClass::Transient,
            Some(class) => class,
        };
        let mut failure =
            Failure::new(class, format!("step `{}{}` failed: {message}", entry.prefix, entry.step_name(step)));
        failure.stderr = inner.and_then(|failure| failure.stderr.clone());
        Some(failure)
    }

    /// What an execute step yields: the outputs of each call by its id.
    fn evidence(&self, scope: ScopeId) -> Value {
        let entry = self.scope(scope);
        let outputs = entry.steps.iter().enumerate().map(|(step, state)| {
            (entry.step_name(step as u32).into_owned(), state.unit.outputs.as_deref().cloned().unwrap_or(Value::Null))
        });
        Value::Object(outputs.collect())
    }

    /// What a pipeline yields.
    fn pipeline_outputs(&self, scope: ScopeId) -> Result<Value, String> {
        let pipeline = self.scope(scope).pipeline.clone();
        let names = ScopeNames::of_scope(self, scope).for_outputs();
        let mut outputs = Map::new();
        for (name, template) in &pipeline.pipeline.outputs {
            let value = match template.value.render(&names) {
                Ok(value) => value,
                Err(_) if names.reads_nothing(&template.value) => Value::Null,
                Err(error) => return Err(format!("output `{}`: {error}", name.value)),
            };
            outputs.insert(name.value.to_string(), value);
        }
        Ok(Value::Object(outputs))
    }

    /// Lets nothing new start in a scope and stops what runs. What must run all the same (`finally`, hooks) does, unless
    /// `now`.
    pub(super) fn halt(&mut self, scope: ScopeId, reason: &StopReason, now: bool) {
        let entry = self.scope_mut(scope);
        if entry.phase == Phase::Done {
            return;
        }
        if entry.halted.is_none()
            || matches!(reason, StopReason::Cancelled | StopReason::TimedOut | StopReason::Budget(_))
        {
            entry.halted = Some(reason.clone());
        }
        let protected = matches!(entry.body, Body::Hooks { .. });
        let (first_finally, count) = (entry.first_finally(), entry.steps.len() as u32);
        let range = if now {
            0..count
        } else if protected {
            0..0
        } else {
            0..first_finally
        };
        for step in range {
            self.halt_step(scope, step, reason, now);
        }
        let hooks: Vec<ScopeId> = (0..self.scopes.len() as ScopeId)
            .filter(|other| now && matches!(self.scope(*other).body, Body::Hooks { of, .. } if of == scope))
            .collect();
        for hook in hooks {
            self.halt(hook, reason, now);
        }
    }

    fn halt_step(&mut self, scope: ScopeId, step: u32, reason: &StopReason, now: bool) {
        let whole = UnitKey::whole(scope, step);
        let state = &self.scope(scope).steps[step as usize];
        if state.unit.status.is_final() {
            return;
        }
        let in_phase = (step < self.scope(scope).first_finally()) == (self.scope(scope).phase != Phase::Finally);
        if !in_phase {
            return;
        }
        let Some(fan) = &state.fan else { return self.halt_unit(whole, reason, now) };
        let items = fan.next;
        let idle = fan.in_flight == 0;
        for item in 0..items {
            let key = UnitKey { item, ..whole };
            if self.unit(key).is_some_and(|unit| !unit.status.is_final()) {
                self.halt_unit(key, reason, now);
            }
        }
        if idle && self.unit(whole).is_some_and(|unit| !unit.status.is_final()) {
            self.fan_ended(whole);
        }
    }

    fn halt_unit(&mut self, key: UnitKey, reason: &StopReason, now: bool) {
        let Some(unit) = self.unit(key) else { return };
        if unit.token != 0 {
            return self.stop_unit(key, reason.clone(), now);
        }
        if let Some(child) = unit.child()
            && self.scope(child).phase != Phase::Done
        {
            self.unit_mut(key).more_mut().stop.get_or_insert(reason.clone());
            return self.halt(child, reason, now);
        }
        // A replan lets steps that wait for nothing but their turn go by unharmed only in the next plan.
        self.cancel_unit(key, reason);
    }

    /// Ends the run before its steps do.
    pub(super) fn stop_run(&mut self, reason: StopReason) {
        if self.verdict.is_some() {
            return;
        }
        let hooks_run = self.scope(0).phase == Phase::Hooks;
        if hooks_run && reason != StopReason::Cancelled {
            // All steps have ended, and the hooks of that outcome have begun.
            return;
        }
        let reason = self.stopping.get_or_insert(reason).clone();
        self.paused = false;
        self.halt(0, &reason, self.stopping_now);
    }

    fn finish(&mut self) {
        let outputs = self.pipeline_outputs(0);
        let root = self.scope(0);
        let failed = root.failed.map(|step| {
            let unit = &root.steps[step as usize].unit;
            let verb = if unit.status == StepStatus::TimedOut { "timed out" } else { "failed" };
            format!("step `{}` {verb}", root.step_name(step))
        });
        let verdict = match (&self.stopping, failed, &outputs) {
            (Some(StopReason::Cancelled), _, _) => Verdict { status: RunStatus::Cancelled, reason: None },
            (Some(StopReason::TimedOut), _, _) => Verdict {
                status: RunStatus::TimedOut,
                reason: Some("the run took longer than its time limit".to_owned()),
            },
            (Some(StopReason::Budget(limit)), _, _) => {
                Verdict { status: RunStatus::BudgetExhausted, reason: Some(limit.clone()) }
            }
            (_, Some(reason), _) => Verdict { status: RunStatus::Failed, reason: Some(reason) },
            (_, None, Err(message)) => Verdict { status: RunStatus::Failed, reason: Some(message.clone()) },
            (_, None, Ok(_)) if self.degraded.is_empty() => Verdict { status: RunStatus::Succeeded, reason: None },
            (_, None, Ok(_)) => Verdict { status: RunStatus::Degraded, reason: Some(self.degraded.join(", ")) },
        };
        self.outputs = Some(Arc::new(outputs.unwrap_or_else(|_| self.outputs_that_are_there())));
        self.verdict = Some(verdict);
        self.paused = false;
        self.ended_at = Some(self.now);
        self.timers.clear();
        self.ready.clear();
        self.effects.push(Effect::Finish);
    }

    /// The outputs of a run that did not end well: what can be had, null for the rest.
    fn outputs_that_are_there(&self) -> Value {
        let names = ScopeNames::of_scope(self, 0).for_outputs();
        let outputs = &self.scope(0).pipeline.pipeline.outputs;
        Value::Object(
            outputs
                .iter()
                .map(|(name, template)| (name.value.to_string(), template.value.render(&names).unwrap_or(Value::Null)))
                .collect(),
        )
    }
}

fn fresh_steps(graph: &StepGraph, count: usize) -> Vec<StepState> {
    (0..count as u32)
        .map(|step| StepState { waiting_on: graph.dependencies(step).count() as u32, ..StepState::default() })
        .collect()
}

/// Why something was stopped, as its reader sees it.
pub(super) fn words(reason: &StopReason) -> String {
    match reason {
        StopReason::Cancelled => "the run was cancelled".to_owned(),
        StopReason::TimedOut => "the run took longer than its time limit".to_owned(),
        StopReason::Budget(limit) => format!("the run's limit `{limit}` is reached"),
        StopReason::FailFast => "another step failed, and `fail_fast` is set".to_owned(),
        StopReason::StepTimeout => "the step took longer than its timeout".to_owned(),
        StopReason::OuterTimeout => "the step around it took longer than its timeout".to_owned(),
        StopReason::AttemptTimeout => "the attempt took too long".to_owned(),
        StopReason::Replan => "a failed call asked for another plan".to_owned(),
    }
}
