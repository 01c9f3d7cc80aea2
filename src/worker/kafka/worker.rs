//! Starting, watching and ending a worker on Kafka.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::artifact::Store;
use crate::dispatch::kafka::{
    Admin, Consumer, From, KafkaError, KafkaSettings, LOOK, Lag, Lookout, Producer, Subscription, Topic,
    TopicDifference, Topics,
};
use crate::dispatch::{Perform, Terms};
use crate::handler::LogLine;
use crate::worker::kafka::client::Client;
use crate::worker::kafka::session::{Inputs, Session};

/// How a worker is to work.
#[derive(Clone)]
pub struct KafkaWorkerOptions {
    /// Its name, the same after it has been started again; no other worker of the queue may have it.
    pub name: String,
    pub queues: Vec<String>,
    /// How many tasks it does at once.
    pub concurrency: usize,
    /// What it is able to do, besides serving its queues. Tasks that ask for more are left to others.
    pub capabilities: Vec<String>,
    /// Where work and outputs lie that are too large for a message.
    pub store: Option<Arc<dyn Store>>,
    /// How often it says what it has in work.
    pub heartbeat: Duration,
    /// An outcome that nobody has answered for so long is sent again.
    pub resend: Duration,
    /// An outcome that nobody has answered for so long is given up.
    pub give_up: Duration,
}

impl KafkaWorkerOptions {
    /// Usual times for a worker of this name.
    pub fn new(name: impl Into<String>, queues: Vec<String>, concurrency: usize) -> Self {
        Self {
            name: name.into(),
            queues,
            concurrency: concurrency.max(1),
            capabilities: Vec::new(),
            store: None,
            heartbeat: Terms::default().heartbeat,
            resend: Duration::from_secs(10),
            give_up: Duration::from_mins(10),
        }
    }
}

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KafkaCounters {
    /// Tasks that were begun.
    pub begun: u64,
    /// Outcomes that were sent, without those that were sent again.
    pub reported: u64,
    /// Outcomes that a scheduler has, or wants no more.
    pub answered: u64,
    pub resent: u64,
    /// Outcomes that nobody answered in time.
    pub given_up: u64,
    /// Messages that came too late.
    pub expired: u64,
    /// Copies of tasks that were here before.
    pub duplicates: u64,
    pub dead_letters: u64,
    /// Tasks that were left because their partition went to another worker, or because their end was asked for.
    pub left: u64,
    pub lines_dropped: u64,
}

/// The counters as they are counted.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) begun: AtomicU64,
    pub(super) reported: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) resent: AtomicU64,
    pub(super) given_up: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) dead_letters: AtomicU64,
    pub(super) left: AtomicU64,
    pub(super) lines_dropped: AtomicU64,
    pub(super) in_work: AtomicU64,
    pub(super) unanswered: AtomicU64,
}

impl Counts {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the session and its owner share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// One for each topic of tasks.
    pub(super) consumers: Vec<Consumer>,
    pub(super) control: Consumer,
    pub(super) counts: Counts,
    problem: Mutex<Option<KafkaError>>,
}

impl Shared {
    /// Connects anew, as one does to a cluster that is another than before.
    fn renew(&self) {
        self.client.producer.renew();
        for consumer in self.consumers.iter().chain([&self.control]) {
            consumer.renew();
        }
    }

    pub(super) fn failed(&self, error: KafkaError) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Looks whether the cluster is still the same, until the worker ends.
async fn keep_up(admin: Admin, topics: Vec<String>, shared: Weak<Shared>) {
    let mut lookout = Lookout::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let is_other = lookout.look(&admin, &topics).await;
        let Some(shared) = shared.upgrade() else { return };
        if is_other {
            shared.renew();
        }
    }
}

/// A worker that takes its tasks from Kafka.
pub struct KafkaWorker {
    shared: Arc<Shared>,
    differences: Vec<TopicDifference>,
    drain: watch::Sender<Option<Duration>>,
    session: JoinHandle<()>,
    upkeep: AbortOnDropHandle<()>,
}

