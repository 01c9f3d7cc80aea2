//! Taking runs over, giving them up, and keeping what is held.

use std::time::Instant;

use tokio_postgres::Row;

use crate::database::Session;
use crate::id::RunId;
use crate::journal::chain::Sum;
use crate::journal::error::JournalError;
use crate::journal::postgres::commit::Fate;
use crate::journal::postgres::shared::Place;
use crate::journal::postgres::sql;
use crate::journal::postgres::writer::{Known, Trouble, Writer};
use crate::journal::transaction::Head;
use crate::journal::types::{Batch, Claim};

/// How a run stands, and whether this process holds it: read without locks, for every write checks it again.
const OWN: &str = "
SELECT h.next_seq, h.checksum, h.owner, o.epoch, o.holder = $2 AND o.expires_at > clock_timestamp()
FROM tol.heads AS h LEFT JOIN tol.owners AS o ON o.key = h.owner WHERE h.run = $1";

/// Everyone who may hold a run, locked against writers and other takers.
const HOLDERS: &str = "
SELECT o.key, o.epoch, o.holder, o.expires_at > clock_timestamp(), w.name
FROM tol.owners AS o LEFT JOIN tol.writers AS w ON w.id = o.holder
WHERE o.key = ANY ($1::text[]) ORDER BY o.key FOR UPDATE OF o";

/// The partition of a run, from 0.
pub(crate) fn home_of(run: &RunId, partitions: u32) -> i32 {
    let hash = blake3::hash(run.as_str().as_bytes());
    let first = hash.as_bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    i32::try_from(first % u64::from(partitions.max(1))).unwrap_or(0)
}

/// A checksum as the database gives it.
pub(crate) fn sum_of(row: &Row, column: usize, place: &Place) -> Result<Sum, JournalError> {
    let bytes: &[u8] = row.get(column);
    bytes.try_into().map_err(|_| place.corrupt("a checksum has not its length"))
}

/// A number as the database gives it.
pub(crate) fn number_of(row: &Row, column: usize, place: &Place) -> Result<u64, JournalError> {
    u64::try_from(row.get::<_, i64>(column)).map_err(|_| place.corrupt("a number is negative"))
}

impl Writer {
    /// Makes this process a run's holder, unless another living one is.
    pub(crate) async fn claim(&mut self, run: &RunId) -> Result<Claim, Trouble> {
        // A run that is claimed anew is looked at anew: others may have written to it.
        loop {
            let asked = Instant::now();
            let id = self.shared.id.clone();
            let row = self.session().await?.client.query_opt(OWN, &[&run.as_str(), &id]).await;
            let Some(row) = row.map_err(|error| self.trouble(&error))? else {
                return Err(Trouble::End(self.shared.place.no_such_run(run)));
            };
            if row.get::<_, Option<bool>>(4) == Some(true) {
                let (key, epoch): (String, i64) = (row.get(2), row.get(3));
                // Its end is the database's to say; a grant that this process does not know of is of a write whose
                // answer was lost.
                if self.shared.grants().get(&key).is_none_or(|grant| grant.epoch != epoch) {
                    if key.starts_with("p/") {
                        return Ok(Claim::Held { holder: "this process, which is about to take it up".to_owned() });
                    }
                    self.shared.grants().put(&key, epoch, asked);
                    self.renew_all().await?;
                    continue;
                }
                let head = self.head(&row)?;
                self.runs.insert(run.clone(), Known::At { head, key, epoch });
                return Ok(Claim::Taken);
            }
            if let Some(claim) = self.take(run, &row.get::<_, String>(2)).await? {
                return Ok(claim);
            }
        }
    }

    fn head(&self, row: &Row) -> Result<Head, JournalError> {
        let place = &self.shared.place;
        let (next_seq, sum) = (number_of(row, 0, place)?, sum_of(row, 1, place)?);
        Ok(Head { number: 0, next_seq, position: 0, row: sum, fresh: false })
    }

    /// Takes a run from whoever held it last as `owner`; `None` if that has changed meanwhile.
    async fn take(&mut self, run: &RunId, owner: &str) -> Result<Option<Claim>, Trouble> {
        let asked = Instant::now();
        let id = self.shared.id.clone();
        let place = self.shared.place.clone();
        let partitions = self.shared.partitions;
        let taken = {
            let session = self.session().await?;
            take_within(session, run, owner, &id, partitions).await
        };
        match taken.map_err(|error| self.trouble(&error))? {
            Taking::Again => Ok(None),
            Taking::Held(holder) => Ok(Some(Claim::Held { holder })),
            Taking::Done { key, epoch, next_seq, sum } => {
                let next_seq = u64::try_from(next_seq).map_err(|_| place.corrupt("a number is negative"))?;
                let row = Sum::try_from(sum.as_slice()).map_err(|_| place.corrupt("a checksum has not its length"))?;
                let head = Head { number: 0, next_seq, position: 0, row, fresh: false };
                self.shared.grants().put(&key, epoch, asked);
                self.runs.insert(run.clone(), Known::At { head, key, epoch });
                Ok(Some(Claim::Taken))
            }
        }
    }

