//! What a worker writes to Kafka: heartbeats, outcomes, lines of log, dead letters.

use crate::dispatch::LeaseKey;
use crate::dispatch::kafka::{
    CONTENT_TYPE, KafkaError, PROTOBUF, Producer, Received, Record, Sent, Topic, Topics, encode, envelope,
    error_report, now_ms, wire_key,
};
use crate::proto::{MAX_MESSAGE_BYTES, v1};
use crate::task::{Failure, Outcome};

/// Writes what one worker has to say.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) topics: Topics,
    pub(super) producer: Producer,
}

const HEADERS: &[(&str, &str)] = &[(CONTENT_TYPE, PROTOBUF)];

impl Client {
    async fn send(&self, topic: Topic, key: &str, envelope: &v1::Envelope) -> Result<Sent, KafkaError> {
        let (topic, payload) = (self.topics.name(topic), encode(envelope));
        self.producer.send(Record { topic: &topic, partition: None, key, headers: HEADERS, payload: &payload }).await
    }

    /// The worker lives and has these in work.
    pub(super) async fn heartbeat(
        &self,
        leases: impl Iterator<Item = &LeaseKey>,
        free: usize,
    ) -> Result<Sent, KafkaError> {
        let beat = v1::Heartbeat {
            worker: self.name.clone(),
            leases: leases.map(wire_key).collect(),
            free: u32::try_from(free).unwrap_or(u32::MAX),
            sent_at_ms: now_ms(),
        };
        let envelope = envelope(&self.name, v1::MessageType::Heartbeat, v1::envelope::Payload::Heartbeat(beat));
        self.send(Topic::Heartbeat, &self.name, &envelope).await
    }

    /// An outcome as the bytes of its message. One that is too large for any message becomes a failure that says so.
    pub(super) fn outcome_bytes(&self, key: &LeaseKey, outcome: &Outcome) -> Vec<u8> {
        let bytes = self.encoded(key, outcome);
        if bytes.len() <= MAX_MESSAGE_BYTES {
            return bytes;
        }
        let message = format!(
            "MESSAGE_TOO_LARGE: the outcome has {} bytes, and the largest message {MAX_MESSAGE_BYTES}; write large \
             outputs to a file or a store and give its name",
            bytes.len()
        );
        self.encoded(key, &Outcome::failed(Failure::permanent(message)))
    }

    fn encoded(&self, key: &LeaseKey, outcome: &Outcome) -> Vec<u8> {
        let payload = v1::envelope::Payload::Outcome(v1::Outcome::from(outcome));
        let mut envelope = envelope(&self.name, v1::MessageType::Event, payload);
        envelope.key = Some(wire_key(key));
        encode(&envelope)
    }

    pub(super) async fn outcome(&self, key: &LeaseKey, bytes: &[u8]) -> Result<Sent, KafkaError> {
        let topic = self.topics.name(Topic::Outcome);
        let record = Record { topic: &topic, partition: None, key: key.run.as_str(), headers: HEADERS, payload: bytes };
        self.producer.send(record).await
    }

    pub(super) async fn lines(&self, run: &str, lines: Vec<v1::LogLine>) -> Result<Sent, KafkaError> {
        let log = v1::LogLines { lines };
        let envelope = envelope(&self.name, v1::MessageType::Data, v1::envelope::Payload::Log(log));
        self.send(Topic::Log, run, &envelope).await
    }

    /// Puts a message aside that cannot be done, and says so where errors are said. Returns once both are written.
    pub(super) async fn dead_letter(&self, record: &Received, reason: &str, attempts: u32) -> Result<(), KafkaError> {
        let topic = Topics::dead_letters(&record.topic);
        let source = record.place().to_string();
        let attempts = attempts.to_string();
        let mut headers: Vec<(&str, &str)> =
            vec![("reason", reason), ("source", &source), ("attempts", &attempts), ("worker", &self.name)];
        headers.extend(record.header(CONTENT_TYPE).map(|form| (CONTENT_TYPE, form)));
        let key = String::from_utf8_lossy(&record.key);
        let letter = Record { topic: &topic, partition: None, key: &key, headers: &headers, payload: &record.payload };
        let written = self.producer.send(letter).await?;
        let report = error_report(&self.name, "UNDECODABLE", reason, &source);
        let said = self.send(Topic::Error, &self.name, &report).await?;
        written.written().await?;
        said.written().await?;
        Ok(())
    }
}
