//! `tol runs`: list, show, logs, cancel, pause, resume, rerun, prune.

use crate::cli::print::{err, out, out_text};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::args::{
    ListArgs, LogsArgs, PruneArgs, RerunArgs, RunRef, RunsCommand, ShowArgs, StateArgs, TextFormat, WatchArgs,
};
use super::context::{Context, user};
use super::exit::{DONE, Failure, INVALID};
use super::remote::Remote;
use super::retention::enforce;
use super::run::{NewRunOf, compile, start};
use crate::compile::Program;
use crate::journal::{Claim, Journal, ListFilter};
use crate::runtime::{Clock, ControlCommand, Rebuilt, SystemClock, leave_command, rebuild};
use crate::scheduler::{ReusedStep, State, StepStatus, UnitKey};
use crate::server::{LogsFound, Retention, each_log_line, history_text, row_object, show_object, show_text};
use crate::time::{format_duration, parse_duration};

/// Does what a subcommand says.
pub fn run(command: RunsCommand) -> Result<u8, Failure> {
    match command {
        RunsCommand::List(arguments) => list(&arguments),
        RunsCommand::Show(arguments) => show(&arguments),
        RunsCommand::Watch(arguments) => super::follow::run(&arguments),
        RunsCommand::Logs(arguments) => show_logs(&arguments),
        RunsCommand::Cancel(arguments) => cancel(&arguments),
        RunsCommand::Pause(arguments) => pause(&arguments, true),
        RunsCommand::Resume(arguments) => pause(&arguments, false),
        RunsCommand::Rerun(arguments) => rerun(&arguments),
        RunsCommand::Prune(arguments) => prune(&arguments),
    }
}

fn open(state: &StateArgs) -> Result<(Context, Option<Arc<dyn Journal>>), Failure> {
    let context = Context::around(None, state)?;
    let journal = context.journal_to_read()?;
    Ok((context, journal))
}

fn list(arguments: &ListArgs) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return remote.list(arguments);
    }
    let (_, journal) = open(&arguments.state)?;
    let filter = ListFilter {
        status: arguments.status.clone(),
        pipeline: arguments.pipeline.clone(),
        limit: Some(arguments.limit),
    };
    let rows = match &journal {
        Some(journal) => journal.list(&filter)?,
        None => Vec::new(),
    };
    let now = SystemClock.now();
    print_list(&rows.iter().map(|row| row_object(row, now)).collect::<Vec<Value>>(), arguments.format);
    Ok(DONE)
}

/// Prints runs, each in the contract's shape.
pub fn print_list(rows: &[Value], format: TextFormat) {
    let word = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    match format {
        TextFormat::Json => out!("{}", Value::Array(rows.to_vec())),
        TextFormat::Text if rows.is_empty() => err!("no runs here yet"),
        TextFormat::Text => {
            let width = rows.iter().map(|row| word(row, "pipeline").chars().count()).max().unwrap_or(0).max(8);
            out!("{:36}  {:width$}  {:16}  {:24}  DURATION", "RUN", "PIPELINE", "STATUS", "STARTED");
            for row in rows {
                let paused = if row.get("paused") == Some(&Value::Bool(true)) { " paused" } else { "" };
                let status = format!("{}{paused}", word(row, "status"));
                let millis = row.get("duration_ms").and_then(Value::as_u64).unwrap_or_default();
                let duration = format_duration(Duration::from_millis(millis));
                let (run, pipeline, started) = (word(row, "run_id"), word(row, "pipeline"), word(row, "started_at"));
                out!("{run:36}  {pipeline:width$}  {status:16}  {started:24}  {duration}");
            }
        }
    }
}

fn show(arguments: &ShowArgs) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return remote.show(arguments);
    }
    let (context, journal) = open(&arguments.state)?;
    let row = context.find(journal.as_deref(), &arguments.run)?;
    let Some(journal) = journal else { return Ok(DONE) };
    let Rebuilt { state, history, .. } = rebuild(&*journal, &row.run)?;
    if arguments.history {
        out_text!("{}", history_text(&history));
        return Ok(DONE);
    }
    match arguments.format {
        TextFormat::Json => out!("{}", show_object(&row, &state, SystemClock.now())),
        TextFormat::Text => out_text!("{}", show_text(&row, &state)),
    }
    Ok(DONE)
}