    /// Gives a run up if this process holds it singly. One that it holds with its partition is only forgotten.
    pub(crate) async fn release(&mut self, run: &RunId) -> Result<(), Trouble> {
        self.runs.remove(run);
        let key = format!("r/{run}");
        let epoch = self.shared.grants().get(&key).map(|grant| grant.epoch);
        if let Some(epoch) = epoch {
            self.shared.grants().remove(&key, epoch);
        }
        let id = self.shared.id.clone();
        let sql = "
            WITH freed AS (
              UPDATE tol.owners SET holder = NULL, expires_at = '-infinity' WHERE key = $1 AND holder = $2 RETURNING key)
            UPDATE tol.heads AS h SET owner = 'p/' || h.home FROM freed
            WHERE h.run = $3 AND h.owner = freed.key AND h.home IS NOT NULL";
        let done = self.session().await?.client.execute(sql, &[&key, &id, &run.as_str()]).await;
        done.map(drop).map_err(|error| self.trouble(&error))
    }

    /// Gives partitions up; nothing of their runs is written here any more.
    pub(crate) async fn give_up(&mut self, keys: &[String]) -> Result<(), Trouble> {
        for key in keys {
            let grant = self.shared.grants().get(key);
            if let Some(grant) = grant {
                self.shared.grants().remove(key, grant.epoch);
            }
        }
        let id = self.shared.id.clone();
        let done = self.session().await?.client.execute(sql::LET_GO, &[&keys, &id]).await;
        done.map(drop).map_err(|error| self.trouble(&error))
    }

    /// Renews what the batches need and what may have run out by this process's clock. What another has taken is
    /// forgotten, so that its runs are refused.
    pub(crate) async fn renew_what_may_have_run_out(
        &mut self,
        batches: &[Batch],
        fates: &[Option<Fate>],
    ) -> Result<(), Trouble> {
        let now = Instant::now();
        let unsure = {
            let grants = self.shared.grants();
            let open = batches.iter().zip(fates).filter(|(_, fate)| fate.is_none());
            let mut keys = open.filter_map(|(batch, _)| match self.runs.get(&batch.run) {
                Some(Known::At { key, .. }) => Some(key),
                Some(Known::Refused(_)) | None => None,
            });
            keys.any(|key| grants.get(key).is_some() && !grants.is_sure(key, now))
        };
        if unsure { self.renew_all().await } else { Ok(()) }
    }

    /// Renews everything that is held.
    pub(crate) async fn renew_all(&mut self) -> Result<(), Trouble> {
        let asked_for = self.shared.grants().all();
        if asked_for.is_empty() {
            return Ok(());
        }
        let asked = Instant::now();
        let id = self.shared.id.clone();
        let (keys, epochs): (Vec<String>, Vec<i64>) = asked_for.iter().cloned().unzip();
        let rows = self.session().await?.client.query(sql::RENEW, &[&keys, &epochs, &id]).await;
        let rows = rows.map_err(|error| self.trouble(&error))?;
        let renewed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        self.shared.grants().renewed(&asked_for, &renewed, asked);
        Ok(())
    }
}

enum Taking {
    /// Who holds the run has changed meanwhile.
    Again,
    Held(String),
    Done {
        key: String,
        epoch: i64,
        next_seq: i64,
        sum: Vec<u8>,
    },
}

async fn take_within(
    session: &mut Session,
    run: &RunId,
    owner: &str,
    id: &str,
    partitions: u32,
) -> Result<Taking, tokio_postgres::Error> {
    let single = format!("r/{run}");
    let home = format!("p/{}", home_of(run, partitions));
    let transaction = session.client.transaction().await?;
    let mut keys = vec![single.clone(), home.clone(), owner.to_owned()];
    keys.sort();
    keys.dedup();
    let holders = transaction.query(HOLDERS, &[&keys]).await?;
    let sql = "SELECT h.owner, h.home, r.finished_at IS NOT NULL, h.next_seq, h.checksum \
               FROM tol.heads AS h JOIN tol.runs AS r ON r.run = h.run WHERE h.run = $1 FOR UPDATE OF h";
    let Some(head) = transaction.query_opt(sql, &[&run.as_str()]).await? else { return Ok(Taking::Again) };
    if head.get::<_, String>(0) != owner {
        return Ok(Taking::Again);
    }
    let find = |key: &str| holders.iter().find(|row| row.get::<_, String>(0) == key);
    let holds = |row: &Row| row.get::<_, Option<String>>(2).filter(|_| row.get::<_, bool>(3));
    let ended: bool = head.get(2);
    if let Some(row) = find(owner)
        && let Some(holder) = holds(row)
        && !ended
    {
        if holder == id {
            return Ok(Taking::Again);
        }
        return Ok(Taking::Held(row.get::<_, Option<String>>(4).unwrap_or_else(|| "another process".to_owned())));
    }
    let own_home =
        find(&home).filter(|row| holds(row).as_deref() == Some(id) && head.get::<_, Option<i32>>(1).is_some());
    let (key, epoch) = match own_home {
        // Back to its partition; whoever had it singly is kept out by the change of its owner.
        Some(row) => (home, row.get(1)),
        None => {
            let sql = "INSERT INTO tol.owners VALUES ($1, 1, $2, clock_timestamp() + interval '10 s') \
                       ON CONFLICT (key) DO UPDATE SET epoch = tol.owners.epoch + 1, holder = excluded.holder, \
                         expires_at = excluded.expires_at RETURNING epoch";
            let row = transaction.query_one(sql, &[&single, &id]).await?;
            (single, row.get(0))
        }
    };
    transaction.execute("UPDATE tol.heads SET owner = $2 WHERE run = $1", &[&run.as_str(), &key]).await?;
    transaction.commit().await?;
    Ok(Taking::Done { key, epoch, next_seq: head.get(3), sum: head.get(4) })
}
