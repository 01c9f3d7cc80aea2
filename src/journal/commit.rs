//! What a group of batches writes: the accepted runs, their events, and what stands beside them.

use rusqlite::{Connection, OptionalExtension, params};

use crate::id::RunId;
use crate::journal::chain;
use crate::journal::create::{signed, unsigned};
use crate::journal::error::JournalError;
use crate::journal::pending::{self, PendingRows};
use crate::journal::rows::{self, StoredRun};
use crate::journal::transaction::{Head, Known, Open, Writer};
use crate::journal::types::{Batch, CachePut, NewRun, RunSummaryRow};

/// The fate of one batch of a group.
pub(crate) type Fate = Result<(), JournalError>;

/// The batches of one run in a group, each with its place in the group.
type SameRun<'a> = [(usize, &'a Batch)];

impl Writer {
    /// Writes batches as one transaction. The outer error is the journal's end; the inner ones concern single runs.
    pub(crate) fn write(&mut self, batches: &[&Batch]) -> Result<Vec<Fate>, JournalError> {
        if batches.iter().any(|batch| batch.accept.is_some()) {
            self.own_name()?;
        }
        self.transaction(|writer, open| {
            let mut fates = vec![Ok(()); batches.len()];
            for (batch, fate) in batches.iter().zip(&mut fates) {
                let outcome = pending::check_size(batch, &writer.file).and_then(|()| match &batch.accept {
                    Some(new) => writer.accept(&batch.run, batch.first_seq, new),
                    None => Ok(()),
                });
                match outcome {
                    Err(error) if error.is_of_one_run() => {
                        // A run that was accepted a moment ago is written up to this batch.
                        writer.runs.entry(batch.run.clone()).or_insert(Known::Refused(error.clone()));
                        *fate = Err(error);
                    }
                    other => other?,
                }
            }
            let mut order: Vec<(usize, &Batch)> = batches.iter().copied().enumerate().collect();
            // A stable sort: the batches of a run stay in the order in which they came.
            order.sort_by(|(_, a), (_, b)| a.run.cmp(&b.run));
            for same_run in order.chunk_by(|(_, a), (_, b)| a.run == b.run) {
                writer.write_run(same_run, &mut fates, open)?;
            }
            Ok(fates)
        })
    }

