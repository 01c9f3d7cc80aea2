//! The one writer of a process: it takes everything that is queued, of all runs, into one transaction after another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use crate::database::{DatabaseError, Link, Session, is_away, is_passing};
use crate::id::RunId;
use crate::journal::error::JournalError;
use crate::journal::jobs::Group;
use crate::journal::postgres::group::After;
use crate::journal::postgres::shared::{Change, Shared, fail};
use crate::journal::store::Done;
use crate::journal::transaction::Head;
use crate::journal::types::Batch;

/// How long a closing journal waits for a database that is away when nothing is left to write.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is run on the writer's connection. A client that stops in the middle must not stand in a taker's way for long.
pub(crate) const SETUP: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
     SET idle_in_transaction_session_timeout = '5s'; SET enable_seqscan = off; SET enable_hashjoin = off; \
     SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; \
     SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// What this process knows of a run.
pub(crate) enum Known {
    At {
        head: Head,
        key: String,
        epoch: i64,
    },
    /// Another process has it; this one never writes to it again unless it claims it.
    Refused(JournalError),
}

/// A write whose fate is not known: the connection broke before the answer came.
pub(crate) struct Doubt {
    pub(crate) counter: i64,
    pub(crate) members: Vec<usize>,
    pub(crate) after: Vec<After>,
    /// When it was begun.
    pub(crate) asked: Instant,
}

/// The connection that writes, and what belongs to it.
pub(crate) struct Writer {
    pub(crate) link: Link,
    pub(crate) shared: Arc<Shared>,
    pub(crate) runs: HashMap<RunId, Known>,
    /// The number of the last write that surely took effect.
    pub(crate) counter: i64,
    /// How long a write waits for a database that is away.
    pub(crate) patience: Duration,
}

/// Why an attempt did not succeed.
pub(crate) enum Trouble {
    /// The connection is gone; what it was asked to do may have happened.
    Away(DatabaseError),
    /// The server has undone it; again.
    Passing(JournalError),
    /// The server has undone it, because the runs are not as expected.
    Unexpected,
    /// The end.
    End(JournalError),
}

impl From<JournalError> for Trouble {
    fn from(error: JournalError) -> Self {
        Self::End(error)
    }
}

impl Writer {
    /// Takes a connection to tables that are up to date and know this process.
    pub(crate) fn new(link: Link, shared: Arc<Shared>, patience: Duration) -> Self {
        Self { link, shared, runs: HashMap::new(), counter: 0, patience }
    }

    /// What the client library reported.
    pub(crate) fn trouble(&self, error: &tokio_postgres::Error) -> Trouble {
        if is_away(error) {
            return Trouble::Away(DatabaseError::of(self.shared.place.shown(), error));
        }
        match error.code().map(tokio_postgres::error::SqlState::code) {
            Some("TL001" | "23505") => Trouble::Unexpected,
            _ if is_passing(error) => Trouble::Passing(self.shared.place.error(error)),
            _ => Trouble::End(self.shared.place.error(error)),
        }
    }

    /// The open connection, or one attempt to make one.
    pub(crate) async fn session(&mut self) -> Result<&mut Session, Trouble> {
        self.link
            .connect()
            .await
            .map_err(|error| if error.is_away() { Trouble::Away(error) } else { Trouble::End(error.into()) })
    }

