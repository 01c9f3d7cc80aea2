//! Follows a run that something else drives: a server, or another process on this machine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::mpsc;
use tonic::Code;

use super::args::{FollowArgs, RunFormat, WatchArgs};
use super::context::Context;
use super::exit::{Failure, SIGNALLED, WAITING, code_of};
use super::print::err;
use super::progress::Progress;
use super::remote::Remote;
use super::signals::Signals;
use crate::handler::LogLine;
use crate::handler::process::Stream;
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::proto::v1;
use crate::scheduler::{RunStatus, StepStatus};
use crate::server::{Kept, Line, Place, Reading, Tail};
use crate::time::Timestamp;

/// How many lines wait to be shown.
const LINES: usize = 256;
/// How long a server that went away is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first pause before it is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// `tol runs watch`.
pub fn run(arguments: &FollowArgs) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return remote_run(&remote, &arguments.run, arguments.from, &arguments.watch);
    }
    let context = Context::around(None, &arguments.state)?;
    let journal = context.journal_to_read()?;
    let row = context.find(journal.as_deref(), &arguments.run)?;
    let Some(journal) = journal else { return Ok(super::exit::DONE) };
    let mut tail = Tail::of_journal(journal, row.run.clone());
    tail.from = arguments.from;
    let mut follower = Follower::new(&row.run, &arguments.watch, "tol runs cancel");
    let kept = Kept::since(context.state_dir.clone(), row.run.clone(), arguments.from);
    tail.logs = follower.shows_logs().then_some(kept);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (lines, mut inbox) = mpsc::channel(LINES);
        let follow = tokio::spawn(tail.follow(lines));
        loop {
            tokio::select! {
                _ = signals.next() => return Ok(follower.left()),
                line = inbox.recv() => match line {
                    Some(line) => if let Some(code) = follower.show(shown_of(line)) { return Ok(code) },
                    None => break,
                },
                () = follower.tick() => {}
            }
        }
        match follow.await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Err(Failure::failed("the run cannot be followed any further")),
        }
    });
    runtime.shutdown_background();
    code
}

fn shown_of(line: Line) -> Shown {
    match line {
        Line::Note(line) | Line::Waiting(line) => Shown::Line(line),
        Line::Log(line) => Shown::Log((*line).clone()),
        Line::End(end) => Shown::End { summary: end.summary.clone(), text: end.text.clone() },
    }
}

/// Follows a run of a server to its end. A server that goes away is waited for: the run goes on with the next one.
pub fn remote_run(remote: &Remote, run: &str, from: u64, watch: &WatchArgs) -> Result<u8, Failure> {
    remote.runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut follower = Follower::new(&RunId::new(run), watch, "tol runs cancel --server …");
        follower.next = from;
        let mut away: Option<Instant> = None;
        let mut pause = PAUSES.0;
        loop {
            let request = v1::WatchRequest {
                run: run.to_owned(),
                from_seq: follower.next,
                logs: follower.shows_logs(),
                read: follower.has_shown.then(|| read_of(&follower.reading)),
            };
            let mut client = remote.client();
            let opened = tokio::select! {
                opened = client.watch(request) => opened,
                _ = signals.next() => return Ok(follower.left()),
            };
            let status = match opened {
                Ok(stream) => {
                    let mut events = stream.into_inner();
                    loop {
                        tokio::select! {
                            _ = signals.next() => return Ok(follower.left()),
                            event = events.message() => match event {
                                Ok(Some(event)) => {
                                    (away, pause) = (None, PAUSES.0);
                                    if let Some(code) = follower.show(received(event)) {
                                        return Ok(code);
                                    }
                                }
                                Ok(None) => break tonic::Status::unavailable("the stream ended before the run"),
                                Err(status) => break status,
                            },
                            () = follower.tick() => {}
                        }
                    }
                }
                Err(status) => status,
            };
            let may_come_back = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
            let is_first = !follower.has_shown && away.is_none();
            if !may_come_back || is_first || away.is_some_and(|since| since.elapsed() > PATIENCE) {
                follower.progress.clear();
                return Err(remote.failure(&status));
            }
            if away.is_none() {
                follower.progress.clear();
                err!("the server is away; the run is in its journal, and is followed again when it is back");
            }
            away.get_or_insert_with(Instant::now);
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
                _ = signals.next() => return Ok(follower.left()),
            }
        }
    })
}

fn read_of(reading: &Reading) -> v1::LogsRead {
    let place = |((unit, attempt), place): (&(UnitPath, u32), &Place)| v1::LogPlace {
        unit: unit.to_string(),
        attempt: *attempt,
        end: place.end,
        lines: place.lines,
    };
    v1::LogsRead { places: reading.places().map(place).collect() }
}

fn received(event: v1::WatchEvent) -> Shown {
    if let Some(log) = event.log {
        let stream = if log.stream == i32::from(v1::Stream::Err) { Stream::Err } else { Stream::Out };
        let key = log.key.unwrap_or_default();
        return Shown::Log(LogLine {
            run: RunId::new(&key.run_id),
            unit: UnitPath::new(&key.unit),
            token: LeaseToken(key.token),
            attempt: log.attempt,
            stream,
            text: log.text,
            at: Timestamp(log.at_ms),
            kept_to: (event.log_end > 0).then_some(event.log_end),
        });
    }
    if event.last { Shown::End { summary: event.line_json, text: event.text } } else { Shown::Line(event.line_json) }
}

