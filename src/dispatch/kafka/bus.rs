//! The scheduler's end of the bus: what the hub sends goes out as messages, and what workers say goes to the hub.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_util::task::AbortOnDropHandle;

use crate::dispatch::hub::Hub;
use crate::dispatch::kafka::admin::{Admin, TopicDifference};
use crate::dispatch::kafka::consumer::{Consumer, Received};
use crate::dispatch::kafka::error::KafkaError;
use crate::dispatch::kafka::offsets::{Offsets, Place};
use crate::dispatch::kafka::producer::{Producer, Record};
use crate::dispatch::kafka::settings::KafkaSettings;
use crate::dispatch::kafka::subscription::{From, Subscription};
use crate::dispatch::kafka::topics::{Topic, Topics};
use crate::dispatch::kafka::upkeep::keep_up;
use crate::dispatch::kafka::wire::{HEADERS, decode, encode, error_report, header, now};
use crate::dispatch::{BusMessage, LeaseKey, LogSink, Message, Stop, Terms, Verdict, WorkerLine};
use crate::proto::{self, EnvelopeError, Undecodable, v1};
use crate::task::{DEFAULT_QUEUE, Failure, Outcome, Task};

/// How far back a scheduler looks that reads for the first time.
const LOOK_BACK: Duration = Duration::from_mins(10);
/// A report that the hub has not answered for so long is not waited for: its worker sends it again.
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// How many messages wait for the hub.
const CAPACITY: usize = 1024;

/// How many batches of lines wait to be kept.
const LINES_CAPACITY: usize = 256;

/// Puts tasks into messages and takes outcomes out of them. What is too large for a message can go another way.
pub trait Parcels: Send + Sync + 'static {
    /// A task as it is sent.
    ///
    /// # Errors
    /// Says why it cannot be sent at all.
    fn task(&self, task: &Task) -> Result<v1::Task, String>;

    /// An outcome that came.
    ///
    /// # Errors
    /// Says why it cannot be had.
    fn outcome(&self, outcome: v1::Outcome) -> Result<Outcome, String>;
}

/// Everything is in the message.
struct Inline;

impl Parcels for Inline {
    fn task(&self, task: &Task) -> Result<v1::Task, String> {
        Ok(v1::Task::from(task))
    }

    fn outcome(&self, outcome: v1::Outcome) -> Result<Outcome, String> {
        Outcome::try_from(outcome).map_err(|error| error.to_string())
    }
}

/// What a scheduler says of itself.
pub struct BusOptions {
    /// Its name, the same after it has been started again.
    pub name: String,
    /// Keeps the lines that programs print. They are dropped, and counted, when it is too slow.
    pub lines: Option<Arc<dyn LogSink>>,
    /// Absent: a task that is too large for a message fails.
    pub parcels: Option<Arc<dyn Parcels>>,
}

impl BusOptions {
    /// A scheduler of this name that keeps no lines and has no store.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), lines: None, parcels: None }
    }
}

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounters {
    pub sent: u64,
    pub received: u64,
    /// Messages that could not be sent; the hub sends tasks again.
    pub unsent: u64,
    pub undecodable: u64,
    pub lines_dropped: u64,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    unsent: AtomicU64,
    undecodable: AtomicU64,
    lines_dropped: AtomicU64,
}