    /// Does something that may be done twice, again and again while the database is away.
    pub(crate) async fn persist<T>(
        &mut self,
        mut work: impl for<'w> FnMut(&'w mut Self) -> BoxFuture<'w, Result<T, Trouble>>,
    ) -> Result<T, JournalError> {
        let mut waiting = Waiting::default();
        loop {
            match work(self).await {
                Ok(value) => return Ok(value),
                Err(trouble) => self.stand(trouble, &mut waiting).await?,
            }
        }
    }

    /// Waits before another attempt, or gives up.
    pub(crate) async fn stand(&mut self, trouble: Trouble, waiting: &mut Waiting) -> Result<(), JournalError> {
        match trouble {
            Trouble::End(error) => Err(error),
            Trouble::Passing(error) => waiting.passing(Some(error)).await,
            Trouble::Unexpected => {
                let what = "the runs change faster than they can be looked at".to_owned();
                let file = self.shared.place.path().to_owned();
                waiting.passing(Some(JournalError::Busy { file, what })).await
            }
            Trouble::Away(error) => {
                self.link.disconnect();
                let since = *waiting.away_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.patience {
                    return Err(JournalError::Away {
                        place: self.shared.place.shown().to_owned(),
                        seconds: self.patience.as_secs(),
                        what: match error {
                            DatabaseError::Away { what, .. } => what,
                            other => other.to_string(),
                        },
                    });
                }
                tokio::time::sleep(waiting.pause()).await;
                Ok(())
            }
        }
    }

    /// The writer's life.
    pub(crate) async fn run(mut self) {
        let _guard = EndGuard(Arc::clone(&self.shared));
        while let Some(group) = self.next_group().await {
            let ended = match group {
                Group::Writes(writes) => self.write(writes).await,
                Group::Change(change) => change(Ok(&mut self)).await,
            };
            if let Err(error) = ended {
                self.shared.end(&error);
                return self.farewell().await;
            }
        }
        self.farewell().await;
    }

    /// Waits for work; `None` when the journal is closed and all is written.
    async fn next_group(&self) -> Option<Group<Change>> {
        loop {
            {
                let mut queue = self.shared.queue();
                if let Some(group) = Group::take(&mut queue.jobs) {
                    return Some(group);
                }
                if queue.closing {
                    return None;
                }
            }
            self.shared.wake.notified().await;
        }
    }

    /// Writes one group and tells everyone in it. An error is the journal's end.
    async fn write(&mut self, writes: Vec<(Batch, Done)>) -> Result<(), JournalError> {
        let (batches, dones): (Vec<Batch>, Vec<Done>) = writes.into_iter().unzip();
        match self.write_group(&batches).await {
            Ok(fates) => {
                self.shared.announce.notify_one();
                dones.into_iter().zip(fates).for_each(|(done, fate)| done(fate));
                Ok(())
            }
            Err(error) => {
                // Whoever calls from now on must hear it before those who waited do.
                self.shared.queue().dead = Some(error.clone());
                dones.into_iter().for_each(|done| done(Err(error.clone())));
                Err(error)
            }
        }
    }

    /// Gives up everything that is held, if the database can be reached: others need not wait for the leases to end.
    async fn farewell(&mut self) {
        let id = self.shared.id.clone();
        let goodbye = async {
            let session = self.link.connect().await?;
            let place = self.shared.place.shown();
            let failed = |error: tokio_postgres::Error| DatabaseError::of(place, &error);
            let back = "UPDATE tol.heads AS h SET owner = 'p/' || h.home FROM tol.owners AS o \
                        WHERE o.holder = $1 AND o.key LIKE 'r/%' AND h.run = substr(o.key, 3) AND h.owner = o.key \
                          AND h.home IS NOT NULL";
            session.client.execute(back, &[&id]).await.map_err(failed)?;
            let free = "UPDATE tol.owners SET holder = NULL, expires_at = '-infinity' WHERE holder = $1";
            session.client.execute(free, &[&id]).await.map_err(failed)?;
            session.client.execute("DELETE FROM tol.schedulers WHERE id = $1", &[&id]).await.map_err(failed)?;
            session.client.execute("DELETE FROM tol.writers WHERE id = $1", &[&id]).await.map_err(failed)?;
            Ok::<_, DatabaseError>(())
        };
        // If it cannot be said, the leases run out by themselves.
        let _ = tokio::time::timeout(FAREWELL, goodbye).await;
    }
}

/// How long and how often something has been tried.
#[derive(Default)]
pub(crate) struct Waiting {
    away_since: Option<Instant>,
    attempts: u32,
    passed: u32,
}

impl Waiting {
    fn pause(&mut self) -> Duration {
        self.attempts += 1;
        Duration::from_millis(25 << self.attempts.min(6))
    }

    /// Waits a little after something that passes; too often is an error.
    async fn passing(&mut self, error: Option<JournalError>) -> Result<(), JournalError> {
        const MOST: u32 = 200;
        self.passed += 1;
        match error {
            Some(error) if self.passed > MOST => Err(error),
            _ => {
                tokio::time::sleep(Duration::from_millis(u64::from(self.passed.min(50)))).await;
                Ok(())
            }
        }
    }
}

/// Ends the journal when the writer does, be it by a panic in a callback: nobody must wait for it then.
struct EndGuard(Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        let dead = self.0.queue().dead.clone();
        let dead = dead.unwrap_or_else(|| self.0.place.closed());
        self.0.end(&dead);
        let jobs = std::mem::take(&mut self.0.queue().jobs);
        jobs.into_iter().for_each(|job| fail(job, &dead));
    }
}
