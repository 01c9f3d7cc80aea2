//! What must hold after every event, whatever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use tol::compile::CallTarget;
use tol::graph::StepGraph;
use tol::id::LeaseToken;
use tol::model::{Action, ApproveMode, Step};
use tol::scheduler::{
    About, Body, Effect, HookKind, Phase, RunStatus, Scope, Stage, State, StepState, StepStatus, StopReason, UnitKey,
    UnitState,
};

/// Remembers what was executed and what was committed.
#[derive(Default)]
pub struct Watch {
    /// Units that have ended: status and outputs may never change again.
    ended: BTreeMap<UnitKey, (StepStatus, String)>,
    /// Every execution by a worker: unit, fallback or not, attempt.
    executed: BTreeMap<(UnitKey, bool), Vec<(u32, LeaseToken)>>,
    tokens: BTreeSet<u64>,
    /// How often an operator has let a unit run again.
    pub let_again: BTreeMap<UnitKey, usize>,
    notes: u64,
    /// The run was told to stop after its steps and `finally` had ended: the hooks of that outcome were chosen already.
    pub late_stop: bool,
}

/// Every unit of a run with its key.
pub fn units(state: &State) -> Vec<(UnitKey, &UnitState)> {
    let mut all = Vec::new();
    for (number, scope) in state.scopes.iter().enumerate() {
        for (step, entry) in scope.steps.iter().enumerate() {
            let key = UnitKey::whole(number as u32, step as u32);
            all.push((key, &entry.unit));
            for (item, unit) in entry.fan.iter().flat_map(|fan| fan.items.iter().enumerate()) {
                all.push((UnitKey { item: item as u32, ..key }, unit));
            }
        }
    }
    all
}

fn graph(scope: &Scope) -> Option<&StepGraph> {
    match &scope.body {
        Body::Pipeline => Some(&scope.pipeline.graph),
        Body::Blueprint(blueprint) => Some(&blueprint.graph),
        Body::Hooks { .. } => None,
    }
}

fn definition(scope: &Scope, step: u32) -> Option<&Step> {
    match &scope.body {
        Body::Pipeline => Some(scope.pipeline.step(step)),
        Body::Blueprint(blueprint) => match &blueprint.calls[step as usize].target {
            CallTarget::Tool(tool) => Some(&tool.step),
            CallTarget::Agent(_) => None,
        },
        Body::Hooks { list, .. } => {
            let (kind, number) = list[step as usize];
            let hooks = &scope.pipeline.pipeline.hooks;
            let list = match kind {
                HookKind::Success => &hooks.success,
                HookKind::Failure => &hooks.failure,
                HookKind::Cancel => &hooks.cancel,
                HookKind::Exit => &hooks.exit,
            };
            list.get(number as usize)
        }
    }
}

fn is_never(state: &State, key: UnitKey, fallback: bool) -> bool {
    let step = definition(&state.scopes[key.scope as usize], key.step);
    let step = step.and_then(|step| if fallback { step.fallback.as_deref() } else { Some(step) });
    step.and_then(|step| step.retry.as_deref()).is_some_and(|retry| retry.never)
}

impl Watch {
    /// A unit is handed to a worker.
    pub fn executed(&mut self, state: &State, key: UnitKey, token: LeaseToken) {
        let unit = state.unit(key).unwrap();
        let path = state.path(key);
        assert!(!self.ended.contains_key(&key), "I2: {path} starts although it has ended");
        assert!(self.tokens.insert(token.0), "I2: token {} was handed out twice, now for {path}", token.0);
        let runs = self.executed.entry((key, unit.fallback)).or_default();
        runs.push((unit.attempt, token));
        if is_never(state, key, unit.fallback) {
            assert!(unit.start_recorded, "{path} must not run twice and starts without a record of it");
            let calls =
                matches!(unit.more.as_deref().map(|more| &more.stage), Some(Stage::Plan(_) | Stage::Synthesize(_)));
            let times =
                if calls { runs.iter().map(|(attempt, _)| attempt).collect::<BTreeSet<_>>().len() } else { runs.len() };
            let allowed = 1 + self.let_again.get(&key).copied().unwrap_or(0);
            assert!(times <= allowed, "{path} must not run twice and runs for the {times}th time: {runs:?}");
        }
    }

