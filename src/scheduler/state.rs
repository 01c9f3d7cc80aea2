//! A run's state: scopes, steps, units, timers, and where each stands.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use super::event::Accepted;
use super::ready::Ready;
use super::status::{RunStatus, StepStatus, Verdict};
use crate::compile::{CompiledBlueprint, CompiledPipeline, Program};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::Failure;
use crate::time::Timestamp;

/// Names a scope of a run: the root pipeline is 0, every child that opens gets the next number.
pub type ScopeId = u32;

/// Names one unit of work: a step, or one item of its fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitKey {
    pub scope: ScopeId,
    pub step: u32,
    /// [`UnitKey::WHOLE`] for the step itself.
    pub item: u32,
}

impl UnitKey {
    /// The `item` of a unit that is no item.
    pub const WHOLE: u32 = u32::MAX;

    /// The unit of a step that does not fan out.
    pub fn whole(scope: ScopeId, step: u32) -> Self {
        Self { scope, step, item: Self::WHOLE }
    }

    /// True for one item of a fan-out.
    pub fn is_item(self) -> bool {
        self.item != Self::WHOLE
    }
}

/// One run, reduced from its events.
#[derive(Clone, Debug)]
pub struct State {
    pub run: RunId,
    pub program: Arc<Program>,
    pub accepted: Arc<Accepted>,
    pub scopes: Vec<Scope>,
    /// Number of the last event that was applied, from 1.
    pub seq: u64,
    pub started_at: Timestamp,
    /// Time of the last event.
    pub now: Timestamp,
    pub paused: bool,
    /// No process drives the run: nothing is handed out.
    pub idle: bool,
    /// Set once the run is to end before its steps do.
    pub stopping: Option<StopReason>,
    /// A second request to cancel: `finally` and hooks are cut off too.
    pub stopping_now: bool,
    pub verdict: Option<Verdict>,
    pub ended_at: Option<Timestamp>,
    pub outputs: Option<Arc<Value>>,
    /// Why the run is not a plain success, in the order in which it became so.
    pub degraded: Vec<String>,
    pub warnings: Vec<String>,
    pub(super) ready: Ready,
    /// What needs no slot and may not begin yet: the run is paused, or a blocking question is open.
    pub(super) held: VecDeque<UnitKey>,
    pub(super) timers: BTreeSet<(Timestamp, UnitKey, TimerKind)>,
    pub(super) todo: VecDeque<Todo>,
    pub(super) effects: Vec<Effect>,
    /// Units that hold a slot.
    pub running: u32,
    /// Units that are handed out, with a slot or without.
    pub out: u32,
    pub max_parallel: u32,
    /// Open approvals in blocking mode.
    pub(super) blocking: u32,
    /// Notes so far.
    pub(super) notes: u64,
    pub(super) next_token: u64,
    pub tokens_used: u64,
    pub(super) tokens_reserved: u64,
    pub cost_used: f64,
    pub(super) steps_ended: u64,
    pub(super) steps_failed: u64,
    /// The last draw that an event brought; it serves whatever needs chance next.
    pub(super) draw: f64,
}

/// What is still to be looked at before an event is done with. A queue instead of recursion: chains are long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Todo {
    StepReady(ScopeId, u32),
    UnitReady(UnitKey),
    StepEnded(ScopeId, u32),
    ScopeEmpty(ScopeId),
}

/// What a timer is for. The run's own limit stands under the unit (0, MAX, MAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    Run,
    Deadline,
    AttemptDeadline,
    Retry,
    Wait,
}

/// A pipeline, blueprint or list of hooks in progress.
#[derive(Clone, Debug)]
pub struct Scope {
    pub body: Body,
    /// The pipeline whose names, tools and folder hold here.
    pub pipeline: Arc<CompiledPipeline>,
    /// The unit that waits for this scope; none for the root.
    pub parent: Option<UnitKey>,
    /// What stands before the ids of its steps: empty, `child/`, `branches[0]/`.
    pub prefix: Arc<str>,
    pub params: Arc<Value>,
    pub steps: Vec<StepState>,
    pub phase: Phase,
    /// Steps of the phase that have not ended.
    pub open: u32,
    /// A required step has failed; its number.
    pub failed: Option<u32>,
    /// Nothing new starts here (but `finally`).
    pub halted: Option<StopReason>,
    /// A call asked for another plan.
    pub replan: bool,
    /// Another scope of the same unit has taken its place; it is shown no more.
    pub superseded: bool,
}