/// Something to show.
enum Shown {
    /// As `tol run --format json` prints it.
    Line(String),
    Log(LogLine),
    End {
        summary: String,
        text: String,
    },
}

/// Shows a run as `tol run` does.
struct Follower {
    progress: Progress,
    run: RunId,
    format: RunFormat,
    detach_on_wait: bool,
    fail_on: bool,
    /// How to end the run from here, in words.
    cancel: &'static str,
    /// The number of the next change.
    next: u64,
    has_shown: bool,
    /// How far the lines of programs were shown.
    reading: Reading,
    /// The steps that wait for a person.
    waits: BTreeMap<UnitPath, StepStatus>,
    /// What was asked last, so that it is not asked twice.
    asked: Vec<(UnitPath, StepStatus)>,
}

impl Follower {
    fn new(run: &RunId, watch: &WatchArgs, cancel: &'static str) -> Self {
        let progress = Progress::new(run, watch);
        Self {
            format: progress.format(),
            progress,
            run: run.clone(),
            detach_on_wait: watch.detach_on_wait,
            fail_on: watch.fail_on.is_some(),
            cancel,
            next: 0,
            has_shown: false,
            reading: Reading::default(),
            waits: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    fn shows_logs(&self) -> bool {
        self.progress.shows_logs()
    }

    async fn tick(&mut self) {
        if !self.progress.is_live() {
            return std::future::pending().await;
        }
        tokio::time::sleep(self.progress.tick()).await;
        self.progress.redraw();
    }

    /// Shows it; gives the exit code if that was the last.
    fn show(&mut self, shown: Shown) -> Option<u8> {
        self.has_shown = true;
        match shown {
            Shown::Log(line) => {
                self.reading.took(&line.unit, line.attempt, line.kept_to);
                self.progress.log(&line);
                None
            }
            Shown::Line(line) => self.line(&line),
            Shown::End { summary, text } => {
                self.progress.finished(&summary, &text);
                let object: Value = serde_json::from_str(&summary).unwrap_or_default();
                let status = object.get("status").and_then(Value::as_str).and_then(RunStatus::from_word);
                Some(status.map_or(super::exit::FAILED, |status| code_of(status, false, self.fail_on)))
            }
        }
    }

    fn line(&mut self, line: &str) -> Option<u8> {
        let object: Value = serde_json::from_str(line).unwrap_or_default();
        if object.get("status").and_then(Value::as_str) == Some(RunStatus::Waiting.as_str())
            && object.get("type").and_then(Value::as_str) == Some("run")
        {
            return self.waiting(line, &object);
        }
        if let Some(seq) = object.get("seq").and_then(Value::as_u64) {
            self.next = seq + 1;
        }
        if let Some((path, status)) = step_of(&object) {
            match status {
                StepStatus::Waiting | StepStatus::Unknown => drop(self.waits.insert(path, status)),
                StepStatus::Pending
                | StepStatus::Running
                | StepStatus::Succeeded
                | StepStatus::Failed
                | StepStatus::TimedOut
                | StepStatus::Skipped
                | StepStatus::Cancelled => drop(self.waits.remove(&path)),
            }
        }
        self.progress.line(line, &object);
        None
    }

    /// Only a person can move the run on.
    fn waiting(&mut self, line: &str, object: &Value) -> Option<u8> {
        let names = object.get("waiting").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let questions: Vec<(UnitPath, StepStatus)> = names
            .map(|name| {
                let path = UnitPath::new(name);
                let status = self.waits.get(&path).copied().unwrap_or(StepStatus::Waiting);
                (path, status)
            })
            .collect();
        if questions != self.asked {
            self.progress.waiting(&questions);
        }
        let is_unknown = questions.iter().any(|(_, status)| *status == StepStatus::Unknown);
        self.asked = questions;
        if !is_unknown && !self.detach_on_wait {
            return None;
        }
        if self.format == RunFormat::Json {
            self.progress.line(line, object);
        }
        self.progress.clear();
        Some(WAITING)
    }

    /// The person here goes away; the run does not mind.
    fn left(&mut self) -> u8 {
        self.progress.clear();
        err!("run {} goes on without being watched; `{} {}` ends it", self.run, self.cancel, self.run);
        SIGNALLED
    }
}

/// The step that a line is about, and how it stands.
pub fn step_of(object: &Value) -> Option<(UnitPath, StepStatus)> {
    let step = object.get("step").and_then(Value::as_str)?;
    let status = object.get("status").and_then(Value::as_str).and_then(StepStatus::from_word)?;
    let path = match object.get("item").and_then(Value::as_u64) {
        Some(item) => UnitPath::new(&format!("{step}[{item}]")),
        None => UnitPath::new(step),
    };
    Some((path, status))
}
