//! Topics are made as they should be, and held against that when they are there already.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode;

use crate::dispatch::kafka::context::{Watch, fetch_metadata};
use crate::dispatch::kafka::error::KafkaError;
use crate::dispatch::kafka::settings::KafkaSettings;
use crate::dispatch::kafka::topics::TopicSpec;

/// How long a cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A topic that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDifference {
    pub topic: String,
    /// Which setting: `partitions`, `replicas`, or Kafka's own name. `missing` if there is no such topic.
    pub setting: String,
    pub is: String,
    pub wanted: String,
}

impl fmt::Display for TopicDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, setting, is, wanted } = self;
        if setting == "missing" {
            return write!(formatter, "topic {topic} does not exist");
        }
        write!(formatter, "topic {topic}: {setting} is {is}, should be {wanted}")
    }
}

/// One topic as the cluster describes it.
struct Described {
    partitions: i32,
    replicas: i32,
}

/// Makes topics and looks at them.
pub struct Admin {
    client: AdminClient<Watch>,
    /// Asks for what there is. Unlike the other client, it tells why it cannot connect.
    asking: Arc<BaseConsumer<Watch>>,
    watch: Watch,
    settings: KafkaSettings,
}

impl Admin {
    /// A client for the topics of a cluster. Nothing is connected yet.
    pub fn new(settings: &KafkaSettings) -> Result<Self, KafkaError> {
        let watch = Watch::default();
        let mut config = settings.client_config("tol-admin");
        config.set_log_level(RDKafkaLogLevel::Error);
        let failed = |error| KafkaError::from_client(&settings.brokers, &error, &watch);
        let client = AdminClient::from_config_and_context(&config, watch.clone()).map_err(failed)?;
        // That the cluster is another than before is said as a warning.
        config.set_log_level(RDKafkaLogLevel::Warning);
        let asking = Arc::new(BaseConsumer::from_config_and_context(&config, watch.clone()).map_err(failed)?);
        Ok(Self { client, asking, watch, settings: settings.clone() })
    }

    /// How many brokers the cluster has. It waits until one answers, for some seconds.
    pub async fn brokers(&self) -> Result<usize, KafkaError> {
        Ok(self.metadata().await?.0)
    }

