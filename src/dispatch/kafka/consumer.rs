//! Reads messages on a thread of its own. When nobody takes them, the partitions are paused; when the thread does not
//! end in time, it is left behind rather than waited for.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc::{self, Sender, error::TrySendError};
use tokio::sync::oneshot;

use crate::dispatch::kafka::context::Watch;
use crate::dispatch::kafka::error::KafkaError;
use crate::dispatch::kafka::offsets::Place;
use crate::dispatch::kafka::settings::KafkaSettings;
use crate::dispatch::kafka::subscription::{Subscription, subscribe};
use crate::dispatch::kafka::wire::CONTENT_TYPE;

/// How long a poll waits for a message; a stop is noticed after so long.
const POLL: Duration = Duration::from_millis(100);
/// The same while messages wait to be taken.
const POLL_WHILE_HELD: Duration = Duration::from_millis(5);
/// A full channel may have room again in a moment. Pausing throws away what was fetched, so it is for longer waits.
const FULL_PATIENCE: Duration = Duration::from_millis(100);
const FULL_LOOK: Duration = Duration::from_micros(100);
/// So many messages that are there already are handed over together at most: whoever takes them is woken once.
const TOGETHER: usize = 64;
/// A member that is fenced a second time within so long shares its name with another.
const FENCED_TWICE: Duration = Duration::from_secs(30);
/// How long answers of the cluster are waited for at the start.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long to wait before a client is made once more that could not begin.
const MAKE_AGAIN: Duration = Duration::from_secs(1);

/// A message that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    /// Which assignment of the partition it was read under.
    pub assignment: u64,
    /// Key and payload, in one piece of memory.
    bytes: Box<[u8]>,
    key: usize,
    /// What form the payload says it has.
    pub content_type: Option<Arc<str>>,
    /// The other headers: dead letters have some.
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp_ms: Option<i64>,
}

impl Received {
    /// Which messages are kept in order.
    pub fn key(&self) -> &[u8] {
        &self.bytes[..self.key]
    }

    /// The envelope's bytes, if it is one.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.key..]
    }

    /// An empty message of this place.
    #[cfg(test)]
    pub(super) fn at(place: Place) -> Self {
        let Place { topic, partition, offset, assignment } = place;
        let (content_type, headers, bytes, key, timestamp_ms) = (None, Vec::new(), Box::default(), 0, None);
        Self { topic, partition, offset, assignment, bytes, key, content_type, headers, timestamp_ms }
    }

    /// The text of one of the other headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }

    /// Where it stood.
    pub fn place(&self) -> Place {
        Place { topic: self.topic.clone(), partition: self.partition, offset: self.offset, assignment: self.assignment }
    }
}

/// How many messages of each partition are still to be read.
pub type Lag = BTreeMap<(String, i32), i64>;

/// What the thread and its owner share.
#[derive(Default)]
struct Shared {
    closing: AtomicBool,
    /// Another client is to take the place of the present one.
    renew: AtomicBool,
    pauses: AtomicU64,
    resumes: AtomicU64,
    problem: Mutex<Option<KafkaError>>,
    /// The client, which the thread holds. It may be replaced by another.
    client: Mutex<Weak<BaseConsumer<Watch>>>,
}

impl Shared {
    fn client(&self) -> Option<Arc<BaseConsumer<Watch>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn set_problem(&self, problem: Option<KafkaError>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn set_client(&self, client: &Arc<BaseConsumer<Watch>>) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(client);
    }
}

/// Reads messages of some topics.
pub struct Consumer {
    watch: Watch,
    shared: Arc<Shared>,
    member: String,
    ended: Option<oneshot::Receiver<()>>,
}

