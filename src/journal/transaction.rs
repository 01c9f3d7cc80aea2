//! The connection that writes, and how each of its transactions goes: begin, compare with the mark, write, commit,
//! raise the mark.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, params};

use crate::id::RunId;
use crate::journal::chain::{self, SUM_BYTES, Sum};
use crate::journal::create::{self, signed};
use crate::journal::error::JournalError;
use crate::journal::fault::FaultHook;
use crate::journal::folder::StateFolder;
use crate::journal::mark::{Mark, Point};
use crate::journal::owner::OwnerLock;

/// How long to try for the database's write lock. Longer than any transaction of a process that is not stopped.
const BEGIN_PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries: shorter than a sync, so that no process waits long after another has finished.
const BEGIN_PAUSE: Duration = Duration::from_micros(100);
/// The write-ahead log is copied into the database when it holds so many pages (16 MiB of 4 KiB).
const CHECKPOINT_PAGES: i64 = 4096;
/// The same when the journal is closed (1 MiB): the next opening reads the log through, at about 0.5 ms for that much.
const CLOSING_PAGES: i64 = 256;
/// How often the log's length is looked at, in transactions.
const CHECKPOINT_EVERY: u64 = 16;

/// Where a run's log ends.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) number: i64,
    pub(crate) next_seq: u64,
    /// The position of its last row; 0 if it has none.
    pub(crate) position: u64,
    pub(crate) row: Sum,
    /// Not yet in the database: the run is accepted in this transaction.
    pub(crate) fresh: bool,
}

/// What this process knows of a run.
pub(crate) enum Known {
    At(Head),
    /// Another process wrote to it; this one never writes to it again.
    Refused(JournalError),
}

/// The connection that writes, and what belongs to it.
pub(crate) struct Writer {
    pub(crate) connection: Connection,
    pub(crate) folder: StateFolder,
    pub(crate) file: PathBuf,
    mark: Mark,
    pub(crate) runs: HashMap<RunId, Known>,
    pub(crate) owner: Option<OwnerLock>,
    fault: Option<Arc<dyn FaultHook>>,
    transactions: u64,
    data_version: i64,
}

/// A transaction that has begun: where the database stands, and what was added.
pub(crate) struct Open {
    pub(crate) at: Point,
    pub(crate) added: Vec<u8>,
}

impl Writer {
    /// Takes an open and checked database.
    pub(crate) fn new(
        connection: Connection,
        folder: StateFolder,
        mark: Mark,
        fault: Option<Arc<dyn FaultHook>>,
    ) -> Result<Self, JournalError> {
        let file = folder.database();
        let mut writer = Self {
            connection,
            folder,
            file,
            mark,
            runs: HashMap::new(),
            owner: None,
            fault,
            transactions: 0,
            data_version: 0,
        };
        writer.others_wrote()?;
        Ok(writer)
    }

    pub(crate) fn sqlite(&self, error: &rusqlite::Error) -> JournalError {
        JournalError::sqlite(&self.file, error)
    }

    /// Whether another connection has written since this was last asked.
    pub(crate) fn others_wrote(&mut self) -> Result<bool, JournalError> {
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)))
            .map_err(|error| self.sqlite(&error))?;
        let changed = version != self.data_version;
        self.data_version = version;
        Ok(changed)
    }

    /// Runs one change as a transaction of its own.
    pub(crate) fn change<T>(
        &mut self,
        change: impl FnOnce(&Connection) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.transaction(|writer, _| change(&writer.connection))
    }

    /// Begins, lets `work` write, commits, and raises the mark.
    pub(crate) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut Open) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        self.begin()?;
        let result = self.transact(work);
        if result.is_err() && !self.connection.is_autocommit() {
            // The first error is the one to tell.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        result
    }

    fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Self, &mut Open) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        // Nobody commits now, so the mark cannot pass what is read here.
        let marked = self.mark.read()?;
        let at = create::head(&self.connection).map_err(|error| self.sqlite(&error))?;
        let at = at.ok_or_else(|| JournalError::corrupt(&self.file, "the row that says how far it goes is missing"))?;
        create::compare(&self.folder, &marked, &at)?;
        let mut open = Open { at, added: Vec::with_capacity(64 * SUM_BYTES) };
        let value = work(self, &mut open)?;

        open.at.counter += 1;
        open.at.state = chain::state(&open.at.state, open.at.counter, &open.added);
        let values = params![signed(open.at.counter), signed(open.at.position), open.at.state, open.at.row];
        self.connection
            .prepare_cached("UPDATE heads SET next_seq = ?1, position = ?2, state = ?3, row = ?4 WHERE run = 0")
            .and_then(|mut statement| statement.execute(values))
            .map_err(|error| self.sqlite(&error))?;
        self.transactions += 1;
        if let Some(fault) = &self.fault {
            fault.before_commit(self.transactions);
        }
        self.connection
            .prepare_cached("COMMIT")
            .and_then(|mut statement| statement.execute([]))
            .map_err(|error| self.sqlite(&error))?;
        if let Some(fault) = &self.fault {
            fault.after_commit(self.transactions);
        }
        self.mark.raise(&open.at)?;
        Ok(value)
    }

    /// Waits for the write lock in short steps, so that it is taken soon after another process has left it.
    fn begin(&self) -> Result<(), JournalError> {
        let began = Instant::now();
        self.connection.busy_timeout(Duration::ZERO).map_err(|error| self.sqlite(&error))?;
        let result = loop {
            let begin = self.connection.prepare_cached("BEGIN IMMEDIATE");
            match begin.and_then(|mut statement| statement.execute([])) {
                Ok(_) => break Ok(()),
                Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => {
                    break Err(self.sqlite(&error));
                }
                Err(_) if began.elapsed() < BEGIN_PATIENCE => std::thread::sleep(BEGIN_PAUSE),
                Err(_) => {
                    let what = format!("it did not let go for {} seconds", BEGIN_PATIENCE.as_secs());
                    break Err(JournalError::Busy { file: self.file.clone(), what });
                }
            }
        };
        self.connection.busy_timeout(create::BUSY).map_err(|error| self.sqlite(&error))?;
        result
    }

    /// What is done between two groups: copies a long log into the database. Gives whether others wrote.
    pub(crate) fn between_groups(&mut self) -> Result<bool, JournalError> {
        if self.transactions.is_multiple_of(CHECKPOINT_EVERY) {
            self.checkpoint(CHECKPOINT_PAGES, "PASSIVE")?;
        }
        self.others_wrote()
    }

    /// Copies the log into the database if it holds so many pages. A reader in the way is no error.
    fn checkpoint(&self, pages: i64, mode: &str) -> Result<(), JournalError> {
        let run = |mode: &str| {
            let sql = format!("PRAGMA wal_checkpoint({mode})");
            let mut statement = self.connection.prepare_cached(&sql)?;
            statement.query_row([], |row| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))
        };
        let held = run("NOOP").map_err(|error| self.sqlite(&error))?;
        if held.0 < pages || held.0 == held.1 && mode == "PASSIVE" {
            return Ok(());
        }
        match run(mode) {
            Err(error) if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) => Err(self.sqlite(&error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Ends the writing: gives up the runs of this process, shortens a long log.
    pub(crate) fn finish(&mut self) -> Result<(), JournalError> {
        self.owner = None;
        self.connection.busy_timeout(Duration::ZERO).map_err(|error| self.sqlite(&error))?;
        self.checkpoint(CLOSING_PAGES, "TRUNCATE")
    }
}
