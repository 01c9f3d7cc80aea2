//! A pipeline file as a whole.

use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;

use super::{Agent, Limits, Retry, Step};
use crate::diagnostic::{FileId, Span, Spanned};
use crate::expr::ValueTemplate;
use crate::model::step::EnvEntry;

/// A pipeline, with its includes and templates merged in.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub file: FileId,
    /// Path within the project, with `/`: the name under which sources hold it.
    pub path: Box<str>,
    pub name: Spanned<Box<str>>,
    pub description: Option<Box<str>>,
    pub params: IndexMap<Box<str>, Param>,
    pub timeout: Option<Duration>,
    pub fail_fast: bool,
    pub limits: Limits,
    /// Names of the caller's environment that `env.X` may read and scripts inherit.
    pub inherit_env: Vec<Spanned<Box<str>>>,
    pub steps: Vec<Step>,
    pub finally: Vec<Step>,
    pub outputs: Vec<(Spanned<Box<str>>, Spanned<ValueTemplate>)>,
    pub hooks: Hooks,
    /// Tools of the file and of its includes; those of the catalogue are in [`super::Catalogue`].
    pub tools: IndexMap<Box<str>, Tool>,
    /// Agents that an include brings; they go before those of the catalogue.
    pub agents: IndexMap<Box<str>, Agent>,
    pub triggers: Vec<Trigger>,
    pub profiles: IndexMap<Box<str>, Profile>,
}

/// One parameter: a JSON Schema, and a default if it may be left out.
#[derive(Clone, Debug)]
pub struct Param {
    pub name_span: Span,
    pub schema: Value,
    pub default: Option<Spanned<Value>>,
    pub description: Option<Box<str>>,
}

/// What runs after a run has ended, by outcome. Each entry is an action with an id of its own making.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    pub success: Vec<Step>,
    pub failure: Vec<Step>,
    pub cancel: Vec<Step>,
    pub exit: Vec<Step>,
}

/// Something that a blueprint or an agent may call by name.
#[derive(Clone, Debug)]
pub struct Tool {
    pub name: Spanned<Box<str>>,
    pub description: Box<str>,
    pub input_schema: Value,
    pub effect: ToolEffect,
    /// The action with its `env`, `timeout` and `retry`, as a step whose id is the tool's name; it sees `input`.
    pub step: Step,
    /// The folder of the file that declares it, within the project.
    pub base: Box<str>,
}

/// Whether a tool changes the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolEffect {
    Read,
    Write,
}

/// What starts a run under a server.
#[derive(Clone, Debug)]
pub enum Trigger {
    Cron { cron: Spanned<Box<str>>, timezone: Option<Spanned<Box<str>>>, overlap: Box<str>, catch_up: Box<str> },
    Webhook { path: Spanned<Box<str>>, signature: Option<WebhookSignature> },
    Kafka { topic: Spanned<Box<str>>, group: Option<Box<str>> },
    File { glob: Spanned<Box<str>> },
}

/// How the calls of a webhook prove where they come from: `hmac:`, always SHA-256.
#[derive(Clone, Debug)]
pub struct WebhookSignature {
    /// The name of the secret.
    pub secret: Spanned<Box<str>>,
    /// The header that carries the signature.
    pub header: Option<Box<str>>,
    /// How old a call may be.
    pub tolerance: Option<Duration>,
}

/// An overlay that `--env NAME` lays over the file.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Defaults of parameters.
    pub params: IndexMap<Box<str>, Spanned<Value>>,
    pub limits: Limits,
    pub timeout: Option<Duration>,
    /// Replaces the retry of steps that have none of their own.
    pub retry: Option<Retry>,
    /// Added to the environment of every script; a step's own entry wins.
    pub env: Vec<EnvEntry>,
}
