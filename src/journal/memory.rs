//! The journal in memory: for tests and for runs that nobody resumes. It is gone with its process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::id::RunId;
use crate::journal::error::JournalError;
use crate::journal::store::{Done, Journal};
use crate::journal::types::{Batch, CachePut, Claim, ListFilter, Record, RunRow};
use crate::time::Timestamp;

/// A journal without a folder. Every run belongs to this process, and `append` calls `done` before it returns.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: Vec<MemoryRun>,
    places: BTreeMap<RunId, usize>,
    definitions: BTreeMap<String, Vec<u8>>,
    cache: BTreeMap<String, CachePut>,
    commands: Vec<Command>,
    closed: bool,
}

#[derive(Debug)]
struct MemoryRun {
    row: RunRow,
    records: Vec<Record>,
    next_seq: u64,
    refused: Option<JournalError>,
}

#[derive(Debug)]
struct Command {
    run: RunId,
    body: Vec<u8>,
    reply: Option<Vec<u8>>,
}

/// What errors name in place of a file.
fn nowhere() -> PathBuf {
    PathBuf::from("(journal in memory)")
}

impl MemoryJournal {
    /// An empty journal.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> Result<MutexGuard<'_, State>, JournalError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.closed { Err(JournalError::Closed { file: nowhere() }) } else { Ok(state) }
    }
}

impl State {
    fn run(&self, run: &RunId) -> Option<&MemoryRun> {
        self.runs.get(*self.places.get(run)?)
    }

    fn apply(&mut self, batch: Batch) -> Result<(), JournalError> {
        let fenced = |what: String| JournalError::Fenced { run: batch.run.clone(), file: nowhere(), what };
        if let Some(new) = &batch.accept {
            if self.places.contains_key(&batch.run) {
                return Err(fenced("a run of that name was accepted before".to_owned()));
            }
            self.definitions.entry(new.definition_hash.clone()).or_insert_with(|| new.definition.to_vec());
            self.places.insert(batch.run.clone(), self.runs.len());
            let row = RunRow {
                run: batch.run.clone(),
                pipeline: new.pipeline.clone(),
                path: new.path.clone(),
                status: "running".to_owned(),
                paused: false,
                started_at: new.started_at,
                finished_at: None,
                parent: new.parent.clone(),
                definition_hash: new.definition_hash.clone(),
                git_commit: new.git_commit.clone(),
                git_dirty: new.git_dirty,
                owner: Some(format!("process {}", std::process::id())),
            };
            self.runs.push(MemoryRun { row, records: Vec::new(), next_seq: batch.first_seq, refused: None });
        }
        let Some(run) = self.places.get(&batch.run).and_then(|place| self.runs.get_mut(*place)) else {
            return Err(JournalError::NoSuchRun { run: batch.run, file: nowhere() });
        };
        if let Some(error) = &run.refused {
            return Err(error.clone());
        }
        if !batch.bodies.is_empty() && batch.first_seq != run.next_seq {
            let what = format!("event {} was to be written where event {} comes next", batch.first_seq, run.next_seq);
            let error = fenced(what);
            run.refused = Some(error.clone());
            return Err(error);
        }
        for body in batch.bodies {
            run.records.push(Record { seq: run.next_seq, body: body.into_vec() });
            run.next_seq += 1;
        }
        if let Some(summary) = batch.summary {
            run.row.status = summary.status;
            run.row.paused = summary.paused;
            run.row.finished_at = summary.finished_at;
            if summary.finished_at.is_some() {
                run.row.owner = None;
            }
        }
        self.cache.extend(batch.cache.into_iter().map(|put| (put.key.clone(), put)));
        for reply in batch.handled {
            if let Some(command) = place(reply.id).and_then(|place| self.commands.get_mut(place)) {
                command.reply.get_or_insert(reply.body);
            }
        }
        Ok(())
    }

    fn candidates(&self, older_than: Option<Timestamp>, keep_newest: Option<u64>) -> Vec<RunId> {
        let keep = keep_newest.map_or(0, |count| usize::try_from(count).unwrap_or(usize::MAX));
        let parent_goes_on = |row: &RunRow| {
            let parent = row.parent.as_ref().and_then(|parent| self.run(parent));
            parent.is_some_and(|parent| parent.row.finished_at.is_none())
        };
        let finished = self.runs.iter().rev().map(|run| &run.row).filter(|row| row.finished_at.is_some());
        let old = finished.skip(keep).filter(|row| older_than.is_none_or(|time| row.finished_at < Some(time)));
        old.filter(|row| !parent_goes_on(row)).map(|row| row.run.clone()).collect()
    }