    /// The topics that there are, and how many brokers.
    async fn metadata(&self) -> Result<(usize, BTreeMap<String, Described>), KafkaError> {
        let (asking, brokers) = (self.asking.clone(), self.settings.brokers.clone());
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = fetch_metadata(&asking, None, &brokers, PATIENCE)?;
            let topics = metadata.topics().iter().map(|topic| {
                let replicas = topic.partitions().iter().map(|partition| partition.replicas().len()).min();
                let described = Described {
                    partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
                    replicas: i32::try_from(replicas.unwrap_or(0)).unwrap_or(i32::MAX),
                };
                (topic.name().to_owned(), described)
            });
            Ok((metadata.brokers().len(), topics.collect()))
        });
        asked.await.map_err(|_| KafkaError::Closed)?
    }

    /// How many partitions a topic has.
    pub async fn partitions(&self, topic: &str) -> Result<i32, KafkaError> {
        match self.metadata().await?.1.get(topic) {
            Some(described) => Ok(described.partitions),
            None => Err(KafkaError::Topic { topic: topic.to_owned(), why: "it does not exist".to_owned() }),
        }
    }

    /// Makes those of these topics that are missing, and says how the others differ from what they should be.
    pub async fn ensure(&self, topics: &[String]) -> Result<Vec<TopicDifference>, KafkaError> {
        let (brokers, there) = self.metadata().await?;
        let spec = TopicSpec::new(&self.settings, brokers);
        let missing: Vec<&String> = topics.iter().filter(|topic| !there.contains_key(*topic)).collect();
        if !missing.is_empty() {
            self.create(&missing, &spec, brokers).await?;
        }
        let present: Vec<String> = topics.iter().filter(|topic| there.contains_key(*topic)).cloned().collect();
        self.compare(&present, &there, &spec).await
    }

    /// Makes those of these topics that are missing.
    pub(super) async fn restore(&self, topics: &[String]) -> Result<(), KafkaError> {
        let (brokers, there) = self.metadata().await?;
        let missing: Vec<&String> = topics.iter().filter(|topic| !there.contains_key(*topic)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.create(&missing, &TopicSpec::new(&self.settings, brokers), brokers).await
    }

    /// True if these topics are all there; and how often the cluster has been found to be another one.
    pub(super) async fn look(&self, topics: &[String]) -> Result<(bool, u64), KafkaError> {
        let (_, there) = self.metadata().await?;
        let asking = self.asking.clone();
        // What the client has to say is told only to who polls; messages there are none.
        let _ = tokio::task::spawn_blocking(move || asking.poll(Duration::from_millis(10)).is_some()).await;
        Ok((topics.iter().all(|topic| there.contains_key(topic)), self.watch.moves()))
    }

    /// Removes topics with all that is in them; one that is not there is passed over.
    pub async fn remove(&self, topics: &[String]) -> Result<(), KafkaError> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let removed = self.client.delete_topics(&names, &options).await;
        removed.map(drop).map_err(|error| KafkaError::from_client(&self.settings.brokers, &error, &self.watch))
    }

    /// How these topics differ from what they should be. Nothing is changed.
    pub async fn differences(&self, topics: &[String]) -> Result<Vec<TopicDifference>, KafkaError> {
        let (brokers, there) = self.metadata().await?;
        let spec = TopicSpec::new(&self.settings, brokers);
        let (present, missing): (Vec<String>, Vec<String>) =
            topics.iter().cloned().partition(|topic| there.contains_key(topic));
        let mut differences = self.compare(&present, &there, &spec).await?;
        differences.extend(missing.into_iter().map(|topic| TopicDifference {
            topic,
            setting: "missing".to_owned(),
            is: String::new(),
            wanted: String::new(),
        }));
        Ok(differences)
    }

    async fn create(&self, topics: &[&String], spec: &TopicSpec, brokers: usize) -> Result<(), KafkaError> {
        let want = usize::try_from(spec.replication).unwrap_or(usize::MAX);
        if brokers < want {
            return Err(KafkaError::TooFewBrokers { have: brokers, want });
        }
        let new = topics.iter().map(|topic| {
            let start = NewTopic::new(topic, spec.partitions, TopicReplication::Fixed(spec.replication));
            spec.settings.iter().fold(start, |topic, (name, value)| topic.set(name, value))
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
        let results = self
            .client
            .create_topics(&new, &options)
            .await
            .map_err(|error| KafkaError::from_client(&self.settings.brokers, &error, &self.watch))?;
        for result in results {
            match result {
                // Another process was quicker.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    return Err(KafkaError::TooFewBrokers { have: brokers, want });
                }
                Err((topic, code)) => {
                    return Err(KafkaError::Topic { topic, why: format!("it cannot be made: {code}") });
                }
            }
        }
        self.wait_for(topics).await
    }

    /// A topic that was just made may be unknown to a broker for a moment.
    async fn wait_for(&self, topics: &[&String]) -> Result<(), KafkaError> {
        for _ in 0..100 {
            let (_, there) = self.metadata().await?;
            let is_ready = |topic: &&&String| there.get(**topic).is_some_and(|described| described.partitions > 0);
            if topics.iter().filter(is_ready).count() == topics.len() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let names: Vec<&str> = topics.iter().map(|topic| topic.as_str()).collect();
        Err(KafkaError::Topic { topic: names.join(", "), why: "made, and still unknown after 5 s".to_owned() })
    }

    async fn compare(
        &self,
        topics: &[String],
        there: &BTreeMap<String, Described>,
        spec: &TopicSpec,
    ) -> Result<Vec<TopicDifference>, KafkaError> {
        let mut differences = Vec::new();
        let mut differs = |topic: &str, setting: &str, is: String, wanted: String| {
            differences.push(TopicDifference { topic: topic.to_owned(), setting: setting.to_owned(), is, wanted });
        };
        for topic in topics {
            let Some(described) = there.get(topic) else { continue };
            // More is as good.
            if described.partitions < spec.partitions {
                differs(topic, "partitions", described.partitions.to_string(), spec.partitions.to_string());
            }
            if described.replicas < spec.replication {
                differs(topic, "replicas", described.replicas.to_string(), spec.replication.to_string());
            }
        }
        let specifiers: Vec<ResourceSpecifier<'_>> =
            topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        if specifiers.is_empty() {
            return Ok(differences);
        }
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let configs = self
            .client
            .describe_configs(specifiers.iter(), &options)
            .await
            .map_err(|error| KafkaError::from_client(&self.settings.brokers, &error, &self.watch))?;
        for (topic, config) in topics.iter().zip(configs) {
            let config = config
                .map_err(|code| KafkaError::Topic { topic: topic.clone(), why: format!("its settings: {code}") })?;
            for (name, wanted) in &spec.settings {
                let is = config.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
                let is_enough = match (is.parse::<u64>(), wanted.parse::<u64>()) {
                    (Ok(is), Ok(wanted)) if *name == "max.message.bytes" => is >= wanted,
                    _ => is == *wanted,
                };
                if !is_enough {
                    differs(topic, name, is, wanted.clone());
                }
            }
        }
        Ok(differences)
    }
}
