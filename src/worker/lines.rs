//! The lines that programs print, on their way to the schedulers whose tasks they belong to. What was sent is kept
//! until the scheduler says that it has it, and is sent again over the next connection otherwise.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, mpsc};

use crate::dispatch::{LeaseKey, LogStream, WorkerLine};
use crate::handler::{LogLine, Stream};
use crate::worker::table::Table;

/// How many lines wait to be sent; then the programs that print them wait.
const LINES_MAX: usize = 1024;
/// How many lines, and how many bytes of them, go into one message.
const BATCH_LINES: usize = 512;
const BATCH_BYTES: usize = 512 * 1024;
/// How many messages may be on their way to one scheduler that it has not said it has.
const ON_THEIR_WAY_MAX: usize = 8;

/// Some lines under a number that grows.
pub type Batch = (u64, Arc<Vec<WorkerLine>>);

/// The lines for one scheduler.
#[derive(Default)]
struct Queue {
    lines: VecDeque<WorkerLine>,
    on_their_way: VecDeque<Batch>,
    /// How many of those on their way went over the connection of now.
    sent: usize,
    is_connected: bool,
}

struct Inner {
    from_programs: mpsc::Receiver<LogLine>,
    queues: Vec<Queue>,
    next_number: u64,
}

/// Sorts lines by the scheduler that is to have them.
pub struct Lines {
    inner: Mutex<Inner>,
    table: Arc<Table>,
    changed: Notify,
}

impl Lines {
    /// Takes lines from programs and keeps them for so many schedulers.
    pub fn start(from_programs: mpsc::Receiver<LogLine>, table: Arc<Table>, schedulers: usize) -> Arc<Self> {
        // A worker that is started again under the same name goes on above what it had before.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let next_number = u64::try_from(since.as_micros()).unwrap_or_default();
        let queues = (0..schedulers).map(|_| Queue::default()).collect();
        let inner = Mutex::new(Inner { from_programs, queues, next_number });
        let lines = Arc::new(Self { inner, table, changed: Notify::new() });
        let weak = Arc::downgrade(&lines);
        tokio::spawn(async move {
            while let Some(lines) = weak.upgrade() {
                if !lines.take_in().await {
                    return;
                }
            }
        });
        lines
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one line in; false when no more can come.
    async fn take_in(&self) -> bool {
        let changed = self.changed.notified();
        if self.inner().waiting() >= LINES_MAX {
            changed.await;
            return true;
        }
        let is_open = poll_fn(|context| {
            // Taken and sorted under one lock: whoever asks for the next lines misses none and overtakes none.
            let mut inner = self.inner();
            inner.from_programs.poll_recv(context).map(|line| match line {
                Some(line) => {
                    inner.sort(line, &self.table);
                    true
                }
                None => false,
            })
        });
        if !is_open.await {
            return false;
        }
        self.changed.notify_waiters();
        true
    }

    /// Says whether a scheduler can be reached; the lines of one that cannot go to another.
    pub fn is_connected(&self, scheduler: usize, connected: bool) {
        if let Some(queue) = self.inner().queues.get_mut(scheduler) {
            queue.is_connected = connected;
            queue.sent = 0;
        }
        self.changed.notify_waiters();
    }

    /// Waits until there is something to send to this scheduler.
    pub async fn wait(&self, scheduler: usize) {
        loop {
            let changed = self.changed.notified();
            if self.inner().queues.get(scheduler).is_some_and(Queue::has_next) {
                return;
            }
            changed.await;
        }
    }

    /// The next lines to send to a scheduler, if there are any and not too many are on their way.
    pub fn next(&self, scheduler: usize) -> Option<Batch> {
        let mut inner = self.inner();
        let number = inner.next_number;
        let queue = inner.queues.get_mut(scheduler)?;
        if !queue.has_next() {
            return None;
        }
        if queue.sent == queue.on_their_way.len() {
            let lines = Arc::new(queue.cut());
            queue.on_their_way.push_back((number, lines));
            inner.next_number += 1;
        }
        let queue = inner.queues.get_mut(scheduler)?;
        let batch = queue.on_their_way.get(queue.sent).cloned();
        queue.sent += 1;
        drop(inner);
        self.changed.notify_waiters();
        batch
    }

    /// A scheduler has the lines up to this number.
    pub fn taken(&self, scheduler: usize, number: u64) {
        if let Some(queue) = self.inner().queues.get_mut(scheduler) {
            while queue.on_their_way.front().is_some_and(|(one, _)| *one <= number) {
                queue.on_their_way.pop_front();
                queue.sent = queue.sent.saturating_sub(1);
            }
        }
        self.changed.notify_waiters();
    }

    /// True if lines of this hand-out may still have to be sent to this scheduler before its outcome.
    pub fn holds(&self, scheduler: usize, key: &LeaseKey) -> bool {
        let mut inner = self.inner();
        while inner.waiting() < 2 * LINES_MAX {
            let Ok(line) = inner.from_programs.try_recv() else {
                let Some(queue) = inner.queues.get(scheduler) else { return false };
                return queue.sent < queue.on_their_way.len() || queue.lines.iter().any(|line| line.key == *key);
            };
            inner.sort(line, &self.table);
        }
        true
    }
}

impl Queue {
    fn has_next(&self) -> bool {
        self.sent < self.on_their_way.len() || !self.lines.is_empty() && self.on_their_way.len() < ON_THEIR_WAY_MAX
    }

    fn cut(&mut self) -> Vec<WorkerLine> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let Some(line) = self.lines.pop_front() else { break };
            bytes += line.text.len();
            batch.push(line);
        }
        batch
    }
}

impl Inner {
    fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.lines.len()).sum()
    }

    fn sort(&mut self, line: LogLine, table: &Table) {
        let key = LeaseKey { run: line.run, unit: line.unit, token: line.token };
        let origin = table.origin(&key).unwrap_or_default();
        let reachable = |one: &usize| self.queues.get(*one).is_some_and(|queue| queue.is_connected);
        let to = Some(origin).filter(reachable).or_else(|| self.queues.iter().position(|queue| queue.is_connected));
        let stream = match line.stream {
            Stream::Out => LogStream::Out,
            Stream::Err => LogStream::Err,
        };
        let line = WorkerLine { key, attempt: line.attempt, stream, text: line.text, at_ms: line.at.0 };
        if let Some(queue) = self.queues.get_mut(to.unwrap_or(origin)) {
            queue.lines.push_back(line);
        }
    }
}
