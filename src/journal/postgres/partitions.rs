//! How several schedulers divide all runs among themselves: each run belongs to a partition by its name, each partition
//! is held by one scheduler under an epoch that only grows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::id::RunId;
use crate::journal::error::JournalError;
use crate::journal::postgres::claim::home_of;
use crate::journal::postgres::journal::{Inner, PostgresJournal};
use crate::journal::postgres::shared::lock;

/// How many names are drawn at most until one falls into an own partition.
const DRAWS: u32 = 10_000;

/// Notes that a scheduler lives, and forgets the dead ones.
const LIVE: &str = "
WITH gone AS (DELETE FROM tol.schedulers WHERE expires_at < clock_timestamp() AND id <> $1)
INSERT INTO tol.schedulers VALUES ($1, $2, clock_timestamp() + interval '10 s')
ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at";

/// Renews what this scheduler holds, also if it had run out and nobody took it.
const RENEW: &str = "
UPDATE tol.owners SET expires_at = clock_timestamp() + interval '10 s'
WHERE holder = $1 AND key LIKE 'p/%'";

/// Takes free partitions, up to a number. `SKIP LOCKED`: two takers at once take different ones.
const TAKE: &str = "
WITH free AS (
  SELECT key FROM tol.owners
  WHERE key LIKE 'p/%' AND (holder IS NULL OR expires_at <= clock_timestamp())
  ORDER BY key LIMIT $2 FOR UPDATE SKIP LOCKED)
UPDATE tol.owners AS o SET epoch = o.epoch + 1, holder = $1, expires_at = clock_timestamp() + interval '10 s'
FROM free WHERE o.key = free.key";

/// A scheduler's part in a journal that several schedulers share.
pub struct Partitions {
    inner: Arc<Inner>,
    name: String,
    /// What the last `renew` told, by partition.
    told: Mutex<BTreeMap<u32, u64>>,
}

/// Which partitions a scheduler holds, each with its epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// All that it holds now.
    pub held: BTreeMap<u32, u64>,
    /// Those that it did not hold under this epoch when it last asked: their unfinished runs are to be taken up.
    pub gained: BTreeMap<u32, u64>,
    /// Those that it held then and holds no more, with the epoch of then: nothing of their runs can be written here.
    pub lost: BTreeMap<u32, u64>,
    /// How many schedulers live, this one among them.
    pub schedulers: u32,
}

impl PostgresJournal {
    /// Takes part in the division of the partitions under a name that people recognise. Nothing is held before `renew`.
    ///
    /// From now on runs that are accepted belong to partitions. To call it twice on one journal is an error of the
    /// caller and changes the name only.
    pub fn join(&self, name: &str) -> Result<Partitions, JournalError> {
        self.inner.shared.alive()?;
        *lock(&self.inner.shared.joined) = Some(name.to_owned());
        Ok(Partitions { inner: Arc::clone(&self.inner), name: name.to_owned(), told: Mutex::default() })
    }
}

impl Partitions {
    /// How many partitions there are; it never changes.
    pub fn count(&self) -> u32 {
        self.inner.shared.partitions
    }

    /// The partition of a run.
    pub fn partition_of(&self, run: &RunId) -> u32 {
        u32::try_from(home_of(run, self.count())).unwrap_or(0)
    }

    /// Whether a partition is surely held at this moment, by this process's own clock.
    pub fn is_sure(&self, partition: u32) -> bool {
        self.inner.shared.grants().is_sure(&key(partition), Instant::now())
    }

    /// The name of a new run of an own partition; `None` if none is held.
    pub fn new_run_id(&self) -> Option<RunId> {
        let held: Vec<u32> = (0..self.count()).filter(|partition| self.is_sure(*partition)).collect();
        if held.is_empty() {
            return None;
        }
        let mut draws = (0..DRAWS).map(|_| RunId::new(&uuid::Uuid::now_v7().to_string()));
        draws.find(|run| held.contains(&self.partition_of(run)))
    }

    /// Says that this scheduler lives, takes its fair share of what is free, gives up what is above it, and tells what
    /// it holds now. To be called every three seconds; leases are renewed in the background as well.
    pub fn renew(&self) -> Result<Holdings, JournalError> {
        let (asked, schedulers, mine) = self.hold(0)?;
        let share = self.count().div_ceil(schedulers.max(1)) as usize;
        let (asked, mine) = if mine.len() > share {
            // The highest go, so that the same stay from one time to the next.
            let surplus: Vec<u32> = mine.keys().rev().take(mine.len() - share).copied().collect();
            self.give_up(&surplus)?;
            let kept = mine.into_iter().filter(|(partition, _)| !surplus.contains(partition)).collect();
            (asked, kept)
        } else if mine.len() < share {
            let (asked, _, mine) = self.hold(share - mine.len())?;
            (asked, mine)
        } else {
            (asked, mine)
        };
        let mut told = lock(&self.told);
        {
            let mut grants = self.inner.shared.grants();
            for (partition, epoch) in &mine {
                grants.put(&key(*partition), i64::try_from(*epoch).unwrap_or(i64::MAX), asked);
            }
            for (partition, epoch) in told.iter().filter(|(partition, epoch)| mine.get(partition) != Some(epoch)) {
                grants.remove(&key(*partition), i64::try_from(*epoch).unwrap_or(i64::MAX));
            }
        }
        let without = |one: &BTreeMap<u32, u64>, other: &BTreeMap<u32, u64>| {
            one.iter().filter(|(key, epoch)| other.get(key) != Some(epoch)).map(|(key, epoch)| (*key, *epoch)).collect()
        };
        let (gained, lost) = (without(&mine, &told), without(&told, &mine));
        *told = mine.clone();
        Ok(Holdings { held: mine, gained, lost, schedulers })
    }

