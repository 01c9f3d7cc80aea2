//! The kept lines of one run for one watcher: each once, in the order in which they were printed, however he came to
//! ask for them.
//!
//! What is shown is read from the run's logs. A line that a program prints now only says how far there is to read; one
//! that is not kept is shown as it is.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::handler::logs::{self, Part, Source};
use crate::handler::process::Stream;
use crate::handler::{LogLine, folders};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::scheduler::{About, Note, StepStatus};
use crate::server::tail::{Gone, Line};

/// How much of a log is read at once.
const PART_BYTES: u64 = 256 * 1024;

/// An attempt at a unit.
pub type Attempt = (UnitPath, u32);

/// How far the log of an attempt was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The byte at which a record ended.
    pub end: u64,
    /// So many lines behind it.
    pub lines: u64,
}

/// The logs of a run, and how far they were read.
pub struct Kept {
    state_dir: PathBuf,
    run: RunId,
    /// What was printed by attempts that had ended before this change is not wanted.
    since: u64,
    places: HashMap<Attempt, Place>,
    /// The attempts that have a log, while that is known.
    listed: Option<HashSet<Attempt>>,
}

impl Kept {
    /// The logs of a run from the attempts on that had not ended before this change.
    pub fn since(state_dir: PathBuf, run: RunId, since: u64) -> Self {
        Self { state_dir, run, since, places: HashMap::new(), listed: None }
    }

    /// The logs of a run behind these places.
    pub fn behind(state_dir: PathBuf, run: RunId, places: HashMap<Attempt, Place>) -> Self {
        Self { state_dir, run, since: 0, places, listed: None }
    }

    /// Finds out which attempts have a log, until [`Kept::rest`] is called.
    pub async fn look(&mut self) {
        self.listed = Some(self.list().await.into_iter().collect());
    }

    async fn list(&self) -> Vec<Attempt> {
        let (state_dir, run) = (self.state_dir.clone(), self.run.clone());
        let listed = tokio::task::spawn_blocking(move || logs::list(&state_dir, &run)).await;
        // A log that cannot be read is told of by `tol runs logs`; a watcher goes on with the rest.
        listed.ok().and_then(Result::ok).unwrap_or_default().into_iter().map(|log| (log.unit, log.attempt)).collect()
    }

    /// Gives what belongs before a change: the lines of the attempt that it ends.
    pub async fn before(&mut self, note: &Note, out: &mpsc::Sender<Line>) -> Result<(), Gone> {
        let About::Unit { path, status, attempt, .. } = &note.about else { return Ok(()) };
        let ended = match status {
            StepStatus::Running => attempt.saturating_sub(1),
            StepStatus::Pending
            | StepStatus::Waiting
            | StepStatus::Succeeded
            | StepStatus::Failed
            | StepStatus::TimedOut
            | StepStatus::Skipped
            | StepStatus::Cancelled
            | StepStatus::Unknown => *attempt,
        };
        let attempt = (path.clone(), ended);
        if ended == 0 || self.listed.as_ref().is_some_and(|listed| !listed.contains(&attempt)) {
            return Ok(());
        }
        let is_wanted = note.seq >= self.since;
        self.read(attempt, is_wanted.then_some(out)).await
    }

    /// Gives what has not been given of any attempt.
    pub async fn rest(&mut self, out: &mpsc::Sender<Line>) -> Result<(), Gone> {
        self.listed = None;
        for attempt in self.list().await {
            self.read(attempt, Some(out)).await?;
        }
        Ok(())
    }

    /// A program printed a line: gives it, and what was kept before it and has not been given.
    pub async fn line(&mut self, line: Arc<LogLine>, out: &mpsc::Sender<Line>) -> Result<(), Gone> {
        let attempt = (line.unit.clone(), line.attempt);
        match line.kept_to {
            Some(end) if self.places.get(&attempt).is_some_and(|place| place.end >= end) => Ok(()),
            Some(_) => self.read(attempt, Some(out)).await,
            None => out.send(Line::Log(line)).await.map_err(|_| Gone),
        }
    }