impl Consumer {
    /// Begins to read. At most `capacity` messages wait in the channel; then the partitions are paused. The channel
    /// ends when the consumer does, and [`Consumer::problem`] says why if it did so by itself.
    pub async fn start(
        settings: &KafkaSettings,
        name: &str,
        subscription: Subscription,
        capacity: usize,
    ) -> Result<(Self, mpsc::Receiver<Received>), KafkaError> {
        let mut config = settings.client_config(name);
        config
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "500")
            .set("enable.auto.offset.store", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "2000")
            .set("max.poll.interval.ms", "300000")
            .set("fetch.message.max.bytes", "1048576")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            .set("queued.max.messages.kbytes", "32768")
            .set("socket.timeout.ms", "10000")
            // A topic that vanished and was made again is noticed within so long.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("statistics.interval.ms", "5000")
            .set_log_level(RDKafkaLogLevel::Error);
        let mut member = name.to_owned();
        match &subscription {
            Subscription::Group { group, member: instance, .. } => {
                config.set("group.id", group).set("auto.offset.reset", "earliest");
                if let Some(instance) = instance {
                    member.clone_from(instance);
                }
            }
            Subscription::All { group, .. } => {
                // Without a group nothing is committed, but the client wants a name all the same.
                // What is read is idempotent: to read something twice is better than to pass over it.
                config.set("group.id", group.as_deref().unwrap_or("tol-unused")).set("auto.offset.reset", "earliest");
                if group.is_none() {
                    config.set("enable.auto.commit", "false");
                }
            }
        }
        let watch = Watch::default();
        let shared = Arc::new(Shared::default());
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let (began, beginning) = oneshot::channel();
        let (ends, ended) = oneshot::channel();
        let thread = Thread {
            watch: watch.clone(),
            shared: shared.clone(),
            sender,
            held: VecDeque::new(),
            held_at_pause: 0,
            paused: false,
            known: Known::default(),
        };
        let brokers = settings.brokers.clone();
        // A consumer is made, used and dropped on its thread: each of these can block.
        std::thread::Builder::new()
            .name(format!("kafka {name}"))
            .spawn(move || {
                let make = |watch: &Watch, subscription: &Subscription| {
                    let mut config = config.clone();
                    if let Subscription::Group { member: Some(member), .. } = subscription {
                        config.set("group.instance.id", member);
                    }
                    BaseConsumer::from_config_and_context(&config, watch.clone())
                        .map_err(|error| KafkaError::from_client(&brokers, &error, watch))
                        .and_then(|made| subscribe(&made, &brokers, subscription).map(|()| Arc::new(made)))
                };
                match make(&thread.watch, &subscription) {
                    Ok(consumer) => {
                        thread.shared.set_client(&consumer);
                        let _ = began.send(Ok(()));
                        thread.run(consumer, subscription, make);
                    }
                    Err(error) => drop(began.send(Err(error))),
                }
                let _ = ends.send(());
            })
            .map_err(|error| KafkaError::Consume { why: format!("no thread for it: {error}") })?;
        beginning.await.map_err(|_| KafkaError::Closed)??;
        Ok((Self { watch, shared, member, ended: Some(ended) }, receiver))
    }

    /// The offset from which to go on after this place's topic and partition is to be committed soon.
    pub fn store(&self, place: &Place, next: i64) {
        let Some(consumer) = self.shared.client() else { return };
        // A partition that is another's by now refuses it; then the other reads the message again.
        if self.is_current(place) && next > 0 {
            let _ = consumer.store_offset(&place.topic, place.partition, next - 1);
        }
    }

    /// Commits an offset, and waits until the cluster has it.
    pub async fn commit(&self, place: &Place, next: i64) -> Result<(), KafkaError> {
        let consumer = self.shared.client().ok_or(KafkaError::Closed)?;
        if !self.is_current(place) {
            return Err(KafkaError::Consume { why: format!("{place} is another consumer's now") });
        }
        let place = place.clone();
        let committed = tokio::task::spawn_blocking(move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&place.topic, place.partition, Offset::Offset(next))?;
            consumer.commit(&list, CommitMode::Sync)?;
            // So that a later automatic commit does not go back.
            let _ = consumer.store_offset(&place.topic, place.partition, next - 1);
            Ok::<(), ClientError>(())
        });
        let why = |why: String| KafkaError::Consume { why: format!("an offset could not be committed: {why}") };
        match tokio::time::timeout(PATIENCE, committed).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(why(error.to_string())),
            Ok(Err(_)) => Err(KafkaError::Closed),
            Err(_) => Err(why(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// True if the place's partition has not been given to another consumer since.
    pub fn is_current(&self, place: &Place) -> bool {
        self.watch.assignment_of(&place.topic, place.partition) == Some(place.assignment)
    }

    /// The partitions that are read here.
    pub fn assigned(&self) -> Vec<(String, i32)> {
        self.watch.assigned()
    }

    /// How many messages are still to be read, as of some seconds ago.
    pub fn lag(&self) -> Lag {
        self.watch.lag()
    }

    /// How often reading was paused because nobody took the messages, and how often it went on.
    pub fn pauses(&self) -> (u64, u64) {
        (self.shared.pauses.load(Ordering::Relaxed), self.shared.resumes.load(Ordering::Relaxed))
    }

    /// What stands in the way of reading, if it is known.
    pub fn problem(&self) -> Option<KafkaError> {
        if self.watch.fenced() {
            return Some(KafkaError::Fenced { name: self.member.clone() });
        }
        let own = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        own.or_else(|| self.watch.cause())
    }

    /// Lets another client take the place of the present one: the cluster is not what it was.
    pub(crate) fn renew(&self) {
        self.shared.renew.store(true, Ordering::Release);
    }

    /// Ends reading; what is stored is committed. False if the thread did not end in time and was left behind.
    pub async fn close(mut self, at_most: Duration) -> bool {
        self.shared.closing.store(true, Ordering::Release);
        match self.ended.take() {
            Some(ended) => tokio::time::timeout(at_most, ended).await.is_ok(),
            None => true,
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
    }
}

/// The last holder drops the client, and that must not be a thread of the runtime: it may block for as long as it likes.
fn drop_last(consumer: Arc<BaseConsumer<Watch>>) {
    let until = Instant::now() + PATIENCE;
    while Arc::strong_count(&consumer) > 1 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(consumer);
}

/// The loop of the consumer's thread.
struct Thread {
    watch: Watch,
    shared: Arc<Shared>,
    sender: Sender<Received>,
    /// What was read and did not find room yet: few messages.
    held: VecDeque<Received>,
    /// How many they were when the partitions were paused.
    held_at_pause: usize,
    paused: bool,
    known: Known,
}

/// What is the same for many messages, so that one costs no lock, no look-up by name and no copy of a name.
#[derive(Default)]
struct Known {
    /// The changes of the assignment that are in here.
    changes: u64,
    /// Topics with their partitions that are assigned, each with the number of its assignment.
    partitions: Vec<(Arc<str>, i32, u64)>,
    /// Where the last message was found; messages come partition by partition.
    last: usize,
    content_type: Option<Arc<str>>,
}

impl Known {
    /// The name of a topic and the assignment of its partition; none if it is not assigned. Partitions come and go on
    /// the thread that reads, so that nothing changes in between.
    fn find(&mut self, watch: &Watch, topic: &str, partition: i32) -> Option<(Arc<str>, u64)> {
        let changes = watch.changes();
        if changes != self.changes {
            self.partitions = watch.assignments();
            self.changes = changes;
        }
        let is_it = |(name, number, _): &(Arc<str>, i32, u64)| *number == partition && **name == *topic;
        if !self.partitions.get(self.last).is_some_and(is_it) {
            self.last = self.partitions.iter().position(is_it)?;
        }
        self.partitions.get(self.last).map(|(name, _, assignment)| (name.clone(), *assignment))
    }

    fn content_type(&mut self, value: &[u8]) -> Option<Arc<str>> {
        if self.content_type.as_ref().is_none_or(|known| known.as_bytes() != value) {
            self.content_type = std::str::from_utf8(value).ok().map(Arc::from);
        }
        self.content_type.clone()
    }
}

impl Thread {
    fn run(
        mut self,
        mut consumer: Arc<BaseConsumer<Watch>>,
        mut subscription: Subscription,
        make: impl Fn(&Watch, &Subscription) -> Result<Arc<BaseConsumer<Watch>>, KafkaError>,
    ) {
        let mut fenced: Option<Instant> = None;
        let mut gathers = false;
        while !self.is_over() {
            gathers &= self.held.len() < self.sender.capacity().min(TOGETHER);
            let wait = if gathers {
                Duration::ZERO
            } else {
                self.hand_over(&consumer);
                if self.held.is_empty() { POLL } else { POLL_WHILE_HELD }
            };
            gathers = false;
            let mut renew = self.shared.renew.swap(false, Ordering::AcqRel);
            if renew {
                subscription.elsewhere();
            }
            match consumer.poll(wait) {
                None => {}
                Some(Ok(message)) => {
                    let received = self.received(&message);
                    self.held.extend(received);
                    gathers = !self.held.is_empty();
                }
                Some(Err(error)) if self.goes_on_after(&error) => {}
                // A broker that answers a join with its last breath fences the member that did not hear it. So it joins
                // once more; if that ends the same way soon, another process has its name.
                Some(Err(_)) if self.watch.fenced() && fenced.is_none_or(|at| at.elapsed() > FENCED_TWICE) => {
                    fenced = Some(Instant::now());
                    renew = true;
                }
                Some(Err(_)) => break,
            }
            if renew {
                match self.another(consumer, |watch| make(watch, &subscription)) {
                    Some(made) => consumer = made,
                    None => return,
                }
            }
        }
        drop(self.sender);
        drop_last(consumer);
    }

    fn is_over(&self) -> bool {
        self.shared.closing.load(Ordering::Acquire) || self.sender.is_closed()
    }

    /// Replaces the client, as soon as the cluster lets another one begin. None if reading is over before.
    fn another(
        &mut self,
        before: Arc<BaseConsumer<Watch>>,
        make: impl Fn(&Watch) -> Result<Arc<BaseConsumer<Watch>>, KafkaError>,
    ) -> Option<Arc<BaseConsumer<Watch>>> {
        // It may never get an answer to its farewell, so nobody waits for that.
        std::thread::spawn(move || drop_last(before));
        self.paused = false;
        while !self.is_over() {
            self.watch = self.watch.begin_anew();
            match make(&self.watch) {
                Ok(made) => {
                    self.shared.set_problem(None);
                    self.shared.set_client(&made);
                    return Some(made);
                }
                Err(error) => self.shared.set_problem(Some(error)),
            }
            std::thread::sleep(MAKE_AGAIN);
        }
        None
    }

    fn received(&mut self, message: &BorrowedMessage<'_>) -> Option<Received> {
        let (topic, partition) = (message.topic(), message.partition());
        // What was fetched of a partition that is gone is read by its new owner.
        let (topic, assignment) = self.known.find(&self.watch, topic, partition)?;
        let (mut content_type, mut headers) = (None, Vec::new());
        for header in message.headers().iter().flat_map(|all| all.iter()) {
            let value = header.value.unwrap_or_default();
            if header.key == CONTENT_TYPE {
                content_type = self.known.content_type(value);
            } else {
                headers.push((header.key.to_owned(), value.to_vec()));
            }
        }
        let (key, payload) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        Some(Received {
            topic,
            partition,
            offset: message.offset(),
            assignment,
            bytes: [key, payload].concat().into_boxed_slice(),
            key: key.len(),
            content_type,
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        })
    }

    /// Gives what is held to the channel. Without room the partitions are paused until half of it is free.
    fn hand_over(&mut self, consumer: &BaseConsumer<Watch>) {
        while let Some(message) = self.held.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.held.push_front(message);
                    if self.paused || !self.waits_for_room() {
                        break;
                    }
                }
                Err(TrySendError::Closed(_)) => return,
            }
        }
        if !self.held.is_empty() {
            // A rebalance may have brought partitions that are not paused yet: that shows in further messages.
            if !self.paused || self.held.len() > self.held_at_pause {
                self.switch(consumer, true);
                self.held_at_pause = self.held.len();
            }
        } else if self.paused && self.sender.capacity() * 2 >= self.sender.max_capacity() {
            self.switch(consumer, false);
        }
    }

    /// Waits a moment for room in the channel; false if there is none.
    fn waits_for_room(&self) -> bool {
        let until = Instant::now() + FULL_PATIENCE;
        while self.sender.capacity() == 0 {
            if Instant::now() >= until || self.shared.closing.load(Ordering::Acquire) {
                return false;
            }
            std::thread::sleep(FULL_LOOK);
        }
        true
    }

    fn switch(&mut self, consumer: &BaseConsumer<Watch>, pause: bool) {
        let Ok(assigned) = consumer.assignment() else { return };
        let switched = if pause { consumer.pause(&assigned) } else { consumer.resume(&assigned) };
        if switched.is_ok() && self.paused != pause {
            self.paused = pause;
            let counter = if pause { &self.shared.pauses } else { &self.shared.resumes };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether reading can go on after an error. Most are of a connection, and the client makes a new one.
    fn goes_on_after(&self, error: &ClientError) -> bool {
        let code = error.rdkafka_error_code();
        let is_fatal = matches!(error, ClientError::MessageConsumptionFatal(_))
            || matches!(code, Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId));
        let problem = match code {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Some(KafkaError::Consume { why: "a topic does not exist; `tol doctor` says which".to_owned() })
            }
            Some(RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed) => {
                Some(KafkaError::Refused { why: error.to_string() })
            }
            _ if is_fatal => Some(KafkaError::Consume { why: self.watch.fatal().unwrap_or_else(|| error.to_string()) }),
            _ => None,
        };
        if let Some(problem) = problem {
            self.shared.set_problem(Some(problem));
        }
        !is_fatal
    }
}