    /// Gives partitions up, behind everything of their runs that is queued. The next `renew` tells them as lost, and
    /// may take them again if nobody else has.
    pub fn give_up(&self, partitions: &[u32]) -> Result<(), JournalError> {
        let keys: Vec<String> = partitions.iter().map(|partition| key(*partition)).collect();
        self.inner.change(move |writer| {
            let keys = keys.clone();
            Box::pin(async move { writer.give_up(&keys).await })
        })
    }

    /// Leaves: gives everything up and takes no part any more. For a drain; the journal stays open.
    pub fn leave(&self) -> Result<(), JournalError> {
        let all: Vec<u32> = (0..self.count()).collect();
        *lock(&self.inner.shared.joined) = None;
        self.give_up(&all)?;
        lock(&self.told).clear();
        let id = self.inner.shared.id.clone();
        self.inner.call(move |client| {
            let id = id.clone();
            Box::pin(async move { client.execute("DELETE FROM tol.schedulers WHERE id = $1", &[&id]).await.map(drop) })
        })
    }

    /// Whether this process holds a run by itself, whoever has its partition.
    pub fn holds_alone(&self, run: &RunId) -> bool {
        self.inner.shared.grants().get(&format!("r/{run}")).is_some()
    }

    /// The runs of these partitions that a process held singly which is gone, oldest first.
    pub fn orphans(&self, partitions: &[u32]) -> Result<Vec<RunId>, JournalError> {
        let homes: Vec<i32> = partitions.iter().filter_map(|partition| i32::try_from(*partition).ok()).collect();
        let rows = self.inner.call(move |client| {
            let homes = homes.clone();
            Box::pin(async move {
                let sql = "
                    SELECT h.run FROM tol.owners AS o
                    JOIN tol.heads AS h ON h.run = substr(o.key, 3) AND h.owner = o.key
                    JOIN tol.runs AS r ON r.run = h.run
                    WHERE o.key LIKE 'r/%' AND o.holder IS NOT NULL AND o.expires_at <= clock_timestamp()
                      AND h.home = ANY ($1::int4[]) AND r.finished_at IS NULL ORDER BY r.number";
                client.query(sql, &[&homes]).await
            })
        })?;
        Ok(rows.iter().map(|row| RunId::new(row.get(0))).collect())
    }

    /// The runs of a partition that have not ended and that nobody holds singly, oldest first.
    pub fn unfinished_runs(&self, partition: u32) -> Result<Vec<RunId>, JournalError> {
        let home = i32::try_from(partition).unwrap_or(i32::MAX);
        let rows = self.inner.call(move |client| {
            Box::pin(async move {
                let sql = "
                    SELECT h.run FROM tol.runs AS r JOIN tol.heads AS h ON h.run = r.run
                    LEFT JOIN tol.owners AS o
                      ON o.key = h.owner AND o.key LIKE 'r/%' AND o.expires_at > clock_timestamp()
                    WHERE r.finished_at IS NULL AND h.home = $1 AND o.holder IS NULL ORDER BY r.number";
                client.query(sql, &[&home]).await
            })
        })?;
        Ok(rows.iter().map(|row| RunId::new(row.get(0))).collect())
    }

    /// Renews, takes at most so many, and tells how many schedulers live and what this one holds.
    fn hold(&self, take: usize) -> Result<(Instant, u32, Epochs), JournalError> {
        let asked = Instant::now();
        let (id, name) = (self.inner.shared.id.clone(), self.name.clone());
        let take = i64::try_from(take).unwrap_or(i64::MAX);
        let (live, mine) = self.inner.call(move |client| {
            let (id, name) = (id.clone(), name.clone());
            Box::pin(async move {
                let transaction = client.transaction().await?;
                transaction.execute(LIVE, &[&id, &name]).await?;
                transaction.execute(RENEW, &[&id]).await?;
                if take > 0 {
                    transaction.execute(TAKE, &[&id, &take]).await?;
                }
                let live = "SELECT count(*) FROM tol.schedulers WHERE expires_at > clock_timestamp()";
                let live: i64 = transaction.query_one(live, &[]).await?.get(0);
                let mine = "SELECT key, epoch FROM tol.owners WHERE holder = $1 AND key LIKE 'p/%'";
                let rows = transaction.query(mine, &[&id]).await?;
                transaction.commit().await?;
                let mine = rows.iter().filter_map(|row| {
                    let number = row.get::<_, &str>(0).strip_prefix("p/")?.parse().ok()?;
                    Some((number, u64::try_from(row.get::<_, i64>(1)).ok()?))
                });
                Ok((u32::try_from(live).unwrap_or(u32::MAX), mine.collect()))
            })
        })?;
        Ok((asked, live, mine))
    }
}

/// Partitions with the epochs under which they are held.
type Epochs = BTreeMap<u32, u64>;

fn key(partition: u32) -> String {
    format!("p/{partition}")
}
