//! The lines that programs print, on their way to the schedulers whose tasks they belong to.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::dispatch::{LeaseKey, LogStream, WorkerLine};
use crate::handler::{LogLine, Stream};
use crate::worker::table::Table;

/// How many lines wait to be sent; then the programs that print them wait.
const LINES_MAX: usize = 1024;
/// How many lines, and how many bytes of them, go into one message.
const BATCH_LINES: usize = 256;
const BATCH_BYTES: usize = 512 * 1024;

struct Inner {
    from_programs: mpsc::Receiver<LogLine>,
    /// One queue for each scheduler.
    queues: Vec<VecDeque<WorkerLine>>,
    is_connected: Vec<bool>,
}

/// Sorts lines by the scheduler that is to have them.
pub struct Lines {
    inner: Mutex<Inner>,
    table: Arc<Table>,
    arrived: Notify,
    sent: Notify,
}

impl Lines {
    /// Takes lines from programs and keeps them for so many schedulers.
    pub fn start(from_programs: mpsc::Receiver<LogLine>, table: Arc<Table>, schedulers: usize) -> Arc<Self> {
        let inner = Inner {
            from_programs,
            queues: (0..schedulers).map(|_| VecDeque::new()).collect(),
            is_connected: vec![false; schedulers],
        };
        let lines = Arc::new(Self { inner: Mutex::new(inner), table, arrived: Notify::new(), sent: Notify::new() });
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
        let sent = self.sent.notified();
        if self.inner().waiting() >= LINES_MAX {
            sent.await;
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
        self.arrived.notify_waiters();
        true
    }

    /// Says whether a scheduler can be reached; the lines of one that cannot go to another.
    pub fn is_connected(&self, scheduler: usize, connected: bool) {
        let mut inner = self.inner();
        if let Some(flag) = inner.is_connected.get_mut(scheduler) {
            *flag = connected;
        }
    }

    /// Waits until there is something for this scheduler.
    pub async fn wait(&self, scheduler: usize) {
        loop {
            let arrived = self.arrived.notified();
            if self.inner().queues.get(scheduler).is_some_and(|queue| !queue.is_empty()) {
                return;
            }
            arrived.await;
        }
    }

    /// The next lines for a scheduler, with all that were printed before now; none if there are none.
    pub fn next(&self, scheduler: usize) -> Vec<WorkerLine> {
        let mut inner = self.inner();
        while let Ok(line) = inner.from_programs.try_recv() {
            inner.sort(line, &self.table);
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        if let Some(queue) = inner.queues.get_mut(scheduler) {
            while batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
                let Some(line) = queue.pop_front() else { break };
                bytes += line.text.len();
                batch.push(line);
            }
        }
        drop(inner);
        self.sent.notify_waiters();
        batch
    }
}

impl Inner {
    fn waiting(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    fn sort(&mut self, line: LogLine, table: &Table) {
        let key = LeaseKey { run: line.run, unit: line.unit, token: line.token };
        let origin = table.origin(&key).unwrap_or_default();
        let reachable = |one: &usize| self.is_connected.get(*one).copied().unwrap_or_default();
        let to = Some(origin).filter(reachable).or_else(|| self.is_connected.iter().position(|one| *one));
        let stream = match line.stream {
            Stream::Out => LogStream::Out,
            Stream::Err => LogStream::Err,
        };
        let line = WorkerLine { key, attempt: line.attempt, stream, text: line.text, at_ms: line.at.0 };
        if let Some(queue) = self.queues.get_mut(to.unwrap_or(origin)) {
            queue.push_back(line);
        }
    }
}
