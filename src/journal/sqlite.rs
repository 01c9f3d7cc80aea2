//! The journal in SQLite: one writer's thread, one connection for reading, the state folder.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, OpenFlags, params};

use crate::id::RunId;
use crate::journal::create;
use crate::journal::error::JournalError;
use crate::journal::fault::FaultHook;
use crate::journal::folder::StateFolder;
use crate::journal::prune;
use crate::journal::query::{self, Reader};
use crate::journal::rows;
use crate::journal::store::{Done, Journal};
use crate::journal::transaction::Writer;
use crate::journal::types::{Batch, Claim, ListFilter, Record, RunRow};
use crate::journal::writer::Shared;
use crate::time::Timestamp;

/// What a journal is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// To write and read; the journal is created when it is not there.
    ReadWrite,
    /// To read, beside any writer; a missing journal is `Absent`, and every write is refused.
    ReadOnly,
}

/// What only tests set.
#[derive(Clone, Default)]
pub struct Options {
    /// Called around every commit.
    pub fault: Option<Arc<dyn FaultHook>>,
    /// The largest size of the database in pages of 4 KiB: at it a write fails as on a full disk.
    pub max_pages: Option<u32>,
}

/// A journal in a state folder.
pub struct SqliteJournal {
    folder: StateFolder,
    file: PathBuf,
    /// Absent when the journal is open for reading only.
    shared: Option<Arc<Shared>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    reading: Mutex<Reading>,
}

/// The connection for reading; a writer opens it when it first reads.
struct Reading {
    connection: Option<Connection>,
    data_version: i64,
    closed: bool,
}

impl SqliteJournal {
    /// Opens the journal of a state folder (`.tol`).
    pub fn open(state_dir: &Path, mode: OpenMode) -> Result<Self, JournalError> {
        Self::open_with(state_dir, mode, Options::default())
    }

    /// Opens the journal with what tests need.
    pub fn open_with(state_dir: &Path, mode: OpenMode, options: Options) -> Result<Self, JournalError> {
        let folder = StateFolder::new(state_dir);
        let file = folder.database();
        let mut reading = Reading { connection: None, data_version: 0, closed: false };
        let (shared, thread) = match mode {
            OpenMode::ReadOnly => {
                reading.connection = Some(create::open_to_read(&folder)?);
                (None, None)
            }
            OpenMode::ReadWrite => {
                let (connection, mark) = create::open_to_write(&folder)?;
                if let Some(pages) = options.max_pages {
                    connection
                        .pragma_update(None, "max_page_count", pages)
                        .map_err(|error| JournalError::sqlite(&file, &error))?;
                }
                let shared = Arc::new(Shared::new(Writer::new(connection, folder.clone(), mark, options.fault)?));
                let thread = std::thread::Builder::new().name("tol-journal".to_owned()).spawn({
                    let shared = Arc::clone(&shared);
                    move || shared.run()
                });
                let thread = thread.map_err(|error| JournalError::disk(&file, "start the writer's thread", &error))?;
                (Some(shared), Some(thread))
            }
        };
        let journal = Self { folder, file, shared, thread: Mutex::new(thread), reading: Mutex::new(reading) };
        if mode == OpenMode::ReadOnly {
            journal.changed()?;
        }
        Ok(journal)
    }

    /// Takes the journal as it is for complete, after a `Lost`: what is missing stays missing, the rest can be used.
    /// No other process may use the journal meanwhile. For `tol doctor --accept-loss`.
    pub fn accept_loss(state_dir: &Path) -> Result<(), JournalError> {
        create::accept_loss(&StateFolder::new(state_dir))
    }

    /// The folder that the journal lies in.
    pub fn folder(&self) -> &StateFolder {
        &self.folder
    }

    /// Reads everything: the structure of the file, every event of every run, every definition. Gives the number of
    /// events. For `tol doctor`.
    pub fn verify(&self) -> Result<u64, JournalError> {
        self.read(|reader| {
            let verdict: String = reader
                .connection
                .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
                .map_err(|error| JournalError::sqlite(&self.file, &error))?;
            if verdict != "ok" {
                return Err(JournalError::corrupt(&self.file, verdict));
            }
            let mut events = 0;
            for row in reader.list(&ListFilter::default())? {
                events += reader.load(&row.run)?.len() as u64;
                if reader.definition(&row.definition_hash)?.is_none() {
                    let what = format!("the definition of run {} is missing", row.run);
                    return Err(JournalError::corrupt(&self.file, what));
                }
            }
            Ok(events)
        })
    }

