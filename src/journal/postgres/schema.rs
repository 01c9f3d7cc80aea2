//! The tables, and how they come about: numbered steps, forward only, each in the same transaction as its number.

use tokio_postgres::Client;

use crate::database::DatabaseError;
use crate::journal::error::JournalError;
use crate::journal::postgres::shared::Place;

/// Keeps two processes from making the tables at once.
const LOCK: i64 = 0x0074_6f6c_6a6f_7572;

/// The steps; the format's number is how many of them were taken.
const STEPS: [&str; 1] = [r#"
CREATE TABLE tol.meta (only_row bool PRIMARY KEY DEFAULT true CHECK (only_row), format int8 NOT NULL, partitions int4 NOT NULL);
CREATE TABLE tol.runs (
  number int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run text COLLATE "C" NOT NULL UNIQUE,
  pipeline text NOT NULL, path text NOT NULL,
  status text NOT NULL, paused bool NOT NULL,
  started_at int8 NOT NULL, finished_at int8,
  parent text COLLATE "C", definition_hash text COLLATE "C" NOT NULL,
  git_commit text, git_dirty bool,
  checksum bytea NOT NULL);
CREATE INDEX runs_unfinished ON tol.runs (number) WHERE finished_at IS NULL;
CREATE TABLE tol.heads (
  run text COLLATE "C" PRIMARY KEY, number int8 NOT NULL,
  next_seq int8 NOT NULL, checksum bytea NOT NULL,
  owner text COLLATE "C" NOT NULL, home int4) WITH (fillfactor = 60);
CREATE TABLE tol.log (
  number int8 NOT NULL, first_seq int8 NOT NULL, count int8 NOT NULL,
  bodies bytea NOT NULL, checksum bytea NOT NULL, PRIMARY KEY (number, first_seq));
ALTER TABLE tol.log ALTER COLUMN bodies SET STORAGE EXTERNAL;
CREATE TABLE tol.definitions (hash text COLLATE "C" PRIMARY KEY, definition bytea NOT NULL, checksum bytea NOT NULL);
CREATE TABLE tol.cache (
  key text COLLATE "C" PRIMARY KEY, value bytea NOT NULL, expires_at int8, created_at int8 NOT NULL,
  checksum bytea NOT NULL);
CREATE TABLE tol.commands (
  id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run text COLLATE "C" NOT NULL,
  token text COLLATE "C" NOT NULL UNIQUE, body bytea NOT NULL, reply bytea, checksum bytea NOT NULL);
CREATE INDEX commands_pending ON tol.commands (run, id) WHERE reply IS NULL;
CREATE TABLE tol.owners (
  key text COLLATE "C" PRIMARY KEY, epoch int8 NOT NULL, holder text COLLATE "C",
  expires_at timestamptz NOT NULL) WITH (fillfactor = 60);
CREATE TABLE tol.writers (
  id text COLLATE "C" PRIMARY KEY, name text NOT NULL, counter int8 NOT NULL,
  seen_at timestamptz NOT NULL) WITH (fillfactor = 60);
CREATE TABLE tol.schedulers (
  id text COLLATE "C" PRIMARY KEY, name text NOT NULL, expires_at timestamptz NOT NULL) WITH (fillfactor = 60);
CREATE FUNCTION tol.expect(fits bool) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
  IF fits THEN RETURN true; END IF;
  RAISE EXCEPTION 'the runs are not held as expected' USING ERRCODE = 'TL001';
END $$;
"#];

/// The newest format that this program knows.
pub(crate) const FORMAT: i64 = STEPS.len() as i64;

/// Brings the tables up to date; gives the number of partitions, which is fixed when the tables are made.
pub(crate) async fn prepare(client: &mut Client, place: &Place, partitions: u32) -> Result<u32, JournalError> {
    let failed = |error: tokio_postgres::Error| place.error(&error);
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(failed)?;
    let found = found(transaction.client(), place).await?;
    let format = found.map_or(0, |(format, _)| format);
    check(place, format)?;
    if format < FORMAT {
        let there = transaction.query_opt("SELECT 1 FROM pg_namespace WHERE nspname = 'tol'", &[]).await;
        if there.map_err(failed)?.is_none() {
            transaction.batch_execute("CREATE SCHEMA tol").await.map_err(failed)?;
        }
        let taken = usize::try_from(format).unwrap_or(0);
        for step in STEPS.iter().skip(taken) {
            transaction.batch_execute(step).await.map_err(failed)?;
        }
        let partitions = i32::try_from(partitions.max(1)).unwrap_or(i32::MAX);
        let sql = "INSERT INTO tol.meta (format, partitions) VALUES ($1, $2) \
                   ON CONFLICT (only_row) DO UPDATE SET format = excluded.format";
        transaction.execute(sql, &[&FORMAT, &partitions]).await.map_err(failed)?;
        let sql = "INSERT INTO tol.owners SELECT 'p/' || n, 0, NULL, '-infinity' \
                   FROM tol.meta, generate_series(0, partitions - 1) AS n ON CONFLICT DO NOTHING";
        transaction.execute(sql, &[]).await.map_err(failed)?;
    }
    let partitions = match self::found(transaction.client(), place).await? {
        Some((_, partitions)) => partitions,
        None => return Err(JournalError::corrupt(place.path(), "the row that names its format is missing")),
    };
    transaction.commit().await.map_err(failed)?;
    Ok(partitions)
}

/// Makes sure that there is a journal to read.
pub(crate) async fn look(client: &Client, place: &Place) -> Result<u32, JournalError> {
    match found(client, place).await? {
        Some((format, partitions)) => check(place, format).map(|()| partitions),
        None => Err(JournalError::Absent { folder: place.path().to_owned() }),
    }
}

/// Refuses a format that this program does not know.
pub(crate) fn check(place: &Place, found: i64) -> Result<(), JournalError> {
    if found <= FORMAT {
        return Ok(());
    }
    Err(JournalError::Newer { file: place.path().to_owned(), found, supported: FORMAT })
}

/// The format and the number of partitions; `None` if there are no tables.
pub(crate) async fn found(client: &Client, place: &Place) -> Result<Option<(i64, u32)>, JournalError> {
    let failed = |error: tokio_postgres::Error| place.error(&error);
    let there = client.query_one("SELECT to_regclass('tol.meta') IS NOT NULL", &[]).await.map_err(failed)?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_opt("SELECT format, partitions FROM tol.meta", &[]).await.map_err(failed)?;
    let Some(row) = row else { return Ok(None) };
    let partitions = u32::try_from(row.get::<_, i32>(1)).unwrap_or(0);
    if partitions == 0 {
        let what = "its number of partitions is not positive".to_owned();
        return Err(DatabaseError::Failed { place: place.shown().to_owned(), code: String::new(), what }.into());
    }
    Ok(Some((row.get(0), partitions)))
}
