//! Sends messages: each is written once and in order, and acknowledged by all replicas that are in sync.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::dispatch::kafka::context::Watch;
use crate::dispatch::kafka::error::KafkaError;
use crate::dispatch::kafka::settings::{KafkaSettings, MESSAGE_SLACK};
use crate::proto::MAX_MESSAGE_BYTES;

/// How long a message is tried before it is given up. A broker may be away for some minutes.
const MESSAGE_TIMEOUT: Duration = Duration::from_mins(15);
/// How long to wait for room in a full queue before looking again.
const FULL_WAIT: Duration = Duration::from_millis(2);

/// A client that has given up is replaced, but not more often than this.
const RECOVER: Duration = Duration::from_secs(1);

/// One message to send.
#[derive(Clone, Copy, Debug)]
pub struct Record<'r> {
    pub topic: &'r str,
    /// Absent: chosen by the key.
    pub partition: Option<i32>,
    pub key: &'r str,
    pub headers: &'r [(&'r str, &'r str)],
    pub payload: &'r [u8],
}

type Delivered = Result<(i32, i64), RDKafkaErrorCode>;

type Client = ThreadedProducer<Context, NoCustomPartitioner>;

/// How the messages fare, of all clients that came one after the other.
struct Fares {
    began: Instant,
    failed: AtomicU64,
    /// How many are on their way.
    out: AtomicU64,
    /// When the last of them arrived, or the first of them was sent: milliseconds since the beginning.
    moved: AtomicU64,
}

impl Fares {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { began: Instant::now(), failed: zero(), out: zero(), moved: zero() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn sent(&self) {
        if self.out.fetch_add(1, Ordering::Relaxed) == 0 {
            self.moved.store(self.now(), Ordering::Relaxed);
        }
    }

    fn withdrawn(&self) {
        self.out.fetch_sub(1, Ordering::Relaxed);
    }

    fn arrived(&self, failed: bool) {
        self.out.fetch_sub(1, Ordering::Relaxed);
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.moved.store(self.now(), Ordering::Relaxed);
        }
    }

    fn is_stuck(&self, since: Duration) -> bool {
        let age = self.now().saturating_sub(self.moved.load(Ordering::Relaxed));
        self.out.load(Ordering::Relaxed) > 0 && u128::from(age) > since.as_millis()
    }
}

struct Context {
    watch: Watch,
    fares: Arc<Fares>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        self.watch.log(level, facility, words);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.watch.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<Delivered>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let delivered = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        self.fares.arrived(delivered.is_err());
        // Whoever sent it may not want to know.
        let _ = waiting.send(delivered);
    }
}

fn make(config: &ClientConfig, watch: &Watch, fares: &Arc<Fares>) -> Result<Client, ClientError> {
    let context = Context { watch: watch.clone(), fares: fares.clone() };
    ThreadedProducer::from_config_and_context(config, context)
}

/// A message on its way.
#[derive(Debug)]
pub struct Sent {
    topic: Arc<str>,
    bytes: usize,
    delivered: oneshot::Receiver<Delivered>,
}

impl Sent {
    /// Waits until the message is written for good; gives its partition and offset.
    pub async fn written(self) -> Result<(i32, i64), KafkaError> {
        match self.delivered.await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(code)) => Err(KafkaError::from_delivery(&self.topic, self.bytes, code)),
            Err(_) => Err(KafkaError::Closed),
        }
    }
}

/// Sends messages to a cluster. It is meant to be kept: its first message costs half a second.
pub struct Producer {
    /// The client, and when it was made.
    client: RwLock<(Arc<Client>, Instant)>,
    config: ClientConfig,
    watch: Watch,
    brokers: String,
    fares: Arc<Fares>,
    waited: AtomicU64,
}

impl Producer {
    /// A producer of this name. Nothing is connected yet.
    pub fn new(settings: &KafkaSettings, name: &str) -> Result<Self, KafkaError> {
        Self::with(settings, name, &[])
    }