    /// Reads from the connection for reading, which is opened when it is first needed.
    fn read<T>(&self, work: impl FnOnce(Reader<'_>) -> Result<T, JournalError>) -> Result<T, JournalError> {
        if let Some(shared) = &self.shared {
            shared.alive()?;
        }
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.closed {
            return Err(JournalError::Closed { file: self.file.clone() });
        }
        let connection = match &mut reading.connection {
            Some(connection) => connection,
            none => none.insert(
                create::connect(&self.file, OpenFlags::SQLITE_OPEN_READ_ONLY)
                    .map_err(|error| JournalError::sqlite(&self.file, &error))?,
            ),
        };
        work(Reader { connection, folder: &self.folder, file: &self.file })
    }

    /// Lets the writer's thread do something behind everything that is queued, and waits for it.
    fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let closed = || JournalError::Closed { file: self.file.clone() };
        let Some(shared) = &self.shared else { return Err(JournalError::ReadOnly { file: self.file.clone() }) };
        let (sender, receiver) = mpsc::sync_channel(1);
        shared.change(Box::new(move |writer| {
            let result = writer.and_then(work);
            let end = match &result {
                // A stuck process elsewhere or a wrong name is no reason to end.
                Err(error) if !error.is_of_one_run() && !matches!(error, JournalError::Busy { .. }) => {
                    Err(error.clone())
                }
                Ok(_) | Err(_) => Ok(()),
            };
            // The one who asked waits for it below.
            let _ = sender.send(result);
            end
        }));
        receiver.recv().unwrap_or_else(|_| Err(closed()))
    }
}

impl Journal for SqliteJournal {
    fn append(&self, batch: Batch, done: Done) {
        match &self.shared {
            Some(shared) => shared.append(batch, done),
            None => done(Err(JournalError::ReadOnly { file: self.file.clone() })),
        }
    }

    fn load(&self, run: &RunId) -> Result<Vec<Record>, JournalError> {
        self.read(|reader| reader.load(run))
    }

    fn definition(&self, hash: &str) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|reader| reader.definition(hash))
    }

    fn run(&self, run: &RunId) -> Result<Option<RunRow>, JournalError> {
        self.read(|reader| reader.run(run))
    }

    fn find_run(&self, prefix: &str) -> Result<Vec<RunRow>, JournalError> {
        self.read(|reader| reader.find_run(prefix))
    }

    fn list(&self, filter: &ListFilter) -> Result<Vec<RunRow>, JournalError> {
        self.read(|reader| reader.list(filter))
    }

    fn claim(&self, run: &RunId) -> Result<Claim, JournalError> {
        let run = run.clone();
        self.change(move |writer| writer.claim(&run))
    }

    fn release(&self, run: &RunId) -> Result<(), JournalError> {
        let run = run.clone();
        self.change(move |writer| writer.release(&run))
    }

    fn cached(&self, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|reader| reader.cached(key, now))
    }

    fn send_command(&self, run: &RunId, body: &[u8]) -> Result<i64, JournalError> {
        let (run, body) = (run.clone(), body.to_vec());
        self.change(move |writer| {
            let file = writer.file.clone();
            writer.change(|connection| {
                let Some(stored) = rows::find(connection, &file, &run)? else {
                    return Err(JournalError::NoSuchRun { run, file });
                };
                let sum = query::command_sum(&run, &body);
                connection
                    .prepare_cached("INSERT INTO commands (run, body, checksum) VALUES (?1, ?2, ?3)")
                    .and_then(|mut statement| statement.insert(params![stored.number, body, sum]))
                    .map_err(|error| JournalError::sqlite(&file, &error))
            })
        })
    }

    fn pending_commands(&self, run: &RunId) -> Result<Vec<(i64, Vec<u8>)>, JournalError> {
        self.read(|reader| reader.pending_commands(run))
    }

    fn runs_with_commands(&self) -> Result<Vec<RunId>, JournalError> {
        self.read(|reader| reader.runs_with_commands())
    }

    fn command_reply(&self, id: i64) -> Result<Option<Vec<u8>>, JournalError> {
        self.read(|reader| reader.command_reply(id))
    }

    fn changed(&self) -> Result<bool, JournalError> {
        if let Some(shared) = &self.shared {
            return shared.changed();
        }
        let version = self.read(|reader| {
            let value = reader.connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
            value.map_err(|error| JournalError::sqlite(&self.file, &error))
        })?;
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::replace(&mut reading.data_version, version) != version)
    }

    fn prune(
        &self,
        older_than: Option<Timestamp>,
        keep_newest: Option<u64>,
        dry_run: bool,
    ) -> Result<Vec<RunId>, JournalError> {
        if !dry_run {
            return self.change(move |writer| writer.prune(older_than, keep_newest));
        }
        self.read(|reader| {
            let found = prune::candidates(reader.connection, older_than, keep_newest);
            let found = found.map_err(|error| JournalError::sqlite(&self.file, &error))?;
            Ok(found.into_iter().map(|(_, run)| run).collect())
        })
    }

    fn close(&self) {
        {
            let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.closed = true;
            reading.connection = None;
        }
        let Some(shared) = &self.shared else { return };
        shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic there is told by the panic itself, and everyone who waited has heard of the end.
            let _ = thread.join();
        }
    }
}

impl Drop for SqliteJournal {
    fn drop(&mut self) {
        self.close();
    }
}
