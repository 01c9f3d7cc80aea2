//! Newtypes for the names of things: runs, steps, attempts, leases. No behaviour beyond reading and printing.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A run's name: a UUID version 7 in its hyphenated form, so that names sort by the time they were given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunId(pub Arc<str>);

impl RunId {
    /// Takes a name as it is written; whether such a run exists is for the journal to say.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The place of one unit of work in a run: `fetch`, `child/step`, `branches[0]/grow`, `evidence/E1`, `each[3]`.
///
/// The item of a fan-out stands in brackets behind its step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnitPath(pub Arc<str>);

impl UnitPath {
    /// Takes a path as it is written.
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The step's path and, for one item of a fan-out, its number from 0.
    pub fn split_item(&self) -> (&str, Option<u32>) {
        if let Some(stem) = self.0.strip_suffix(']')
            && let Some((step, digits)) = stem.rsplit_once('[')
            && let Ok(item) = digits.parse()
        {
            return (step, Some(item));
        }
        (&self.0, None)
    }
}

impl fmt::Display for UnitPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Names one hand-out of work: it grows with every dispatch of a unit, and only the current one may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseToken(pub u64);