    /// What an event has led to.
    pub fn effects(&mut self, state: &State, starts: bool, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Dispatch { unit, .. } if !starts => self.handed_out(state, *unit),
                Effect::RecordStart { unit, .. } => self.handed_out(state, *unit),
                Effect::Dispatch { .. }
                | Effect::Reclaim { .. }
                | Effect::Stop { .. }
                | Effect::Note(_)
                | Effect::Finish => {}
            }
            if let Effect::Note(note) = effect {
                self.notes += 1;
                assert_eq!(note.seq, self.notes, "a note is lost or repeated");
                if let About::Unit { path, .. } = &note.about {
                    assert!(!path.as_str().is_empty());
                }
            }
        }
    }

    /// A unit has got its slot in this event.
    fn handed_out(&self, state: &State, key: UnitKey) {
        let unit = state.unit(key).unwrap();
        let path = state.path(key);
        assert!(!state.paused && !state.idle, "{path} is handed out while nothing may be");
        let blocks = |key: &UnitKey| {
            let step = definition(&state.scopes[key.scope as usize], key.step);
            matches!(step.map(|step| &step.action), Some(Action::Approve(approve)) if approve.mode == ApproveMode::Blocking)
                && state.unit(*key).is_some_and(|unit| unit.status == StepStatus::Waiting)
        };
        let blocked = unit.holds_slot && state.open_questions().any(|key| blocks(&key));
        assert!(!blocked, "{path} is handed out while a blocking approval is open");
        let fan = state.scopes[key.scope as usize].steps[key.step as usize].fan.as_deref();
        let first = unit.attempt == 1 && !unit.fallback && !self.executed.contains_key(&(key, false));
        let failed = key.is_item() && fan.is_some_and(|fan| fan.failed);
        assert!(!(first && failed), "{path} starts after another item has failed");
    }

    /// What must hold after an event.
    pub fn check(&mut self, state: &State) {
        let mut out = 0;
        let mut running = 0;
        for (key, unit) in units(state) {
            out += u32::from(unit.token != 0);
            running += u32::from(unit.holds_slot);
            assert!(unit.token != 0 || !unit.holds_slot, "{} holds a slot and is not out", state.path(key));
            if unit.token != 0 {
                assert_eq!(unit.status, StepStatus::Running, "{} is out", state.path(key));
            }
            if unit.status.is_final() {
                let now = (unit.status, format!("{:?}", unit.outputs));
                let before = self.ended.entry(key).or_insert_with(|| now.clone());
                assert_eq!(*before, now, "I3: {} had ended and changes", state.path(key));
            } else {
                assert!(!self.ended.contains_key(&key), "I3: {} had ended and is {:?}", state.path(key), unit.status);
            }
        }
        assert_eq!((state.out, state.running), (out, running), "the counters of what is out");
        for (lane, (queue, most)) in state.program.root.limits().queues.iter().enumerate() {
            let on = |unit: &UnitState| unit.more.as_deref().is_some_and(|more| more.lane == Some(lane as u32));
            let out = units(state).into_iter().filter(|(_, unit)| on(unit)).count();
            assert!(out <= *most as usize, "{out} out on the queue `{}` with room for {most}", queue.value);
        }
        assert!(state.running <= state.max_parallel, "{} slots of {}", state.running, state.max_parallel);
        for (number, scope) in state.scopes.iter().enumerate() {
            self.check_scope(state, number as u32, scope);
        }
        if state.verdict.is_some() {
            self.check_end(state);
        }
    }

    fn check_scope(&self, state: &State, number: u32, scope: &Scope) {
        let Some(graph) = graph(scope) else { return };
        let pipeline = matches!(scope.body, Body::Pipeline);
        for (step, entry) in scope.steps.iter().enumerate() {
            let step = step as u32;
            let path = || state.path(UnitKey::whole(number, step));
            let taken_over = entry.unit.reason().is_some_and(|reason| reason.starts_with("taken over"));
            let started =
                !matches!(entry.unit.status, StepStatus::Pending | StepStatus::Skipped | StepStatus::Cancelled);
            if started && !taken_over {
                for (dependency, _) in graph.dependencies(step) {
                    let before = &scope.steps[dependency as usize].unit;
                    assert!(
                        before.status.is_final(),
                        "{} starts before `{}` has ended",
                        path(),
                        scope.step_name(dependency)
                    );
                }
            }
            if started && pipeline && step >= graph.first_finally {
                let ended = scope.steps[..graph.first_finally as usize].iter().all(|step| step.unit.status.is_final());
                assert!(ended, "{} belongs to finally and starts before the other steps have ended", path());
            }
            if let Some(fan) = &entry.fan {
                let ended = fan.items.iter().filter(|item| item.status.is_final()).count();
                assert!(
                    !entry.unit.status.is_final() || ended == fan.items.len(),
                    "{} has ended before its items",
                    path()
                );
            }
        }
        if scope.phase == Phase::Done {
            let open = scope.steps.iter().position(|step| !step.unit.status.is_final());
            assert_eq!(
                open.map(|step| state.path(UnitKey::whole(number, step as u32)).to_string()),
                None,
                "a scope closed over it"
            );
            if pipeline {
                self.check_finally(state, number, scope);
            }
        }
    }

    fn check_finally(&self, state: &State, number: u32, scope: &Scope) {
        if state.stopping_now {
            return;
        }
        for (step, entry) in scope.steps.iter().enumerate().skip(scope.pipeline.graph.first_finally as usize) {
            let path = state.path(UnitKey::whole(number, step as u32));
            assert_ne!(entry.unit.status, StepStatus::Cancelled, "{path} belongs to finally and was cancelled");
            let reason = entry.unit.reason().unwrap_or_default();
            if entry.unit.status == StepStatus::Skipped {
                assert_eq!(reason, "its condition is false", "{path} belongs to finally and was skipped");
            }
        }
        let hooks = &scope.pipeline.pipeline.hooks;
        let ran: Vec<(HookKind, u32)> = state
            .scopes
            .iter()
            .filter_map(|other| match &other.body {
                Body::Hooks { list, of } if *of == number => Some(list.to_vec()),
                Body::Hooks { .. } | Body::Pipeline | Body::Blueprint(_) => None,
            })
            .flatten()
            .collect();
        let exits = ran.iter().filter(|(kind, _)| *kind == HookKind::Exit).count();
        assert_eq!(exits, hooks.exit.len(), "exit hooks of scope {number}");
        let Some(verdict) = state.verdict.as_ref().filter(|_| number == 0 && !self.late_stop) else { return };
        let (kind, count) = match verdict.status {
            RunStatus::Succeeded | RunStatus::Degraded => (HookKind::Success, hooks.success.len()),
            RunStatus::Failed | RunStatus::TimedOut | RunStatus::BudgetExhausted => {
                (HookKind::Failure, hooks.failure.len())
            }
            RunStatus::Cancelled => (HookKind::Cancel, hooks.cancel.len()),
            RunStatus::Running | RunStatus::Waiting => panic!("a verdict of {:?}", verdict.status),
        };
        let others = ran.iter().filter(|(other, _)| *other != kind && *other != HookKind::Exit).count();
        assert_eq!((ran.len() - exits - others, others), (count, 0), "hooks for {:?}: {ran:?}", verdict.status);
    }

    fn check_end(&self, state: &State) {
        let verdict = state.verdict.as_ref().unwrap();
        assert_eq!((state.out, state.running), (0, 0), "the run has ended and something is out");
        assert_eq!(state.next_timer(), None);
        for (key, unit) in units(state) {
            assert!(unit.status.is_final(), "the run has ended and {} is {:?}", state.path(key), unit.status);
        }
        let bad = |step: &&StepState| step.unit.status.is_failure() && !step.unit.tolerated;
        let root = &state.scopes[0];
        let failed = root.steps.iter().find(bad);
        let expected = match &state.stopping {
            Some(StopReason::Cancelled) => Some(RunStatus::Cancelled),
            Some(StopReason::TimedOut) => Some(RunStatus::TimedOut),
            Some(StopReason::Budget(_)) => Some(RunStatus::BudgetExhausted),
            Some(_) => panic!("a run is not stopped for {:?}", state.stopping),
            None if failed.is_some() => Some(RunStatus::Failed),
            None => None,
        };
        match expected {
            Some(expected) => assert_eq!(verdict.status, expected),
            None if verdict.status == RunStatus::Failed => {
                assert!(verdict.reason.as_deref().is_some_and(|reason| reason.starts_with("output ")), "{verdict:?}");
            }
            None => {
                let plain = root.steps.iter().all(|step| {
                    matches!(step.unit.status, StepStatus::Succeeded | StepStatus::Skipped) && !step.unit.fallback
                });
                assert!(matches!(verdict.status, RunStatus::Succeeded | RunStatus::Degraded), "{verdict:?}");
                assert!(plain || verdict.status == RunStatus::Degraded, "{verdict:?} with failed steps");
            }
        }
    }
}

