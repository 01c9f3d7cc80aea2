//! What `tol doctor` finds out about the database of a journal.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;

use crate::database::{DatabaseError, DatabaseUrl, Link};
use crate::journal::error::JournalError;
use crate::journal::postgres::schema;
use crate::journal::postgres::shared::Place;

/// No statement may take longer than what a person waits for.
const SETUP: &str = "SET statement_timeout = '4s'; SET lock_timeout = '2s'";
/// What the connection is like.
const CONNECTION: &str = "SELECT current_setting('server_version'), current_setting('fsync') = 'on', \
     (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl)";
/// Tables on which a right is missing.
const DENIED: &str = "SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
     WHERE n.nspname = 'tol' AND c.relkind = 'r' AND NOT (has_table_privilege(c.oid, 'SELECT') \
     AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') \
     AND has_table_privilege(c.oid, 'DELETE')) ORDER BY 1";
const RUNS: &str = "SELECT status, count(*) FROM tol.runs GROUP BY status ORDER BY status";
const SCHEDULERS: &str = "SELECT count(*) FROM tol.schedulers WHERE expires_at > clock_timestamp()";
/// Written as a process that opens the journal writes, and taken back.
const WRITE: &str = "INSERT INTO tol.writers VALUES (gen_random_uuid()::text, 'tol doctor', 0, clock_timestamp())";
const MAKE: &str = "CREATE SCHEMA tol";

/// What is in the database, if there are tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The number of their format.
    pub format: i64,
    /// The newest format that this program knows, to which it brings older ones when it opens the journal.
    pub newest: i64,
    pub partitions: u32,
    /// How many runs have which status.
    pub runs: Vec<(String, i64)>,
    /// How many `tol serve` share the runs now.
    pub schedulers: i64,
}

/// A database that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// The version of the server.
    pub server: String,
    /// The version of TLS; none if the connection is in the clear.
    pub tls: Option<String>,
    /// Whether the server waits for its disk before it says that something is written.
    pub is_durable: bool,
    pub tables: Option<Tables>,
    /// Why nothing can be written; none if it can.
    pub unwritable: Option<String>,
}

/// Connects, looks at the tables, and tries whether one may write. It changes nothing.
///
/// # Errors
/// If the database cannot be reached within the time, refuses, or has tables that this program does not know.
pub async fn look_at(url: &DatabaseUrl, limit: Duration) -> Result<Looked, JournalError> {
    let place = Place::new(url.shown());
    let mut link = Link::new(Arc::new(url.clone()), "tol doctor", SETUP);
    let looking = async {
        let session = link.connect().await?;
        looked(&mut session.client, &place).await
    };
    tokio::time::timeout(limit, looking).await.unwrap_or_else(|_| {
        let what = format!("it has not answered for {} s", limit.as_secs());
        Err(DatabaseError::Away { place: url.shown().to_owned(), what }.into())
    })
}

async fn looked(client: &mut Client, place: &Place) -> Result<Looked, JournalError> {
    let failed = |error: tokio_postgres::Error| place.error(&error);
    let row = client.query_one(CONNECTION, &[]).await.map_err(failed)?;
    let mut looked =
        Looked { server: row.get(0), is_durable: row.get(1), tls: row.get(2), tables: None, unwritable: None };
    let found = schema::found(client, place).await?;
    let Some((format, partitions)) = found else {
        looked.unwritable = tried(client, MAKE).await;
        return Ok(looked);
    };
    schema::check(place, format)?;
    let rows = client.query(RUNS, &[]).await.map_err(failed)?;
    let runs = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let schedulers = client.query_one(SCHEDULERS, &[]).await.map_err(failed)?.get(0);
    looked.tables = Some(Tables { format, newest: schema::FORMAT, partitions, runs, schedulers });
    let denied: Vec<String> = client.query(DENIED, &[]).await.map_err(failed)?.iter().map(|row| row.get(0)).collect();
    looked.unwritable = match denied.as_slice() {
        [] => tried(client, WRITE).await,
        tables => Some(format!("this user may not read and write tol.{}", tables.join(", tol."))),
    };
    Ok(looked)
}

/// Does it and takes it back; gives what the server has against it.
async fn tried(client: &mut Client, sql: &str) -> Option<String> {
    let tried = async {
        let transaction = client.transaction().await?;
        transaction.batch_execute(sql).await?;
        transaction.rollback().await
    };
    let error = tried.await.err()?;
    Some(error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned()))
}
