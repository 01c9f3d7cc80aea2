//! Removing finished runs.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, params};

use crate::id::RunId;
use crate::journal::create::signed;
use crate::journal::error::JournalError;
use crate::journal::transaction::Writer;
use crate::time::Timestamp;

/// How many runs go in one transaction, so that other processes are not kept waiting for long.
const RUNS_AT_ONCE: usize = 50;

/// Gives the finished runs that may go, newest first. Its two conditions are told in `Journal::prune`.
const CANDIDATES: &str = "
SELECT number, run FROM runs NOT INDEXED
WHERE finished_at IS NOT NULL AND (?1 IS NULL OR finished_at < ?1)
  AND (?2 IS NULL OR number NOT IN (
    SELECT number FROM runs NOT INDEXED WHERE finished_at IS NOT NULL ORDER BY number DESC LIMIT ?2))
  AND NOT EXISTS (SELECT 1 FROM runs AS parents WHERE parents.run = runs.parent AND parents.finished_at IS NULL)
ORDER BY number DESC";

/// Gives the runs that a pruning removes, newest first.
pub(crate) fn candidates(
    connection: &Connection,
    older_than: Option<Timestamp>,
    keep_newest: Option<u64>,
) -> rusqlite::Result<Vec<(i64, RunId)>> {
    let mut statement = connection.prepare_cached(CANDIDATES)?;
    let values = params![older_than.map(|time| signed(time.0)), keep_newest.map(signed)];
    let rows = statement.query_map(values, |row| Ok((row.get(0)?, RunId::new(&row.get::<_, String>(1)?))))?;
    rows.collect()
}

impl Writer {
    /// Removes runs in several transactions; a crash between two leaves whole runs.
    pub(crate) fn prune(
        &mut self,
        older_than: Option<Timestamp>,
        keep_newest: Option<u64>,
    ) -> Result<Vec<RunId>, JournalError> {
        let found = candidates(&self.connection, older_than, keep_newest).map_err(|error| self.sqlite(&error))?;
        let mut removed = Vec::with_capacity(found.len());
        for some in found.chunks(RUNS_AT_ONCE) {
            let file = self.file.clone();
            let gone = self.change(|connection| {
                some.iter()
                    .map(|(number, run)| Ok(remove(connection, *number, run)?.then(|| run.clone())))
                    .collect::<rusqlite::Result<Vec<_>>>()
                    .map_err(|error| JournalError::sqlite(&file, &error))
            })?;
            removed.extend(gone.into_iter().flatten());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let file = self.file.clone();
        self.change(|connection| {
            connection
                .execute("DELETE FROM cache WHERE expires_at <= ?1", [now])
                .and_then(|_| {
                    let unused = "DELETE FROM definitions WHERE hash NOT IN (SELECT definition_hash FROM runs)";
                    connection.execute(unused, [])
                })
                .map_err(|error| JournalError::sqlite(&file, &error))
        })?;
        Ok(removed)
    }
}

/// Removes one run, unless it is not the one that was found, or goes on again.
fn remove(connection: &Connection, number: i64, run: &RunId) -> rusqlite::Result<bool> {
    let sql = "DELETE FROM runs WHERE number = ?1 AND run = ?2 AND finished_at IS NOT NULL";
    if connection.prepare_cached(sql)?.execute(params![number, run.as_str()])? != 1 {
        return Ok(false);
    }
    let mut last: Option<i64> = connection
        .prepare_cached("SELECT position FROM heads WHERE run = ?1")?
        .query_row([number], |row| row.get(0))
        .optional()?;
    while let Some(position) = last {
        last = connection
            .prepare_cached("DELETE FROM log WHERE position = ?1 AND run = ?2 RETURNING previous")?
            .query_row([position, number], |row| row.get(0))
            .optional()?;
    }
    connection.prepare_cached("DELETE FROM heads WHERE run = ?1")?.execute([number])?;
    connection.prepare_cached("DELETE FROM commands WHERE run = ?1")?.execute([number])?;
    Ok(true)
}
