//! What a consumer reads, and where in each partition it begins.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::dispatch::kafka::context::{Watch, fetch_metadata};
use crate::dispatch::kafka::error::KafkaError;

/// How long answers of the cluster are waited for at the start.
const PATIENCE: Duration = Duration::from_secs(15);
/// How far back a client looks that takes the place of another.
const LOOK_BACK: Duration = Duration::from_mins(10);

/// Where reading begins when nothing was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Earliest,
    Latest,
    /// As far back as this.
    Ago(Duration),
}

/// What is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// Shares the partitions of topics with the others of a group. A member with a name keeps its part over a restart.
    Group { group: String, member: Option<String>, topics: Vec<String> },
    /// Reads all partitions, whoever else does. With a group, it goes on where it has committed.
    All { group: Option<String>, topics: Vec<String>, from: From },
}

impl Subscription {
    /// The same for a client that goes on with a cluster that is another than before.
    pub(super) fn elsewhere(&mut self) {
        match self {
            // What was sent in between is read too.
            Self::All { from, .. } if *from == From::Latest => *from = From::Ago(LOOK_BACK),
            Self::All { .. } => {}
            // The client before may have joined when there were no topics yet, and whoever joins again under its name is
            // given its part again: nothing.
            Self::Group { member, .. } => *member = None,
        }
    }
}

/// Begins to read what is asked for. It may wait for the cluster.
pub(super) fn subscribe(
    consumer: &BaseConsumer<Watch>,
    brokers: &str,
    subscription: &Subscription,
) -> Result<(), KafkaError> {
    let failed = |error: ClientError| KafkaError::from_client(brokers, &error, consumer.context());
    match subscription {
        Subscription::Group { topics, .. } => {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            consumer.subscribe(&names).map_err(failed)
        }
        Subscription::All { group, topics, from } => {
            let mut all = TopicPartitionList::new();
            for topic in topics {
                let metadata = fetch_metadata(consumer, Some(topic), brokers, PATIENCE)?;
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                let partitions = found.map_or(0, |found| found.partitions().len());
                if partitions == 0 {
                    return Err(KafkaError::Topic { topic: topic.clone(), why: "it does not exist".to_owned() });
                }
                for partition in 0..partitions {
                    all.add_partition(topic, i32::try_from(partition).unwrap_or(i32::MAX));
                }
            }
            let start = patiently(consumer, || beginnings(consumer, &all, group.is_some(), *from)).map_err(failed)?;
            consumer.context().assign(&start);
            consumer.assign(&start).map_err(failed)
        }
    }
}

/// A topic that was made a moment ago has no leader yet, and a broker that was just started no coordinator.
fn patiently<T>(
    consumer: &BaseConsumer<Watch>,
    mut ask: impl FnMut() -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask() {
            Err(_) if Instant::now() < until && consumer.context().cause().is_none() => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

/// Where to begin in each partition: where it was committed, or as far back as asked for.
fn beginnings(
    consumer: &BaseConsumer<Watch>,
    all: &TopicPartitionList,
    has_group: bool,
    from: From,
) -> Result<TopicPartitionList, ClientError> {
    let otherwise = match from {
        From::Earliest => all_at(all, Offset::Beginning)?,
        From::Latest => all_at(all, Offset::End)?,
        From::Ago(length) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let time = i64::try_from(now.saturating_sub(length).as_millis()).unwrap_or(0);
            let at = all_at(all, Offset::Offset(time))?;
            consumer.offsets_for_times(at, PATIENCE)?
        }
    };
    // The end is asked for as a number: what arrives before the first fetch is read too.
    let mut start = TopicPartitionList::new();
    let committed = if has_group { Some(consumer.committed_offsets(all.clone(), PATIENCE)?) } else { None };
    for element in otherwise.elements() {
        let (topic, partition) = (element.topic(), element.partition());
        let known =
            committed.as_ref().and_then(|list| list.find_partition(topic, partition)).map(|found| found.offset());
        let offset = match (known, element.offset()) {
            (Some(offset @ Offset::Offset(_)), _) => offset,
            (_, Offset::End | Offset::Invalid) => {
                Offset::Offset(consumer.fetch_watermarks(topic, partition, PATIENCE)?.1)
            }
            (_, other) => other,
        };
        start.add_partition_offset(topic, partition, offset)?;
    }
    Ok(start)
}

fn all_at(all: &TopicPartitionList, offset: Offset) -> Result<TopicPartitionList, ClientError> {
    let mut list = all.clone();
    list.set_all_offsets(offset)?;
    Ok(list)
}
