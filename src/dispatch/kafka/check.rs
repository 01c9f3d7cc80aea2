//! What `tol doctor` finds out about Kafka.

use crate::dispatch::kafka::admin::Admin;
use crate::dispatch::kafka::error::KafkaError;
use crate::dispatch::kafka::settings::KafkaSettings;
use crate::dispatch::kafka::topics::Topics;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Fine,
    Warning,
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Finding {
    fn fine(message: String) -> Self {
        Self { level: Level::Fine, message, help: None }
    }

    fn error(error: &KafkaError) -> Self {
        // The help stands in the error's own words.
        Self { level: Level::Error, message: error.to_string(), help: None }
    }
}

/// Looks at the cluster and the topics of these queues. It changes nothing.
pub async fn check(settings: &KafkaSettings, queues: &[&str]) -> Vec<Finding> {
    let admin = match Admin::new(settings) {
        Ok(admin) => admin,
        Err(error) => return vec![Finding::error(&error)],
    };
    let brokers = match admin.brokers().await {
        Ok(brokers) => brokers,
        Err(error) => return vec![Finding::error(&error)],
    };
    let mut findings = vec![Finding::fine(format!("Kafka answers at {}: {brokers} broker(s)", settings.brokers))];
    let want = usize::try_from(settings.replication).unwrap_or(usize::MAX);
    if brokers < want && !settings.clamp {
        findings.push(Finding::error(&KafkaError::TooFewBrokers { have: brokers, want }));
    } else if brokers < want {
        let message = format!("{brokers} broker(s) for {want} replicas: a broker that is lost takes messages with it");
        let help =
            Some("for production, run as many brokers as KAFKA_REPLICATION_FACTOR says, and one more".to_owned());
        findings.push(Finding { level: Level::Warning, message, help });
    }
    let topics = Topics::new(settings).all(queues.iter().copied());
    let differences = match admin.differences(&topics).await {
        Ok(differences) => differences,
        Err(error) => {
            findings.push(Finding::error(&error));
            return findings;
        }
    };
    if differences.is_empty() {
        findings.push(Finding::fine(format!("all {} topics are there and as they should be", topics.len())));
    }
    for difference in differences {
        let help = match difference.setting.as_str() {
            "missing" => "`tol serve --kafka` and `tol worker --kafka` make it when they start".to_owned(),
            "partitions" => {
                format!("kafka-topics.sh --alter --topic {} --partitions {}", difference.topic, difference.wanted)
            }
            "replicas" => "kafka-reassign-partitions.sh gives a topic more replicas".to_owned(),
            setting => format!(
                "kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {setting}={}",
                difference.topic, difference.wanted
            ),
        };
        findings.push(Finding { level: Level::Warning, message: difference.to_string(), help: Some(help) });
    }
    findings
}
