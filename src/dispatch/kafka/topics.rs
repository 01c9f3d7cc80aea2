//! The names of the topics and what each is to be like.

use std::collections::BTreeMap;

use crate::dispatch::kafka::settings::{KafkaSettings, MESSAGE_SLACK};
use crate::proto::MAX_MESSAGE_BYTES;
use crate::task::{DEFAULT_QUEUE, Phase};

/// 80 days.
const RETENTION_MS: u64 = 6_912_000_000;

/// The streams of messages there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Outcome,
    Control,
    Log,
    Heartbeat,
    Error,
    Metrics,
}

impl Topic {
    const ALL: [Self; 6] = [Self::Outcome, Self::Control, Self::Log, Self::Heartbeat, Self::Error, Self::Metrics];

    fn base(self) -> &'static str {
        match self {
            Self::Outcome => "event-task.outcome",
            Self::Control => "event-task.control",
            Self::Log => "event-task.log",
            Self::Heartbeat => "event-agent.heartbeat",
            Self::Error => "event-system.error",
            Self::Metrics => "event-system.metrics",
        }
    }
}

/// The names of topics, with the prefix of a cluster's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// Names with this prefix.
    pub fn new(settings: &KafkaSettings) -> Self {
        Self { prefix: settings.prefix.clone() }
    }

    /// The name of one stream.
    pub fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.base())
    }

    /// Where the tasks of a queue and a phase stand.
    pub fn tasks(&self, queue: &str, phase: Phase) -> String {
        let phase = match phase {
            Phase::Plan => "planning",
            Phase::Execute => "execution",
            Phase::Synthesize => "synthesis",
        };
        match queue {
            DEFAULT_QUEUE => format!("{}event-task.{phase}", self.prefix),
            other => format!("{}event-task.{phase}.{}", self.prefix, encoded(other)),
        }
    }

    /// The three topics of a queue.
    pub fn of_queue(&self, queue: &str) -> [String; 3] {
        [Phase::Plan, Phase::Execute, Phase::Synthesize].map(|phase| self.tasks(queue, phase))
    }

    /// Where messages of a topic go that cannot be done.
    pub fn dead_letters(topic: &str) -> String {
        format!("{topic}.dlq")
    }

    /// All topics that these queues need, dead letters with them.
    pub fn all<'q>(&self, queues: impl IntoIterator<Item = &'q str>) -> Vec<String> {
        let mut names: Vec<String> = Topic::ALL.into_iter().map(|topic| self.name(topic)).collect();
        for queue in queues {
            for topic in self.of_queue(queue) {
                names.push(Self::dead_letters(&topic));
                names.push(topic);
            }
        }
        names.sort();
        names.dedup();
        names
    }
}

/// A queue may have any name, a topic only letters, digits, `.`, `_` and `-`. `_` stands before the bytes of others,
/// in hexadecimal, so that two queues never share a topic.
fn encoded(queue: &str) -> String {
    let mut out = String::new();
    for byte in queue.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => out.push(char::from(byte)),
            other => out.push_str(&format!("_{other:02x}")),
        }
    }
    out
}

/// What a topic is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub partitions: i32,
    pub replication: i32,
    /// Settings by their names in Kafka.
    pub settings: BTreeMap<&'static str, String>,
}

impl TopicSpec {
    /// The settings of every topic; with `brokers` in the cluster, if replicas may be fewer.
    pub fn new(settings: &KafkaSettings, brokers: usize) -> Self {
        let there = i32::try_from(brokers).unwrap_or(i32::MAX).max(1);
        let replication = if settings.clamp { settings.replication.min(there) } else { settings.replication };
        let min_in_sync = settings.min_in_sync.min(replication);
        let own = BTreeMap::from([
            ("min.insync.replicas", min_in_sync.to_string()),
            ("retention.ms", RETENTION_MS.to_string()),
            ("max.message.bytes", (MAX_MESSAGE_BYTES + MESSAGE_SLACK).to_string()),
            // As the producer has it: the broker does not pack anew what is packed already.
            ("compression.type", "producer".to_owned()),
        ]);
        Self { partitions: settings.partitions, replication, settings: own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_never_share_a_topic() {
        let topics = Topics::new(&KafkaSettings::new("h:1"));
        assert_eq!(topics.tasks("default", Phase::Plan), "event-task.planning");
        assert_eq!(topics.tasks("gpu-2", Phase::Execute), "event-task.execution.gpu-2");
        let names = ["a b", "a_20b", "a.b", "A b", "ä", "a.b.dlq"].map(|queue| topics.tasks(queue, Phase::Synthesize));
        let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert!(
            names
                .iter()
                .flat_map(|name| name.bytes())
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        );
    }
}