    /// The same with settings of librdkafka that differ, for tests and measurements.
    pub fn with(settings: &KafkaSettings, name: &str, more: &[(&str, &str)]) -> Result<Self, KafkaError> {
        let mut config = settings.client_config(name);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("max.in.flight.requests.per.connection", "5")
            .set("compression.type", settings.compression.as_str())
            // A task that waits a millisecond for company costs nobody anything; a batch saves a lot.
            .set("linger.ms", "1")
            .set("batch.size", "1000000")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string())
            .set("request.timeout.ms", "10000")
            .set_log_level(RDKafkaLogLevel::Error);
        for (key, value) in more {
            config.set(*key, *value);
        }
        let (watch, fares) = (Watch::default(), Arc::new(Fares::new()));
        let client = make(&config, &watch, &fares)
            .map_err(|error| KafkaError::from_client(&settings.brokers, &error, &watch))?;
        let (client, brokers) = (RwLock::new((Arc::new(client), Instant::now())), settings.brokers.clone());
        Ok(Self { client, config, watch, brokers, fares, waited: AtomicU64::new(0) })
    }

    fn client(&self) -> Arc<Client> {
        self.client.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Lets another client take the place of the present one: the cluster is not what it was, or the client cannot go
    /// on. What is on its way fails.
    pub(crate) fn renew(&self) {
        let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
        // The settings made a client before; were it not so, the present one has to do.
        if let Ok(made) = make(&self.config, &self.watch, &self.fares) {
            let before = std::mem::replace(&mut *client, (Arc::new(made), Instant::now()));
            // Its end may take a while.
            std::thread::spawn(move || drop(before));
        }
    }

    /// Makes another client if the present one has given up for good, but not one after the other.
    fn recover(&self) {
        let made = self.client.read().unwrap_or_else(PoisonError::into_inner).1;
        if made.elapsed() > RECOVER {
            self.renew();
        }
    }

    /// Puts a message in line. Waits while the line is full: nothing is dropped.
    pub async fn send(&self, record: Record<'_>) -> Result<Sent, KafkaError> {
        loop {
            match self.try_send(record)? {
                Some(sent) => return Ok(sent),
                None => {
                    self.waited.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(FULL_WAIT).await;
                }
            }
        }
    }

    /// Puts a message in line; gives nothing back if the line is full.
    pub fn try_send(&self, record: Record<'_>) -> Result<Option<Sent>, KafkaError> {
        let Record { topic, partition, key, headers, payload } = record;
        if payload.len() > MAX_MESSAGE_BYTES + MESSAGE_SLACK / 2 {
            return Err(KafkaError::too_large(topic, payload.len()));
        }
        let (sender, delivered) = oneshot::channel();
        let mut base = BaseRecord::with_opaque_to(topic, Box::new(sender)).key(key).payload(payload);
        base.partition = partition;
        if !headers.is_empty() {
            let start = OwnedHeaders::new_with_capacity(headers.len());
            let all = headers.iter().fold(start, |all, &(key, value)| all.insert(Header { key, value: Some(value) }));
            base.headers = Some(all);
        }
        self.fares.sent();
        let sent = self.client().send(base);
        if sent.is_err() {
            self.fares.withdrawn();
        }
        match sent {
            Ok(()) => Ok(Some(Sent { topic: Arc::from(topic), bytes: payload.len(), delivered })),
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Ok(None),
                Some(RDKafkaErrorCode::Fatal) => {
                    self.recover();
                    Ok(None)
                }
                Some(code) => Err(KafkaError::from_delivery(topic, payload.len(), code)),
                None => Err(KafkaError::Send { topic: topic.to_owned(), why: error.to_string() }),
            },
        }
    }

    /// How many messages were given up.
    pub fn failed(&self) -> u64 {
        self.fares.failed.load(Ordering::Relaxed)
    }

    /// How often a message had to wait for room.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// How many messages are on their way.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.fares.out.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// True if messages are on their way and none has arrived for so long.
    pub(super) fn is_stuck(&self, since: Duration) -> bool {
        self.fares.is_stuck(since)
    }

    /// What stands in the way of sending, if it is known.
    pub fn problem(&self) -> Option<KafkaError> {
        self.watch.cause()
    }

    /// Waits until everything is written, for so long at most; says how many messages were not.
    pub async fn flush(&self, at_most: Duration) -> usize {
        let until = Instant::now() + at_most;
        while self.in_flight() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.in_flight()
    }

    /// How many partitions a topic has; none if there is no such topic.
    pub fn partitions(&self, topic: &str, at_most: Duration) -> Result<Option<i32>, KafkaError> {
        let metadata = self
            .client()
            .client()
            .fetch_metadata(Some(topic), at_most)
            .map_err(|error| KafkaError::from_client(&self.brokers, &error, &self.watch))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        Ok(found
            .map(|topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX))
            .filter(|partitions| *partitions > 0))
    }
}
