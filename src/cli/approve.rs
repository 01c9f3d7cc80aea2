//! `tol approve`: answer an approval, or say what became of an unknown step.

use super::args::{ApproveArgs, Settle};
use super::context::{Context, user};
use super::exit::{DONE, Failure};
use super::remote::Remote;
use crate::cli::print::out;
use crate::id::UnitPath;
use crate::runtime::{ControlCommand, SystemClock, leave_command};
use crate::scheduler::{Decision, Settlement};

/// Leaves the decision with the run.
pub fn run(arguments: &ApproveArgs) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return remote.approve(arguments);
    }
    let context = Context::around(None, &arguments.state)?;
    let reading = context.journal_to_read()?;
    let row = context.find(reading.as_deref(), &arguments.run)?;
    drop(reading);
    let unit = UnitPath::new(&arguments.step);
    let by = user(arguments.by.as_deref());
    let command = match arguments.settle {
        Some(settle) => {
            let settlement = match settle {
                Settle::Succeeded => Settlement::Succeeded,
                Settle::Failed => Settlement::Failed,
                Settle::Retry => Settlement::Retry,
            };
            ControlCommand::Settle { unit, settlement, by }
        }
        None => {
            let decision = if arguments.reject { Decision::Rejected } else { Decision::Approved };
            ControlCommand::Decide { unit, decision, by, comment: arguments.comment.clone() }
        }
    };
    let journal = context.journal()?;
    let ended = crate::runtime::rebuild(&*journal, &row.run)?.state.verdict.is_some();
    let held = matches!(journal.claim(&row.run)?, crate::journal::Claim::Held { .. });
    let reply = leave_command(&*journal, &SystemClock, &row.run, &command)?;
    journal.close();
    if let Some(why) = reply.refused {
        return Err(Failure::failed(why));
    }
    let done = match (&command, reply.same) {
        (_, true) => "that was decided already; nothing changes",
        (ControlCommand::Decide { decision: Decision::Rejected, .. }, _) => "rejected",
        (ControlCommand::Decide { .. }, _) => "approved",
        _ => "settled",
    };
    out!("{}: {done}", arguments.step);
    if !held && !ended {
        out!("nothing drives the run now; `tol resume {}` goes on with it", row.run);
    }
    Ok(DONE)
}