    fn remove(&mut self, gone: &[RunId]) {
        self.runs.retain(|run| !gone.contains(&run.row.run));
        self.places = self.runs.iter().enumerate().map(|(place, run)| (run.row.run.clone(), place)).collect();
        let runs = &self.runs;
        self.definitions.retain(|hash, _| runs.iter().any(|run| run.row.definition_hash == *hash));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = Timestamp(u64::try_from(now).unwrap_or(u64::MAX));
        self.cache.retain(|_, put| put.expires_at.is_none_or(|time| time > now));
    }
}

/// Where the command of that number lies.
fn place(id: i64) -> Option<usize> {
    usize::try_from(id).ok()?.checked_sub(1)
}

impl Journal for MemoryJournal {
    fn append(&self, batch: Batch, done: Done) {
        // The lock is left before `done` is called, so that it may append again.
        let result = self.state().and_then(|mut state| state.apply(batch));
        done(result);
    }

    fn load(&self, run: &RunId) -> Result<Vec<Record>, JournalError> {
        Ok(self.state()?.run(run).map(|run| run.records.clone()).unwrap_or_default())
    }

    fn definition(&self, hash: &str) -> Result<Option<Vec<u8>>, JournalError> {
        Ok(self.state()?.definitions.get(hash).cloned())
    }

    fn run(&self, run: &RunId) -> Result<Option<RunRow>, JournalError> {
        Ok(self.state()?.run(run).map(|run| run.row.clone()))
    }

    fn find_run(&self, prefix: &str) -> Result<Vec<RunRow>, JournalError> {
        let state = self.state()?;
        let rows = state.runs.iter().rev().filter(|run| run.row.run.as_str().starts_with(prefix));
        Ok(rows.take(100).map(|run| run.row.clone()).collect())
    }

    fn list(&self, filter: &ListFilter) -> Result<Vec<RunRow>, JournalError> {
        let limit = filter.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let passes = |row: &RunRow| {
            filter.status.as_ref().is_none_or(|status| *status == row.status)
                && filter.pipeline.as_ref().is_none_or(|pipeline| *pipeline == row.pipeline)
        };
        let state = self.state()?;
        Ok(state.runs.iter().rev().map(|run| &run.row).filter(|row| passes(row)).take(limit).cloned().collect())
    }

    fn claim(&self, run: &RunId) -> Result<Claim, JournalError> {
        match self.state()?.run(run) {
            Some(_) => Ok(Claim::Taken),
            None => Err(JournalError::NoSuchRun { run: run.clone(), file: nowhere() }),
        }
    }

    fn release(&self, _run: &RunId) -> Result<(), JournalError> {
        self.state().map(|_| ())
    }

    fn cached(&self, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, JournalError> {
        let state = self.state()?;
        let put = state.cache.get(key).filter(|put| put.expires_at.is_none_or(|time| time > now));
        Ok(put.map(|put| put.value.clone()))
    }

    fn send_command(&self, run: &RunId, body: &[u8]) -> Result<i64, JournalError> {
        let mut state = self.state()?;
        if state.run(run).is_none() {
            return Err(JournalError::NoSuchRun { run: run.clone(), file: nowhere() });
        }
        state.commands.push(Command { run: run.clone(), body: body.to_vec(), reply: None });
        Ok(i64::try_from(state.commands.len()).unwrap_or(i64::MAX))
    }

    fn pending_commands(&self, run: &RunId) -> Result<Vec<(i64, Vec<u8>)>, JournalError> {
        let state = self.state()?;
        let numbered = (1..).zip(&state.commands);
        let pending = numbered.filter(|(_, command)| command.run == *run && command.reply.is_none());
        Ok(pending.map(|(id, command)| (id, command.body.clone())).collect())
    }

    fn runs_with_commands(&self) -> Result<Vec<RunId>, JournalError> {
        let state = self.state()?;
        let pending = state.commands.iter().filter(|command| command.reply.is_none());
        let runs: std::collections::BTreeSet<RunId> = pending.map(|command| command.run.clone()).collect();
        Ok(runs.into_iter().collect())
    }

    fn command_reply(&self, id: i64) -> Result<Option<Vec<u8>>, JournalError> {
        let state = self.state()?;
        Ok(place(id).and_then(|place| state.commands.get(place)).and_then(|command| command.reply.clone()))
    }

    fn changed(&self) -> Result<bool, JournalError> {
        self.state().map(|_| false)
    }

    fn prune(
        &self,
        older_than: Option<Timestamp>,
        keep_newest: Option<u64>,
        dry_run: bool,
    ) -> Result<Vec<RunId>, JournalError> {
        let mut state = self.state()?;
        let gone = state.candidates(older_than, keep_newest);
        if !dry_run {
            state.remove(&gone);
        }
        Ok(gone)
    }

    fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
    }
}
