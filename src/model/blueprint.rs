//! What a plan yields: steps that call tools or agents, as data. Checking it is `compile`'s.

use serde_json::Value;

use crate::diagnostic::{Span, Spanned};

/// A plan's steps, in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Blueprint {
    pub steps: Vec<BlueprintStep>,
    pub span: Span,
}

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct BlueprintStep {
    pub id: Spanned<Box<str>>,
    pub span: Span,
    pub thought: Option<Box<str>>,
    pub callee: Callee,
    /// Strings in it may hold `#E1` and `{{ E1.outputs… }}`. Its spans are looked up in the tree when needed.
    pub input: Spanned<Value>,
    pub depends: Vec<Spanned<Box<str>>>,
    pub on_error: OnError,
    pub default: Option<Value>,
    /// The planner's own word on whether this call writes; it never weakens the tool's.
    pub writes: bool,
    /// Where each string leaf of `input` stands: JSON pointer and span.
    pub leaf_spans: Vec<(String, Span)>,
}

/// What a blueprint step calls.
#[derive(Clone, Debug, PartialEq)]
pub enum Callee {
    Tool(Spanned<Box<str>>),
    Agent(Spanned<Box<str>>),
}

/// What the failure of one call means for the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    #[default]
    Fail,
    Skip,
    Default,
    Replan,
}