/// What a scope runs.
#[derive(Clone, Debug)]
pub enum Body {
    Pipeline,
    Blueprint(Arc<CompiledBlueprint>),
    /// Numbers of the hooks in `success ++ failure ++ cancel ++ exit`, in the order in which they run.
    Hooks {
        list: Arc<[(HookKind, u32)]>,
        of: ScopeId,
    },
}

/// Which list a hook stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    Success,
    Failure,
    Cancel,
    Exit,
}

/// How far a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Main,
    Finally,
    Hooks,
    Done,
}

/// Why work is stopped before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    Cancelled,
    /// The run's `timeout` or `limits.max_runtime`.
    TimedOut,
    /// A limit, by its name.
    Budget(String),
    FailFast,
    /// The step's own timeout.
    StepTimeout,
    /// The timeout, of all or of one attempt, of the step that waits for this one.
    OuterTimeout,
    AttemptTimeout,
    Replan,
}

/// One step of a scope.
#[derive(Clone, Debug, Default)]
pub struct StepState {
    /// Dependencies that have not ended.
    pub waiting_on: u32,
    pub unit: UnitState,
    pub fan: Option<Box<FanState>>,
}

/// The items of a fan-out.
#[derive(Clone, Debug, Default)]
pub struct FanState {
    pub items: Vec<UnitState>,
    pub values: Vec<Arc<Value>>,
    /// The first item that is not started or queued yet.
    pub next: u32,
    pub in_flight: u32,
    pub ended: u32,
    /// A required item has failed: running ones finish, none starts.
    pub failed: bool,
}

/// One unit of work.
#[derive(Clone, Debug, Default)]
pub struct UnitState {
    pub status: StepStatus,
    pub cached: bool,
    /// The step's result came from its `fallback`, or it is being tried.
    pub fallback: bool,
    /// Its start is on record (steps that must not run twice).
    pub start_recorded: bool,
    pub holds_slot: bool,
    /// The next hand-out is another call of the same attempt (a repair turn, the next draft).
    pub same_attempt: bool,
    /// The failure was tolerated.
    pub tolerated: bool,
    /// Attempts so far, those lost in a crash included.
    pub attempt: u32,
    pub retries: u32,
    /// The current hand-out; 0 while nothing is handed out.
    pub token: u64,
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
    pub deadline: Option<Timestamp>,
    pub outputs: Option<Arc<Value>>,
    pub failure: Option<Box<Failure>>,
    pub more: Option<Box<UnitMore>>,
}

/// What only some units have.
#[derive(Clone, Debug, Default)]
pub struct UnitMore {
    pub stop: Option<StopReason>,
    pub stage: Stage,
    /// Why it was skipped or cancelled, or what else there is to say.
    pub reason: Option<String>,
    pub exit_code: Option<i32>,
    pub stderr: Option<String>,
    pub attempt_deadline: Option<Timestamp>,
    /// When the pause before the next attempt, or a `wait`, is over.
    pub wake: Option<Timestamp>,
    /// Tokens set aside for the call that is out.
    pub reserved: u64,
    /// How many workers were lost in a row while they had it.
    pub losses: u32,
    /// The bounded queue that it is out on, by the queue's number in the run's limits.
    pub lane: Option<u32>,
}

/// How far a unit of several calls is.
#[derive(Clone, Debug, Default)]
pub enum Stage {
    #[default]
    Single,
    /// A sub-pipeline or blueprint runs.
    Child(ScopeId),
    Plan(PlanState),
    Synthesize(Box<SynthesizeState>),
}

/// A plan in the making, by a plan step or by an execute step that replans.
#[derive(Clone, Debug, Default)]
pub struct PlanState {
    pub repairs: u32,
    /// The last answer and what is wrong with it.
    pub refused: Option<(Value, Vec<String>)>,
    pub blueprint: Option<Arc<CompiledBlueprint>>,
    /// It writes, and someone must say yes first.
    pub asks: bool,
    /// The scope whose failed calls the new plan is to mend.
    pub mends: Option<ScopeId>,
}

/// A draft and its critiques.
#[derive(Clone, Debug, Default)]
pub struct SynthesizeState {
    /// From 1.
    pub cycle: u32,
    pub critiquing: bool,
    pub draft: Value,
    pub score: Option<f64>,
    pub accepted: bool,
    pub critiques: Vec<Value>,
    pub last: Option<(Option<f64>, Value)>,
}