impl KafkaWorker {
    /// Makes the topics of the queues that are missing, and begins to take tasks. `lines` gives what the handlers of
    /// `performer` say while they work.
    pub async fn start(
        settings: &KafkaSettings,
        options: KafkaWorkerOptions,
        performer: Arc<dyn Perform>,
        lines: Option<mpsc::Receiver<LogLine>>,
    ) -> Result<Self, KafkaError> {
        let topics = Topics::new(settings);
        let needed = topics.all(options.queues.iter().map(String::as_str));
        let admin = Admin::new(settings)?;
        let differences = admin.ensure(&needed).await?;
        let producer = Producer::new(settings, &options.name)?;
        let every = Subscription::All { group: None, topics: vec![topics.name(Topic::Control)], from: From::Latest };
        let (control, said) = Consumer::start(settings, &options.name, every, 1024).await?;
        let mut consumers = Vec::new();
        let mut tasks = Vec::new();
        // A group for each topic: one of them all would give each member as many partitions as the others, and might give
        // all of the topic that has the work to one member.
        for topic in options.queues.iter().flat_map(|queue| topics.of_queue(queue)) {
            let subscription = Subscription::Group {
                group: format!("tol-worker-{topic}"),
                member: Some(options.name.clone()),
                topics: vec![topic],
            };
            // A few tasks wait here, so that a slot that becomes free is filled at once.
            let backlog = options.concurrency.clamp(1, 64);
            let (consumer, records) = Consumer::start(settings, &options.name, subscription, backlog).await?;
            consumers.push(consumer);
            tasks.push(records);
        }
        let client = Client { name: options.name.clone(), topics, producer, store: options.store.clone() };
        let shared =
            Arc::new(Shared { client, consumers, control, counts: Counts::default(), problem: Mutex::default() });
        let (drain, draining) = watch::channel(None);
        let inputs = Inputs { tasks, control: said, lines, draining };
        let upkeep = AbortOnDropHandle::new(tokio::spawn(keep_up(admin, needed, Arc::downgrade(&shared))));
        let session = tokio::spawn(Session::new(options, shared.clone(), performer).run(inputs));
        Ok(Self { shared, differences, drain, session, upkeep })
    }

    /// How the topics that were there differ from what they should be.
    pub fn differences(&self) -> &[TopicDifference] {
        &self.differences
    }

    /// What has passed so far.
    pub fn counters(&self) -> KafkaCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        KafkaCounters {
            begun: get(&counts.begun),
            reported: get(&counts.reported),
            answered: get(&counts.answered),
            resent: get(&counts.resent),
            given_up: get(&counts.given_up),
            expired: get(&counts.expired),
            duplicates: get(&counts.duplicates),
            dead_letters: get(&counts.dead_letters),
            left: get(&counts.left),
            lines_dropped: get(&counts.lines_dropped),
        }
    }

    /// How many tasks are in work.
    pub fn in_work(&self) -> u64 {
        self.shared.counts.in_work.load(Ordering::Relaxed)
    }

    /// How many outcomes nobody has answered yet.
    pub fn unanswered(&self) -> u64 {
        self.shared.counts.unanswered.load(Ordering::Relaxed)
    }

    /// How many tasks are still to be read, by topic and partition, as of some seconds ago.
    pub fn lag(&self) -> Lag {
        self.shared.consumers.iter().flat_map(Consumer::lag).collect()
    }

    /// The partitions of task topics that this worker has.
    pub fn assigned(&self) -> Vec<(String, i32)> {
        self.shared.consumers.iter().flat_map(Consumer::assigned).collect()
    }

    /// How often reading was paused because the worker had enough to do, and how often it went on.
    pub fn pauses(&self) -> (u64, u64) {
        let each = self.shared.consumers.iter().map(Consumer::pauses);
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// What stands in the way, if it is known.
    pub fn problem(&self) -> Option<KafkaError> {
        let own = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.or_else(|| self.shared.consumers.iter().find_map(Consumer::problem))
            .or_else(|| self.shared.control.problem())
            .or_else(|| self.shared.client.producer.problem())
    }

    /// True once the worker has ended by itself; [`KafkaWorker::problem`] says why.
    pub fn is_ended(&self) -> bool {
        self.session.is_finished()
    }

    /// Waits until the worker ends by itself, which it does when it cannot go on.
    pub async fn ended(&mut self) -> KafkaError {
        let _ = (&mut self.session).await;
        self.problem().unwrap_or(KafkaError::Closed)
    }

    /// Takes nothing more, finishes what is in work, and leaves, all in so long at most. False if work was cut off,
    /// an outcome is unanswered, or a connection did not close in time.
    pub async fn drain(mut self, at_most: Duration) -> bool {
        let until = tokio::time::Instant::now() + at_most;
        let left = || until.saturating_duration_since(tokio::time::Instant::now());
        // The last part of the time is for saying how it ended and for closing.
        let closing = (at_most / 6).min(Duration::from_secs(5));
        let _ = self.drain.send(Some(at_most.saturating_sub(closing)));
        if !self.session.is_finished() && tokio::time::timeout(left(), &mut self.session).await.is_err() {
            self.session.abort();
        }
        let mut clean = self.in_work() == 0 && self.unanswered() == 0;
        clean &= self.shared.client.producer.flush(left()).await == 0;
        self.upkeep.abort();
        let _ = self.upkeep.await;
        let Some(shared) = Arc::into_inner(self.shared) else { return false };
        let patience = left().max(Duration::from_secs(1));
        let closes = shared.consumers.into_iter().chain([shared.control]).map(|consumer| consumer.close(patience));
        let closed = futures::future::join_all(closes).await;
        clean && closed.into_iter().all(|closed| closed)
    }
}
