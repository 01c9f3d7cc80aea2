//! What a step does: one type per action key.

use std::time::Duration;

use serde_json::Value;

use super::blueprint::Blueprint;
use super::step::EnvEntry;
use crate::diagnostic::Spanned;
use crate::expr::{Expression, Template, ValueTemplate};
use crate::task::Shell;

/// The one action of a step.
#[derive(Clone, Debug)]
pub enum Action {
    Run(Box<RunStep>),
    Http(Box<HttpStep>),
    Transform(Box<TransformValue>),
    Pipeline(Box<SubPipeline>),
    Wait(Box<Wait>),
    Approve(Box<Approve>),
    Agent(Box<AgentStep>),
    Plan(Box<PlanStep>),
    /// The id of the plan step whose blueprint is executed.
    Execute(Spanned<Box<str>>),
    Synthesize(Box<Synthesize>),
}

impl Action {
    /// The key that names the action in a file.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Http(_) => "http",
            Self::Transform(_) => "transform",
            Self::Pipeline(_) => "pipeline",
            Self::Wait(_) => "wait",
            Self::Approve(_) => "approve",
            Self::Agent(_) => "agent",
            Self::Plan(_) => "plan",
            Self::Execute(_) => "execute",
            Self::Synthesize(_) => "synthesize",
        }
    }
}

/// `run:` and the keys that belong to it.
#[derive(Clone, Debug)]
pub struct RunStep {
    pub source: ScriptSource,
    pub env: Vec<EnvEntry>,
    pub inherit_env: Vec<Box<str>>,
    /// `dir:`, relative to the pipeline file's folder.
    pub dir: Option<Spanned<Template>>,
    pub shell: Shell,
    /// `outputs: json`.
    pub json: bool,
    pub permanent_exit_codes: Vec<i32>,
    /// `max_output`, in bytes.
    pub max_output: Option<u64>,
}

/// A script's text, or a program with its arguments.
#[derive(Clone, Debug)]
pub enum ScriptSource {
    /// `\{{` is already a literal `{{`.
    Script(Spanned<Box<str>>),
    Argv(Vec<Spanned<Template>>),
}

/// `http:`.
#[derive(Clone, Debug)]
pub struct HttpStep {
    pub method: Spanned<Template>,
    pub url: Spanned<Template>,
    pub headers: Vec<EnvEntry>,
    pub query: Vec<EnvEntry>,
    pub body: Option<HttpBody>,
    pub follow_redirects: bool,
    pub max_bytes: Option<u64>,
}

/// What a request carries.
#[derive(Clone, Debug)]
pub enum HttpBody {
    Text(Spanned<Template>),
    Json(Spanned<ValueTemplate>),
}

/// `transform:`, a tree in which every string is an expression.
#[derive(Clone, Debug)]
pub enum TransformValue {
    Constant(Value),
    Expression(Spanned<Expression>),
    List(Vec<TransformValue>),
    Map(Vec<(Spanned<Box<str>>, TransformValue)>),
}

/// `pipeline:` with `with:`.
#[derive(Clone, Debug)]
pub struct SubPipeline {
    /// As written, relative to the file that names it.
    pub path: Spanned<Box<str>>,
    pub with: Vec<(Spanned<Box<str>>, Spanned<ValueTemplate>)>,
}

/// `wait:`.
#[derive(Clone, Debug)]
pub enum Wait {
    For(Duration),
    /// An expression that gives a time (RFC 3339 text or seconds since 1970), or a time as it stands.
    UntilTime(Spanned<Expression>),
    Until(crate::time::Timestamp),
}

/// `approve:`.
#[derive(Clone, Debug)]
pub struct Approve {
    pub message: Option<Spanned<Template>>,
    pub mode: ApproveMode,
    /// `timeout` inside `approve`; the step's own `timeout` means the same.
    pub timeout: Option<Duration>,
    pub on_timeout: OnTimeout,
    pub approvers: Vec<Box<str>>,
}

/// How much waits for a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApproveMode {
    /// No other step of the run starts while the question is open.
    Blocking,
    /// Only what depends on the answer waits.
    #[default]
    Partial,
    /// The engine approves by itself and records that it did.
    Autonomous,
}

/// What an unanswered approval becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnTimeout {
    #[default]
    Fail,
    Approve,
    Reject,
}

/// `agent:` with `prompt:`.
#[derive(Clone, Debug)]
pub struct AgentStep {
    pub agent: Spanned<Box<str>>,
    pub prompt: Spanned<Template>,
    pub input: Option<Spanned<ValueTemplate>>,
    /// JSON Schema of the structured answer.
    pub schema: Option<Spanned<Value>>,
    pub tools: Vec<Spanned<Box<str>>>,
    pub env: Vec<EnvEntry>,
}

/// `plan:`.
#[derive(Clone, Debug)]
pub struct PlanStep {
    pub source: PlanSource,
    /// The allow-list; `None` means that the key is absent: every tool of the catalogue that the agent may use.
    pub tools: Option<Vec<Spanned<Box<str>>>>,
    pub max_steps: Option<u32>,
    pub write: WritePolicy,
    /// How often a faulty answer is sent back with its errors.
    pub repair: u32,
}

/// Where a blueprint comes from.
#[derive(Clone, Debug)]
pub enum PlanSource {
    Agent {
        agent: Spanned<Box<str>>,
        goal: Spanned<Template>,
    },
    Static(Box<Blueprint>),
    /// A file, relative to the pipeline file; `compile` loads it.
    File(Spanned<Box<str>>),
}

/// Whether a blueprint may call what writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePolicy {
    #[default]
    Refuse,
    Ask,
    Allow,
}

/// `synthesize:`.
#[derive(Clone, Debug)]
pub struct Synthesize {
    pub agent: Spanned<Box<str>>,
    pub critic: Option<Spanned<Box<str>>>,
    pub from: Vec<Spanned<Box<str>>>,
    pub prompt: Option<Spanned<Template>>,
    pub verify: Option<Spanned<Box<str>>>,
    pub accept: Option<Spanned<Expression>>,
    pub max_cycles: u32,
    pub on_unaccepted: OnUnaccepted,
    pub schema: Option<Spanned<Value>>,
    pub env: Vec<EnvEntry>,
}

/// What becomes of a step whose last draft was not accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnaccepted {
    #[default]
    Fail,
    /// The run goes on with the last draft, degraded.
    Keep,
}

/// `cache:`.
#[derive(Clone, Debug)]
pub struct CacheRule {
    pub key: Spanned<Template>,
    /// No length means for ever.
    pub ttl: Option<Duration>,
}
