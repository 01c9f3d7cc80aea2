//! What a Kafka client says of itself while it works: its errors, its lag, which partitions it has.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::dispatch::kafka::error::KafkaError;

/// A cause that was seen longer ago says nothing about an error of now.
const CAUSE_HOLDS: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Seen {
    refused: Option<(Instant, String)>,
    tls: Option<(Instant, String)>,
    last: Option<String>,
    fenced: bool,
    fatal: Option<String>,
    /// The partitions that are assigned, each with the number of its assignment.
    assigned: HashMap<(Arc<str>, i32), u64>,
    assignments: u64,
    lag: BTreeMap<(String, i32), i64>,
}

/// What was seen of a client, shared with whoever asks.
#[derive(Clone, Default)]
pub struct Watch {
    seen: Arc<Mutex<Seen>>,
    /// How often the assigned partitions have changed.
    changes: Arc<AtomicU64>,
    /// How often the client found itself at another cluster than before.
    moves: Arc<AtomicU64>,
    /// Which client it is whose words this one takes in, and the latest of those that came one after the other.
    client: u64,
    latest: Arc<AtomicU64>,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the client cannot work, if it is known.
    pub(super) fn cause(&self) -> Option<KafkaError> {
        let seen = self.seen();
        let fresh = |cause: &Option<(Instant, String)>| {
            cause.as_ref().filter(|(at, _)| at.elapsed() < CAUSE_HOLDS).map(|(_, why)| why.clone())
        };
        if let Some(why) = fresh(&seen.refused) {
            return Some(KafkaError::Refused { why });
        }
        fresh(&seen.tls).map(|why| KafkaError::Tls { why })
    }

    /// What the client said last.
    pub fn last(&self) -> Option<String> {
        self.seen().last.clone()
    }

    pub(super) fn fenced(&self) -> bool {
        self.seen().fenced
    }

    /// Another client takes the place of the one before: nothing is assigned to it yet. What that one still says while
    /// it ends counts no more.
    pub(super) fn begin_anew(&self) -> Self {
        let mut seen = self.seen();
        seen.fenced = false;
        seen.fatal = None;
        seen.assigned.clear();
        let client = self.latest.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.fetch_add(1, Ordering::Release);
        drop(seen);
        Self { client, ..self.clone() }
    }

    fn is_latest(&self) -> bool {
        self.latest.load(Ordering::Acquire) == self.client
    }

    /// How often the client found itself at another cluster than before.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    pub(super) fn fatal(&self) -> Option<String> {
        self.seen().fatal.clone()
    }

    /// The number of a partition's present assignment; none if it is not assigned.
    pub(super) fn assignment_of(&self, topic: &str, partition: i32) -> Option<u64> {
        self.seen().assigned.get(&(Arc::from(topic), partition)).copied()
    }

    /// How often the assigned partitions have changed.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The partitions that are assigned, each with the number of its assignment.
    pub(super) fn assignments(&self) -> Vec<(Arc<str>, i32, u64)> {
        let seen = self.seen();
        seen.assigned.iter().map(|((topic, partition), number)| (topic.clone(), *partition, *number)).collect()
    }

    /// The partitions that are assigned, in order.
    pub fn assigned(&self) -> Vec<(String, i32)> {
        let mut assigned: Vec<(String, i32)> =
            self.seen().assigned.keys().map(|(topic, partition)| (topic.to_string(), *partition)).collect();
        assigned.sort();
        assigned
    }

    /// How many messages of each partition are still to be read, as of some seconds ago.
    pub(super) fn lag(&self) -> BTreeMap<(String, i32), i64> {
        self.seen().lag.clone()
    }

    pub(super) fn assign(&self, partitions: &TopicPartitionList) {
        let mut seen = self.seen();
        if !self.is_latest() {
            return;
        }
        for element in partitions.elements() {
            seen.assignments += 1;
            let number = seen.assignments;
            seen.assigned.insert((Arc::from(element.topic()), element.partition()), number);
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn revoke(&self, partitions: &TopicPartitionList) {
        let mut seen = self.seen();
        if !self.is_latest() {
            return;
        }
        for element in partitions.elements() {
            seen.assigned.remove(&(Arc::from(element.topic()), element.partition()));
        }
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Takes in what a client said. Its words name brokers and mechanisms, never passwords.
    pub(super) fn note(&self, code: Option<RDKafkaErrorCode>, words: &str) {
        let words = words.trim();
        let short = words.rsplit_once("(after ").map_or(words, |(before, _)| before.trim_end()).to_owned();
        let lower = short.to_ascii_lowercase();
        let mut seen = self.seen();
        if !self.is_latest() {
            return;
        }
        let is_refused = code == Some(RDKafkaErrorCode::Authentication)
            || lower.contains("sasl authentication error")
            || lower.contains("authentication failed");
        let is_tls = code == Some(RDKafkaErrorCode::SSL)
            || lower.contains("ssl handshake failed")
            || lower.contains("ssl_handshake")
            || lower.contains("certificate verify failed")
            || lower.contains("connecting to a ssl listener")
            || lower.contains("ssl transport error")
            || lower.contains("ssl alert");
        if is_refused {
            seen.refused = Some((Instant::now(), short.clone()));
        } else if is_tls {
            seen.tls = Some((Instant::now(), short.clone()));
        }
        if code == Some(RDKafkaErrorCode::FencedInstanceId) || lower.contains("fenced") {
            seen.fenced = true;
        }
        if code == Some(RDKafkaErrorCode::Fatal) {
            seen.fatal = Some(short.clone());
        }
        // That all brokers are down is a consequence; what was said of one of them is the reason.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) || seen.last.is_none() {
            seen.last = Some(short);
        }
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        let is_error = matches!(
            level,
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error
        );
        if is_error && matches!(facility, "FAIL" | "ERROR" | "FATAL") {
            self.note(None, words);
        }
        if facility == "CLUSTERID" && words.contains("different ClusterId") {
            self.moves.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.note(error.rdkafka_error_code(), reason);
    }

    fn stats(&self, statistics: Statistics) {
        let mut lag = BTreeMap::new();
        for (name, topic) in &statistics.topics {
            for (number, partition) in &topic.partitions {
                if *number >= 0 && partition.consumer_lag >= 0 {
                    lag.insert((name.clone(), *number), partition.consumer_lag);
                }
            }
        }
        self.seen().lag = lag;
    }
}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            // Before the assignment takes effect, so that no message comes of a partition without a number.
            Rebalance::Assign(partitions) => self.assign(partitions),
            Rebalance::Revoke(partitions) => self.revoke(partitions),
            Rebalance::Error(error) => self.note(error.rdkafka_error_code(), &error.to_string()),
        }
    }
}

/// Asks the cluster what there is. It tries for some time, but not once it is known that it is in vain.
pub(super) fn fetch_metadata(
    client: &BaseConsumer<Watch>,
    topic: Option<&str>,
    brokers: &str,
    at_most: Duration,
) -> Result<Metadata, KafkaError> {
    let watch = client.context().clone();
    let until = Instant::now() + at_most;
    loop {
        let error = match client.fetch_metadata(topic, Duration::from_millis(500)) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        // What the client has to say of its connections is told only to who polls.
        let polls = Instant::now() + Duration::from_millis(100);
        while Instant::now() < polls {
            // Errors go to the context; messages there are none.
            let _ = client.poll(Duration::from_millis(10));
        }
        if watch.cause().is_some() || Instant::now() >= until {
            return Err(KafkaError::from_client(brokers, &error, &watch));
        }
    }
}
