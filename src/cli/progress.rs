//! What a person or program sees of a run while it goes on.

use crate::cli::print::err_text;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::args::{RunFormat, WatchArgs};
use super::follow::step_of;
use crate::handler::LogLine;
use crate::handler::process::Stream;
use crate::id::{RunId, UnitPath};
use crate::report::{note_line, note_text, questions_text, run_line, summary, summary_text};
use crate::scheduler::{About, Note, State, StepStatus};
use crate::time::Timestamp;

/// How often the live part of the screen is drawn again.
const REDRAW: Duration = Duration::from_millis(100);
/// Running steps that the live part shows at most.
const LIVE_STEPS: usize = 12;

/// Shows a run in one of three forms.
pub struct Progress {
    run: RunId,
    format: RunFormat,
    quiet: bool,
    colour: bool,
    /// Steps at work, for the live part, with when they began.
    running: BTreeMap<UnitPath, (StepStatus, Instant)>,
    drawn: usize,
    last_seq: u64,
}

impl Progress {
    /// A view in the form that was asked for, or that fits where standard output goes.
    pub fn new(run: &RunId, watch: &WatchArgs) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let format = watch.format.unwrap_or(if terminal { RunFormat::Tree } else { RunFormat::Plain });
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { run: run.clone(), format, quiet: watch.quiet, colour, running: BTreeMap::new(), drawn: 0, last_seq: 0 }
    }

    /// The form.
    pub fn format(&self) -> RunFormat {
        self.format
    }

    /// True if what scripts print is to be shown.
    pub fn shows_logs(&self) -> bool {
        !self.quiet && self.format != RunFormat::Json
    }

    /// True if a part of the screen is drawn again and again.
    pub fn is_live(&self) -> bool {
        self.format == RunFormat::Tree && self.colour
    }

    /// How often.
    pub fn tick(&self) -> Duration {
        REDRAW
    }

    /// A change of the run or of a step.
    pub fn note(&mut self, at: Timestamp, note: &Note) {
        self.last_seq = note.seq;
        if self.format == RunFormat::Json {
            return print(&note_line(&self.run, at, note));
        }
        if let About::Unit { path, status, .. } = &note.about {
            match status {
                StepStatus::Running | StepStatus::Waiting => {
                    self.running.entry(path.clone()).or_insert((*status, Instant::now())).0 = *status;
                }
                StepStatus::Pending
                | StepStatus::Succeeded
                | StepStatus::Failed
                | StepStatus::TimedOut
                | StepStatus::Skipped
                | StepStatus::Cancelled
                | StepStatus::Unknown => {
                    self.running.remove(path);
                }
            }
        }
        let live = self.is_live() && matches!(&note.about, About::Unit { status: StepStatus::Running, .. });
        if live {
            return self.redraw();
        }
        if let Some(line) = note_text(note) {
            let line = self.paint(note, &line);
            self.above(&line);
        }
    }

    /// A change as a line of JSON, from wherever the run is driven.
    pub fn line(&mut self, line: &str, object: &Value) {
        if self.format == RunFormat::Json {
            return print(line);
        }
        let number = |key: &str| object.get(key).and_then(Value::as_u64);
        let word = |key: &str| object.get(key).and_then(Value::as_str);
        let seq = number("seq").unwrap_or_default();
        let Some((path, status)) = step_of(object) else {
            if let Some(word) = word("status").filter(|word| *word != "accepted") {
                self.above(&format!("run: {word}"));
            }
            return;
        };
        let attempt = number("attempt").and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(1);
        let cached = object.get("cached") == Some(&Value::Bool(true));
        let message = word("message").map(str::to_owned);
        let about = About::Unit { path, status, attempt, cached, duration_ms: number("duration_ms"), message };
        self.note(Timestamp(0), &Note { seq, about });
    }

    /// The run is over, as it was told from elsewhere.
    pub fn finished(&mut self, summary: &str, text: &str) {
        self.clear();
        match self.format {
            RunFormat::Json => print(summary),
            RunFormat::Plain | RunFormat::Tree => print(text.trim_end()),
        }
    }

    fn paint(&self, note: &Note, line: &str) -> String {
        let About::Unit { path, status, .. } = &note.about else { return line.to_owned() };
        if self.format != RunFormat::Tree {
            return line.to_owned();
        }
        let (mark, code) = match status {
            StepStatus::Succeeded => ("✓", 32),
            StepStatus::Failed | StepStatus::TimedOut => ("✗", 31),
            StepStatus::Skipped => ("○", 2),
            StepStatus::Cancelled => ("■", 33),
            StepStatus::Waiting => ("…", 36),
            StepStatus::Unknown => ("?", 35),
            StepStatus::Pending | StepStatus::Running => ("▸", 34),
        };
        let indent = "  ".repeat(path.as_str().matches('/').count());
        if self.colour {
            format!("{indent}\u{1b}[{code}m{mark}\u{1b}[0m {line}")
        } else {
            format!("{indent}{mark} {line}")
        }
    }

    /// A line that a script printed.
    pub fn log(&mut self, line: &LogLine) {
        let text: String = line.text.chars().filter(|c| *c == '\t' || !c.is_control()).collect();
        let bar = match line.stream {
            Stream::Out => "│",
            Stream::Err => "┆",
        };
        let text = format!("  {} {bar} {text}", line.unit);
        let text = if self.colour { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text };
        self.above(&text);
    }

    /// Only a person can move the run on.
    pub fn waiting(&mut self, questions: &[(UnitPath, StepStatus)]) {
        let questions: Vec<(String, StepStatus)> =
            questions.iter().map(|(path, status)| (path.to_string(), *status)).collect();
        let words = questions_text(self.run.as_str(), &questions);
        if self.format == RunFormat::Json {
            err_text!("{words}");
            return;
        }
        self.above(words.trim_end());
    }

    /// The run is over, or left waiting.
    pub fn ended(&mut self, state: &State) {
        self.clear();
        match self.format {
            RunFormat::Json => {
                if state.verdict.is_none() {
                    let waiting: Vec<String> = state.open_questions().map(|key| state.path(key).to_string()).collect();
                    print(&run_line(&self.run, state.now, self.last_seq + 1, state.status().as_str(), &waiting));
                }
                print(&summary(state).to_string());
            }
            RunFormat::Plain | RunFormat::Tree => print(summary_text(state).trim_end()),
        }
    }

    /// Prints a line above the live part.
    fn above(&mut self, line: &str) {
        self.clear();
        print(line);
        self.redraw();
    }

    /// Takes the live part off the screen.
    pub fn clear(&mut self) {
        if self.drawn > 0 {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\u{1b}[{}A\u{1b}[J", self.drawn);
            let _ = out.flush();
            self.drawn = 0;
        }
    }

    /// Draws the live part.
    pub fn redraw(&mut self) {
        if !self.is_live() {
            return;
        }
        self.clear();
        let mut out = std::io::stdout().lock();
        for (path, (status, since)) in self.running.iter().take(LIVE_STEPS) {
            let indent = "  ".repeat(path.as_str().matches('/').count());
            let seconds = since.elapsed().as_secs_f64();
            let word = if *status == StepStatus::Waiting { " (waiting)" } else { "" };
            let _ = writeln!(out, "{indent}\u{1b}[34m▸\u{1b}[0m {path}{word} \u{1b}[2m{seconds:.1}s\u{1b}[0m");
            self.drawn += 1;
        }
        if self.running.len() > LIVE_STEPS {
            let _ = writeln!(out, "  … and {} more", self.running.len() - LIVE_STEPS);
            self.drawn += 1;
        }
        let _ = out.flush();
    }
}

/// Prints a line at once. A reader that has gone is no reason to stop the run.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// True if diagnostics on standard error may be coloured.
pub fn colour_of_stderr() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
