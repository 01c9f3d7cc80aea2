//! Exit codes, as the contract documents them, and failures of the command line itself.

use crate::journal::JournalError;
use crate::runtime::RuntimeError;
use crate::scheduler::RunStatus;

/// It is done, or the run succeeded or was degraded.
pub const DONE: u8 = 0;
/// The run failed, or findings were reported, or the command could not be carried out.
pub const FAILED: u8 = 1;
/// The file, a parameter or the command line is invalid; nothing was started.
pub const INVALID: u8 = 2;
/// The run's time limit.
pub const TIMED_OUT: u8 = 3;
/// Another limit of the run.
pub const BUDGET: u8 = 4;
/// The run waits for a person.
pub const WAITING: u8 = 5;
/// Ended by a signal.
pub const SIGNALLED: u8 = 130;

/// Words for stderr and an exit code.
#[derive(Clone, Debug)]
pub struct Failure {
    pub message: String,
    pub code: u8,
}

impl Failure {
    /// The command could not be carried out.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: FAILED }
    }

    /// What was asked for makes no sense as it stands.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: INVALID }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error.to_string())
    }
}

/// The exit code of a run's status.
pub fn code_of(status: RunStatus, signalled: bool, fail_on_degraded: bool) -> u8 {
    match status {
        RunStatus::Succeeded => DONE,
        RunStatus::Degraded if fail_on_degraded => FAILED,
        RunStatus::Degraded => DONE,
        RunStatus::Failed => FAILED,
        RunStatus::TimedOut => TIMED_OUT,
        RunStatus::BudgetExhausted => BUDGET,
        RunStatus::Running | RunStatus::Waiting => WAITING,
        RunStatus::Cancelled if signalled => SIGNALLED,
        RunStatus::Cancelled => FAILED,
    }
}
