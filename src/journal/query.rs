//! What is read from the database, and how it is held against its checksums.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use crate::id::RunId;
use crate::journal::chain::{self, Sum};
use crate::journal::create::{signed, unsigned};
use crate::journal::error::JournalError;
use crate::journal::folder::StateFolder;
use crate::journal::owner;
use crate::journal::rows::{self, COLUMNS, StoredRun};
use crate::journal::types::{ListFilter, Record, RunRow};
use crate::time::Timestamp;

/// How many runs a prefix gives at most: enough to say that it is ambiguous.
const FOUND: usize = 100;

/// A connection that reads, with the names that its errors need.
pub(crate) struct Reader<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) folder: &'a StateFolder,
    pub(crate) file: &'a Path,
}

/// One row of a log.
struct LogRow {
    previous: u64,
    run: i64,
    first_seq: u64,
    count: u64,
    packed: Vec<u8>,
    sum: Sum,
}

impl Reader<'_> {
    fn sqlite(&self, error: &rusqlite::Error) -> JournalError {
        JournalError::sqlite(self.file, error)
    }

    fn corrupt(&self, what: impl Into<String>) -> JournalError {
        JournalError::corrupt(self.file, what)
    }

    /// All events of a run, from one state of the database.
    pub(crate) fn load(&self, run: &RunId) -> Result<Vec<Record>, JournalError> {
        let transaction = self.connection.unchecked_transaction().map_err(|error| self.sqlite(&error))?;
        let records = self.load_within(run);
        drop(transaction);
        records
    }

    fn load_within(&self, run: &RunId) -> Result<Vec<Record>, JournalError> {
        let Some(stored) = rows::find(self.connection, self.file, run)? else { return Ok(Vec::new()) };
        let head = |row: &rusqlite::Row<'_>| Ok((unsigned(row, 0)?, unsigned(row, 1)?, row.get::<_, Sum>(2)?));
        let head = self
            .connection
            .prepare_cached("SELECT next_seq, position, row FROM heads WHERE run = ?1")
            .and_then(|mut statement| statement.query_row([stored.number], head).optional())
            .map_err(|error| self.sqlite(&error))?;
        let Some((next_seq, last, sum)) = head else {
            return Err(self.corrupt(format!("nothing says where the log of run {run} ends")));
        };
        let rows = self.log_rows(run, stored.number, last)?;

        let mut records = Vec::new();
        let mut next = rows.first().map_or(next_seq, |row| row.first_seq);
        let mut before = chain::root(run);
        for row in rows {
            if row.first_seq != next {
                let gap = format!("run {run}: event {next} is missing, {} comes instead", row.first_seq);
                return Err(self.corrupt(gap));
            }
            if chain::row(&before, row.first_seq, row.count, &row.packed) != row.sum {
                return Err(self.corrupt(format!("run {run}: the row of event {next} does not fit its checksum")));
            }
            let bodies = chain::unpack(&row.packed, row.count)
                .ok_or_else(|| self.corrupt(format!("run {run}: the row of event {next} is malformed")))?;
            for body in bodies {
                records.push(Record { seq: next, body: body.to_vec() });
                next += 1;
            }
            before = row.sum;
        }
        if next != next_seq || before != sum {
            let what = format!("run {run}: the log ends before event {next}, but it was written up to {next_seq}");
            return Err(self.corrupt(what));
        }
        Ok(records)
    }

    /// The rows of a run in order, found backwards from its last one.
    fn log_rows(&self, run: &RunId, number: i64, last: u64) -> Result<Vec<LogRow>, JournalError> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(LogRow {
                previous: unsigned(row, 0)?,
                run: row.get(1)?,
                first_seq: unsigned(row, 2)?,
                count: unsigned(row, 3)?,
                packed: row.get(4)?,
                sum: row.get(5)?,
            })
        };
        let sql = "SELECT previous, run, first_seq, count, bodies, checksum FROM log WHERE position = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(|error| self.sqlite(&error))?;
        let mut rows = Vec::new();
        let mut position = last;
        while position != 0 {
            let row = statement.query_row([signed(position)], read).optional().map_err(|error| self.sqlite(&error))?;
            // Positions only grow, so that the walk ends whatever a damaged row says.
            let row = row.filter(|row| row.run == number && row.previous < position);
            let row = row.ok_or_else(|| {
                self.corrupt(format!("run {run}: its row at position {position} of the log is missing or another's"))
            })?;
            position = row.previous;
            rows.push(row);
        }
        rows.reverse();
        Ok(rows)
    }

    pub(crate) fn definition(&self, hash: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let found = self
            .connection
            .prepare_cached("SELECT definition, checksum FROM definitions WHERE hash = ?1")
            .and_then(|mut statement| {
                let pair = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Sum>(1)?));
                statement.query_row([hash], pair).optional()
            })
            .map_err(|error| self.sqlite(&error))?;
        let Some((definition, sum)) = found else { return Ok(None) };
        if chain::Fields::of("definitions").add(hash.as_bytes()).add(&definition).sum() != sum {
            return Err(self.corrupt(format!("the definition {hash} does not fit its checksum")));
        }
        Ok(Some(definition))
    }

    pub(crate) fn run(&self, run: &RunId) -> Result<Option<RunRow>, JournalError> {
        match rows::find(self.connection, self.file, run)? {
            Some(stored) => Ok(self.shown(vec![stored])?.pop()),
            None => Ok(None),
        }
    }

    pub(crate) fn find_run(&self, prefix: &str) -> Result<Vec<RunRow>, JournalError> {
        // Names are ASCII: everything that begins so lies between the prefix and the prefix with the last character
        // there is.
        let sql = format!(
            "SELECT {COLUMNS} FROM runs WHERE run >= ?1 AND run < ?1 || char(1114111) ORDER BY number DESC LIMIT ?2"
        );
        let stored = self.select(&sql, params![prefix, FOUND as i64])?;
        if stored.is_empty() {
            rows::check_table(self.connection, self.file)?;
        }
        self.shown(stored)
    }

    pub(crate) fn list(&self, filter: &ListFilter) -> Result<Vec<RunRow>, JournalError> {
        rows::check_count(self.connection, self.file)?;
        let mut sql = format!("SELECT {COLUMNS} FROM runs NOT INDEXED WHERE 1");
        let mut values: Vec<rusqlite::types::Value> = Vec::new();
        if let Some(status) = &filter.status {
            sql.push_str(" AND status = ?");
            values.push(status.clone().into());
        }
        if let Some(pipeline) = &filter.pipeline {
            sql.push_str(" AND pipeline = ?");
            values.push(pipeline.clone().into());
        }
        sql.push_str(" ORDER BY number DESC LIMIT ?");
        values.push(filter.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)).into());
        let stored = self.select(&sql, params_from_iter(values))?;
        self.shown(stored)
    }

    fn select(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<StoredRun>, JournalError> {
        let read = || -> rusqlite::Result<Vec<(StoredRun, bool)>> {
            self.connection.prepare_cached(sql)?.query_map(values, StoredRun::read)?.collect()
        };
        let rows = read().map_err(|error| self.sqlite(&error))?;
        let good = |(stored, fits): (StoredRun, bool)| {
            if fits { Ok(stored) } else { Err(rows::damaged(self.file, &stored.run)) }
        };
        rows.into_iter().map(good).collect()
    }

    /// Rows as they are shown; each owner is looked at once.
    fn shown(&self, stored: Vec<StoredRun>) -> Result<Vec<RunRow>, JournalError> {
        let owners = self.folder.owners();
        let mut holders: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut shown = Vec::with_capacity(stored.len());
        for row in stored {
            let holder = match &row.owner {
                None => None,
                Some(name) => match holders.get(name) {
                    Some(holder) => holder.clone(),
                    None => {
                        let holder = owner::living_holder(&owners, name, false)?;
                        holders.insert(name.clone(), holder.clone());
                        holder
                    }
                },
            };
            shown.push(row.shown(holder));
        }
        Ok(shown)
    }

    pub(crate) fn cached(&self, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, JournalError> {
        type Found = (Vec<u8>, Option<i64>, Sum);
        let found = self
            .connection
            .prepare_cached("SELECT value, expires_at, checksum FROM cache WHERE key = ?1")
            .and_then(|mut statement| {
                let found = |row: &rusqlite::Row<'_>| -> rusqlite::Result<Found> {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                };
                statement.query_row([key], found).optional()
            })
            .map_err(|error| self.sqlite(&error))?;
        let Some((value, expires_at, sum)) = found else { return Ok(None) };
        if chain::Fields::of("cache").add(key.as_bytes()).add(&value).add_number(expires_at).sum() != sum {
            return Err(self.corrupt(format!("the remembered result {key} does not fit its checksum")));
        }
        let expired = expires_at.is_some_and(|time| u64::try_from(time).unwrap_or(0) <= now.0);
        Ok((!expired).then_some(value))
    }

    pub(crate) fn pending_commands(&self, run: &RunId) -> Result<Vec<(i64, Vec<u8>)>, JournalError> {
        let sql = "SELECT id, body, checksum FROM commands \
                   WHERE run = (SELECT number FROM runs WHERE run = ?1) AND reply IS NULL ORDER BY id";
        type Found = Vec<(i64, Vec<u8>, Sum)>;
        let read = || -> rusqlite::Result<Found> {
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            self.connection.prepare_cached(sql)?.query_map([run.as_str()], row)?.collect()
        };
        let rows = read().map_err(|error| self.sqlite(&error))?;
        let good = |(id, body, sum): (i64, Vec<u8>, Sum)| {
            if command_sum(run, &body) == sum {
                return Ok((id, body));
            }
            Err(self.corrupt(format!("command {id} of run {run} does not fit its checksum")))
        };
        rows.into_iter().map(good).collect()
    }

    pub(crate) fn runs_with_commands(&self) -> Result<Vec<RunId>, JournalError> {
        let sql = "SELECT DISTINCT runs.run FROM commands JOIN runs ON runs.number = commands.run \
                   WHERE commands.reply IS NULL";
        let read = || -> rusqlite::Result<Vec<String>> {
            self.connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        Ok(read().map_err(|error| self.sqlite(&error))?.iter().map(|run| RunId::new(run)).collect())
    }

    pub(crate) fn command_reply(&self, id: i64) -> Result<Option<Vec<u8>>, JournalError> {
        let reply = self
            .connection
            .prepare_cached("SELECT reply FROM commands WHERE id = ?1")
            .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
            .map_err(|error| self.sqlite(&error))?;
        Ok(reply.flatten())
    }
}

/// The checksum of a command. A reply has none: it is read by the one who waits for it, at once.
pub(crate) fn command_sum(run: &RunId, body: &[u8]) -> Sum {
    chain::Fields::of("commands").add(run.as_str().as_bytes()).add(body).sum()
}