fn show_logs(arguments: &LogsArgs) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return remote.logs(arguments);
    }
    let (context, journal) = open(&arguments.state)?;
    let row = context.find(journal.as_deref(), &arguments.run)?;
    let Some(journal) = journal else { return Ok(DONE) };
    let step = arguments.step.as_deref();
    let found = each_log_line(&*journal, &context.state_dir, &row.run, step, &mut |line| {
        out!("{line}");
        Ok(())
    })?;
    match (found, step) {
        (LogsFound::Lines, _) | (LogsFound::Nothing, None) => Ok(DONE),
        (LogsFound::Nothing, Some(step)) => {
            err!("{step} printed nothing");
            Ok(DONE)
        }
        (LogsFound::NoSuchStep, step) => {
            Err(Failure::failed(format!("`{}` is not a step of run {}", step.unwrap_or_default(), row.run)))
        }
    }
}

fn cancel(arguments: &RunRef) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return remote.cancel(arguments);
    }
    let (context, journal) = open(&arguments.state)?;
    let row = context.find(journal.as_deref(), &arguments.run)?;
    drop(journal);
    let by = user(None);
    let journal = context.journal()?;
    if let Claim::Held { .. } = journal.claim(&row.run)? {
        let reply = leave_command(&*journal, &SystemClock, &row.run, &ControlCommand::Cancel { by })?;
        journal.close();
        if let Some(why) = reply.refused {
            return Err(Failure::failed(why));
        }
        out!("{}: cancelling", row.run);
        return Ok(DONE);
    }
    let ended = rebuild(&*journal, &row.run)?.state.verdict;
    journal.release(&row.run)?;
    journal.close();
    if let Some(verdict) = ended {
        return Err(Failure::failed(format!(
            "run {} has ended ({}); there is nothing to cancel",
            row.run,
            verdict.status.as_str()
        )));
    }
    // Nothing drives it: what has to run at its end (`finally`, hooks) runs here.
    let watch =
        WatchArgs { format: None, quiet: true, fail_on: None, detach_on_wait: true, dispatch: Default::default() };
    super::resume::take_up(&context, &row.run, &watch, Some(by))?;
    Ok(DONE)
}

fn pause(arguments: &RunRef, on: bool) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return remote.pause(arguments, on);
    }
    let (context, journal) = open(&arguments.state)?;
    let row = context.find(journal.as_deref(), &arguments.run)?;
    drop(journal);
    let by = user(None);
    let command = if on { ControlCommand::Pause { by } } else { ControlCommand::Unpause { by } };
    let journal = context.journal()?;
    let reply = leave_command(&*journal, &SystemClock, &row.run, &command)?;
    journal.close();
    if let Some(why) = reply.refused {
        return Err(Failure::failed(why));
    }
    out!("{}: {}", row.run, if on { "paused; `tol runs resume` lifts it" } else { "goes on" });
    Ok(DONE)
}

fn rerun(arguments: &RerunArgs) -> Result<u8, Failure> {
    let (context, journal) = open(&arguments.state)?;
    let row = context.find(journal.as_deref(), &arguments.run)?;
    let Some(journal) = journal else { return Ok(DONE) };
    let before = rebuild(&*journal, &row.run)?.state;
    drop(journal);
    if before.verdict.is_none() {
        return Err(Failure::failed(format!("run {} has not ended; resume or cancel it first", row.run)));
    }
    let profile = before.accepted.options.profile.clone();
    let program = if arguments.latest {
        match compile(&context, &row.path, profile.clone())? {
            Some(program) => program,
            None => return Ok(INVALID),
        }
    } else {
        before.program.clone()
    };
    let reused = reused_steps(&before, &program, arguments)?;
    let params = crate::compile::complete_params(&program.root, before.accepted.params.clone())
        .map_err(|problems| Failure::invalid(problems.join("\n")))?;
    let new = NewRunOf { program, params, options: before.accepted.options.clone(), parent: Some(row.run), reused };
    let environment = context.environment()?;
    start(&context, new, environment, &arguments.watch)
}

