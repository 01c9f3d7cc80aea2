//! What the writer, the keeper and all callers of a journal share: the queue, what is held, what has changed.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use tokio::sync::{Notify, watch};

use crate::database::DatabaseError;
use crate::id::RunId;
use crate::journal::error::JournalError;
use crate::journal::fault::FaultHook;
use crate::journal::jobs;
use crate::journal::postgres::grants::Grants;
use crate::journal::postgres::writer::Writer;

/// The database as messages name it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    shown: Arc<str>,
    path: PathBuf,
}

impl Place {
    pub(crate) fn new(shown: &str) -> Self {
        Self { shown: shown.into(), path: PathBuf::from(shown) }
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// The same where errors want the name of a file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What the client library reported.
    pub(crate) fn error(&self, error: &tokio_postgres::Error) -> JournalError {
        match DatabaseError::of(&self.shown, error) {
            // The server's own word for a damaged page or index.
            DatabaseError::Failed { code, what, .. } if code.starts_with("XX00") && code != "XX000" => {
                JournalError::corrupt(&self.path, what)
            }
            other => other.into(),
        }
    }

    pub(crate) fn corrupt(&self, what: impl Into<String>) -> JournalError {
        JournalError::corrupt(&self.path, what)
    }

    pub(crate) fn fenced(&self, run: &RunId, what: impl Into<String>) -> JournalError {
        JournalError::Fenced { run: run.clone(), file: self.path.clone(), what: what.into() }
    }

    pub(crate) fn no_such_run(&self, run: &RunId) -> JournalError {
        JournalError::NoSuchRun { run: run.clone(), file: self.path.clone() }
    }

    pub(crate) fn closed(&self) -> JournalError {
        JournalError::Closed { file: self.path.clone() }
    }
}

/// A change that is no batch: done by the writer, behind everything that was queued before. It is told why, if the
/// journal has ended; the error that it gives ends the journal.
pub(crate) type Change =
    Box<dyn for<'w> FnOnce(Result<&'w mut Writer, JournalError>) -> BoxFuture<'w, Result<(), JournalError>> + Send>;

type Job = jobs::Job<Change>;

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) closing: bool,
    /// Why the journal has ended.
    pub(crate) dead: Option<JournalError>,
}

/// What everyone shares.
pub(crate) struct Shared {
    pub(crate) place: Place,
    /// What this process is called in the tables: drawn anew for each journal that is opened.
    pub(crate) id: String,
    pub(crate) partitions: u32,
    queue: Mutex<Queue>,
    grants: Mutex<Grants>,
    pub(crate) wake: Notify,
    /// Something was written that others want to hear of.
    pub(crate) announce: Notify,
    /// Somebody else has written, and nobody has asked since.
    changed: AtomicBool,
    changes: watch::Sender<u64>,
    /// How many batches were refused because another holds their run.
    pub(crate) fenced: AtomicU64,
    /// This process takes part in the division of partitions.
    pub(crate) joined: Mutex<Option<String>>,
    pub(crate) fault: Option<Arc<dyn FaultHook>>,
}

/// A poisoned lock guards nothing that is half done: the journal has ended by then.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(place: Place, id: String, partitions: u32, fault: Option<Arc<dyn FaultHook>>) -> Self {
        Self {
            place,
            id,
            partitions,
            queue: Mutex::default(),
            grants: Mutex::default(),
            wake: Notify::new(),
            announce: Notify::new(),
            changed: AtomicBool::new(false),
            changes: watch::Sender::new(0),
            fenced: AtomicU64::new(0),
            joined: Mutex::default(),
            fault,
        }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(crate) fn grants(&self) -> MutexGuard<'_, Grants> {
        lock(&self.grants)
    }

    /// Fails if the journal has ended or is ending.
    pub(crate) fn alive(&self) -> Result<(), JournalError> {
        self.queue().dead.clone().map_or(Ok(()), Err)
    }

    /// Queues a job, or tells it why not.
    pub(crate) fn push(&self, job: Job) {
        let mut queue = self.queue();
        if let Some(error) = queue.dead.clone() {
            drop(queue);
            return fail(job, &error);
        }
        queue.jobs.push_back(job);
        drop(queue);
        self.wake.notify_one();
    }

    /// From now on nothing is taken any more; what is queued is still done.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closing = true;
        queue.dead.get_or_insert_with(|| self.place.closed());
        drop(queue);
        self.wake.notify_one();
    }

    /// Ends the journal: everything that is queued fails, and whatever comes later.
    pub(crate) fn end(&self, error: &JournalError) {
        let mut queue = self.queue();
        queue.dead = Some(error.clone());
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        jobs.into_iter().for_each(|job| fail(job, error));
    }

    /// Notes that somebody else has written.
    pub(crate) fn note_change(&self) {
        self.changed.store(true, Ordering::Release);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Tells a job that nothing comes of it.
pub(crate) fn fail(job: Job, error: &JournalError) {
    match job {
        Job::Write(_, done) => done(Err(error.clone())),
        // A change that is told of the end only passes it on and never waits.
        Job::Change(change) => drop(futures::FutureExt::now_or_never(change(Err(error.clone())))),
    }
}
