//! What can happen to a run: inputs that ask to be admitted, events that the journal keeps, and refusals.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::status::StepStatus;
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Failure, Outcome};
use crate::time::Timestamp;

/// The version of the stored form of events. A reader of version n reads every version up to n.
pub const EVENT_VERSION: u32 = 2;

/// One event as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    pub v: u32,
    pub at: Timestamp,
    pub event: Event,
}

impl Stamped {
    /// An event at a time, in the oldest version that knows its kind, so that older readers get as far as they can.
    pub fn new(at: Timestamp, event: Event) -> Self {
        let v = if matches!(event, Event::Lost { .. } | Event::Reclaimed) { EVENT_VERSION } else { 1 };
        Self { v, at, event }
    }
}

/// A fact about a run. Events are never changed once they are stored; new kinds and fields may be added.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The first event of every run.
    Accepted(Box<Accepted>),
    /// A step that must not run twice is about to start; durable before it does.
    Started {
        unit: UnitPath,
        token: LeaseToken,
    },
    /// An attempt ended. `draw` (0 to 1) is the chance in the pause before the next one.
    Reported {
        unit: UnitPath,
        token: LeaseToken,
        outcome: Outcome,
        draw: f64,
    },
    /// Some time limit, pause or wait that the state knows of is over.
    TimePassed,
    CancelRequested {
        by: String,
        now: bool,
    },
    Paused {
        by: String,
    },
    Unpaused {
        by: String,
    },
    /// An approval was given or refused.
    Decided {
        unit: UnitPath,
        decision: Decision,
        by: String,
        comment: Option<String>,
    },
    /// An operator said what became of an unknown step.
    Settled {
        unit: UnitPath,
        settlement: Settlement,
        by: String,
    },
    /// No process drives the run: what follows is only noted, and nothing is handed out until one recovers it.
    Idle,
    /// A process took the run up again; whatever was running in the one before is lost.
    Recovered,
    /// A process took the run up again; what was handed out stays with its workers, which will say so.
    Reclaimed,
    /// The worker that had a hand-out was not heard of for too long: the unit is handed out anew.
    Lost {
        unit: UnitPath,
        token: LeaseToken,
        why: String,
    },
}

impl Event {
    /// What watchers are told of the run as a whole.
    pub(super) fn word(&self) -> Option<&'static str> {
        match self {
            Self::Accepted(_) => Some("accepted"),
            Self::Paused { .. } => Some("paused"),
            Self::Unpaused { .. } => Some("unpaused"),
            Self::CancelRequested { .. } => Some("stopping"),
            Self::Recovered | Self::Reclaimed => Some("recovered"),
            Self::Started { .. }
            | Self::Reported { .. }
            | Self::TimePassed
            | Self::Decided { .. }
            | Self::Settled { .. }
            | Self::Lost { .. }
            | Self::Idle => None,
        }
    }

    /// The input that leads to this event: a history is lawful if each of its events would be admitted again.
    pub fn to_input(&self) -> Option<Input> {
        Some(match self.clone() {
            Self::Accepted(_) => return None,
            Self::Started { unit, token } => Input::Start { unit, token },
            Self::Reported { unit, token, outcome, draw } => Input::Report { unit, token, outcome, draw },
            Self::TimePassed => Input::Time,
            Self::CancelRequested { by, now } => Input::Cancel { by, now },
            Self::Paused { by } => Input::Pause { by },
            Self::Unpaused { by } => Input::Unpause { by },
            Self::Decided { unit, decision, by, comment } => Input::Decide { unit, decision, by, comment },
            Self::Settled { unit, settlement, by } => Input::Settle { unit, settlement, by },
            Self::Idle => Input::Idle,
            Self::Recovered => Input::Recover,
            Self::Reclaimed => Input::Reclaim,
            Self::Lost { unit, token, why } => Input::Lost { unit, token, why },
        })
    }
}

/// An answer to an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Approved,
    Rejected,
}

impl Decision {
    /// The word that `outputs.decision` holds.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }
}

/// What an operator says of an unknown step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    Succeeded,
    Failed,
    Retry,
}

/// What a run is started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    pub run: RunId,
    pub definition_hash: String,
    pub params: serde_json::Map<String, Value>,
    /// The allow-listed part of the caller's environment.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub env: serde_json::Map<String, Value>,
    #[serde(default)]
    pub options: Options,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// Steps whose result is taken from the parent run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reused: Vec<ReusedStep>,
}

/// What the command line said about the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// A step of the root pipeline that is not run again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReusedStep {
    pub step: String,
    pub status: StepStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Arc<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub attempts: u32,
    /// Its fallback had saved it: the new run is no plain success either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fallback: bool,
}

/// Something that asks to be taken into a run's history.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Start { unit: UnitPath, token: LeaseToken },
    Report { unit: UnitPath, token: LeaseToken, outcome: Outcome, draw: f64 },
    Time,
    Cancel { by: String, now: bool },
    Pause { by: String },
    Unpause { by: String },
    Decide { unit: UnitPath, decision: Decision, by: String, comment: Option<String> },
    Settle { unit: UnitPath, settlement: Settlement, by: String },
    Idle,
    Recover,
    Reclaim,
    Lost { unit: UnitPath, token: LeaseToken, why: String },
}

/// Why an input was not taken in. `Same` is no error: what was asked for is so already.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("this attempt at `{0}` is no longer the current one")]
    Stale(UnitPath),
    #[error("no time limit is over yet")]
    NothingDue,
    #[error("the run has ended ({0})")]
    Ended(&'static str),
    #[error("that is so already")]
    Same,
    #[error("`{0}` is not a step of this run")]
    UnknownStep(UnitPath),
    #[error("`{unit}` does not wait for an approval: it is {status}")]
    NotWaiting { unit: UnitPath, status: &'static str },
    #[error("`{unit}` was {before} already; the first decision stands")]
    Contrary { unit: UnitPath, before: &'static str },
    #[error("`{unit}` is {status}, not unknown: there is nothing to settle")]
    NotUnknown { unit: UnitPath, status: &'static str },
    #[error("`{by}` is not among the approvers of `{unit}` ({approvers})")]
    NotApprover { unit: UnitPath, by: String, approvers: String },
}
