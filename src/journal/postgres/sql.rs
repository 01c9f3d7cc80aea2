//! The statements of a write, and the values that go with them.

use tokio_postgres::types::ToSql;

/// One statement with its values.
pub(crate) struct Step {
    pub(crate) sql: &'static str,
    pub(crate) values: Vec<Box<dyn ToSql + Sync + Send>>,
}

/// Adds events to runs, provided that all of them are held as expected and end where they should, and that this very
/// group was not written before. Otherwise the whole statement fails with `TL001`.
///
/// The keys are locked before anything else, by the condition on their number. Every join goes by an index: the number
/// of runs in a group varies too much for a plan that was made once to do otherwise.
///
/// `KEY SHARE` stands in the way of a taker's `UPDATE` lock, but not of a renewal.
pub(crate) const WRITE: &str = "
WITH held AS MATERIALIZED (
  SELECT o.key FROM tol.owners AS o
  JOIN unnest($1::text[], $2::int8[]) AS u (key, epoch) ON o.key = u.key AND o.epoch = u.epoch
  WHERE o.holder = $3::text AND o.expires_at > clock_timestamp()
  ORDER BY o.key FOR KEY SHARE OF o),
moved AS (
  UPDATE tol.heads AS h SET next_seq = u.next_seq, checksum = u.checksum
  FROM unnest($4::text[], $5::text[], $6::int8[], $7::bytea[], $8::int8[], $9::bytea[])
    AS u (run, key, before_seq, before_checksum, next_seq, checksum)
  WHERE (SELECT count(*) FROM held) = $10::int8
    AND h.run = u.run AND h.owner = u.key AND h.next_seq = u.before_seq AND h.checksum = u.before_checksum
  RETURNING 1),
added AS (
  INSERT INTO tol.log (number, first_seq, count, bodies, checksum)
  SELECT h.number, r.first_seq, r.count, r.bodies, r.checksum
  FROM unnest($11::text[], $12::int8[], $13::int8[], $14::bytea[], $15::bytea[])
    AS r (run, first_seq, count, bodies, checksum)
  JOIN tol.heads AS h ON h.run = r.run),
marked AS (
  UPDATE tol.writers SET counter = $16::int8 WHERE id = $3::text AND counter = $16::int8 - 1 RETURNING 1)
SELECT tol.expect((SELECT count(*) FROM moved) = $17::int8 AND EXISTS (SELECT 1 FROM marked))";

/// Stores definitions that are not there yet.
pub(crate) const DEFINITIONS: &str = "
INSERT INTO tol.definitions (hash, definition, checksum)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[]) ON CONFLICT (hash) DO NOTHING";

/// Accepts runs. Fails if a run of such a name is there.
pub(crate) const ACCEPT: &str = "
INSERT INTO tol.runs (run, pipeline, path, status, paused, started_at, parent, definition_hash, git_commit, git_dirty,
  checksum)
SELECT run, pipeline, path, 'running', false, started_at, parent, definition_hash, git_commit, git_dirty, checksum
FROM unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::text[], $6::text[], $7::text[], $8::bool[],
  $9::bytea[]) WITH ORDINALITY
  AS u (run, pipeline, path, started_at, parent, definition_hash, git_commit, git_dirty, checksum, place)
ORDER BY place";

/// Says where the logs of accepted runs begin.
pub(crate) const BEGIN: &str = "
INSERT INTO tol.heads (run, number, next_seq, checksum, owner, home)
SELECT u.run, r.number, u.next_seq, u.root, u.owner, u.home
FROM unnest($1::text[], $2::int8[], $3::bytea[], $4::text[], $5::int4[]) AS u (run, next_seq, root, owner, home)
JOIN tol.runs AS r ON r.run = u.run";

/// Holds accepted runs that belong to no partition of this process.
pub(crate) const HOLD: &str = "
INSERT INTO tol.owners (key, epoch, holder, expires_at)
SELECT key, 1, $2::text, clock_timestamp() + interval '10 s' FROM unnest($1::text[]) AS u (key)";

/// Changes what lists show of runs.
pub(crate) const SUMMARIES: &str = "
UPDATE tol.runs AS r SET status = u.status, paused = u.paused, finished_at = u.finished_at
FROM unnest($1::text[], $2::text[], $3::bool[], $4::int8[]) AS u (run, status, paused, finished_at)
WHERE r.run = u.run";

/// Gives up runs that have ended.
pub(crate) const LET_GO: &str = "
UPDATE tol.owners SET holder = NULL, expires_at = '-infinity' WHERE key = ANY ($1::text[]) AND holder = $2::text";

/// Remembers results.
pub(crate) const RESULTS: &str = "
INSERT INTO tol.cache (key, value, expires_at, created_at, checksum)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::int8[], $4::int8[], $5::bytea[])
ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at,
  created_at = excluded.created_at, checksum = excluded.checksum";

/// Answers commands.
pub(crate) const REPLIES: &str = "
UPDATE tol.commands AS c SET reply = u.reply FROM unnest($1::int8[], $2::bytea[]) AS u (id, reply)
WHERE c.id = u.id AND c.reply IS NULL";

/// Renews leases that nobody else has taken, also when they had run out.
pub(crate) const RENEW: &str = "
UPDATE tol.owners AS o SET expires_at = clock_timestamp() + interval '10 s'
FROM unnest($1::text[], $2::int8[]) AS u (key, epoch)
WHERE o.key = u.key AND o.epoch = u.epoch AND o.holder = $3::text RETURNING o.key";

/// How the runs of a refused group stand.
pub(crate) const STANDING: &str = "
SELECT u.place, h.next_seq, h.checksum, h.owner, o.epoch, o.holder, o.expires_at > clock_timestamp(), w.name
FROM unnest($1::text[]) WITH ORDINALITY AS u (run, place)
JOIN tol.heads AS h ON h.run = u.run
LEFT JOIN tol.owners AS o ON o.key = h.owner
LEFT JOIN tol.writers AS w ON w.id = o.holder";
