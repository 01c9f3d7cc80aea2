//! What a worker writes to Kafka: heartbeats, outcomes, lines of log, dead letters.

use std::sync::Arc;

use crate::artifact::{INLINE_LIMIT, Store, offload_outcome};
use crate::dispatch::LeaseKey;
use crate::dispatch::kafka::{
    CONTENT_TYPE, HEADERS, KafkaError, Producer, Received, Record, Sent, Topic, Topics, encode, error_report, header,
    now,
};
use crate::proto::{self, Form, v1};
use crate::task::{Failure, Outcome};

/// Writes what one worker has to say.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) topics: Topics,
    pub(super) producer: Producer,
    /// Where outcomes go that are too large for a message.
    pub(super) store: Option<Arc<dyn Store>>,
}

impl Client {
    async fn send(&self, topic: Topic, key: &str, envelope: &v1::Envelope) -> Result<Sent, KafkaError> {
        let topic = self.topics.name(topic);
        let failed = |error: proto::EnvelopeError| KafkaError::Send { topic: topic.clone(), why: error.to_string() };
        let payload = encode(envelope).map_err(failed)?;
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
            leases: leases.map(v1::LeaseKey::from).collect(),
            free: u32::try_from(free).unwrap_or(u32::MAX),
            sent_at_ms: now().0,
        };
        self.send(Topic::Heartbeat, &self.name, &proto::heartbeat(header(&self.name, None), beat)).await
    }

    /// An outcome as the bytes of its message. Outputs that are too large go into the store; without one, the outcome
    /// becomes a failure that says so. It may wait for the store.
    pub(super) fn outcome_bytes(&self, key: &LeaseKey, command: &str, outcome: &Outcome) -> Vec<u8> {
        let bytes = |outcome: v1::Outcome| {
            encode(&proto::outcome(header(&self.name, None), command.to_owned(), key.into(), outcome))
        };
        let packed = offload_outcome(outcome, self.store.as_deref(), Form::Protobuf, INLINE_LIMIT)
            .map_err(|error| error.to_string())
            .and_then(|outcome| bytes(outcome).map_err(|error| error.to_string()));
        // A failure of these words fits in any message; were it not so, the scheduler would see a lost worker.
        packed.unwrap_or_else(|why| {
            let failure = Outcome::failed(Failure::permanent(format!("the outcome cannot be sent: {why}")));
            bytes(v1::Outcome::from(&failure)).unwrap_or_default()
        })
    }

    pub(super) async fn outcome(&self, key: &LeaseKey, bytes: &[u8]) -> Result<Sent, KafkaError> {
        let topic = self.topics.name(Topic::Outcome);
        let record = Record { topic: &topic, partition: None, key: key.run.as_str(), headers: HEADERS, payload: bytes };
        self.producer.send(record).await
    }

    pub(super) async fn lines(&self, run: &str, lines: Vec<v1::LogLine>) -> Result<Sent, KafkaError> {
        self.send(Topic::Log, run, &proto::data_log(header(&self.name, None), lines)).await
    }

    /// Puts a message aside that cannot be done, and says so where errors are said. Returns once both are written.
    pub(super) async fn dead_letter(
        &self,
        record: &Received,
        code: &str,
        reason: &str,
        attempts: u32,
    ) -> Result<(), KafkaError> {
        let topic = Topics::dead_letters(&record.topic);
        let source = record.place().to_string();
        let attempts = attempts.to_string();
        let mut headers: Vec<(&str, &str)> = vec![
            ("reason", reason),
            ("code", code),
            ("source", &source),
            ("attempts", &attempts),
            ("worker", &self.name),
        ];
        headers.extend(record.content_type.as_deref().map(|form| (CONTENT_TYPE, form)));
        let key = String::from_utf8_lossy(record.key());
        let letter = Record { topic: &topic, partition: None, key: &key, headers: &headers, payload: record.payload() };
        let written = self.producer.send(letter).await?;
        let report = error_report(&self.name, code, reason, &source);
        let said = self.send(Topic::Error, &self.name, &report).await?;
        written.written().await?;
        said.written().await?;
        Ok(())
    }
}
