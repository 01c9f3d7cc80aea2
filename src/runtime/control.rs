//! Commands that one process leaves for the process that drives a run; or carries out itself if none does.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Clock, RuntimeError, rebuild};
use crate::id::{RunId, UnitPath};
use crate::journal::{Batch, Claim, Journal, RunSummaryRow};
use crate::scheduler::{Decision, Input, Rejection, Settlement, Stamped, admit, apply};

/// How long the driving process has to answer before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often its answer is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What one process asks of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlCommand {
    Cancel { by: String },
    Pause { by: String },
    Unpause { by: String },
    Decide { unit: UnitPath, decision: Decision, by: String, comment: Option<String> },
    Settle { unit: UnitPath, settlement: Settlement, by: String },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReply {
    /// What kept it from being done; none if it was done, or was so already.
    pub refused: Option<String>,
    pub same: bool,
}

impl ControlReply {
    /// It was done.
    pub fn done() -> Self {
        Self { refused: None, same: false }
    }

    /// It was so already.
    pub fn same() -> Self {
        Self { refused: None, same: true }
    }

    /// It was not done.
    pub fn refused(why: String) -> Self {
        Self { refused: Some(why), same: false }
    }
}

impl ControlCommand {
    /// The input that the command asks to be taken in.
    pub fn into_input(self) -> Input {
        match self {
            Self::Cancel { by } => Input::Cancel { by, now: false },
            Self::Pause { by } => Input::Pause { by },
            Self::Unpause { by } => Input::Unpause { by },
            Self::Decide { unit, decision, by, comment } => Input::Decide { unit, decision, by, comment },
            Self::Settle { unit, settlement, by } => Input::Settle { unit, settlement, by },
        }
    }
}

/// Has a command carried out: by the process that drives the run, or, if none does, by writing the event here. The
/// effect is durable when this returns.
///
/// # Errors
/// If the run is unknown, refuses the command, or its driver does not answer.
pub fn leave_command(
    journal: &dyn Journal,
    clock: &dyn Clock,
    run: &RunId,
    command: &ControlCommand,
) -> Result<ControlReply, RuntimeError> {
    let body = serde_json::to_vec(command).map_err(|error| RuntimeError::Refused(error.to_string()))?;
    match journal.claim(run)? {
        Claim::Taken => return write_here(journal, clock, run, command.clone()),
        Claim::Held { .. } => {}
    }
    let id = journal.send_command(run, &body)?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(reply) = journal.command_reply(id)? {
            return serde_json::from_slice(&reply).map_err(|error| RuntimeError::Refused(error.to_string()));
        }
        std::thread::sleep(LOOK_AGAIN);
        // The driver may have ended in the meantime, by itself or not.
        if started.elapsed() > Duration::from_secs(1)
            && let Claim::Taken = journal.claim(run)?
        {
            return write_here(journal, clock, run, command.clone());
        }
    }
    Err(RuntimeError::NoAnswer(run.clone()))
}

fn write_here(
    journal: &dyn Journal,
    clock: &dyn Clock,
    run: &RunId,
    command: ControlCommand,
) -> Result<ControlReply, RuntimeError> {
    let result = write_event(journal, clock, run, command);
    journal.release(run)?;
    result
}

/// Writes a command's event into the journal of a run that this process has claimed and does not drive yet.
///
/// # Errors
/// If the run cannot be read or written.
pub fn write_event(
    journal: &dyn Journal,
    clock: &dyn Clock,
    run: &RunId,
    command: ControlCommand,
) -> Result<ControlReply, RuntimeError> {
    let mut state = rebuild(journal, run)?.state;
    let now = clock.now().max(state.now);
    let first_seq = state.seq + 1;
    let mut bodies = Vec::new();
    // What the command sets in motion is handed out by whoever resumes the run.
    for input in [Input::Idle, command.into_input()] {
        let idle = input == Input::Idle;
        let event = match admit(&state, input, now) {
            Ok(event) => event,
            Err(_) if idle => continue,
            Err(Rejection::Same) => return Ok(ControlReply::same()),
            Err(rejection) => return Ok(ControlReply::refused(rejection.to_string())),
        };
        let stamped = Stamped::new(now, event);
        let body = serde_json::to_vec(&stamped).map_err(|error| RuntimeError::Refused(error.to_string()))?;
        apply(&mut state, &stamped);
        bodies.push(body.into_boxed_slice());
    }
    let summary =
        RunSummaryRow { status: state.status().as_str().to_owned(), paused: state.paused, finished_at: state.ended_at };
    let batch = Batch {
        run: run.clone(),
        first_seq,
        bodies,
        accept: None,
        summary: Some(summary),
        cache: Vec::new(),
        handled: Vec::new(),
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    journal.append(
        batch,
        Box::new(move |result| {
            let _ = sender.send(result);
        }),
    );
    receiver.recv().map_err(|_| RuntimeError::Stopped)??;
    Ok(ControlReply::done())
}
