//! What the server's own worker was given, noted where the next process finds it: a worker that ended with its process
//! has none of it any more, so that nobody need wait for the lease. So is what waited for a worker when a server ended in
//! good order.
//!
//! Each process has a file of its own in the folder `local-work`, and holds its lock for as long as it lives; the kernel
//! frees it, also after `kill -9`. A file counts only on the machine and since the start of it on which it was written:
//! locks over a network may be freed although their holder lives. A note that is lost costs the lease, no more.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use crate::dispatch::{LeaseKey, Perform, StopSignal};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Outcome, Task};

/// The folder in the state folder.
const FOLDER: &str = "local-work";
/// A file is written anew, with what is in work, when so many notes were added.
const NOTES_MAX: usize = 10_000;
/// Where Linux says since which start it runs.
const BOOT_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The notes of this process.
pub struct OwnWork {
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    /// What is in work.
    open: BTreeSet<LeaseKey>,
    notes: usize,
    boot: String,
}

impl OwnWork {
    /// Begins notes, and gives those of processes of this machine that are gone.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn begin(state_dir: &Path) -> io::Result<(Self, BTreeSet<LeaseKey>)> {
        Self::begin_on(state_dir, fs::read_to_string(BOOT_FILE).unwrap_or_default().trim())
    }

    fn begin_on(state_dir: &Path, boot: &str) -> io::Result<(Self, BTreeSet<LeaseKey>)> {
        let folder = state_dir.join(FOLDER);
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.jsonl", uuid::Uuid::now_v7().simple()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        file.lock()?;
        let mut inner = Inner { file, open: BTreeSet::new(), notes: 0, boot: boot.to_owned() };
        inner.write_anew()?;
        let mut gone = BTreeSet::new();
        for entry in fs::read_dir(&folder)? {
            let other = entry?.path();
            // Who holds its lock lives. A file that cannot be read says nothing.
            if other != path
                && let Ok(old) = File::open(&other)
                && old.try_lock().is_ok()
            {
                let found = read(&old, boot);
                // Should this process die soon, too, the next one finds them here.
                for key in &found {
                    inner.note(key)?;
                }
                gone.extend(found);
                let _ = fs::remove_file(&other);
            }
        }
        Ok((Self { inner: Mutex::new(inner) }, gone))
    }

    /// These were out, and nobody has them.
    pub fn nobody_has(&self, keys: &[LeaseKey]) {
        self.with(|inner| keys.iter().try_for_each(|key| inner.note(key)));
    }

    fn with(&self, change: impl FnOnce(&mut Inner) -> io::Result<()>) {
        // Without the note the next process waits for the lease.
        let _ = change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Inner {
    fn note(&mut self, key: &LeaseKey) -> io::Result<()> {
        let mut line = serde_json::to_vec(&(key.run.as_str(), key.unit.as_str(), key.token.0))?;
        line.push(b'\n');
        self.notes += 1;
        self.file.write_all(&line)
    }

    fn write_anew(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.notes = 0;
        self.file.write_all(format!("{}\n", serde_json::Value::from(self.boot.as_str())).as_bytes())?;
        for key in self.open.clone() {
            self.note(&key)?;
        }
        Ok(())
    }
}

/// The notes of a file; none if it was written elsewhere or before the machine was started.
fn read(file: &File, boot: &str) -> BTreeSet<LeaseKey> {
    let mut lines = BufReader::new(file).lines().map_while(Result::ok);
    let written_on = lines.next().and_then(|line| serde_json::from_str::<String>(&line).ok());
    if boot.is_empty() || written_on.as_deref() != Some(boot) {
        return BTreeSet::new();
    }
    // A line that was cut short by the end of its process is none.
    let note = |line: String| serde_json::from_str::<(String, String, u64)>(&line).ok();
    lines
        .filter_map(note)
        .map(|(run, unit, token)| LeaseKey {
            run: RunId::new(&run),
            unit: UnitPath::new(&unit),
            token: LeaseToken(token),
        })
        .collect()
}

/// Notes each task before it is begun.
pub struct Noting<P> {
    pub performer: P,
    pub work: Arc<OwnWork>,
}

impl<P: Perform> Perform for Noting<P> {
    fn perform(&self, task: Task, stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let key = LeaseKey::of(&task);
        self.work.with(|inner| {
            inner.open.insert(key.clone());
            if inner.notes >= NOTES_MAX { inner.write_anew() } else { inner.note(&key) }
        });
        let work = self.work.clone();
        let done = self.performer.perform(task, stop);
        Box::pin(async move {
            let outcome = done.await;
            work.with(|inner| {
                inner.open.remove(&key);
                Ok(())
            });
            outcome
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(token: u64) -> LeaseKey {
        LeaseKey { run: RunId::new("r"), unit: UnitPath::new("a/b[1]"), token: LeaseToken(token) }
    }

    fn begin(folder: &Path, boot: &str) -> (OwnWork, Vec<u64>) {
        let (work, gone) = OwnWork::begin_on(folder, boot).unwrap();
        (work, gone.iter().map(|key| key.token.0).collect())
    }

    #[test]
    fn what_a_process_had_that_is_gone_is_found_once_by_each_that_follows() {
        let folder = tempfile::tempdir().unwrap();
        let (first, none) = begin(folder.path(), "today");
        assert!(none.is_empty());
        first.with(|inner| inner.note(&key(1)));
        first.with(|inner| inner.note(&key(2)));
        let (second, none) = begin(folder.path(), "today");
        assert!(none.is_empty(), "the first one lives");
        drop(first);
        second.with(|inner| inner.note(&key(3)));
        let (third, found) = begin(folder.path(), "today");
        assert_eq!(found, [1, 2]);
        // It dies before it has made anything of that.
        drop(third);
        drop(second);
        let (fourth, found) = begin(folder.path(), "today");
        assert_eq!(found, [1, 2, 3]);
        drop(fourth);
        assert!(begin(folder.path(), "tomorrow").1.is_empty(), "on another machine, or after its start");
        assert!(begin(folder.path(), "today").1.is_empty(), "what is not sure is not kept either");
    }

    #[test]
    fn a_file_keeps_what_is_in_work_when_it_is_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (work, _) = begin(folder.path(), "today");
        work.with(|inner| {
            inner.open.insert(key(7));
            inner.note(&key(6))?;
            inner.note(&key(7))?;
            inner.write_anew()?;
            inner.file.write_all(b"[\"r\",\"a")
        });
        drop(work);
        assert_eq!(begin(folder.path(), "today").1, [7]);
        let (_, unknown) = begin(folder.path(), "");
        assert!(unknown.is_empty(), "where the system does not say since when it runs, nothing is sure");
    }
}
