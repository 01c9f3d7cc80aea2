//! Runs as `tol runs` shows them: the same words whether a person asks at the machine or over the network.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::handler::logs::{self, Source};
use crate::id::{RunId, UnitPath};
use crate::journal::{Journal, RunRow};
use crate::report::{summary, summary_text};
use crate::runtime::{RuntimeError, rebuild};
use crate::scheduler::{Stamped, State};
use crate::time::Timestamp;

/// A row in the contract's shape.
pub fn row_object(row: &RunRow, now: Timestamp) -> Value {
    let duration = row.finished_at.unwrap_or(now).since(row.started_at);
    json!({
        "run_id": row.run.as_str(),
        "pipeline": row.pipeline,
        "status": row.status,
        "paused": row.paused,
        "started_at": row.started_at.to_string(),
        "duration_ms": u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        "parent": row.parent.as_ref().map(RunId::as_str),
        "definition": { "hash": row.definition_hash, "git_commit": row.git_commit, "git_dirty": row.git_dirty },
    })
}

/// A run as one object: its summary, and what its row adds.
pub fn show_object(row: &RunRow, state: &State, now: Timestamp) -> Value {
    let mut object = summary(state);
    if let (Value::Object(object), Value::Object(row)) = (&mut object, row_object(row, now)) {
        for (key, value) in row {
            object.entry(key).or_insert(value);
        }
    }
    object
}

/// A run for people, with a line for each step.
pub fn show_text(row: &RunRow, state: &State) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", summary_text(state).trim_end());
    let _ = writeln!(out, "started {}{}", state.started_at, if state.paused { "  paused" } else { "" });
    if let Some(owner) = &row.owner {
        let _ = writeln!(out, "driven by {owner}");
    }
    if let Some(parent) = &row.parent {
        let _ = writeln!(out, "rerun of {parent}");
    }
    let commit = row.git_commit.as_deref().map_or(String::new(), |commit| {
        let dirty = if row.git_dirty == Some(true) { ", with changes" } else { "" };
        format!("  commit {commit}{dirty}")
    });
    let hash = row.definition_hash.get(..16).unwrap_or(&row.definition_hash);
    let _ = writeln!(out, "definition {hash}{commit}\n");
    let Value::Object(object) = summary(state) else { return out };
    let Some(Value::Object(steps)) = object.get("steps") else { return out };
    let width = steps.keys().map(|path| path.chars().count()).max().unwrap_or(0);
    for (path, step) in steps {
        let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut line = format!("{path:width$}  {:10}", text("status"));
        match step.get("attempts").and_then(Value::as_u64) {
            Some(attempts) if attempts > 1 => line.push_str(&format!("  {attempts} attempts")),
            Some(_) | None => {}
        }
        if step.get("cached") == Some(&Value::Bool(true)) {
            line.push_str("  cached");
        }
        let why = step.pointer("/error/message").and_then(Value::as_str).map_or_else(|| text("reason"), str::to_owned);
        if !why.is_empty() {
            line.push_str(&format!("  {}", why.lines().next().unwrap_or_default()));
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
    out
}

/// Every event of a run, one line each.
pub fn history_text(history: &[Stamped]) -> String {
    let mut out = String::new();
    for (number, stamped) in history.iter().enumerate() {
        let line = json!({ "seq": number + 1, "time": stamped.at.to_string(), "event": stamped.event });
        let _ = writeln!(out, "{line}");
    }
    out
}

/// What a look at a run's logs found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogsFound {
    Lines,
    /// The step is one of the run's, and printed nothing.
    Nothing,
    NoSuchStep,
}

/// Gives what a run's programs printed, line by line, of one step or of all.
///
/// # Errors
/// If a log cannot be read.
pub fn each_log_line(
    journal: &dyn Journal,
    state_dir: &Path,
    run: &RunId,
    step: Option<&str>,
    give: &mut dyn FnMut(String) -> std::io::Result<()>,
) -> Result<LogsFound, std::io::Error> {
    let all = logs::list(state_dir, run)?;
    let is_wanted = |unit: &UnitPath| {
        step.is_none_or(|step| {
            let path = unit.as_str();
            path == step
                || unit.split_item().0 == step
                || path.strip_prefix(step).is_some_and(|rest| rest.starts_with('/'))
        })
    };
    let wanted: Vec<_> = all.iter().filter(|log| is_wanted(&log.unit)).collect();
    if let Some(step) = step.filter(|_| wanted.is_empty()) {
        let known = rebuild(journal, run).is_ok_and(|rebuilt| rebuilt.state.find(&UnitPath::new(step)).is_some());
        return Ok(if known { LogsFound::Nothing } else { LogsFound::NoSuchStep });
    }
    for log in wanted {
        let attempt = if log.attempt > 1 { format!(" attempt {}", log.attempt) } else { String::new() };
        for piece in logs::read(log)? {
            let piece = piece?;
            let mark = match piece.source {
                Source::Err => "!",
                Source::Out => "|",
                Source::Note => "#",
            };
            for line in piece.text.lines() {
                give(format!("{}{attempt} {mark} {line}", log.unit))?;
            }
        }
    }
    Ok(LogsFound::Lines)
}

/// The run that an id or the beginning of one names.
///
/// # Errors
/// If there is none, or more than one.
pub fn find_run(journal: &dyn Journal, text: &str) -> Result<RunRow, RuntimeError> {
    if let Some(row) = journal.run(&RunId::new(text))? {
        return Ok(row);
    }
    let mut rows = journal.find_run(text)?;
    match (rows.pop(), rows.len()) {
        (Some(row), 0) if !text.is_empty() => Ok(row),
        (Some(_), more) if more > 0 => {
            Err(RuntimeError::Refused(format!("`{text}` is the beginning of {} runs; give more of it", more + 1)))
        }
        _ => Err(RuntimeError::NoSuchRun(text.to_owned())),
    }
}
