//! Artifacts in PostgreSQL: rows of at most 1 MiB, so that no statement becomes large.

use std::sync::Arc;
use std::time::Duration;

use crate::artifact::store::{check_name, check_size, verified};
use crate::artifact::{ArtifactError, Store, Swept, reference_of};
use crate::database::Database;
use crate::proto::v1::ArtifactRef;

const PIECE: usize = 1024 * 1024;

/// The lock keeps two programs that start together from making the same table.
const TABLES: &str = "
    BEGIN;
    SELECT pg_advisory_xact_lock(7815044110232431);
    CREATE TABLE IF NOT EXISTS artifacts (
        hash text PRIMARY KEY, bytes bigint NOT NULL, put_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE IF NOT EXISTS artifact_pieces (
        hash text NOT NULL REFERENCES artifacts ON DELETE CASCADE, number int NOT NULL, data bytea NOT NULL,
        PRIMARY KEY (hash, number));
    COMMIT;";

/// Artifacts in a database that scheduler and workers share.
#[derive(Clone)]
pub struct PostgresStore {
    database: Database,
}

impl PostgresStore {
    /// Uses this database; makes the tables if they are not there.
    ///
    /// # Errors
    /// If the database cannot be reached or refuses.
    pub fn open(database: Database) -> Result<Self, ArtifactError> {
        database.call(|client| Box::pin(async move { client.batch_execute(TABLES).await }))?;
        Ok(Self { database })
    }

    fn missing(&self, hash: &str) -> ArtifactError {
        ArtifactError::Missing { place: self.database.place().to_owned(), hash: hash.to_owned() }
    }
}

impl Store for PostgresStore {
    fn put(&self, bytes: &[u8]) -> Result<ArtifactRef, ArtifactError> {
        check_size(bytes.len() as u64)?;
        let reference = reference_of(bytes);
        let content: Arc<[u8]> = Arc::from(bytes);
        let hash = reference.hash.clone();
        self.database.call(move |client| {
            let (hash, content) = (hash.clone(), content.clone());
            Box::pin(async move {
                let change = client.transaction().await?;
                let length = i64::try_from(content.len()).unwrap_or(i64::MAX);
                let is_new: bool = change
                    .query_one(
                        "INSERT INTO artifacts (hash, bytes) VALUES ($1, $2)
                         ON CONFLICT (hash) DO UPDATE SET put_at = now() RETURNING xmax = 0",
                        &[&hash, &length],
                    )
                    .await?
                    .get(0);
                if is_new {
                    let put = change.prepare("INSERT INTO artifact_pieces VALUES ($1, $2, $3)").await?;
                    for (number, piece) in (0_i32..).zip(content.chunks(PIECE)) {
                        change.execute(&put, &[&hash, &number, &piece]).await?;
                    }
                }
                change.commit().await
            })
        })?;
        Ok(reference)
    }

    fn get(&self, reference: &ArtifactRef) -> Result<Vec<u8>, ArtifactError> {
        check_name(&reference.hash)?;
        check_size(reference.bytes)?;
        let (hash, most) = (reference.hash.clone(), reference.bytes);
        let found: Option<Vec<u8>> = self.database.call(move |client| {
            let hash = hash.clone();
            Box::pin(async move {
                // One snapshot for all pieces: a sweep in between does not tear them apart.
                let snapshot = client
                    .build_transaction()
                    .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
                    .read_only(true)
                    .start()
                    .await?;
                if snapshot.query_opt("SELECT 1 FROM artifacts WHERE hash = $1", &[&hash]).await?.is_none() {
                    return Ok(None);
                }
                let take = snapshot.prepare("SELECT data FROM artifact_pieces WHERE hash = $1 AND number = $2").await?;
                let mut content = Vec::new();
                for number in 0_i32.. {
                    let Some(row) = snapshot.query_opt(&take, &[&hash, &number]).await? else { break };
                    content.extend_from_slice(row.get::<_, &[u8]>(0));
                    // It is another content already: there is no use in the rest.
                    if content.len() as u64 > most {
                        break;
                    }
                }
                snapshot.commit().await?;
                Ok(Some(content))
            })
        })?;
        let content = found.ok_or_else(|| self.missing(&reference.hash))?;
        verified(content, reference, self.database.place())
    }

    fn exists(&self, hash: &str) -> Result<bool, ArtifactError> {
        check_name(hash)?;
        let hash = hash.to_owned();
        Ok(self.database.call(move |client| {
            let hash = hash.clone();
            Box::pin(async move {
                Ok(client.query_opt("SELECT 1 FROM artifacts WHERE hash = $1", &[&hash]).await?.is_some())
            })
        })?)
    }

    fn remove(&self, hash: &str) -> Result<bool, ArtifactError> {
        check_name(hash)?;
        let hash = hash.to_owned();
        Ok(self.database.call(move |client| {
            let hash = hash.clone();
            Box::pin(async move { Ok(client.execute("DELETE FROM artifacts WHERE hash = $1", &[&hash]).await? > 0) })
        })?)
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept, ArtifactError> {
        let seconds = older_than.as_secs_f64();
        Ok(self.database.call(move |client| {
            Box::pin(async move {
                let row = client
                    .query_one(
                        "WITH gone AS (DELETE FROM artifacts WHERE put_at < now() - make_interval(secs => $1)
                         RETURNING bytes) SELECT count(*)::int8, coalesce(sum(bytes), 0)::int8 FROM gone",
                        &[&seconds],
                    )
                    .await?;
                let number = |column| row.get::<_, i64>(column).unsigned_abs();
                Ok(Swept { artifacts: number(0), bytes: number(1) })
            })
        })?)
    }
}
