//! `tol resume`: take up a run where its process left it.

use super::args::{ResumeArgs, WatchArgs};
use super::context::Context;
use super::drive::{Start, Surroundings, drive};
use super::exit::{Failure, code_of};
use super::progress::Progress;
use crate::id::RunId;
use crate::journal::Claim;
use crate::runtime::{ControlCommand, SystemClock, rebuild, write_event};
use crate::server::Retention;

/// Takes up a run, or prints the summary of one that has ended.
pub fn run(arguments: &ResumeArgs) -> Result<u8, Failure> {
    let context = Context::around(None, &arguments.state)?;
    let reading = context.journal_to_read()?;
    let row = context.find(reading.as_deref(), &arguments.run)?;
    drop(reading);
    take_up(&context, &row.run, &arguments.watch, None)
}

/// Claims a run and drives it; `cancel` names who wants it ended.
pub fn take_up(context: &Context, run: &RunId, watch: &WatchArgs, cancel: Option<String>) -> Result<u8, Failure> {
    let journal = context.journal()?;
    if let Claim::Held { holder } = journal.claim(run)? {
        return Err(Failure::failed(format!(
            "run {run} is already running: {holder} drives it, and only one process may. Wait for its end, or end it first"
        )));
    }
    // A cancellation is written down before the run is taken up, so that nothing of it is started once more.
    let cancelled = cancel.map(|by| write_event(&*journal, &SystemClock, run, ControlCommand::Cancel { by }));
    let rebuilt = cancelled.transpose().and_then(|_| rebuild(&*journal, run));
    let state = match rebuilt {
        Ok(rebuilt) => rebuilt.state,
        Err(error) => {
            journal.release(run)?;
            return Err(error.into());
        }
    };
    if state.verdict.is_some() {
        journal.release(run)?;
        let mut progress = Progress::new(run, watch);
        progress.ended(&state);
        return Ok(code_of(state.status(), false, watch.fail_on.is_some()));
    }
    let surroundings = Surroundings {
        root: &context.root,
        state_dir: &context.state_dir,
        journal,
        environment: context.environment()?,
        watch,
        retention: Retention::of(&state.program.settings),
    };
    drive(Start::Adopted(Box::new(state)), surroundings)
}