/// The steps whose results are taken over: all but those that are to run and what depends on them.
fn reused_steps(before: &State, program: &Arc<Program>, arguments: &RerunArgs) -> Result<Vec<ReusedStep>, Failure> {
    let graph = &program.root.graph;
    let root = &before.scopes[0];
    let mut again = vec![false; graph.names.len()];
    match &arguments.from {
        Some(step) => match graph.index.get(step.as_str()) {
            Some(number) => again[*number as usize] = true,
            None => {
                let near = crate::diagnostic::nearest(step, graph.names.iter().map(|name| &**name));
                let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                return Err(Failure::invalid(format!("`{step}` is not a step of this pipeline{hint}")));
            }
        },
        None if !arguments.failed => return Ok(Vec::new()),
        None => {}
    }
    for (number, name) in graph.names.iter().enumerate() {
        let unit = root.find_step(name).and_then(|step| before.unit(UnitKey::whole(0, step)));
        let item_failed = root
            .find_step(name)
            .and_then(|step| root.steps[step as usize].fan.as_ref())
            .is_some_and(|fan| fan.items.iter().any(|item| item.status.is_failure()));
        let kept = unit.is_some_and(|unit| match unit.status {
            StepStatus::Succeeded => !(arguments.failed && item_failed),
            StepStatus::Skipped => true,
            StepStatus::Failed | StepStatus::TimedOut => !arguments.failed && unit.tolerated,
            StepStatus::Pending
            | StepStatus::Running
            | StepStatus::Waiting
            | StepStatus::Cancelled
            | StepStatus::Unknown => false,
        });
        // What never had a result has none to take over; `finally` belongs to each run anew.
        again[number] |= !kept && (arguments.failed || unit.is_none_or(|unit| !unit.status.is_failure()))
            || number as u32 >= graph.first_finally;
    }
    spread(graph, &mut again);
    if !again.iter().take(graph.first_finally as usize).any(|again| *again) {
        return Err(Failure::failed("nothing failed in that run: there is nothing to run again"));
    }
    let mut reused = Vec::new();
    for (name, _) in graph.names.iter().zip(&again).filter(|(_, again)| !**again) {
        let Some(unit) = root.find_step(name).and_then(|step| before.unit(UnitKey::whole(0, step))) else { continue };
        reused.push(ReusedStep {
            step: name.to_string(),
            status: unit.status,
            outputs: unit.outputs.clone(),
            failure: unit.failure.as_deref().cloned(),
            reason: unit.reason().map(str::to_owned),
            attempts: unit.attempt,
            fallback: unit.fallback,
        });
    }
    Ok(reused)
}

/// Marks everything that depends on a marked step.
fn spread(graph: &crate::graph::StepGraph, marked: &mut [bool]) {
    let mut open: Vec<u32> = (0..marked.len() as u32).filter(|step| marked[*step as usize]).collect();
    while let Some(step) = open.pop() {
        for dependant in graph.dependants(step) {
            if !std::mem::replace(&mut marked[dependant as usize], true) {
                open.push(dependant);
            }
        }
    }
}

fn prune(arguments: &PruneArgs) -> Result<u8, Failure> {
    let (context, reading) = open(&arguments.state)?;
    if reading.is_none() {
        err!("no runs here yet");
        return Ok(DONE);
    }
    drop(reading);
    let mut retention = Retention::of(&crate::compile::settings(&context.sources));
    if let Some(text) = &arguments.older_than {
        let length = parse_duration(text)
            .map_err(|error| Failure::invalid(format!("--older-than: {error}; write 30d, for example")))?;
        retention.age = Some(length);
    }
    retention.count = arguments.keep.or(retention.count);
    if retention == Retention::default() {
        return Err(Failure::invalid(
            "say which runs: --older-than 30d, --keep 100, or `retention:` in duo-agent.config.yaml",
        ));
    }
    let journal = context.journal()?;
    let gone = enforce(retention, &*journal, &context.state_dir, arguments.dry_run)?;
    journal.close();
    for run in &gone {
        out!("{run}");
    }
    err!("{} {} runs", if arguments.dry_run { "would remove" } else { "removed" }, gone.len());
    Ok(DONE)
}
