//! The journal itself: opened, asked, closed. Writes go to the writer's queue, reads go over a connection of their own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::BoxFuture;
use tokio_postgres::Client;

use crate::database::{Database, DatabaseUrl, Lane, Link};
use crate::id::RunId;
use crate::journal::create::signed;
use crate::journal::error::JournalError;
use crate::journal::fault::FaultHook;
use crate::journal::jobs::Job;
use crate::journal::owner;
use crate::journal::postgres::claim::home_of;
use crate::journal::postgres::keeper::{self, Keeper};
use crate::journal::postgres::shared::{Place, Shared, lock};
use crate::journal::postgres::writer::{self, Trouble, Writer};
use crate::journal::postgres::{prune, reader, schema};
use crate::journal::query::command_sum;
use crate::journal::sqlite::OpenMode;
use crate::journal::store::{Done, Journal};
use crate::journal::types::{Batch, Claim, ListFilter, Record, RunRow};
use crate::time::Timestamp;

/// How many partitions a journal gets when its tables are made.
const PARTITIONS: u32 = 16;
/// How long a write waits for a database that is away.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long opening waits for a database that is away: a wrong address should be told soon.
const OPENING: Duration = Duration::from_secs(10);
/// Writers that were not seen for so long are forgotten.
const FORGET: &str = "DELETE FROM tol.writers AS w WHERE seen_at < clock_timestamp() - interval '1 day' \
     AND NOT EXISTS (SELECT 1 FROM tol.owners AS o WHERE o.holder = w.id)";

/// What tests and large installations set.
#[derive(Clone)]
pub struct PostgresOptions {
    /// How many partitions the journal gets if its tables are made now; later it cannot be changed.
    pub partitions: u32,
    /// How long a write waits for a database that is away before the journal ends.
    pub patience: Duration,
    /// How long opening waits for a database that is away.
    pub opening: Duration,
    /// Called around every write; a single statement is sent between the two calls.
    pub fault: Option<Arc<dyn FaultHook>>,
    /// While this is set, every connection of the journal fails, as if the network were cut. For tests.
    pub cut: Arc<AtomicBool>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            partitions: PARTITIONS,
            patience: PATIENCE,
            opening: OPENING,
            fault: None,
            cut: Arc::new(AtomicBool::new(false)),
        }
    }
}

/// A journal in a PostgreSQL database.
pub struct PostgresJournal {
    pub(crate) inner: Arc<Inner>,
}

/// What a journal and the partitions that it holds share.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) reading: Database,
    lane: Arc<Lane>,
    mode: OpenMode,
    /// Tells when the writer has ended.
    ended: Mutex<Option<mpsc::Receiver<()>>>,
}

impl PostgresJournal {
    /// Opens the journal of a database. To write, its tables are made or brought up to date first; to read, a database
    /// without them is `Absent`.
    pub fn open(url: &DatabaseUrl, mode: OpenMode) -> Result<Self, JournalError> {
        Self::open_with(url, mode, PostgresOptions::default())
    }

