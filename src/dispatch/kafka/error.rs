//! What can go wrong with Kafka, in words that say what to do next.

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};

use crate::dispatch::kafka::context::Watch;

/// Why something with Kafka did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    #[error("{name}: {problem}")]
    Setting { name: &'static str, problem: String },
    #[error("no Kafka broker answers at {brokers}: {why}; check KAFKA_BROKERS and that the broker runs")]
    Unreachable { brokers: String, why: String },
    #[error(
        "Kafka refuses the name or the password: {why}; check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM"
    )]
    Refused { why: String },
    #[error(
        "TLS with Kafka fails: {why}; check KAFKA_SECURITY_PROTOCOL and KAFKA_SSL_CA_LOCATION, and the certificate if the broker asks for one"
    )]
    Tls { why: String },
    #[error(
        "the Kafka cluster has {have} broker(s), and topics want {want} replicas; start more brokers, set \
         KAFKA_REPLICATION_FACTOR, or set KAFKA_CLAMP_REPLICATION=true to take as many as there are"
    )]
    TooFewBrokers { have: usize, want: usize },
    #[error("topic {topic}: {why}")]
    Topic { topic: String, why: String },
    #[error("MESSAGE_TOO_LARGE: {bytes} bytes for topic {topic}; the largest message has {max}")]
    TooLarge { topic: String, bytes: usize, max: usize },
    #[error("Kafka took no message for topic {topic}: {why}")]
    Send { topic: String, why: String },
    #[error("reading from Kafka: {why}")]
    Consume { why: String },
    #[error("another process reads as `{name}` in the same group; give every worker a name of its own")]
    Fenced { name: String },
    #[error("the connection to Kafka is closed")]
    Closed,
}

impl KafkaError {
    /// What lies behind an error of the client: if it could not connect, the reason that was seen last says more.
    pub(super) fn from_client(brokers: &str, error: &ClientError, watch: &Watch) -> Self {
        if let Some(cause) = watch.cause() {
            return cause;
        }
        match error {
            ClientError::ClientCreation(why) => Self::from_creation(why),
            ClientError::ClientConfig(_, why, key, _) => {
                Self::Consume { why: format!("the client refuses its setting `{key}`: {why}") }
            }
            other => {
                let why = watch.last().unwrap_or_else(|| other.to_string());
                Self::Unreachable { brokers: brokers.to_owned(), why }
            }
        }
    }

    /// Certificates and keys are read when a client is made.
    fn from_creation(why: &str) -> Self {
        let lower = why.to_ascii_lowercase();
        if ["ssl", "certificate", ".pem", "private key"].iter().any(|word| lower.contains(word)) {
            Self::Tls { why: why.to_owned() }
        } else {
            Self::Consume { why: why.to_owned() }
        }
    }

    /// What a failed delivery means.
    pub(super) fn from_delivery(topic: &str, bytes: usize, code: RDKafkaErrorCode) -> Self {
        match code {
            RDKafkaErrorCode::MessageSizeTooLarge => Self::too_large(topic, bytes),
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition => {
                let why = "it does not exist, and brokers make none by themselves; `tol doctor` says what is missing";
                Self::Topic { topic: topic.to_owned(), why: why.to_owned() }
            }
            other => Self::Send { topic: topic.to_owned(), why: other.to_string() },
        }
    }

    pub(super) fn too_large(topic: &str, bytes: usize) -> Self {
        Self::TooLarge { topic: topic.to_owned(), bytes, max: crate::proto::MAX_MESSAGE_BYTES }
    }
}
