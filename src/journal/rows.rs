//! The row of a run in the database: read, checked, written. Whatever changes such a row goes through here.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::id::RunId;
use crate::journal::chain::{Fields, Sum};
use crate::journal::create::signed;
use crate::journal::error::JournalError;
use crate::journal::types::{NewRun, RunRow};
use crate::time::Timestamp;

/// The columns, in the order that `StoredRun::read` expects.
pub(crate) const COLUMNS: &str = "number, run, pipeline, path, status, paused, started_at, finished_at, parent, \
                                  definition_hash, git_commit, git_dirty, owner, checksum";

/// A run's row as the database holds it; numbers are kept as SQLite does.
#[derive(Clone, Debug)]
pub(crate) struct StoredRun {
    pub(crate) number: i64,
    pub(crate) run: String,
    pub(crate) pipeline: String,
    pub(crate) path: String,
    pub(crate) status: String,
    pub(crate) paused: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: Option<i64>,
    pub(crate) parent: Option<String>,
    pub(crate) definition_hash: String,
    pub(crate) git_commit: Option<String>,
    pub(crate) git_dirty: Option<i64>,
    pub(crate) owner: Option<String>,
}

impl StoredRun {
    /// A run that has just been accepted by the process of that name.
    pub(crate) fn accepted(number: i64, run: &RunId, new: &NewRun, owner: &str) -> Self {
        Self {
            number,
            run: run.as_str().to_owned(),
            pipeline: new.pipeline.clone(),
            path: new.path.clone(),
            status: "running".to_owned(),
            paused: 0,
            started_at: signed(new.started_at.0),
            finished_at: None,
            parent: new.parent.as_ref().map(|parent| parent.as_str().to_owned()),
            definition_hash: new.definition_hash.clone(),
            git_commit: new.git_commit.clone(),
            git_dirty: new.git_dirty.map(i64::from),
            owner: Some(owner.to_owned()),
        }
    }

    /// Reads a row of `COLUMNS`, and whether its checksum fits.
    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<(Self, bool)> {
        let stored = Self {
            number: row.get(0)?,
            run: row.get(1)?,
            pipeline: row.get(2)?,
            path: row.get(3)?,
            status: row.get(4)?,
            paused: row.get(5)?,
            started_at: row.get(6)?,
            finished_at: row.get(7)?,
            parent: row.get(8)?,
            definition_hash: row.get(9)?,
            git_commit: row.get(10)?,
            git_dirty: row.get(11)?,
            owner: row.get(12)?,
        };
        let sum: Sum = row.get(13)?;
        let fits = sum == stored.sum();
        Ok((stored, fits))
    }

    fn sum(&self) -> Sum {
        let mut fields = Fields::of("runs");
        fields.add_number(Some(self.number)).add(self.run.as_bytes());
        fields.add(self.pipeline.as_bytes()).add(self.path.as_bytes()).add(self.status.as_bytes());
        fields.add_number(Some(self.paused)).add_number(Some(self.started_at)).add_number(self.finished_at);
        fields.add_optional(self.parent.as_deref()).add(self.definition_hash.as_bytes());
        fields.add_optional(self.git_commit.as_deref()).add_number(self.git_dirty);
        fields.add_optional(self.owner.as_deref()).sum()
    }

    /// Writes a new row.
    pub(crate) fn insert(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "INSERT INTO runs (number, run, pipeline, path, status, paused, started_at, finished_at, parent, \
                   definition_hash, git_commit, git_dirty, owner, checksum) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
        connection.prepare_cached(sql)?.execute(params![
            self.number,
            self.run,
            self.pipeline,
            self.path,
            self.status,
            self.paused,
            self.started_at,
            self.finished_at,
            self.parent,
            self.definition_hash,
            self.git_commit,
            self.git_dirty,
            self.owner,
            self.sum(),
        ])?;
        Ok(())
    }

    /// Writes the columns that may change.
    pub(crate) fn update(&self, connection: &Connection) -> rusqlite::Result<()> {
        let sql = "UPDATE runs SET status = ?2, paused = ?3, finished_at = ?4, owner = ?5, checksum = ?6 \
                   WHERE number = ?1";
        let values = params![self.number, self.status, self.paused, self.finished_at, self.owner, self.sum()];
        connection.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }

    /// The row as it is shown, with its owner described by `holder`.
    pub(crate) fn shown(self, holder: Option<String>) -> RunRow {
        let time = |millis: i64| Timestamp(u64::try_from(millis).unwrap_or(0));
        RunRow {
            run: RunId::new(&self.run),
            pipeline: self.pipeline,
            path: self.path,
            status: self.status,
            paused: self.paused != 0,
            started_at: time(self.started_at),
            finished_at: self.finished_at.map(time),
            parent: self.parent.as_deref().map(RunId::new),
            definition_hash: self.definition_hash,
            git_commit: self.git_commit,
            git_dirty: self.git_dirty.map(|dirty| dirty != 0),
            owner: holder,
        }
    }
}

/// The row of one run. Before it says that there is none, it makes sure that the table is whole.
pub(crate) fn find(connection: &Connection, file: &Path, run: &RunId) -> Result<Option<StoredRun>, JournalError> {
    let sqlite = |error: &rusqlite::Error| JournalError::sqlite(file, error);
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM runs WHERE run = ?1"))
        .and_then(|mut statement| statement.query_row([run.as_str()], StoredRun::read).optional())
        .map_err(|error| sqlite(&error))?;
    match found {
        Some((stored, true)) if stored.run == run.as_str() => Ok(Some(stored)),
        Some((stored, _)) => Err(damaged(file, &stored.run)),
        None => {
            check_table(connection, file)?;
            Ok(None)
        }
    }
}

/// A row whose checksum does not fit.
pub(crate) fn damaged(file: &Path, run: &str) -> JournalError {
    JournalError::corrupt(file, format!("the row of run {run} does not fit its checksum"))
}

/// Makes sure that no run's row is missing: the table and its index agree, and there are as many runs as heads.
pub(crate) fn check_table(connection: &Connection, file: &Path) -> Result<(), JournalError> {
    let sqlite = |error: &rusqlite::Error| JournalError::sqlite(file, error);
    let verdict: String =
        connection.query_row("PRAGMA integrity_check('runs')", [], |row| row.get(0)).map_err(|error| sqlite(&error))?;
    if verdict != "ok" {
        return Err(JournalError::corrupt(file, format!("the table of runs: {verdict}")));
    }
    check_count(connection, file)
}

/// Makes sure that there are as many runs as heads.
pub(crate) fn check_count(connection: &Connection, file: &Path) -> Result<(), JournalError> {
    let counts = connection
        .prepare_cached("SELECT (SELECT count(*) FROM runs NOT INDEXED), (SELECT count(*) FROM heads WHERE run > 0)")
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))));
    match counts {
        Ok((runs, heads)) if runs == heads => Ok(()),
        Ok((runs, heads)) => {
            Err(JournalError::corrupt(file, format!("{runs} runs are listed, but {heads} have a log")))
        }
        Err(error) => Err(JournalError::sqlite(file, &error)),
    }
}
