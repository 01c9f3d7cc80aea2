//! The agent catalogue, `agents.yaml`.

use indexmap::IndexMap;

use super::{Retry, Tool};
use crate::diagnostic::{FileId, Spanned};

/// All agents and shared tools of one catalogue file.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    pub file: Option<FileId>,
    /// Path within the project; a command agent works in this file's folder.
    pub path: Box<str>,
    pub agents: IndexMap<Box<str>, Agent>,
    pub tools: IndexMap<Box<str>, Tool>,
}

/// One agent.
#[derive(Clone, Debug)]
pub struct Agent {
    pub id: Spanned<Box<str>>,
    pub name: Spanned<Box<str>>,
    /// Free text; known ones select a role template.
    pub role: Box<str>,
    pub system_prompt: Box<str>,
    pub temperature: Option<f64>,
    pub max_tokens: u64,
    pub model: Option<Box<str>>,
    /// `None`: the settings say.
    pub provider: Option<Spanned<ProviderKind>>,
    /// The program of `provider: command`.
    pub command: Vec<Box<str>>,
    pub tools: Option<Vec<Spanned<Box<str>>>>,
    pub deny_tools: Vec<Spanned<Box<str>>>,
    pub capabilities: Vec<Box<str>>,
    pub retry: Option<Retry>,
    pub price: Option<Price>,
    /// The folder of the file that declares it, within the project.
    pub base: Box<str>,
}

/// How an agent is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    Command,
    Anthropic,
    Openai,
}

/// Money for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Price {
    pub input_per_million: f64,
    pub output_per_million: f64,
}
