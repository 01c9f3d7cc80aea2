//! The one thread of a process that writes: it takes everything that is queued, of all runs, into one transaction.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::journal::error::JournalError;
use crate::journal::jobs;
use crate::journal::store::Done;
use crate::journal::transaction::Writer;
use crate::journal::types::Batch;

/// How long a process stands back after a commit when others write too, so that they get their turn.
const STAND_BACK: Duration = Duration::from_micros(250);

/// A change that is no batch. It is told why, if the journal has ended; its error ends the journal.
pub(crate) type Change = Box<dyn FnOnce(Result<&mut Writer, JournalError>) -> Result<(), JournalError> + Send>;

type Job = jobs::Job<Change>;
type Group = jobs::Group<Change>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// The thread sleeps and must be woken.
    idle: bool,
    closing: bool,
    /// Why the journal has ended.
    dead: Option<JournalError>,
}

/// What the writer's thread and everyone else share.
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Held while a transaction is written.
    writer: Mutex<Writer>,
    /// Somebody else has written, and nobody has asked since.
    changed: AtomicBool,
    /// What calls get after the end.
    closed: JournalError,
}

/// A poisoned lock guards nothing that is half done: the journal has ended by then.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(writer: Writer) -> Self {
        Self {
            closed: JournalError::Closed { file: writer.file.clone() },
            queue: Mutex::new(Queue::default()),
            wake: Condvar::new(),
            writer: Mutex::new(writer),
            changed: AtomicBool::new(false),
        }
    }

    /// Fails if the journal has ended or is ending.
    pub(crate) fn alive(&self) -> Result<(), JournalError> {
        lock(&self.queue).dead.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn append(&self, batch: Batch, done: Done) {
        self.push(Job::Write(batch, done));
    }

    pub(crate) fn change(&self, change: Change) {
        self.push(Job::Change(change));
    }

    fn push(&self, job: Job) {
        let mut queue = lock(&self.queue);
        if let Some(error) = queue.dead.clone() {
            drop(queue);
            return fail(job, &error);
        }
        queue.jobs.push_back(job);
        let wake = std::mem::take(&mut queue.idle);
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Whether another connection has written since this was last asked.
    pub(crate) fn changed(&self) -> Result<bool, JournalError> {
        self.alive()?;
        let now = match self.writer.try_lock() {
            Ok(mut writer) => writer.others_wrote()?,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().others_wrote()?,
            // The thread looks by itself when its transaction is done.
            Err(TryLockError::WouldBlock) => false,
        };
        Ok(self.changed.swap(false, Ordering::AcqRel) || now)
    }

    /// Lets the thread end when everything that is queued is written; from now on nothing is taken any more.
    pub(crate) fn close(&self) {
        let mut queue = lock(&self.queue);
        queue.closing = true;
        queue.idle = false;
        queue.dead.get_or_insert_with(|| self.closed.clone());
        drop(queue);
        self.wake.notify_one();
    }

    /// The thread's life.
    pub(crate) fn run(&self) {
        let _guard = EndGuard(self);
        while let Some(group) = self.next_group() {
            let ended = match group {
                Group::Writes(writes) => self.write(writes),
                Group::Change(change) => {
                    let result = change(Ok(&mut lock(&self.writer)));
                    result.map_err(|error| self.end(error))
                }
            };
            if ended.is_err() {
                return;
            }
            // A statement of its own: the lock must not be held while the thread stands back.
            let others = lock(&self.writer).between_groups();
            match others {
                Ok(false) => {}
                Ok(true) => {
                    self.changed.store(true, Ordering::Release);
                    std::thread::sleep(STAND_BACK);
                }
                Err(error) => return self.end(error),
            }
        }
        if let Err(error) = lock(&self.writer).finish() {
            self.end(error);
        }
    }

    /// Waits for work; `None` when the journal is closed and all is written.
    fn next_group(&self) -> Option<Group> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(group) = Group::take(&mut queue.jobs) {
                queue.idle = false;
                return Some(group);
            }
            if queue.closing {
                return None;
            }
            queue.idle = true;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes one group and tells everyone in it. An error is the journal's end.
    fn write(&self, writes: Vec<(Batch, Done)>) -> Result<(), ()> {
        let batches: Vec<&Batch> = writes.iter().map(|(batch, _)| batch).collect();
        let result = lock(&self.writer).write(&batches);
        match result {
            Ok(fates) => {
                writes.into_iter().zip(fates).for_each(|((_, done), fate)| done(fate));
                Ok(())
            }
            Err(error) => {
                lock(&self.queue).dead = Some(error.clone());
                writes.into_iter().for_each(|(_, done)| done(Err(error.clone())));
                self.end(error);
                Err(())
            }
        }
    }

    /// Ends the journal: everything that is queued fails, and whatever comes later.
    fn end(&self, error: JournalError) {
        let mut queue = lock(&self.queue);
        queue.dead = Some(error.clone());
        let jobs = std::mem::take(&mut queue.jobs);
        drop(queue);
        jobs.into_iter().for_each(|job| fail(job, &error));
    }
}

fn fail(job: Job, error: &JournalError) {
    match job {
        Job::Write(_, done) => done(Err(error.clone())),
        // Whoever asked hears it; there is nobody else to tell.
        Job::Change(change) => drop(change(Err(error.clone()))),
    }
}

/// Ends the journal when the thread does, be it by a panic in a callback: nobody must wait for it then.
struct EndGuard<'a>(&'a Shared);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let dead = lock(&self.0.queue).dead.clone();
        self.0.end(dead.unwrap_or_else(|| self.0.closed.clone()));
    }
}