/// Everything about a state that a replay must give again.
pub fn projection(state: &State) -> String {
    let mut text = tol::report::summary(state).to_string();
    let _ = writeln!(
        text,
        "\n{} {} {} {:?} {} {} {:?} {:?} {:?} {} {} {} {:?} {:?} {:?}",
        state.seq,
        state.now,
        state.paused,
        state.stopping,
        state.stopping_now,
        state.idle,
        state.verdict,
        state.degraded,
        state.warnings,
        state.running,
        state.out,
        state.tokens_used,
        state.cost_used,
        state.next_timer(),
        state.open_questions().collect::<Vec<_>>(),
    );
    for scope in &state.scopes {
        let _ = writeln!(
            text,
            "{} {:?} {} {:?} {:?} {} {}",
            scope.prefix, scope.phase, scope.open, scope.failed, scope.halted, scope.replan, scope.superseded
        );
    }
    for (key, unit) in units(state) {
        let more = unit.more.as_deref();
        let stage = match more.map(|more| &more.stage) {
            None | Some(Stage::Single) => String::new(),
            Some(Stage::Child(scope)) => format!("child {scope}"),
            Some(Stage::Plan(plan)) => {
                let hash = plan.blueprint.as_ref().map(|blueprint| &*blueprint.hash);
                format!("plan {} {:?} {hash:?} {} {:?}", plan.repairs, plan.refused, plan.asks, plan.mends)
            }
            Some(Stage::Synthesize(synthesis)) => format!("{synthesis:?}"),
        };
        let unit = UnitState { more: None, ..unit.clone() };
        let _ = writeln!(
            text,
            "{key:?} {unit:?} {stage} {:?}",
            more.map(|more| (
                &more.stop,
                &more.reason,
                more.exit_code,
                &more.stderr,
                more.attempt_deadline,
                more.wake,
                more.reserved,
                more.lane
            ))
        );
    }
    text
}
