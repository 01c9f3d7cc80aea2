//! The loop of a worker on Kafka: everything that comes in, and what is done about it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{FuturesUnordered, SelectAll};
use tokio::sync::mpsc::{self, UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;

use crate::dispatch::kafka::{KafkaError, Offsets, Place, Received, Sent, decode};
use crate::dispatch::{Dispatch, InProcess, LeaseKey, LogStream, Perform, Report, Stop, WorkerLine};
use crate::handler::{LogLine, Stream};
use crate::proto::v1;
use crate::task::{Failure, Outcome, Task};
use crate::worker::kafka::intake::{TRIES, Taken, take};
use crate::worker::kafka::kept::{Newest, Outcomes};
use crate::worker::kafka::worker::{Counts, KafkaWorkerOptions, Shared};

/// With so many unanswered outcomes nothing more is begun.
const UNANSWERED_MOST: usize = 1000;
/// How many hand-outs are remembered, so that a copy is recognised.
const REMEMBERED: usize = 10_000;
/// How many lines of log go into one message at most.
const LINES_MOST: usize = 200;
/// How long programs have to end when the time to drain is over.
const CLEAN_UP: Duration = Duration::from_secs(3);

/// What comes in.
pub(super) struct Inputs {
    pub(super) tasks: Vec<mpsc::Receiver<Received>>,
    pub(super) control: mpsc::Receiver<Received>,
    pub(super) lines: Option<mpsc::Receiver<LogLine>>,
    pub(super) draining: watch::Receiver<Option<Duration>>,
}

/// Something that was begun has come to its end.
enum Done {
    /// The broker has the heartbeat that names a task, or does not.
    Leased {
        place: Place,
        once: Option<Box<Task>>,
        result: Result<(), KafkaError>,
    },
    /// The offset of a task that must not begin twice is committed, or is not.
    Committed {
        place: Place,
        task: Box<Task>,
        result: Result<(), KafkaError>,
    },
    DeadLetter {
        place: Place,
        result: Result<(), KafkaError>,
    },
    /// An outcome is written, or is not.
    Sent {
        key: LeaseKey,
    },
    /// Nobody waits for it.
    Nothing,
}

type Doing = Pin<Box<dyn Future<Output = Done> + Send>>;

/// A worker's state.
pub(super) struct Session {
    options: KafkaWorkerOptions,
    shared: Arc<Shared>,
    work: InProcess,
    reports: Option<UnboundedReceiver<Report>>,
    /// What is in work, each with the name of the message that it came in; also what waits for its commit.
    running: BTreeMap<LeaseKey, String>,
    /// Tasks that wait until all before them in their partition are leased.
    waiting: VecDeque<(Box<Task>, Place)>,
    outcomes: Outcomes,
    offsets: Offsets,
    seen: Newest<()>,
    stops: Newest<Stop>,
    doing: FuturesUnordered<Doing>,
    /// What this worker ended by itself, because it has to go: it is for the scheduler to see that it is lost.
    cut_off: BTreeSet<LeaseKey>,
}

impl Session {
    pub(super) fn new(options: KafkaWorkerOptions, shared: Arc<Shared>, performer: Arc<dyn Perform>) -> Self {
        let (sender, reports) = unbounded_channel();
        let work = InProcess::new(tokio::runtime::Handle::current(), performer, sender);
        Self {
            options,
            shared,
            work,
            reports: Some(reports),
            running: BTreeMap::new(),
            waiting: VecDeque::new(),
            outcomes: Outcomes::default(),
            offsets: Offsets::default(),
            seen: Newest::new(REMEMBERED),
            stops: Newest::new(REMEMBERED),
            doing: FuturesUnordered::new(),
            cut_off: BTreeSet::new(),
        }
    }

    fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.options.concurrency && self.outcomes.len() < UNANSWERED_MOST
    }

    /// Works until it is drained, or cannot go on.
    pub(super) async fn run(mut self, inputs: Inputs) {
        let Inputs { tasks, mut control, lines, mut draining } = inputs;
        let mut tasks: SelectAll<ReceiverStream<Received>> = tasks.into_iter().map(ReceiverStream::new).collect();
        let Some(mut reports) = self.reports.take() else { return };
        let (mut lines, _open) = match lines {
            Some(lines) => (lines, None),
            None => {
                let (sender, lines) = mpsc::channel(1);
                (lines, Some(sender))
            }
        };
        let mut lines_open = true;
        let mut beat = tokio::time::interval(self.options.heartbeat);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(Duration::from_millis(500));
        let mut ends_at: Option<Instant> = None;
        loop {
            let takes = ends_at.is_none() && self.has_room();
            tokio::select! {
                record = tasks.next(), if takes => match record {
                    Some(record) => self.take(record).await,
                    None => return self.ended_by_itself(),
                },
                Some(report) = reports.recv() => self.report(report).await,
                Some(done) = self.doing.next(), if !self.doing.is_empty() => self.done(done).await,
                record = control.recv() => match record {
                    Some(record) => self.hear(&record),
                    None => return self.ended_by_itself(),
                },
                line = lines.recv(), if lines_open => match line {
                    Some(line) => self.say(line, &mut lines).await,
                    None => lines_open = false,
                },
                _ = beat.tick() => self.beat().await,
                _ = sweep.tick() => self.resend().await,
                changed = draining.changed(), if ends_at.is_none() => {
                    // Without an owner there is nobody to work for.
                    let length = match changed {
                        Ok(()) => (*draining.borrow()).unwrap_or_default(),
                        Err(_) => Duration::ZERO,
                    };
                    ends_at = Some(Instant::now() + length);
                }
            }
            self.tell();
            if let Some(end) = ends_at {
                if self.running.is_empty() && self.outcomes.len() == 0 {
                    break;
                }
                if Instant::now() >= end {
                    self.cut_off(&mut reports).await;
                    break;
                }
            }
        }
        self.finish_writing().await;
        self.tell();
    }

    fn ended_by_itself(&self) {
        let consumers = self.shared.consumers.iter().chain([&self.shared.control]);
        if let Some(problem) = consumers.filter_map(|consumer| consumer.problem()).next() {
            self.shared.failed(problem);
        }
        self.work.stop_all(Stop::Now);
    }

    fn tell(&self) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.counts().in_work.store(number(self.running.len()), Ordering::Relaxed);
        self.counts().unanswered.store(number(self.outcomes.len()), Ordering::Relaxed);
    }

    async fn take(&mut self, record: Received) {
        let place = record.place();
        self.offsets.take(&record);
        let (record, taken) = match self.read(record).await {
            Some(read) => read,
            // The runtime ends; the message is read again.
            None => return,
        };
        match taken {
            Taken::Expired => {
                Counts::add(&self.counts().expired);
                self.store(&place);
            }
            Taken::Dead { reason, code, key, command } => {
                Counts::add(&self.counts().dead_letters);
                if let Some(key) = key {
                    // Its run would wait for ever: sending it again helps nothing.
                    let outcome =
                        Outcome::failed(Failure::permanent(format!("no worker can read this task: {reason}")));
                    self.say_outcome(key, command, outcome).await;
                }
                let shared = self.shared.clone();
                self.doing.push(Box::pin(async move {
                    let result = shared.client.dead_letter(&record, code, &reason, TRIES).await;
                    Done::DeadLetter { place, result }
                }));
            }
            Taken::Task(task, command) => self.take_task(task, command, place).await,
        }
    }

    /// Reads a record; where there is a store, on a thread that may wait for it.
    async fn read(&mut self, record: Received) -> Option<(Received, Taken)> {
        let Some(store) = self.options.store.clone() else {
            let taken = take(&record, None);
            return Some((record, taken));
        };
        let reading = tokio::task::spawn_blocking(move || {
            let taken = take(&record, Some(&*store));
            (record, taken)
        });
        reading.await.ok()
    }

    async fn take_task(&mut self, task: Box<Task>, command: String, place: Place) {
        let key = LeaseKey::of(&task);
        if self.running.contains_key(&key) || self.outcomes.has(&key) || self.seen.get(&key).is_some() {
            Counts::add(&self.counts().duplicates);
            self.store(&place);
            return;
        }
        let able =
            task.place.capabilities.iter().all(|wanted| self.options.capabilities.iter().any(|has| **has == **wanted));
        let is_current = self.shared.consumers.iter().any(|consumer| consumer.is_current(&place));
        if self.stops.get(&key).is_some() || !is_current || !able {
            Counts::add(&self.counts().left);
            self.store(&place);
            return;
        }
        self.running.insert(key.clone(), command);
        let leased = self.heartbeat().await;
        let once = if task.place.once {
            Some(task)
        } else {
            self.begin(*task);
            None
        };
        self.doing.push(Box::pin(async move {
            let result = match leased {
                Ok(sent) => sent.written().await.map(drop),
                Err(error) => Err(error),
            };
            Done::Leased { place, once, result }
        }));
    }

    fn begin(&mut self, task: Task) {
        Counts::add(&self.counts().begun);
        self.seen.put(LeaseKey::of(&task), ());
        self.work.dispatch(task);
    }

    /// A message is done with: whoever reads on does so behind it.
    fn store(&mut self, place: &Place) {
        if let Some(next) = self.offsets.done(place) {
            for consumer in &self.shared.consumers {
                consumer.store(place, next);
            }
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Leased { place, once: None, result } => {
                // Without the lease its offset stays, and it is read again; the copy is recognised.
                if result.is_ok() {
                    self.store(&place);
                }
            }
            Done::Leased { place, once: Some(task), result } => match result {
                Ok(()) => self.waiting.push_back((task, place)),
                Err(_) => self.leave(&LeaseKey::of(&task)),
            },
            Done::Committed { place, task, result } => {
                let key = LeaseKey::of(&task);
                match result {
                    Ok(()) if self.stops.get(&key).is_none() => {
                        self.store(&place);
                        self.begin(*task);
                    }
                    Ok(()) => {
                        self.store(&place);
                        self.leave(&key);
                    }
                    Err(_) => self.leave(&key),
                }
            }
            Done::DeadLetter { place, result } => {
                if result.is_ok() {
                    self.store(&place);
                }
            }
            Done::Sent { key } => self.outcomes.sent(&key, Instant::now() + self.options.resend),
            Done::Nothing => {}
        }
        self.commit_waiting();
    }

    fn leave(&mut self, key: &LeaseKey) {
        Counts::add(&self.counts().left);
        self.running.remove(key);
    }

    /// Commits what must not begin twice, once all before it is leased.
    fn commit_waiting(&mut self) {
        let (ready, waiting): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, place)| self.offsets.is_first(place) || !self.is_current(place));
        self.waiting = waiting;
        for (task, place) in ready {
            let shared = self.shared.clone();
            self.doing.push(Box::pin(async move {
                let lost = KafkaError::Consume { why: format!("{place} is another worker's now") };
                let result = match shared.consumers.iter().find(|consumer| consumer.is_current(&place)) {
                    Some(consumer) => consumer.commit(&place, place.offset + 1).await,
                    None => Err(lost),
                };
                Done::Committed { place, task, result }
            }));
        }
    }

    fn is_current(&self, place: &Place) -> bool {
        self.shared.consumers.iter().any(|consumer| consumer.is_current(place))
    }

    async fn heartbeat(&mut self) -> Result<Sent, KafkaError> {
        let free = self.options.concurrency.saturating_sub(self.running.len());
        self.shared.client.heartbeat(self.running.keys().chain(self.outcomes.keys()), free).await
    }

    async fn beat(&mut self) {
        if let Ok(sent) = self.heartbeat().await {
            self.doing.push(Box::pin(async move {
                // The next one says the same.
                let _ = sent.written().await;
                Done::Nothing
            }));
        }
    }

    async fn report(&mut self, report: Report) {
        let Report { run, unit, token, result } = report;
        let key = LeaseKey { run, unit, token };
        let command = self.running.remove(&key).unwrap_or_default();
        let Ok(outcome) = result else { return };
        if !(self.cut_off.remove(&key) && outcome == Outcome::Stopped) {
            self.say_outcome(key, command, outcome).await;
        }
    }

    async fn say_outcome(&mut self, key: LeaseKey, command: String, outcome: Outcome) {
        Counts::add(&self.counts().reported);
        let bytes = if self.options.store.is_none() {
            self.shared.client.outcome_bytes(&key, &command, &outcome)
        } else {
            let (shared, key) = (self.shared.clone(), key.clone());
            let packing =
                tokio::task::spawn_blocking(move || shared.client.outcome_bytes(&key, &command, &outcome)).await;
            let Ok(bytes) = packing else { return };
            bytes
        };
        self.outcomes.put(key.clone(), bytes.clone(), Instant::now());
        self.send_outcome(key, &bytes).await;
    }

    async fn send_outcome(&mut self, key: LeaseKey, bytes: &[u8]) {
        let sent = self.shared.client.outcome(&key, bytes).await;
        self.doing.push(Box::pin(async move {
            if let Ok(sent) = sent {
                // Written or not: without an answer it is sent again.
                let _ = sent.written().await;
            }
            Done::Sent { key }
        }));
    }

    async fn resend(&mut self) {
        let (due, given_up) = self.outcomes.due(Instant::now(), self.options.give_up);
        self.counts().given_up.fetch_add(given_up, Ordering::Relaxed);
        for (key, bytes) in due {
            Counts::add(&self.counts().resent);
            self.send_outcome(key, &bytes).await;
        }
        // A partition that has gone meanwhile shows here.
        self.commit_waiting();
    }

    /// A scheduler asks for the end of something, or answers an outcome.
    fn hear(&mut self, record: &Received) {
        // What cannot be read is nobody's business here: every worker reads every message.
        let Ok(envelope) = decode(record) else { return };
        if envelope.to.as_ref().is_some_and(|to| *to != self.options.name) {
            return;
        }
        let Some(key) = envelope.key.map(LeaseKey::from) else { return };
        match envelope.payload {
            Some(v1::envelope::Payload::Stop(stop)) => {
                let how = if stop.now { Stop::Now } else { Stop::Graceful };
                if self.running.contains_key(&key) {
                    self.work.stop(&key.run, &key.unit, key.token, how);
                }
                self.stops.put(key, how);
            }
            Some(v1::envelope::Payload::Receipt(receipt)) => {
                let is_definite = matches!(receipt.verdict(), v1::Verdict::Recorded | v1::Verdict::Stale);
                if is_definite && self.outcomes.answered(&key) {
                    Counts::add(&self.counts().answered);
                    self.stops.remove(&key);
                }
            }
            Some(
                v1::envelope::Payload::Task(_)
                | v1::envelope::Payload::Outcome(_)
                | v1::envelope::Payload::Heartbeat(_)
                | v1::envelope::Payload::Error(_)
                | v1::envelope::Payload::Log(_)
                | v1::envelope::Payload::Json(_),
            )
            | None => {}
        }
    }

    /// Sends a line, and those that came with it, one message for each run.
    async fn say(&mut self, first: LogLine, more: &mut mpsc::Receiver<LogLine>) {
        let mut runs: BTreeMap<Arc<str>, Vec<v1::LogLine>> = BTreeMap::new();
        let mut next = Some(first);
        let mut count = 0;
        while let Some(line) = next {
            count += 1;
            runs.entry(line.run.0.clone()).or_default().push(wire_line(line));
            next = if count < LINES_MOST { more.try_recv().ok() } else { None };
        }
        for (run, lines) in runs {
            if self.shared.client.lines(&run, lines).await.is_err() {
                Counts::add(&self.counts().lines_dropped);
            }
        }
    }

    /// The time to drain is over: what is still in work is ended, and left to the scheduler as lost.
    async fn cut_off(&mut self, reports: &mut UnboundedReceiver<Report>) {
        self.cut_off = self.running.keys().cloned().collect();
        self.work.stop_all(Stop::Graceful);
        let until = tokio::time::Instant::now() + CLEAN_UP;
        while !self.running.is_empty() {
            match tokio::time::timeout_at(until, reports.recv()).await {
                Ok(Some(report)) => self.report(report).await,
                Ok(None) | Err(_) => break,
            }
        }
        self.work.stop_all(Stop::Now);
    }

    /// What was said last is to be written, so that offsets are stored and nothing is begun again.
    async fn finish_writing(&mut self) {
        let until = tokio::time::Instant::now() + CLEAN_UP;
        while let Ok(Some(done)) = tokio::time::timeout_at(until, self.doing.next()).await {
            self.done(done).await;
        }
    }
}

fn wire_line(line: LogLine) -> v1::LogLine {
    let stream = match line.stream {
        Stream::Out => LogStream::Out,
        Stream::Err => LogStream::Err,
    };
    let key = LeaseKey { run: line.run, unit: line.unit, token: line.token };
    v1::LogLine::from(&WorkerLine { key, attempt: line.attempt, stream, text: line.text, at_ms: line.at.0 })
}
