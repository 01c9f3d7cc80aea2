//! Sends messages: each is written once and in order, and acknowledged by all replicas that are in sync.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, NoCustomPartitioner, ProducerContext, ThreadedProducer};
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

/// Where a message was written, or why it was not.
type Delivered = Result<(i32, i64), Box<KafkaError>>;

type Client = ThreadedProducer<Context, NoCustomPartitioner>;

/// A counter that one thread writes: alone in its cache lines, so that nobody is slowed down by the others.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Counter {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How the messages fare, of all clients that came one after the other.
#[derive(Default)]
struct Fares {
    sent: Counter,
    /// Written, or given up.
    done: Counter,
    failed: Counter,
    /// How many were done when somebody last saw that number change, or saw that none was on its way; and when.
    seen: Mutex<Option<(u64, bool, Instant)>>,
}

impl Fares {
    fn out(&self) -> u64 {
        // In this order: more may be done by the time that the other is read, never less.
        let done = self.done.get();
        self.sent.get().saturating_sub(done)
    }

    fn arrived(&self, failed: bool) {
        if failed {
            self.failed.add();
        }
        self.done.add();
    }

    /// True if messages are on their way and none has arrived for so long, as far as somebody has asked meanwhile.
    fn is_stuck(&self, since: Duration) -> bool {
        let (done, is_idle) = (self.done.get(), self.out() == 0);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match *seen {
            Some((then, false, at)) if then == done && !is_idle => at.elapsed() > since,
            _ => {
                *seen = Some((done, is_idle, Instant::now()));
                false
            }
        }
    }
}

/// Those who want to know of a message, by the numbers that these messages carry.
#[derive(Default)]
struct Tickets {
    last: AtomicUsize,
    waiting: Mutex<HashMap<usize, oneshot::Sender<Delivered>>>,
}

/// The number of a message of which nobody wants to know: it costs no memory.
const NOBODY: usize = 0;

impl Tickets {
    fn waiting(&self) -> MutexGuard<'_, HashMap<usize, oneshot::Sender<Delivered>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> (usize, oneshot::Receiver<Delivered>) {
        let ticket = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(ticket, sender);
        (ticket, receiver)
    }
}

/// What producers that came one after the other share with their clients.
#[derive(Clone, Default)]
struct Context {
    watch: Watch,
    fares: Arc<Fares>,
    tickets: Arc<Tickets>,
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
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let delivered = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, message)) => {
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
                Err(Box::new(KafkaError::from_delivery(message.topic(), message.payload_len(), code)))
            }
        };
        self.fares.arrived(delivered.is_err());
        if ticket != NOBODY
            && let Some(waiting) = self.tickets.waiting().remove(&ticket)
        {
            // Whoever wanted to know may have gone.
            let _ = waiting.send(delivered);
        }
    }
}

fn make(config: &ClientConfig, context: &Context) -> Result<Client, ClientError> {
    ThreadedProducer::from_config_and_context(config, context.clone())
}

/// A message on its way.
#[derive(Debug)]
pub struct Sent(oneshot::Receiver<Delivered>);

impl Sent {
    /// Waits until the message is written for good; gives its partition and offset.
    pub async fn written(self) -> Result<(i32, i64), KafkaError> {
        self.0.await.map_err(|_| KafkaError::Closed)?.map_err(|error| *error)
    }
}

/// Sends messages to a cluster. It is meant to be kept: its first message costs half a second.
pub struct Producer {
    /// The client, and when it was made.
    client: RwLock<(Client, Instant)>,
    config: ClientConfig,
    context: Context,
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
        let context = Context::default();
        let client = make(&config, &context)
            .map_err(|error| KafkaError::from_client(&settings.brokers, &error, &context.watch))?;
        let client = RwLock::new((client, Instant::now()));
        Ok(Self { client, config, context, waited: AtomicU64::new(0) })
    }

    fn client(&self) -> RwLockReadGuard<'_, (Client, Instant)> {
        self.client.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets another client take the place of the present one: the cluster is not what it was, or the client cannot go
    /// on. What is on its way fails.
    pub(crate) fn renew(&self) {
        let mut client = self.client.write().unwrap_or_else(PoisonError::into_inner);
        // The settings made a client before; were it not so, the present one has to do.
        if let Ok(made) = make(&self.config, &self.context) {
            let before = std::mem::replace(&mut *client, (made, Instant::now()));
            // Its end may take a while.
            std::thread::spawn(move || drop(before));
        }
    }

    /// Makes another client if the present one has given up for good, but not one after the other.
    fn recover(&self) {
        let made = self.client().1;
        if made.elapsed() > RECOVER {
            self.renew();
        }
    }

    /// Puts a message in line. Waits while the line is full: nothing is dropped.
    pub async fn send(&self, record: Record<'_>) -> Result<Sent, KafkaError> {
        let (ticket, delivered) = self.context.tickets.take();
        let put = self.put_patiently(record, ticket).await;
        if put.is_err() {
            self.context.tickets.waiting().remove(&ticket);
        }
        put.map(|()| Sent(delivered))
    }

    /// The same for a message of which nobody wants to know whether it was written.
    pub async fn post(&self, record: Record<'_>) -> Result<(), KafkaError> {
        self.put_patiently(record, NOBODY).await
    }

    async fn put_patiently(&self, record: Record<'_>, ticket: usize) -> Result<(), KafkaError> {
        while !self.put(record, ticket)? {
            self.waited.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(FULL_WAIT).await;
        }
        Ok(())
    }

    /// Puts a message in line; false if the line is full.
    fn put(&self, record: Record<'_>, ticket: usize) -> Result<bool, KafkaError> {
        let Record { topic, partition, key, headers, payload } = record;
        if payload.len() > MAX_MESSAGE_BYTES + MESSAGE_SLACK / 2 {
            return Err(KafkaError::too_large(topic, payload.len()));
        }
        let mut base = BaseRecord::with_opaque_to(topic, ticket).key(key).payload(payload);
        base.partition = partition;
        if !headers.is_empty() {
            let start = OwnedHeaders::new_with_capacity(headers.len());
            let all = headers.iter().fold(start, |all, &(key, value)| all.insert(Header { key, value: Some(value) }));
            base.headers = Some(all);
        }
        let put = self.client().0.send(base);
        match put {
            Ok(()) => {
                self.context.fares.sent.add();
                Ok(true)
            }
            Err((error, _)) => match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Ok(false),
                Some(RDKafkaErrorCode::Fatal) => {
                    self.recover();
                    Ok(false)
                }
                Some(code) => Err(KafkaError::from_delivery(topic, payload.len(), code)),
                None => Err(KafkaError::Send { topic: topic.to_owned(), why: error.to_string() }),
            },
        }
    }

    /// How many messages were given up.
    pub fn failed(&self) -> u64 {
        self.context.fares.failed.get()
    }

    /// How often a message had to wait for room.
    pub fn waited(&self) -> u64 {
        self.waited.load(Ordering::Relaxed)
    }

    /// How many messages are on their way.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.context.fares.out()).unwrap_or(usize::MAX)
    }

    /// True if messages are on their way and none has arrived for so long.
    pub(super) fn is_stuck(&self, since: Duration) -> bool {
        self.context.fares.is_stuck(since)
    }

    /// What stands in the way of sending, if it is known.
    pub fn problem(&self) -> Option<KafkaError> {
        self.context.watch.cause()
    }

    /// Waits until everything is written, for so long at most; says how many messages were not.
    pub async fn flush(&self, at_most: Duration) -> usize {
        let until = Instant::now() + at_most;
        while self.in_flight() > 0 && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.in_flight()
    }
}