    /// Writes all batches of one run, up to the first that cannot be.
    fn write_run(&mut self, same_run: &SameRun<'_>, fates: &mut [Fate], open: &mut Open) -> Result<(), JournalError> {
        let Some((_, Batch { run, .. })) = same_run.first() else { return Ok(()) };
        let head = match self.known(run) {
            Ok(head) => head,
            Err(error) if error.is_of_one_run() => {
                refuse(same_run, fates, &error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut rows = PendingRows::after(&head);
        let mut good = 0;
        let mut refusal = None;
        for (index, batch) in same_run {
            let fate = fates.get(*index).cloned().unwrap_or(Ok(()));
            if let Err(error) = fate.and_then(|()| rows.take(batch, &self.file)) {
                refusal = Some(error);
                break;
            }
            good += 1;
        }
        let (written, refused) = same_run.split_at(good);
        if let Err(error) = self.insert_rows(run, &head, rows, open) {
            if !error.is_of_one_run() {
                return Err(error);
            }
            refuse(same_run, fates, &error);
            self.runs.insert(run.clone(), Known::Refused(error));
            return Ok(());
        }
        self.write_beside(run, head.number, written)?;
        if let Some(error) = refusal {
            refuse(refused, fates, &error);
            self.runs.insert(run.clone(), Known::Refused(error));
        }
        Ok(())
    }

    /// Where a run's log ends, as this process last wrote it or as the database says.
    fn known(&mut self, run: &RunId) -> Result<Head, JournalError> {
        match self.runs.get(run) {
            Some(Known::At(head)) => return Ok(head.clone()),
            Some(Known::Refused(error)) => return Err(error.clone()),
            None => {}
        }
        let Some(stored) = rows::find(&self.connection, &self.file, run)? else {
            return Err(JournalError::NoSuchRun { run: run.clone(), file: self.file.clone() });
        };
        let head = |row: &rusqlite::Row<'_>| {
            Ok(Head {
                number: stored.number,
                next_seq: unsigned(row, 0)?,
                position: unsigned(row, 1)?,
                row: row.get(2)?,
                fresh: false,
            })
        };
        let head = self
            .connection
            .prepare_cached("SELECT next_seq, position, row FROM heads WHERE run = ?1")
            .and_then(|mut statement| statement.query_row([stored.number], head).optional())
            .map_err(|error| self.sqlite(&error))?;
        head.ok_or_else(|| JournalError::corrupt(&self.file, format!("nothing says where run {run} ends")))
    }

    /// Writes the row of a new run.
    fn accept(&mut self, run: &RunId, first_seq: u64, new: &NewRun) -> Result<(), JournalError> {
        let owner = self.own_name()?;
        let connection = &self.connection;
        let write = || -> rusqlite::Result<Option<i64>> {
            if connection.prepare_cached("SELECT 1 FROM runs WHERE run = ?1")?.exists([run.as_str()])? {
                return Ok(None);
            }
            let number: i64 = connection
                .prepare_cached("SELECT coalesce(max(number), 0) + 1 FROM runs")?
                .query_row([], |row| row.get(0))?;
            StoredRun::accepted(number, run, new, &owner).insert(connection)?;
            let sum = chain::Fields::of("definitions").add(new.definition_hash.as_bytes()).add(&new.definition).sum();
            connection
                .prepare_cached("INSERT OR IGNORE INTO definitions (hash, definition, checksum) VALUES (?1, ?2, ?3)")?
                .execute(params![new.definition_hash, &*new.definition, sum])?;
            Ok(Some(number))
        };
        match write().map_err(|error| self.sqlite(&error))? {
            Some(number) => {
                let head = Head { number, next_seq: first_seq, position: 0, row: chain::root(run), fresh: true };
                self.runs.insert(run.clone(), Known::At(head));
                Ok(())
            }
            None => {
                let what = "a run of that name was accepted before".to_owned();
                Err(JournalError::Fenced { run: run.clone(), file: self.file.clone(), what })
            }
        }
    }

    /// Adds a run's rows to its log, provided that nobody else has.
    fn insert_rows(
        &mut self,
        run: &RunId,
        head: &Head,
        mut rows: PendingRows,
        open: &mut Open,
    ) -> Result<(), JournalError> {
        rows.seal();
        if rows.sealed.is_empty() && !head.fresh {
            return Ok(());
        }
        let connection = &self.connection;
        let last = if rows.sealed.is_empty() { head.position } else { open.at.position + rows.sealed.len() as u64 };
        let write = |open: &mut Open| -> rusqlite::Result<bool> {
            let last = signed(last);
            let next = signed(rows.next_seq);
            if head.fresh {
                let sql = "INSERT INTO heads (run, next_seq, position, state, row) VALUES (?1, ?2, ?3, x'', ?4)";
                connection.prepare_cached(sql)?.execute(params![head.number, next, last, rows.sum])?;
            } else {
                let sql = "UPDATE heads SET next_seq = ?2, position = ?3, row = ?4 \
                           WHERE run = ?1 AND next_seq = ?5 AND row = ?6";
                let values = params![head.number, next, last, rows.sum, signed(head.next_seq), head.row];
                if connection.prepare_cached(sql)?.execute(values)? != 1 {
                    return Ok(false);
                }
            }
            let mut insert = connection.prepare_cached(
                "INSERT INTO log (position, previous, run, first_seq, count, bodies, checksum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            let mut previous = signed(head.position);
            for row in &rows.sealed {
                open.at.position += 1;
                let (position, first_seq, count) = (signed(open.at.position), signed(row.first_seq), signed(row.count));
                insert.execute(params![position, previous, head.number, first_seq, count, row.packed, row.sum])?;
                previous = position;
                open.at.row = row.sum;
                open.added.extend_from_slice(&row.sum);
            }
            Ok(true)
        };
        if !write(open).map_err(|error| self.sqlite(&error))? {
            let what = format!("its log does not end before event {} any more", head.next_seq);
            return Err(JournalError::Fenced { run: run.clone(), file: self.file.clone(), what });
        }
        let head = Head { number: head.number, next_seq: rows.next_seq, position: last, row: rows.sum, fresh: false };
        match self.runs.get_mut(run) {
            Some(known) => *known = Known::At(head),
            None => {
                self.runs.insert(run.clone(), Known::At(head));
            }
        }
        Ok(())
    }

    /// Writes what batches of one run carry beside events.
    fn write_beside(&mut self, run: &RunId, number: i64, batches: &SameRun<'_>) -> Result<(), JournalError> {
        let mut summary: Option<&RunSummaryRow> = None;
        for (_, batch) in batches {
            summary = batch.summary.as_ref().or(summary);
            self.put_replies_and_results(batch).map_err(|error| self.sqlite(&error))?;
        }
        let Some(summary) = summary else { return Ok(()) };
        let stored = rows::find(&self.connection, &self.file, run)?;
        let Some(mut stored) = stored.filter(|stored| stored.number == number) else {
            return Err(JournalError::corrupt(&self.file, format!("the row of run {run} is missing")));
        };
        stored.status.clone_from(&summary.status);
        stored.paused = i64::from(summary.paused);
        stored.finished_at = summary.finished_at.map(|time| signed(time.0));
        if summary.finished_at.is_some() {
            // Nobody drives a run that has ended; to give it up by itself would cost a transaction more.
            stored.owner = None;
        }
        stored.update(&self.connection).map_err(|error| self.sqlite(&error))?;
        if summary.finished_at.is_some() {
            // A finished run is seldom written again; the database knows where it ends.
            self.runs.remove(run);
        }
        Ok(())
    }

    fn put_replies_and_results(&self, batch: &Batch) -> rusqlite::Result<()> {
        for put in &batch.cache {
            put_result(&self.connection, put)?;
        }
        for reply in &batch.handled {
            self.connection
                .prepare_cached("UPDATE commands SET reply = ?2 WHERE id = ?1 AND reply IS NULL")?
                .execute(params![reply.id, reply.body])?;
        }
        Ok(())
    }
}

/// Gives an error to all batches that have none yet.
fn refuse(batches: &SameRun<'_>, fates: &mut [Fate], error: &JournalError) {
    for (index, _) in batches {
        if let Some(fate @ Ok(())) = fates.get_mut(*index) {
            *fate = Err(error.clone());
        }
    }
}

fn put_result(connection: &Connection, put: &CachePut) -> rusqlite::Result<()> {
    let expires_at = put.expires_at.map(|time| signed(time.0));
    let sum = chain::Fields::of("cache").add(put.key.as_bytes()).add(&put.value).add_number(expires_at).sum();
    let sql = "INSERT OR REPLACE INTO cache (key, value, expires_at, created_at, checksum) VALUES (?1, ?2, ?3, ?4, ?5)";
    connection.prepare_cached(sql)?.execute(params![put.key, put.value, expires_at, signed(put.created_at.0), sum])?;
    Ok(())
}