/// What the shell is to do, in order, once the event is durable.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Fill in the work and hand it out.
    Dispatch {
        unit: UnitKey,
        token: LeaseToken,
    },
    /// A worker may have it from an earlier process; if none says so in time, it is lost.
    Reclaim {
        unit: UnitKey,
        token: LeaseToken,
    },
    /// Record the start first (`Input::Start`); the work follows.
    RecordStart {
        unit: UnitKey,
        token: LeaseToken,
    },
    Stop {
        unit: UnitKey,
        token: LeaseToken,
        now: bool,
    },
    Note(Note),
    /// The run has ended.
    Finish,
}

/// A change that watchers are told of. Notes are numbered over the whole life of a run, also across processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub seq: u64,
    pub about: About,
}

/// What a note tells.
#[derive(Clone, Debug, PartialEq)]
pub enum About {
    /// The run as a whole: `accepted`, `paused`, `unpaused`, `stopping`, `recovered`.
    Run(&'static str),
    Unit {
        path: UnitPath,
        status: StepStatus,
        attempt: u32,
        cached: bool,
        /// How long it took, once it has ended.
        duration_ms: Option<u64>,
        message: Option<String>,
    },
}

impl UnitState {
    /// The rare part, made when first needed.
    pub fn more_mut(&mut self) -> &mut UnitMore {
        self.more.get_or_insert_default()
    }

    /// The rare part, if there is one.
    pub fn stop(&self) -> Option<&StopReason> {
        self.more.as_deref().and_then(|more| more.stop.as_ref())
    }

    /// What it says about itself.
    pub fn reason(&self) -> Option<&str> {
        self.more.as_deref().and_then(|more| more.reason.as_deref())
    }
}

impl State {
    /// The unit behind a key. A key that the state gave out always has one.
    pub fn unit(&self, key: UnitKey) -> Option<&UnitState> {
        let step = self.scopes.get(key.scope as usize)?.steps.get(key.step as usize)?;
        if key.is_item() { step.fan.as_ref()?.items.get(key.item as usize) } else { Some(&step.unit) }
    }

    pub(super) fn unit_mut(&mut self, key: UnitKey) -> &mut UnitState {
        let step = &mut self.scopes[key.scope as usize].steps[key.step as usize];
        match (&mut step.fan, key.is_item()) {
            (Some(fan), true) => &mut fan.items[key.item as usize],
            _ => &mut step.unit,
        }
    }

    pub(super) fn scope(&self, scope: ScopeId) -> &Scope {
        &self.scopes[scope as usize]
    }

    pub(super) fn scope_mut(&mut self, scope: ScopeId) -> &mut Scope {
        &mut self.scopes[scope as usize]
    }

    /// The path of a unit: `evidence/E1`, `each[2]`.
    pub fn path(&self, key: UnitKey) -> UnitPath {
        let scope = self.scope(key.scope);
        let id = scope.step_name(key.step);
        if key.is_item() {
            UnitPath::new(&format!("{}{id}[{}]", scope.prefix, key.item))
        } else if scope.prefix.is_empty() {
            UnitPath::new(&id)
        } else {
            UnitPath::new(&format!("{}{id}", scope.prefix))
        }
    }

    /// The unit that a path names.
    pub fn find(&self, path: &UnitPath) -> Option<UnitKey> {
        let mut scope = 0;
        let mut rest = path.as_str();
        loop {
            let (head, tail) = match rest.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (rest, None),
            };
            if let Some(hook) = head.strip_prefix("hooks:") {
                let hooks = self.scopes.iter().position(|s| matches!(s.body, Body::Hooks { of, .. } if of == scope))?;
                let step = self.scopes[hooks].find_step(hook)?;
                return Some(UnitKey::whole(hooks as ScopeId, step));
            }
            let (name, item) = match head.strip_suffix(']').and_then(|stem| stem.rsplit_once('[')) {
                Some((name, digits)) => (name, digits.parse().ok()?),
                None => (head, UnitKey::WHOLE),
            };
            let step = self.scope(scope).find_step(name)?;
            let key = UnitKey { scope, step, item };
            let unit = self.unit(key)?;
            match tail {
                None => return Some(key),
                Some(tail) => {
                    scope = unit.child()?;
                    rest = tail;
                }
            }
        }
    }