    /// Opens the journal with other settings.
    pub fn open_with(url: &DatabaseUrl, mode: OpenMode, options: PostgresOptions) -> Result<Self, JournalError> {
        let place = Place::new(url.shown());
        let lane = Lane::start("tol-journal").map_err(|error| JournalError::Disk {
            file: place.path().to_owned(),
            what: format!("cannot start the journal's thread: {error}"),
        })?;
        let lane = Arc::new(lane);
        let url = Arc::new(url.clone());
        let link =
            |name: &str, setup: &str| Link::new(Arc::clone(&url), name, setup).with_cut(Arc::clone(&options.cut));
        let id = uuid::Uuid::new_v4().to_string();
        let mut first = link("tol journal", if mode == OpenMode::ReadWrite { writer::SETUP } else { "" });
        let opening = {
            let (place, id, options) = (place.clone(), id.clone(), options.clone());
            lane.wait_for(async move {
                let session = first.connect_until(Instant::now() + options.opening).await?;
                let failed = |error: tokio_postgres::Error| place.error(&error);
                let partitions = match mode {
                    OpenMode::ReadOnly => schema::look(&session.client, &place).await?,
                    OpenMode::ReadWrite => {
                        let partitions = schema::prepare(&mut session.client, &place, options.partitions).await?;
                        session.client.execute(FORGET, &[]).await.map_err(failed)?;
                        let sql = "INSERT INTO tol.writers VALUES ($1, $2, 0, clock_timestamp())";
                        let name = owner::describe_this_process();
                        session.client.execute(sql, &[&id, &name]).await.map_err(failed)?;
                        partitions
                    }
                };
                Ok::<_, JournalError>((first, partitions))
            })
        };
        let (first, partitions) = opening.unwrap_or_else(|| Err(place.closed()))?;
        let shared = Arc::new(Shared::new(place, id, partitions, options.fault.clone()));
        let mut ended = None;
        let reading = match mode {
            OpenMode::ReadOnly => first,
            OpenMode::ReadWrite => {
                let writer = Writer::new(first, Arc::clone(&shared), options.patience);
                let (sender, receiver) = mpsc::channel::<()>();
                ended = Some(receiver);
                lane.spawn(async move {
                    writer.run().await;
                    drop(sender);
                });
                link("tol journal, reading", "")
            }
        };
        let keeper = Keeper::new(link("tol journal, listening", keeper::SETUP), Arc::clone(&shared), ended.is_some());
        lane.spawn(keeper.run());
        let reading = Database::on(Arc::clone(&lane), reading, options.patience);
        let inner = Inner { shared, reading, lane, mode, ended: Mutex::new(ended) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many batches this process was kept from writing because another holds their run.
    pub fn fenced(&self) -> u64 {
        self.inner.shared.fenced.load(Ordering::Relaxed)
    }

    /// The database, as messages show it.
    pub fn place(&self) -> &str {
        self.inner.shared.place.shown()
    }

    /// Reads everything: every event of every run, every definition. Gives the number of events. For `tol doctor`.
    pub fn verify(&self) -> Result<u64, JournalError> {
        let mut events = 0;
        for row in self.list(&ListFilter::default())? {
            events += self.load(&row.run)?.len() as u64;
            if self.definition(&row.definition_hash)?.is_none() {
                let what = format!("the definition of run {} is missing", row.run);
                return Err(self.inner.shared.place.corrupt(what));
            }
        }
        Ok(events)
    }
}

impl Inner {
    /// Reads, or does what may be done twice.
    pub(crate) fn call<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        F: for<'c> Fn(&'c mut Client) -> BoxFuture<'c, Result<T, tokio_postgres::Error>> + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.shared.alive()?;
        Ok(self.reading.call(work)?)
    }

    fn may_write(&self) -> Result<(), JournalError> {
        match self.mode {
            OpenMode::ReadWrite => Ok(()),
            OpenMode::ReadOnly => Err(JournalError::ReadOnly { file: self.shared.place.path().to_owned() }),
        }
    }

