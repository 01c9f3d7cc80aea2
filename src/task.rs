//! The words that a scheduler and a worker share: a task, its outcome, and what a step's failure is called.
//!
//! A task carries everything that its worker needs, already filled in; only secrets are left as names, and the
//! worker puts them in, so that no message, journal or log ever holds one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{LeaseToken, RunId, UnitPath};
use crate::time::Timestamp;

/// Why a step failed, in the classes that `retry: { on: […] }` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    Transient,
    Permanent,
    Timeout,
    Cancelled,
    Budget,
}

impl ErrorClass {
    /// The class's name as the language and the contract write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Budget => "budget",
        }
    }
}

/// A step's failure. `stderr` holds the last 4 KiB of what a program said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub class: ErrorClass,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How long the other side asked us to wait before the next try, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// A failure with a class and words, and nothing else.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), stderr: None, exit_code: None, retry_after_ms: None }
    }

    /// A failure that another try cannot mend.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, message)
    }

    /// A failure that another try may mend.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }
}

/// What a call of an agent used. Input tokens include those read from a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
}

impl Usage {
    /// All tokens together.
    pub fn total(self) -> u64 {
        self.input_tokens.saturating_add(self.output_tokens)
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    Succeeded {
        outputs: Arc<Value>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stderr: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
        /// True if a stored output of an earlier run stands for this one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cached: bool,
    },
    Failed {
        failure: Failure,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<Usage>,
    },
    /// The work was stopped because the scheduler asked for it.
    Stopped,
}

impl Outcome {
    /// A plain success with these outputs.
    pub fn success(outputs: Value) -> Self {
        Self::Succeeded { outputs: Arc::new(outputs), exit_code: None, stderr: None, usage: None, cached: false }
    }

    /// A failure that used no tokens.
    pub fn failed(failure: Failure) -> Self {
        Self::Failed { failure, usage: None }
    }
}

/// A piece of a text that a worker puts together: words, or a secret by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Plain(String),
    Secret(String),
}

/// A filled-in text whose secrets are still names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text(pub Vec<Part>);

impl Text {
    /// A text without secrets.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(vec![Part::Plain(text.into())])
    }
}

/// One attempt at one unit of work, as it is handed to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub run: RunId,
    /// The name of the pipeline that the run was started from.
    pub pipeline: Arc<str>,
    pub unit: UnitPath,
    /// From 1.
    pub attempt: u32,
    pub token: LeaseToken,
    /// The same for every attempt at this unit, so that a target can make the effect once.
    pub idempotency_key: String,
    /// The attempt is stopped by the scheduler at this time; a worker may tell its program how long it has.
    pub deadline: Option<Timestamp>,
    pub place: Placement,
    pub work: Work,
}

/// Where a task may be done, and how it may be sent there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The queue that the step names, or [`DEFAULT_QUEUE`].
    pub queue: Arc<str>,
    /// What a worker must be able to do besides serving the queue.
    pub capabilities: Vec<Box<str>>,
    pub phase: Phase,
    /// True for a step with `retry: never`: it must not be begun a second time.
    pub once: bool,
    /// The project's absolute folder on the scheduler's machine; the folders of the work lie in it.
    pub root: Arc<str>,
}

/// The queue of a step that names none.
pub const DEFAULT_QUEUE: &str = "default";

impl Default for Placement {
    fn default() -> Self {
        Self {
            queue: Arc::from(DEFAULT_QUEUE),
            capabilities: Vec::new(),
            phase: Phase::Execute,
            once: false,
            root: Arc::from(""),
        }
    }
}

/// Which of the three phases of a job a task belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Plan,
    Execute,
    Synthesize,
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Work {
    Run(Script),
    Http(HttpRequest),
    Agent(AgentCall),
}

/// A program to start: a script for a shell, or a program with arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Script {
    pub command: Command,
    /// What `env:` names; nothing else of the caller's environment but what `inherit_env` lists.
    pub env: Vec<(String, Text)>,
    pub inherit_env: Vec<String>,
    /// Absolute path of the working folder.
    pub dir: String,
    /// True if standard output is JSON (`outputs: json`).
    pub json: bool,
    pub permanent_exit_codes: Vec<i32>,
    /// The largest standard output, in bytes, that becomes `text`.
    pub max_output: u64,
}

/// How a program is named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A script and its shell: `sh` is `sh -eu`, `bash` is `bash -euo pipefail`.
    Shell {
        shell: Shell,
        script: String,
    },
    Argv(Vec<String>),
}

/// The shells that a script may ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    #[default]
    Sh,
    Bash,
}

/// An HTTP request, filled in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, Text)>,
    pub query: Vec<(String, String)>,
    pub body: Option<Body>,
    pub follow_redirects: bool,
    /// The largest response body, in bytes.
    pub max_bytes: u64,
}

/// A request's body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    Text(Text),
    Json(Value),
}

/// The phase that an agent is called in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentPhase {
    Plan,
    Execute,
    Synthesize,
    Critique,
}

/// A tool as an agent is told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolCard {
    pub name: String,
    pub description: String,
    pub input_schema: Value,
}

/// One call of an agent: what it is asked, and how to reach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentCall {
    pub agent: String,
    pub phase: AgentPhase,
    pub system_prompt: String,
    pub prompt: String,
    pub input: Value,
    pub schema: Option<Value>,
    pub tools: Vec<ToolCard>,
    pub max_tokens: u64,
    pub temperature: Option<f64>,
    pub model: Option<String>,
    pub provider: Provider,
    pub env: Vec<(String, Text)>,
}

/// How an agent is reached.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// A local program: the request as JSON on its stdin, the answer on its stdout.
    Command { argv: Vec<String>, dir: String },
}