    /// How the run stands.
    pub fn status(&self) -> RunStatus {
        match &self.verdict {
            Some(verdict) => verdict.status,
            None if self.waits_for_people() => RunStatus::Waiting,
            None => RunStatus::Running,
        }
    }

    /// True if nothing can go on until a person answers an approval or settles an unknown step.
    pub fn waits_for_people(&self) -> bool {
        self.out == 0
            && self.verdict.is_none()
            && (self.ready.is_empty() || self.blocking > 0)
            && self.timers.iter().all(|(_, key, kind)| match kind {
                TimerKind::Run => true,
                TimerKind::Deadline => {
                    self.unit(*key).is_some_and(|unit| unit.asks_a_person() || unit.child().is_some())
                }
                TimerKind::AttemptDeadline | TimerKind::Retry | TimerKind::Wait => false,
            })
            && self.open_questions().next().is_some()
    }

    /// Units that wait for a person: open approvals and unknown steps.
    pub fn open_questions(&self) -> impl Iterator<Item = UnitKey> + '_ {
        self.scopes.iter().enumerate().filter(|(_, scope)| scope.phase != Phase::Done && !scope.superseded).flat_map(
            |(number, scope)| {
                scope.steps.iter().enumerate().flat_map(move |(step, state)| {
                    let key = UnitKey::whole(number as ScopeId, step as u32);
                    let items = state.fan.iter().flat_map(move |fan| {
                        fan.items
                            .iter()
                            .enumerate()
                            .map(move |(item, unit)| (UnitKey { item: item as u32, ..key }, unit))
                    });
                    std::iter::once((key, &state.unit))
                        .chain(items)
                        .filter(|(_, unit)| unit.asks_a_person())
                        .map(|(key, _)| key)
                })
            },
        )
    }

    /// When the next time limit, pause or wait is over.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _, _)| *at)
    }

    /// Tokens and money that the run has used so far, for the summary.
    pub fn usage(&self) -> BTreeMap<&'static str, Value> {
        BTreeMap::from([("tokens", Value::from(self.tokens_used)), ("cost", Value::from(self.cost_used))])
    }
}

impl UnitState {
    /// The scope that runs under this unit.
    pub fn child(&self) -> Option<ScopeId> {
        match self.more.as_deref()?.stage {
            Stage::Child(scope) => Some(scope),
            Stage::Single | Stage::Plan(_) | Stage::Synthesize(_) => None,
        }
    }

    /// True if only a person can move it on.
    pub fn asks_a_person(&self) -> bool {
        match self.status {
            StepStatus::Unknown => true,
            StepStatus::Waiting => self.more.as_deref().is_some_and(|more| match &more.stage {
                Stage::Plan(plan) => plan.asks,
                Stage::Single => more.wake.is_none() && self.token == 0 && more.reason.as_deref() == Some(ASKS),
                Stage::Child(_) | Stage::Synthesize(_) => false,
            }),
            StepStatus::Pending
            | StepStatus::Running
            | StepStatus::Succeeded
            | StepStatus::Failed
            | StepStatus::TimedOut
            | StepStatus::Skipped
            | StepStatus::Cancelled => false,
        }
    }
}

/// The reason that a unit shows while it waits for an approval.
pub(super) const ASKS: &str = "waits for an approval";

impl Scope {
    /// The id of a step by its number.
    pub fn step_name(&self, step: u32) -> std::borrow::Cow<'_, str> {
        use std::borrow::Cow;
        match &self.body {
            Body::Pipeline => Cow::Borrowed(&self.pipeline.graph.names[step as usize]),
            Body::Blueprint(blueprint) => Cow::Borrowed(&blueprint.graph.names[step as usize]),
            Body::Hooks { list, .. } => {
                let (kind, number) = list[step as usize];
                Cow::Owned(format!("{}_{number}", kind.as_str()))
            }
        }
    }

    /// The number of a step by its id.
    pub fn find_step(&self, name: &str) -> Option<u32> {
        match &self.body {
            Body::Pipeline => self.pipeline.graph.index.get(name).copied(),
            Body::Blueprint(blueprint) => blueprint.graph.index.get(name).copied(),
            Body::Hooks { list, .. } => (0..list.len() as u32).find(|step| self.step_name(*step) == name),
        }
    }
}

impl HookKind {
    /// The list's key in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancel => "cancel",
            Self::Exit => "exit",
        }
    }
}
