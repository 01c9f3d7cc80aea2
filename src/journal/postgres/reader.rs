//! What is read from the tables, and how it is held against its checksums.

use tokio_postgres::{Client, Error, IsolationLevel, Row};

use crate::id::RunId;
use crate::journal::chain::{self, Fields, Sum};
use crate::journal::error::JournalError;
use crate::journal::postgres::claim::{number_of, sum_of};
use crate::journal::postgres::group::run_sum;
use crate::journal::postgres::shared::Place;
use crate::journal::query::command_sum;
use crate::journal::types::{ListFilter, NewRun, Record, RunRow};
use crate::time::Timestamp;

/// How many runs a prefix gives at most: enough to say that it is ambiguous.
const FOUND: i64 = 100;

/// A run's row with the name of its living holder.
const ROWS: &str = "
SELECT r.run, r.pipeline, r.path, r.status, r.paused, r.started_at, r.finished_at, r.parent, r.definition_hash,
  r.git_commit, r.git_dirty, r.checksum, w.name
FROM tol.runs AS r
LEFT JOIN tol.heads AS h ON h.run = r.run AND r.finished_at IS NULL
LEFT JOIN tol.owners AS o ON o.key = h.owner AND o.expires_at > clock_timestamp()
LEFT JOIN tol.writers AS w ON w.id = o.holder";

/// The rows of a log as they were read, with what they must be chained to.
pub(crate) struct Log {
    head: Row,
    before: Option<Row>,
    rows: Vec<Row>,
}

/// Reads a run's log from the row on that holds event `from`, all from one state of the database.
pub(crate) async fn log(client: &mut Client, run: &str, from: u64) -> Result<Option<Log>, Error> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
    let transaction = builder.start().await?;
    let sql = "SELECT next_seq, checksum, number FROM tol.heads WHERE run = $1";
    let Some(head) = transaction.query_opt(sql, &[&run]).await? else { return Ok(None) };
    let number: i64 = head.get(2);
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let sql = "SELECT max(first_seq) FROM tol.log WHERE number = $1 AND first_seq <= $2";
    let first: Option<i64> = transaction.query_one(sql, &[&number, &from]).await?.get(0);
    let first = first.unwrap_or(i64::MIN);
    let sql = "SELECT checksum, first_seq + count FROM tol.log WHERE number = $1 AND first_seq < $2 \
               ORDER BY first_seq DESC LIMIT 1";
    let before = transaction.query_opt(sql, &[&number, &first]).await?;
    let sql = "SELECT first_seq, count, bodies, checksum FROM tol.log WHERE number = $1 AND first_seq >= $2 \
               ORDER BY first_seq";
    let rows = transaction.query(sql, &[&number, &first]).await?;
    Ok(Some(Log { head, before, rows }))
}

/// Takes a log apart and verifies it.
pub(crate) fn records(place: &Place, run: &RunId, log: &Log, from: u64) -> Result<Vec<Record>, JournalError> {
    let (next_seq, end) = (number_of(&log.head, 0, place)?, sum_of(&log.head, 1, place)?);
    let (mut next, mut before) = match (&log.before, log.rows.first()) {
        (Some(row), _) => (number_of(row, 1, place)?, sum_of(row, 0, place)?),
        (None, Some(first)) => (number_of(first, 0, place)?, chain::root(run)),
        (None, None) => (next_seq, chain::root(run)),
    };
    let mut records = Vec::new();
    for row in &log.rows {
        let (first_seq, count, packed): (u64, u64, &[u8]) =
            (number_of(row, 0, place)?, number_of(row, 1, place)?, row.get(2));
        let sum: Sum = sum_of(row, 3, place)?;
        if first_seq != next {
            return Err(place.corrupt(format!("run {run}: event {next} is missing, {first_seq} comes instead")));
        }
        if chain::row(&before, first_seq, count, packed) != sum {
            return Err(place.corrupt(format!("run {run}: the row of event {next} does not fit its checksum")));
        }
        let bodies = chain::unpack(packed, count)
            .ok_or_else(|| place.corrupt(format!("run {run}: the row of event {next} is malformed")))?;
        for body in bodies {
            if next >= from {
                records.push(Record { seq: next, body: body.to_vec() });
            }
            next += 1;
        }
        before = sum;
    }
    if next != next_seq || before != end {
        let what = format!("run {run}: the log ends before event {next}, but it was written up to {next_seq}");
        return Err(place.corrupt(what));
    }
    Ok(records)
}