impl Counts {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A report that the hub has not answered yet.
struct Pending {
    place: Place,
    envelope: String,
    since: Instant,
}

pub(super) struct Shared {
    pub(super) name: String,
    pub(super) topics: Topics,
    producer: Producer,
    pub(super) admin: Admin,
    consumer: Consumer,
    counts: Counts,
    terms: Terms,
    offsets: Mutex<Offsets>,
    pending: Mutex<HashMap<LeaseKey, Vec<Pending>>>,
    /// How many partitions the task topics have that are known to be there.
    known: Mutex<HashMap<String, i32>>,
    turn: AtomicU64,
    parcels: Arc<dyn Parcels>,
}

/// A scheduler's connection to the bus.
pub struct Bus {
    shared: Arc<Shared>,
    differences: Vec<TopicDifference>,
    out: AbortOnDropHandle<()>,
    inward: AbortOnDropHandle<()>,
    upkeep: AbortOnDropHandle<()>,
}

impl Bus {
    /// Makes the topics that are missing, reads what workers say, and carries what `outbox` gives: the other end of
    /// the channel that the hub was started with.
    pub async fn start(
        settings: &KafkaSettings,
        options: BusOptions,
        hub: &Arc<Hub>,
        outbox: UnboundedReceiver<BusMessage>,
    ) -> Result<Self, KafkaError> {
        let topics = Topics::new(settings);
        let admin = Admin::new(settings)?;
        let differences = admin.ensure(&topics.all([DEFAULT_QUEUE])).await?;
        let client = format!("tol-scheduler-{}", options.name);
        let producer = Producer::new(settings, &client)?;
        let subscription = Subscription::All {
            group: Some(client.clone()),
            topics: [Topic::Outcome, Topic::Heartbeat, Topic::Log].map(|topic| topics.name(topic)).to_vec(),
            from: From::Ago(LOOK_BACK),
        };
        let (consumer, inbox) = Consumer::start(settings, &client, subscription, CAPACITY).await?;
        let shared = Arc::new(Shared {
            name: options.name,
            topics,
            producer,
            admin,
            consumer,
            counts: Counts::default(),
            terms: hub.terms(),
            offsets: Mutex::default(),
            pending: Mutex::default(),
            known: Mutex::default(),
            turn: AtomicU64::new(0),
            parcels: options.parcels.unwrap_or_else(|| Arc::new(Inline)),
        });
        let lines = options.lines.map(keep_lines);
        let out = AbortOnDropHandle::new(tokio::spawn(carry_out(shared.clone(), Arc::downgrade(hub), outbox)));
        let inward = AbortOnDropHandle::new(tokio::spawn(carry_in(shared.clone(), Arc::downgrade(hub), inbox, lines)));
        let upkeep = AbortOnDropHandle::new(tokio::spawn(keep_up(shared.clone(), Arc::downgrade(hub))));
        Ok(Self { shared, differences, out, inward, upkeep })
    }

    /// How the topics that were there differ from what they should be.
    pub fn differences(&self) -> &[TopicDifference] {
        &self.differences
    }

    /// What has passed so far.
    pub fn counters(&self) -> BusCounters {
        self.shared.counters()
    }

    /// How many messages are still to be read, as of some seconds ago.
    pub fn lag(&self) -> i64 {
        self.shared.consumer.lag().values().sum()
    }

    /// What stands in the way, if it is known.
    pub fn problem(&self) -> Option<KafkaError> {
        self.shared.consumer.problem().or_else(|| self.shared.producer.problem())
    }

    /// Sends what is in line and ends, in so long at most. False if something was left behind.
    pub async fn close(self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        let left = || until.saturating_duration_since(Instant::now());
        let all_sent = self.shared.producer.flush(left()).await == 0;
        self.inward.abort();
        self.out.abort();
        self.upkeep.abort();
        let _ = self.upkeep.await;
        let _ = self.inward.await;
        let _ = self.out.await;
        match Arc::into_inner(self.shared) {
            Some(shared) => shared.consumer.close(left()).await && all_sent,
            // Something for a new queue is still being sent; the consumer ends when that does.
            None => false,
        }
    }
}

impl Shared {
    pub(super) fn counters(&self) -> BusCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BusCounters {
            sent: get(&self.counts.sent),
            received: get(&self.counts.received),
            unsent: get(&self.counts.unsent) + self.producer.failed(),
            undecodable: get(&self.counts.undecodable),
            lines_dropped: get(&self.counts.lines_dropped),
        }
    }

    /// Connects anew, as one does to a cluster that is another than before.
    pub(super) fn renew(&self) {
        self.producer.renew();
        self.consumer.renew();
    }

