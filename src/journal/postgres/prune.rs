//! Removing finished runs.

use tokio_postgres::{Client, Error};

/// How many runs go in one transaction, so that others are not kept waiting for long.
const RUNS_AT_ONCE: usize = 50;

/// Gives the finished runs that may go, newest first. Its two conditions are told in `Journal::prune`.
const CANDIDATES: &str = "
SELECT r.number, r.run FROM tol.runs AS r
WHERE r.finished_at IS NOT NULL AND ($1::int8 IS NULL OR r.finished_at < $1)
  AND ($2::int8 IS NULL OR r.number NOT IN (
    SELECT number FROM tol.runs WHERE finished_at IS NOT NULL ORDER BY number DESC LIMIT $2))
  AND NOT EXISTS (SELECT 1 FROM tol.runs AS p WHERE p.run = r.parent AND p.finished_at IS NULL)
ORDER BY r.number DESC";

/// The runs that a pruning removes, newest first.
pub(crate) async fn candidates(
    client: &Client,
    older_than: Option<i64>,
    keep_newest: Option<i64>,
) -> Result<Vec<(i64, String)>, Error> {
    let rows = client.query(CANDIDATES, &[&older_than, &keep_newest]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Removes some runs, unless they go on again.
async fn remove(client: &mut Client, some: &[(i64, String)]) -> Result<Vec<String>, Error> {
    let runs: Vec<&str> = some.iter().map(|(_, run)| run.as_str()).collect();
    let transaction = client.transaction().await?;
    let sql = "DELETE FROM tol.runs WHERE run = ANY ($1) AND finished_at IS NOT NULL RETURNING run, number";
    let rows = transaction.query(sql, &[&runs]).await?;
    let gone: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let numbers: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
    let keys: Vec<String> = gone.iter().map(|run| format!("r/{run}")).collect();
    transaction.execute("DELETE FROM tol.owners WHERE key = ANY ($1)", &[&keys]).await?;
    transaction.execute("DELETE FROM tol.heads WHERE run = ANY ($1)", &[&gone]).await?;
    transaction.execute("DELETE FROM tol.log WHERE number = ANY ($1)", &[&numbers]).await?;
    transaction.execute("DELETE FROM tol.commands WHERE run = ANY ($1)", &[&gone]).await?;
    transaction.commit().await?;
    Ok(some.iter().filter(|(_, run)| gone.contains(run)).map(|(_, run)| run.clone()).collect())
}

/// Removes runs in several transactions; a crash between two leaves whole runs.
pub(crate) async fn prune(
    client: &mut Client,
    older_than: Option<i64>,
    keep_newest: Option<i64>,
    now: i64,
) -> Result<Vec<String>, Error> {
    let found = candidates(client, older_than, keep_newest).await?;
    let mut removed = Vec::with_capacity(found.len());
    for some in found.chunks(RUNS_AT_ONCE) {
        removed.extend(remove(client, some).await?);
    }
    client.execute("DELETE FROM tol.cache WHERE expires_at <= $1", &[&now]).await?;
    let transaction = client.transaction().await?;
    // A run that is being accepted names a definition that it found: it must be written, or not have begun.
    transaction.batch_execute("LOCK TABLE tol.definitions IN SHARE ROW EXCLUSIVE MODE").await?;
    let unused = "DELETE FROM tol.definitions WHERE hash NOT IN (SELECT definition_hash FROM tol.runs)";
    transaction.execute(unused, &[]).await?;
    transaction.commit().await?;
    Ok(removed)
}