pub(crate) async fn run(client: &Client, run: &str) -> Result<Option<Row>, Error> {
    client.query_opt(&format!("{ROWS} WHERE r.run = $1"), &[&run]).await
}

pub(crate) async fn find_run(client: &Client, prefix: &str) -> Result<Vec<Row>, Error> {
    let sql = format!("{ROWS} WHERE starts_with(r.run, $1) ORDER BY r.number DESC LIMIT $2");
    client.query(&sql, &[&prefix, &FOUND]).await
}

pub(crate) async fn list(client: &Client, filter: &ListFilter) -> Result<Vec<Row>, Error> {
    let sql = format!(
        "{ROWS} WHERE ($1::text IS NULL OR r.status = $1) AND ($2::text IS NULL OR r.pipeline = $2) \
         ORDER BY r.number DESC LIMIT $3"
    );
    let limit = filter.limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
    client.query(&sql, &[&filter.status, &filter.pipeline, &limit]).await
}

/// A row as it is shown.
pub(crate) fn shown(place: &Place, row: &Row) -> Result<RunRow, JournalError> {
    let time = |millis: i64| Timestamp(u64::try_from(millis).unwrap_or(0));
    let run: String = row.get(0);
    let shown = RunRow {
        run: RunId::new(&run),
        pipeline: row.get(1),
        path: row.get(2),
        status: row.get(3),
        paused: row.get(4),
        started_at: time(row.get(5)),
        finished_at: row.get::<_, Option<i64>>(6).map(time),
        parent: row.get::<_, Option<&str>>(7).map(RunId::new),
        definition_hash: row.get(8),
        git_commit: row.get(9),
        git_dirty: row.get(10),
        owner: row.get(12),
    };
    let stored = NewRun {
        pipeline: shown.pipeline.clone(),
        path: shown.path.clone(),
        definition_hash: shown.definition_hash.clone(),
        definition: std::sync::Arc::default(),
        git_commit: shown.git_commit.clone(),
        git_dirty: shown.git_dirty,
        parent: shown.parent.clone(),
        started_at: shown.started_at,
    };
    if sum_of(row, 11, place)? != run_sum(&run, &stored) {
        return Err(place.corrupt(format!("the row of run {run} does not fit its checksum")));
    }
    Ok(shown)
}

/// A definition, held against its checksum.
pub(crate) fn definition(place: &Place, hash: &str, row: &Row) -> Result<Vec<u8>, JournalError> {
    let definition: Vec<u8> = row.get(0);
    if Fields::of("definitions").add(hash.as_bytes()).add(&definition).sum() != sum_of(row, 1, place)? {
        return Err(place.corrupt(format!("the definition {hash} does not fit its checksum")));
    }
    Ok(definition)
}

/// A remembered result, held against its checksum, unless it has expired.
pub(crate) fn result(place: &Place, key: &str, now: Timestamp, row: &Row) -> Result<Option<Vec<u8>>, JournalError> {
    let (value, expires_at): (Vec<u8>, Option<i64>) = (row.get(0), row.get(1));
    let sum = Fields::of("cache").add(key.as_bytes()).add(&value).add_number(expires_at).sum();
    if sum != sum_of(row, 2, place)? {
        return Err(place.corrupt(format!("the remembered result {key} does not fit its checksum")));
    }
    let expired = expires_at.is_some_and(|time| u64::try_from(time).unwrap_or(0) <= now.0);
    Ok((!expired).then_some(value))
}

/// A command, held against its checksum.
pub(crate) fn command(place: &Place, run: &RunId, row: &Row) -> Result<(i64, Vec<u8>), JournalError> {
    let (id, body): (i64, Vec<u8>) = (row.get(0), row.get(1));
    if command_sum(run, &body) != sum_of(row, 2, place)? {
        return Err(place.corrupt(format!("command {id} of run {run} does not fit its checksum")));
    }
    Ok((id, body))
}