    /// The topics of queues that something was sent to, dead letters with them.
    pub(super) fn used(&self) -> Vec<String> {
        self.known().keys().flat_map(|topic| [topic.clone(), Topics::dead_letters(topic)]).collect()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, i32>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<LeaseKey, Vec<Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message is done with: the next start goes on behind it.
    fn done(&self, place: &Place) {
        let next = self.offsets.lock().unwrap_or_else(PoisonError::into_inner).done(place);
        if let Some(next) = next {
            self.consumer.store(place, next);
        }
    }

    pub(super) async fn send(&self, topic: &str, key: &str, envelope: &v1::Envelope) {
        match encode(envelope) {
            Ok(payload) => self.send_bytes(topic, None, key, &payload).await,
            Err(_) => Counts::add(&self.counts.unsent),
        }
    }

    async fn send_bytes(&self, topic: &str, partition: Option<i32>, key: &str, payload: &[u8]) {
        let record = Record { topic, partition, key, headers: HEADERS, payload };
        match self.producer.post(record).await {
            Ok(()) => Counts::add(&self.counts.sent),
            Err(_) => Counts::add(&self.counts.unsent),
        }
    }

    /// A task's message, or why there can be none.
    fn task_bytes(&self, task: &Task) -> Result<Vec<u8>, String> {
        let mut envelope = proto::command_task(header(&self.name, None), self.parcels.task(task)?);
        // What nobody has taken by then has been sent again. A task that must not begin twice is void before that.
        let on_bus = u64::try_from(self.terms.on_bus(task).as_millis()).unwrap_or(u64::MAX);
        envelope.ttl_ms = Some(if task.place.once { on_bus / 4 * 3 } else { on_bus.saturating_mul(3) });
        encode(&envelope).map_err(|error| error.to_string())
    }

    /// Makes sure that there is a topic; gives the number of its partitions.
    async fn task_topic(&self, topic: &str) -> Result<i32, KafkaError> {
        let known = self.known().get(topic).copied();
        if let Some(partitions) = known {
            return Ok(partitions);
        }
        self.admin.ensure(&[topic.to_owned(), Topics::dead_letters(topic)]).await?;
        let partitions = self.admin.partitions(topic).await?;
        self.known().insert(topic.to_owned(), partitions);
        Ok(partitions)
    }

    /// Sends a task. The key is the run's, but the partitions are taken in turn: the parts of a fan-out are to be
    /// spread over all workers, and a task that is sent again comes to another one.
    async fn send_task(&self, hub: &Weak<Hub>, task: &Task) {
        // While nothing gets through, copies would only pile up; the hub sends the task again.
        if self.producer.is_stuck(self.terms.on_bus(task)) {
            Counts::add(&self.counts.unsent);
            return;
        }
        let topic = self.topics.tasks(&task.place.queue, task.place.phase);
        let payload = match self.task_bytes(task) {
            Ok(payload) => payload,
            Err(why) => {
                if let Some(hub) = hub.upgrade() {
                    let failure = Failure::permanent(format!("the task cannot be sent: {why}"));
                    hub.report(&Arc::from(self.name.as_str()), LeaseKey::of(task), Outcome::failed(failure));
                }
                return;
            }
        };
        let Ok(partitions) = self.task_topic(&topic).await else {
            Counts::add(&self.counts.unsent);
            return;
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let partition = i32::try_from(turn % u64::from(partitions.unsigned_abs().max(1))).unwrap_or(0);
        self.send_bytes(&topic, Some(partition), task.run.as_str(), &payload).await;
    }

    async fn send_stop(&self, to: Option<Arc<str>>, key: &LeaseKey, how: Stop) {
        let mut envelope =
            proto::command_stop(header(&self.name, to.map(|to| to.to_string())), key.into(), how == Stop::Now);
        envelope.priority = v1::Priority::High.into();
        self.send(&self.topics.name(Topic::Control), key.run.as_str(), &envelope).await;
    }

    async fn send_answer(&self, to: Option<Arc<str>>, key: &LeaseKey, verdict: Verdict) {
        let pending = self.pending().remove(key).unwrap_or_default();
        // Every scheduler reads every outcome. That this one does not have the run tells the worker nothing.
        if verdict != Verdict::Unknown
            && let Some(last) = pending.last()
        {
            let header = header(&self.name, to.map(|to| to.to_string()));
            let envelope = proto::answer(header, last.envelope.clone(), key.into(), verdict.into());
            self.send(&self.topics.name(Topic::Control), key.run.as_str(), &envelope).await;
        }
        for pending in pending {
            self.done(&pending.place);
        }
    }
}

/// What the hub sends goes out. A task for a queue whose topics are not known to be there does not hold up the others.
async fn carry_out(shared: Arc<Shared>, hub: Weak<Hub>, mut outbox: UnboundedReceiver<BusMessage>) {
    while let Some(BusMessage { to, message }) = outbox.recv().await {
        match message {
            Message::Task(task) => {
                let topic = shared.topics.tasks(&task.place.queue, task.place.phase);
                if shared.known().contains_key(&topic) {
                    shared.send_task(&hub, &task).await;
                } else {
                    let (shared, hub) = (shared.clone(), hub.clone());
                    tokio::spawn(async move { shared.send_task(&hub, &task).await });
                }
            }
            Message::Stop { key, how } => shared.send_stop(to, &key, how).await,
            Message::Answer { key, verdict } => shared.send_answer(to, &key, verdict).await,
        }
    }
}

/// Lines of one worker.
type Lines = (Arc<str>, Vec<WorkerLine>);

/// Keeps lines on a thread that may wait for the disk.
fn keep_lines(sink: Arc<dyn LogSink>) -> mpsc::Sender<Lines> {
    let (sender, mut batches) = mpsc::channel::<Lines>(LINES_CAPACITY);
    tokio::task::spawn_blocking(move || {
        while let Some((worker, lines)) = batches.blocking_recv() {
            sink.write(&worker, &lines);
        }
    });
    sender
}

/// What workers say goes to the hub.
async fn carry_in(
    shared: Arc<Shared>,
    hub: Weak<Hub>,
    mut inbox: mpsc::Receiver<Received>,
    lines: Option<mpsc::Sender<Lines>>,
) {
    let began = now().0;
    let lease = u64::try_from(shared.terms.lease.as_millis()).unwrap_or(u64::MAX);
    let mut sweep = tokio::time::interval(ANSWER_WAIT / 4);
    loop {
        let record = tokio::select! {
            record = inbox.recv() => record,
            _ = sweep.tick() => {
                sweep_pending(&shared);
                continue;
            }
        };
        let (Some(record), Some(hub)) = (record, hub.upgrade()) else { return };
        Counts::add(&shared.counts.received);
        shared.offsets.lock().unwrap_or_else(PoisonError::into_inner).take(&record);
        let place = record.place();
        // What a worker had in work long before this scheduler began says nothing about now.
        let is_old = record.timestamp_ms.is_some_and(|at| at.unsigned_abs().saturating_add(lease) < began);
        match take_in(&shared, &hub, &record, is_old, lines.as_ref()) {
            // The hub's answer ends it.
            Ok(true) => {}
            Ok(false) => shared.done(&place),
            Err(error) => {
                Counts::add(&shared.counts.undecodable);
                let report = error_report(&shared.name, error.code(), &error.to_string(), &place.to_string());
                shared.send(&shared.topics.name(Topic::Error), &shared.name, &report).await;
                shared.done(&place);
            }
        }
    }
}

/// Takes one message in; true if it is done with only when the hub has answered.
fn take_in(
    shared: &Shared,
    hub: &Arc<Hub>,
    record: &Received,
    is_old: bool,
    lines: Option<&mpsc::Sender<Lines>>,
) -> Result<bool, EnvelopeError> {
    let message = decode(record)?;
    let worker: Arc<str> = Arc::from(message.from.as_str());
    match message.payload {
        Some(v1::envelope::Payload::Heartbeat(beat)) => {
            if !is_old {
                let leases: Vec<LeaseKey> = beat.leases.into_iter().map(LeaseKey::from).collect();
                hub.heartbeat(&Arc::from(beat.worker.as_str()), &leases);
            }
            Ok(false)
        }
        Some(v1::envelope::Payload::Outcome(outcome)) => {
            let key = LeaseKey::from(message.key.ok_or_else(|| Undecodable::missing("key"))?);
            // What cannot be had is a failure too: the worker would send the same again.
            let outcome = shared.parcels.outcome(outcome).unwrap_or_else(|why| {
                Outcome::failed(Failure::permanent(format!("the outcome of worker {worker} cannot be had: {why}")))
            });
            let pending = Pending { place: record.place(), envelope: message.id, since: Instant::now() };
            shared.pending().entry(key.clone()).or_default().push(pending);
            hub.report(&worker, key, outcome);
            Ok(true)
        }
        Some(v1::envelope::Payload::Log(log)) => {
            let batch: Vec<WorkerLine> = log.lines.into_iter().filter_map(WorkerLine::from_message).collect();
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            if let Some(lines) = lines
                && lines.try_send((worker, batch)).is_err()
            {
                shared.counts.lines_dropped.fetch_add(count, Ordering::Relaxed);
            }
            Ok(false)
        }
        Some(
            v1::envelope::Payload::Task(_)
            | v1::envelope::Payload::Stop(_)
            | v1::envelope::Payload::Error(_)
            | v1::envelope::Payload::Receipt(_)
            | v1::envelope::Payload::Json(_),
        ) => Err(Undecodable::new(format!("a message that does not belong on {}", record.topic)).into()),
        None => Err(Undecodable::missing("payload").into()),
    }
}

/// Lets go of reports that were not answered: the run was let go meanwhile.
fn sweep_pending(shared: &Shared) {
    let mut gone = Vec::new();
    shared.pending().retain(|_, list| {
        let (old, young): (Vec<Pending>, Vec<Pending>) =
            std::mem::take(list).into_iter().partition(|pending| pending.since.elapsed() > ANSWER_WAIT);
        gone.extend(old);
        *list = young;
        !list.is_empty()
    });
    let mut seen = HashSet::new();
    for pending in gone {
        if seen.insert(pending.place.to_string()) {
            shared.done(&pending.place);
        }
    }
}