    /// Lets the writer do something behind everything that is queued, and waits for it. It may be done twice.
    pub(crate) fn change<T, F>(&self, work: F) -> Result<T, JournalError>
    where
        F: for<'w> Fn(&'w mut Writer) -> BoxFuture<'w, Result<T, Trouble>> + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.may_write()?;
        let (sender, receiver) = mpsc::sync_channel(1);
        self.shared.push(Job::Change(Box::new(move |writer| {
            Box::pin(async move {
                let result = match writer {
                    Ok(writer) => writer.persist(work).await,
                    Err(error) => Err(error),
                };
                let end = match &result {
                    // A wrong name or a stuck process elsewhere is no reason to end.
                    Err(error) if !error.is_of_one_run() && !matches!(error, JournalError::Busy { .. }) => {
                        Err(error.clone())
                    }
                    Ok(_) | Err(_) => Ok(()),
                };
                // The one who asked waits for it below.
                let _ = sender.send(result);
                end
            })
        })));
        receiver.recv().unwrap_or_else(|_| Err(self.shared.place.closed()))
    }

    fn close(&self) {
        self.shared.close();
        let ended = lock(&self.ended).take();
        if let Some(ended) = ended
            && !self.lane.is_here()
        {
            // An error is the writer's end: nothing is ever sent.
            let _ = ended.recv();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Journal for PostgresJournal {
    fn refused(&self) -> u64 {
        self.fenced()
    }

    fn append(&self, batch: Batch, done: Done) {
        match self.inner.may_write() {
            Ok(()) => self.inner.shared.push(Job::Write(batch, done)),
            Err(error) => done(Err(error)),
        }
    }

    fn load(&self, run: &RunId) -> Result<Vec<Record>, JournalError> {
        self.load_from(run, 0)
    }

    fn load_from(&self, run: &RunId, seq: u64) -> Result<Vec<Record>, JournalError> {
        let name = run.clone();
        let log = self.inner.call(move |client| {
            let name = name.clone();
            Box::pin(async move { reader::log(client, name.as_str(), seq).await })
        })?;
        // The caller's thread does the work: others may read meanwhile.
        log.map_or(Ok(Vec::new()), |log| reader::records(&self.inner.shared.place, run, &log, seq))
    }

    fn definition(&self, hash: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let name = hash.to_owned();
        let row = self.inner.call(move |client| {
            let name = name.clone();
            Box::pin(async move {
                let sql = "SELECT definition, checksum FROM tol.definitions WHERE hash = $1";
                client.query_opt(sql, &[&name]).await
            })
        })?;
        row.map(|row| reader::definition(&self.inner.shared.place, hash, &row)).transpose()
    }

    fn run(&self, run: &RunId) -> Result<Option<RunRow>, JournalError> {
        let name = run.clone();
        let row = self.inner.call(move |client| {
            let name = name.clone();
            Box::pin(async move { reader::run(client, name.as_str()).await })
        })?;
        row.map(|row| reader::shown(&self.inner.shared.place, &row)).transpose()
    }

    fn find_run(&self, prefix: &str) -> Result<Vec<RunRow>, JournalError> {
        let prefix = prefix.to_owned();
        let rows = self.inner.call(move |client| {
            let prefix = prefix.clone();
            Box::pin(async move { reader::find_run(client, &prefix).await })
        })?;
        rows.iter().map(|row| reader::shown(&self.inner.shared.place, row)).collect()
    }

    fn list(&self, filter: &ListFilter) -> Result<Vec<RunRow>, JournalError> {
        let filter = filter.clone();
        let rows = self.inner.call(move |client| {
            let filter = filter.clone();
            Box::pin(async move { reader::list(client, &filter).await })
        })?;
        rows.iter().map(|row| reader::shown(&self.inner.shared.place, row)).collect()
    }

    fn claim(&self, run: &RunId) -> Result<Claim, JournalError> {
        let run = run.clone();
        self.inner.change(move |writer| {
            let run = run.clone();
            Box::pin(async move { writer.claim(&run).await })
        })
    }

    fn release(&self, run: &RunId) -> Result<(), JournalError> {
        let run = run.clone();
        self.inner.change(move |writer| {
            let run = run.clone();
            Box::pin(async move { writer.release(&run).await })
        })
    }

    fn cached(&self, key: &str, now: Timestamp) -> Result<Option<Vec<u8>>, JournalError> {
        let name = key.to_owned();
        let row = self.inner.call(move |client| {
            let name = name.clone();
            Box::pin(async move {
                let sql = "SELECT value, expires_at, checksum FROM tol.cache WHERE key = $1";
                client.query_opt(sql, &[&name]).await
            })
        })?;
        row.map_or(Ok(None), |row| reader::result(&self.inner.shared.place, key, now, &row))
    }

    fn send_command(&self, run: &RunId, body: &[u8]) -> Result<i64, JournalError> {
        self.inner.may_write()?;
        let sum = command_sum(run, body).to_vec();
        // A second attempt after a broken connection finds what the first one left.
        let token = uuid::Uuid::new_v4().to_string();
        let (name, body, sender) = (run.clone(), body.to_vec(), self.inner.shared.id.clone());
        let sent = self.inner.call(move |client| {
            let (name, body, sum, token, sender) =
                (name.clone(), body.clone(), sum.clone(), token.clone(), sender.clone());
            Box::pin(async move {
                let sql = "
                    WITH sent AS (
                      INSERT INTO tol.commands (run, token, body, checksum)
                      SELECT run, $2, $3, $4 FROM tol.runs WHERE run = $1
                      ON CONFLICT (token) DO UPDATE SET token = excluded.token RETURNING id),
                    told AS (SELECT pg_notify('tol_journal', $5) FROM sent)
                    SELECT sent.id FROM sent, told";
                let row = client.query_opt(sql, &[&name.as_str(), &token, &body, &sum, &sender]).await?;
                Ok(row.map(|row| row.get::<_, i64>(0)))
            })
        })?;
        sent.ok_or_else(|| self.inner.shared.place.no_such_run(run))
    }

    fn pending_commands(&self, run: &RunId) -> Result<Vec<(i64, Vec<u8>)>, JournalError> {
        let name = run.clone();
        let rows = self.inner.call(move |client| {
            let name = name.clone();
            Box::pin(async move {
                let sql = "SELECT id, body, checksum FROM tol.commands WHERE run = $1 AND reply IS NULL ORDER BY id";
                client.query(sql, &[&name.as_str()]).await
            })
        })?;
        rows.iter().map(|row| reader::command(&self.inner.shared.place, run, row)).collect()
    }

    fn runs_with_commands(&self) -> Result<Vec<RunId>, JournalError> {
        let rows = self.inner.call(move |client| {
            Box::pin(async move {
                let sql = "SELECT run FROM tol.commands WHERE reply IS NULL GROUP BY run ORDER BY min(id)";
                client.query(sql, &[]).await
            })
        })?;
        Ok(rows.iter().map(|row| RunId::new(row.get(0))).collect())
    }

    fn command_reply(&self, id: i64) -> Result<Option<Vec<u8>>, JournalError> {
        self.inner.call(move |client| {
            Box::pin(async move {
                let row = client.query_opt("SELECT reply FROM tol.commands WHERE id = $1", &[&id]).await?;
                Ok(row.and_then(|row| row.get(0)))
            })
        })
    }

    fn is_sure(&self, run: &RunId) -> bool {
        let shared = &self.inner.shared;
        let (grants, now) = (shared.grants(), Instant::now());
        let home = home_of(run, shared.partitions);
        grants.is_sure(&format!("p/{home}"), now) || grants.is_sure(&format!("r/{run}"), now)
    }

    fn changed(&self) -> Result<bool, JournalError> {
        self.inner.shared.alive()?;
        Ok(self.inner.shared.take_changed())
    }

    fn subscribe(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        Some(self.inner.shared.subscribe())
    }

    fn prune(
        &self,
        older_than: Option<Timestamp>,
        keep_newest: Option<u64>,
        dry_run: bool,
    ) -> Result<Vec<RunId>, JournalError> {
        if !dry_run {
            self.inner.may_write()?;
        }
        let (older_than, keep_newest) = (older_than.map(|time| signed(time.0)), keep_newest.map(signed));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let gone = self.inner.call(move |client| {
            Box::pin(async move {
                if dry_run {
                    let found = prune::candidates(client, older_than, keep_newest).await?;
                    return Ok(found.into_iter().map(|(_, run)| run).collect());
                }
                prune::prune(client, older_than, keep_newest, now).await
            })
        })?;
        Ok(gone.iter().map(|run: &String| RunId::new(run)).collect())
    }

    fn close(&self) {
        self.inner.close();
    }
}

impl Drop for PostgresJournal {
    fn drop(&mut self) {
        self.inner.close();
    }
}
