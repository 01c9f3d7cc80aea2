//! One step: its name, what it waits for, whether and how often it runs, and what it does.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Action, CacheRule, Retry};
use crate::diagnostic::{Span, Spanned};
use crate::expr::{Expression, Template, ValueTemplate};
use crate::task::DEFAULT_QUEUE;

/// A step as it stands in the file, after its template and the defaults were merged in.
#[derive(Clone, Debug)]
pub struct Step {
    pub id: Spanned<Box<str>>,
    /// The whole mapping of the step.
    pub span: Span,
    /// Free text of `name:`.
    pub label: Option<Box<str>>,
    pub depends: Vec<Spanned<Box<str>>>,
    pub condition: Option<Box<Spanned<Condition>>>,
    pub fan: Option<Box<Fan>>,
    pub action: Action,
    pub timeout: Option<Duration>,
    pub attempt_timeout: Option<Duration>,
    pub retry: Option<Box<Retry>>,
    pub continue_on_error: bool,
    /// Another action for when this one has failed; it carries the step's own id.
    pub fallback: Option<Box<Step>>,
    pub cache: Option<Box<CacheRule>>,
    pub priority: Priority,
    /// Where its work is done; nothing for the default queue without further demands, and for what no worker does.
    pub place: Option<Arc<StepPlace>>,
}

impl Step {
    /// The queue of its work.
    pub fn queue(&self) -> &str {
        self.place.as_ref().map_or(DEFAULT_QUEUE, |place| &place.queue)
    }
}

/// Where a step's work is done: `queue:` and `capabilities:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlace {
    pub queue: Arc<str>,
    /// What a worker must be able to do besides serving the queue.
    pub capabilities: Vec<Box<str>>,
}

/// `if:`.
#[derive(Clone, Debug)]
pub enum Condition {
    Constant(bool),
    Expression(Expression),
}

/// How often a step runs.
#[derive(Clone, Debug)]
pub enum Fan {
    /// `foreach` over a list that stands in the file; its strings are templates.
    Static { items: Vec<ValueTemplate>, items_span: Span, alias: Option<Spanned<Box<str>>>, max_parallel: Option<u32> },
    /// `foreach` over what an expression gives.
    Dynamic {
        items: Spanned<Expression>,
        alias: Option<Spanned<Box<str>>>,
        max_items: Option<u32>,
        max_parallel: Option<u32>,
        span: Span,
    },
    /// `matrix`: every combination that is not excluded, the last key varying fastest.
    Matrix { combinations: Vec<Value>, keys: Vec<Spanned<Box<str>>>, max_parallel: Option<u32> },
}

/// Which of several ready steps goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    Critical,
    High,
    #[default]
    Medium,
    Low,
}

impl Fan {
    /// The name that the file gives to an item's value.
    pub fn alias(&self) -> Option<&Spanned<Box<str>>> {
        match self {
            Self::Static { alias, .. } | Self::Dynamic { alias, .. } => alias.as_ref(),
            Self::Matrix { .. } => None,
        }
    }

    /// How many items may run at once, where the file says so.
    pub fn max_parallel(&self) -> Option<u32> {
        match self {
            Self::Static { max_parallel, .. }
            | Self::Dynamic { max_parallel, .. }
            | Self::Matrix { max_parallel, .. } => *max_parallel,
        }
    }
}

/// A text of `env:`, by its name.
pub type EnvEntry = (Spanned<Box<str>>, Spanned<Template>);
