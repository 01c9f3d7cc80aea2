//! Notes and summaries as lines for people.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::scheduler::{About, Body, Note, RunStatus, State, StepStatus};
use crate::time::format_duration;

/// One line about a note: `fetch: succeeded (attempt 2)`; none for what people need not see.
pub fn note_text(note: &Note) -> Option<String> {
    match &note.about {
        About::Run("accepted") => None,
        About::Run(word) => Some(format!("run: {word}")),
        About::Unit { path, status, attempt, cached, duration_ms, message } => {
            let mut line = format!("{path}: {}", status.as_str());
            if *attempt > 1 {
                let _ = write!(line, " (attempt {attempt})");
            }
            if *cached {
                line.push_str(" (cached)");
            }
            if let Some(length) = duration_ms.filter(|length| *length > 0) {
                let _ = write!(line, " in {}", format_duration(Duration::from_millis(length)));
            }
            if let Some(message) = message {
                let _ = write!(line, ": {}", message.lines().next().unwrap_or_default());
            }
            Some(line)
        }
    }
}

/// What a person is asked for.
pub fn questions_text(state_run: &str, questions: &[(String, StepStatus)]) -> String {
    let mut text = String::new();
    for (path, status) in questions {
        let _ = match status {
            StepStatus::Unknown => writeln!(
                text,
                "{path} was in the middle when its process died, and must not run twice. Look, then: \
                 tol approve {state_run} {path} --as succeeded|failed|retry"
            ),
            _ => writeln!(text, "{path} waits for an approval: tol approve {state_run} {path} [--reject]"),
        };
    }
    text
}

/// The end of a run in a few lines: how it ended and why, what failed, what it gave.
pub fn summary_text(state: &State) -> String {
    let mut text = String::new();
    let status = state.status();
    let end = state.ended_at.unwrap_or(state.now);
    let name = &state.program.root.pipeline.name.value;
    let _ = write!(text, "{name}: {} in {}", status.as_str(), format_duration(end.since(state.started_at)));
    if let Some(reason) = state.verdict.as_ref().and_then(|verdict| verdict.reason.as_deref()) {
        let _ = write!(text, " ({reason})");
    }
    let _ = writeln!(text, "\nrun {}", state.run);
    let mut counts = [0u64; 4];
    for scope in state.scopes.iter().filter(|scope| !scope.superseded && !matches!(scope.body, Body::Hooks { .. })) {
        for (step, entry) in scope.steps.iter().enumerate() {
            let unit = &entry.unit;
            match unit.status {
                StepStatus::Succeeded => counts[0] += 1,
                StepStatus::Failed | StepStatus::TimedOut => counts[1] += 1,
                StepStatus::Skipped => counts[2] += 1,
                StepStatus::Cancelled => counts[3] += 1,
                StepStatus::Pending | StepStatus::Running | StepStatus::Waiting | StepStatus::Unknown => {}
            }
            if unit.status.is_failure()
                && let Some(failure) = &unit.failure
            {
                let tolerated = if unit.tolerated { " (tolerated)" } else { "" };
                let _ = writeln!(
                    text,
                    "  {}{}{tolerated}: {}",
                    scope.prefix,
                    scope.step_name(step as u32),
                    failure.message
                );
                for line in failure
                    .stderr
                    .iter()
                    .flat_map(|stderr| stderr.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev())
                {
                    let _ = writeln!(text, "    | {line}");
                }
            }
        }
    }
    let words = ["succeeded", "failed", "skipped", "cancelled"];
    let parts: Vec<String> = counts
        .iter()
        .zip(words)
        .filter(|(count, _)| **count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if !parts.is_empty() {
        let _ = writeln!(text, "steps: {}", parts.join(", "));
    }
    for warning in &state.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    if let Some(Value::Object(outputs)) =
        state.outputs.as_deref().filter(|_| status.is_final() && status != RunStatus::Cancelled)
    {
        for (name, value) in outputs {
            let _ = match value {
                Value::String(words) if !words.contains('\n') => writeln!(text, "{name}: {words}"),
                Value::String(words) => writeln!(text, "{name}:\n{words}"),
                other => writeln!(text, "{name}: {other}"),
            };
        }
    }
    text
}
