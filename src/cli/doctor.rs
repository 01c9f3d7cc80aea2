//! `tol doctor`: looks for what keeps `tol` from working here, and says what to do about it.

use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::args::{RemoteArgs, StateArgs, TextFormat};
use super::context::Context;
use super::doctor_checks;
use super::exit::{DONE, FAILED, Failure};
use super::output;
use crate::journal::{JournalError, OpenMode, SqliteJournal};

/// `tol doctor`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 nothing failed (there may be warnings), 1 a check failed.")]
pub struct DoctorArgs {
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
    /// Take a journal whose last events are lost for complete, after saying what is lost
    #[arg(long)]
    pub accept_loss: bool,
    #[command(flatten)]
    pub remote: RemoteArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    Ok,
    Warn,
    Fail,
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub check: &'static str,
    pub grade: Grade,
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Line {
    /// All is well.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, grade: Grade::Ok, message: message.into(), help: None }
    }

    /// It works, but not as well as it should.
    pub fn warn(check: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { check, grade: Grade::Warn, message: message.into(), help: Some(help.into()) }
    }

    /// It does not work.
    pub fn fail(check: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { grade: Grade::Fail, ..Self::warn(check, message, help) }
    }
}

/// Runs all checks.
pub fn run(arguments: &DoctorArgs) -> Result<u8, Failure> {
    let context = Context::around(None, &arguments.state)?;
    if arguments.accept_loss {
        accept_loss(&context)?;
    }
    let begun = Instant::now();
    let lines = doctor_checks::all(&context, &arguments.remote);
    let count = |grade: Grade| lines.iter().filter(|line| line.grade == grade).count();
    let (warned, failed) = (count(Grade::Warn), count(Grade::Fail));
    let text = match arguments.format {
        TextFormat::Json => {
            let checks: Vec<_> = lines
                .iter()
                .map(|line| json!({ "check": line.check, "status": line.grade.as_str(), "message": line.message, "help": line.help }))
                .collect();
            format!(
                "{}\n",
                json!({ "version": env!("CARGO_PKG_VERSION"), "ok": count(Grade::Ok), "warnings": warned, "failures": failed, "checks": checks })
            )
        }
        TextFormat::Text => {
            let width = lines.iter().map(|line| line.check.len()).max().unwrap_or(0);
            let mut text = String::new();
            for line in &lines {
                text.push_str(&format!("{:4}  {:width$}  {}\n", line.grade.as_str(), line.check, line.message));
                if let Some(help) = &line.help {
                    text.push_str(&format!("      {:width$}  -> {help}\n", ""));
                }
            }
            text.push_str(&format!(
                "tol {}: {} checks in {} ms, {warned} to look at, {failed} failed\n",
                env!("CARGO_PKG_VERSION"),
                lines.len(),
                begun.elapsed().as_millis()
            ));
            text
        }
    };
    output::print(&text);
    Ok(if failed > 0 { FAILED } else { DONE })
}

/// Says what a journal has lost, then takes it as it is.
fn accept_loss(context: &Context) -> Result<(), Failure> {
    let lost = match SqliteJournal::open(&context.state_dir, OpenMode::ReadOnly).and_then(|journal| journal.verify()) {
        Err(lost @ JournalError::Lost { .. }) => lost,
        Ok(_) => {
            eprintln!(
                "nothing is lost: the journal in {} is complete, and nothing was changed",
                context.state_dir.display()
            );
            return Ok(());
        }
        // Only a loss can be accepted: anything else is told by the checks or stops here.
        Err(error) => return Err(error.into()),
    };
    eprintln!("{lost}");
    eprintln!(
        "accepting the loss: what is missing stays missing; a run whose last events are gone goes on from those that are left"
    );
    SqliteJournal::accept_loss(&context.state_dir)?;
    Ok(())
}