    /// Reads the log of an attempt to its end; without a receiver the lines are passed over.
    async fn read(&mut self, attempt: Attempt, out: Option<&mpsc::Sender<Line>>) -> Result<(), Gone> {
        let path = folders::log_file(&self.state_dir, &self.run, &attempt.0, attempt.1);
        loop {
            let start = self.places.get(&attempt).copied().unwrap_or_default();
            let file = path.clone();
            let read = tokio::task::spawn_blocking(move || logs::read_part(&file, start.end, PART_BYTES)).await;
            let Ok(Ok(Part { pieces, end, is_last })) = read else { return Ok(()) };
            if end > start.end {
                if let Some(out) = out {
                    let mut passed = start.lines;
                    for line in pieces.into_iter().flat_map(|(piece, end)| self.lines(&attempt, &piece, end)) {
                        if passed > 0 {
                            passed -= 1;
                        } else {
                            out.send(Line::Log(Arc::new(line))).await.map_err(|_| Gone)?;
                        }
                    }
                }
                self.places.insert(attempt.clone(), Place { end, lines: 0 });
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// The lines of a piece; the last one says where the record ends.
    fn lines(&self, (unit, attempt): &Attempt, piece: &logs::Piece, end: u64) -> Vec<LogLine> {
        let stream = match piece.source {
            Source::Out => Stream::Out,
            Source::Err => Stream::Err,
            // Words of tol itself are for the log.
            Source::Note => return Vec::new(),
        };
        let line = |text: &str| LogLine {
            run: self.run.clone(),
            unit: unit.clone(),
            attempt: *attempt,
            stream,
            text: text.to_owned(),
            token: LeaseToken(0),
            at: piece.time,
            kept_to: None,
        };
        let mut lines: Vec<LogLine> = piece.text.lines().map(line).collect();
        if let Some(last) = lines.last_mut() {
            last.kept_to = Some(end);
        }
        lines
    }
}

/// Where watchers that come back go on, by what they were given.
#[derive(Debug, Default)]
pub struct Reading(HashMap<Attempt, Place>);

impl Reading {
    /// A line was given, with the byte at which its record ends if it was the last one of it.
    pub fn took(&mut self, unit: &UnitPath, attempt: u32, end: Option<u64>) {
        let place = self.0.entry((unit.clone(), attempt)).or_default();
        *place = match end {
            Some(end) => Place { end, lines: 0 },
            None => Place { lines: place.lines + 1, ..*place },
        };
    }

    /// How far the log of each attempt was read.
    pub fn places(&self) -> impl Iterator<Item = (&Attempt, &Place)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{LeaseKey, LogStream, WorkerLine};
    use crate::handler::LogFolder;

    fn keep(folder: &std::path::Path, unit: &str, attempt: u32, texts: &[&str]) -> Option<u64> {
        let line = |text: &&str| WorkerLine {
            key: LeaseKey { run: RunId::new("r"), unit: UnitPath::new(unit), token: LeaseToken(1) },
            attempt,
            stream: LogStream::Out,
            text: (*text).to_owned(),
            at_ms: 5,
        };
        let lines: Vec<WorkerLine> = texts.iter().map(line).collect();
        LogFolder::new(folder.to_owned()).keep(&lines).last()?.1
    }

    fn note(seq: u64, unit: &str, status: StepStatus, attempt: u32) -> Note {
        let path = UnitPath::new(unit);
        Note { seq, about: About::Unit { path, status, attempt, cached: false, duration_ms: None, message: None } }
    }

    /// What was given since the last time.
    fn given(inbox: &mut mpsc::Receiver<Line>, reading: &mut Reading) -> Vec<String> {
        let mut texts = Vec::new();
        while let Ok(line) = inbox.try_recv() {
            let Line::Log(line) = line else { panic!("no line of a program") };
            reading.took(&line.unit, line.attempt, line.kept_to);
            texts.push(line.text.clone());
        }
        texts
    }

    #[tokio::test]
    async fn each_line_is_given_once_and_before_the_end_of_its_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let (out, mut inbox) = mpsc::channel(99);
        let mut reading = Reading::default();
        let state = folder.path().to_owned();
        let mut kept = Kept::since(state.clone(), RunId::new("r"), 0);
        keep(&state, "a", 1, &["one", "two"]);
        keep(&state, "b", 1, &["beside"]);
        kept.look().await;
        kept.before(&note(3, "a", StepStatus::Running, 2), &out).await.ok().unwrap();
        assert_eq!(given(&mut inbox, &mut reading), ["one", "two"], "the first attempt is over when a second begins");
        kept.rest(&out).await.ok().unwrap();
        assert_eq!(given(&mut inbox, &mut reading), ["beside"]);
        // Two are printed before the first of them is told.
        let told = |text: &str, kept_to| {
            Arc::new(LogLine {
                run: RunId::new("r"),
                unit: UnitPath::new("a"),
                attempt: 2,
                stream: Stream::Out,
                text: text.to_owned(),
                token: LeaseToken(1),
                at: crate::time::Timestamp(5),
                kept_to,
            })
        };
        let (first, second) = (keep(&state, "a", 2, &["three"]), keep(&state, "a", 2, &["four"]));
        kept.line(told("three", first), &out).await.ok().unwrap();
        kept.line(told("four", second), &out).await.ok().unwrap();
        kept.line(told("not kept", None), &out).await.ok().unwrap();
        assert_eq!(given(&mut inbox, &mut reading), ["three", "four", "not kept"]);
        keep(&state, "a", 2, &["last"]);
        kept.before(&note(4, "a", StepStatus::Succeeded, 2), &out).await.ok().unwrap();
        kept.rest(&out).await.ok().unwrap();
        assert_eq!(given(&mut inbox, &mut reading), ["last"]);

        let mut later = Kept::since(state.clone(), RunId::new("r"), 4);
        later.before(&note(3, "a", StepStatus::Running, 2), &out).await.ok().unwrap();
        later.rest(&out).await.ok().unwrap();
        let mut texts = given(&mut inbox, &mut Reading::default());
        texts.sort();
        assert_eq!(texts, ["beside", "four", "last", "three"], "attempts that had ended before are not wanted");
    }

    #[tokio::test]
    async fn who_comes_back_goes_on_in_the_middle_of_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().to_owned();
        keep(&state, "a", 1, &["one"]);
        keep(&state, "a", 1, &["two", "three", "four"]);
        let mut reading = Reading::default();
        let (out, mut inbox) = mpsc::channel(99);
        Kept::since(state.clone(), RunId::new("r"), 0).rest(&out).await.ok().unwrap();
        for _ in 0..2 {
            let Some(Line::Log(line)) = inbox.recv().await else { panic!("no line") };
            reading.took(&line.unit, line.attempt, line.kept_to);
        }
        drop(inbox);
        let (out, mut inbox) = mpsc::channel(99);
        let places = reading.places().map(|(attempt, place)| (attempt.clone(), *place)).collect();
        Kept::behind(state, RunId::new("r"), places).rest(&out).await.ok().unwrap();
        assert_eq!(given(&mut inbox, &mut reading), ["three", "four"]);
    }
}
