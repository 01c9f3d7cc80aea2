//! The statuses of runs and steps, as the contract names them.

use serde::{Deserialize, Serialize};

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    Running,
    /// Nothing can go on without a person.
    Waiting,
    Succeeded,
    Degraded,
    Failed,
    TimedOut,
    BudgetExhausted,
    Cancelled,
}

impl RunStatus {
    /// The status as the contract writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::BudgetExhausted => "budget_exhausted",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status that the contract writes so.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Running,
            Self::Waiting,
            Self::Succeeded,
            Self::Degraded,
            Self::Failed,
            Self::TimedOut,
            Self::BudgetExhausted,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }

    /// True once nothing more will happen.
    pub fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Waiting => false,
            Self::Succeeded
            | Self::Degraded
            | Self::Failed
            | Self::TimedOut
            | Self::BudgetExhausted
            | Self::Cancelled => true,
        }
    }
}

/// How a step, or one item of a fan-out, stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    #[default]
    Pending,
    Running,
    Waiting,
    Succeeded,
    Failed,
    TimedOut,
    Skipped,
    Cancelled,
    /// A step that must not run twice was in the middle when its process died.
    Unknown,
}

impl StepStatus {
    /// The status as the contract writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    /// The status that the contract writes so.
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::Pending,
            Self::Running,
            Self::Waiting,
            Self::Succeeded,
            Self::Failed,
            Self::TimedOut,
            Self::Skipped,
            Self::Cancelled,
            Self::Unknown,
        ]
        .into_iter()
        .find(|status| status.as_str() == word)
    }

    /// True once the step will not change again by itself.
    pub fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Running | Self::Waiting | Self::Unknown => false,
            Self::Succeeded | Self::Failed | Self::TimedOut | Self::Skipped | Self::Cancelled => true,
        }
    }

    /// True if the work was tried and did not succeed.
    pub fn is_failure(self) -> bool {
        match self {
            Self::Failed | Self::TimedOut => true,
            Self::Pending
            | Self::Running
            | Self::Waiting
            | Self::Succeeded
            | Self::Skipped
            | Self::Cancelled
            | Self::Unknown => false,
        }
    }
}

/// How a run ended, and the word or sentence that says why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub status: RunStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
