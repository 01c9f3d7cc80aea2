//! How a Kafka cluster is reached: read from names and values that the caller takes from its environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;

use crate::dispatch::kafka::error::KafkaError;
use crate::proto::MAX_MESSAGE_BYTES;

/// Room for keys, headers and the framing of a batch around the largest message.
pub(super) const MESSAGE_SLACK: usize = 64 * 1024;

/// `KAFKA_SECURITY_PROTOCOL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// `KAFKA_SASL_MECHANISM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// `KAFKA_COMPRESSION`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    #[default]
    Zstd,
    Lz4,
    Snappy,
    None,
}

impl Compression {
    /// The name that Kafka has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::None => "none",
        }
    }
}

/// How a cluster is reached and what its topics are to be like.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    pub protocol: Protocol,
    pub mechanism: Option<Mechanism>,
    pub username: Option<String>,
    password: Option<String>,
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// Stands before the name of every topic.
    pub prefix: String,
    pub compression: Compression,
    pub partitions: i32,
    pub replication: i32,
    pub min_in_sync: i32,
    /// With fewer brokers than `replication`: take as many replicas as there are brokers, instead of an error.
    pub clamp: bool,
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("protocol", &self.protocol)
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("prefix", &self.prefix)
            .field("compression", &self.compression)
            .field("replication", &self.replication)
            .field("clamp", &self.clamp)
            .finish_non_exhaustive()
    }
}

impl KafkaSettings {
    /// Plain settings for these brokers.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            protocol: Protocol::default(),
            mechanism: None,
            username: None,
            password: None,
            ca: None,
            certificate: None,
            key: None,
            prefix: String::new(),
            compression: Compression::default(),
            partitions: 3,
            replication: 2,
            min_in_sync: 2,
            clamp: false,
        }
    }

    /// Reads the variables `KAFKA_…`. A variable that is set to nothing counts as not set.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Self, KafkaError> {
        let get = |name: &str| env.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
        let bad = |name: &'static str, value: &str, want: &str| KafkaError::Setting {
            name,
            problem: format!("`{value}` is not {want}"),
        };
        let brokers = get("KAFKA_BROKERS").ok_or_else(|| KafkaError::Setting {
            name: "KAFKA_BROKERS",
            problem: "it is not set; name the brokers as HOST:PORT, separated by commas".to_owned(),
        })?;
        for broker in brokers.split(',').map(str::trim) {
            let port =
                broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(port)) if port > 0) {
                return Err(bad("KAFKA_BROKERS", broker, "of the form HOST:PORT"));
            }
        }
        let mut settings = Self::new(brokers.split(',').map(str::trim).collect::<Vec<_>>().join(","));
        settings.mechanism = match get("KAFKA_SASL_MECHANISM") {
            None => None,
            Some(text) => Some(match text.to_ascii_uppercase().as_str() {
                "PLAIN" => Mechanism::Plain,
                "SCRAM-SHA-256" => Mechanism::ScramSha256,
                "SCRAM-SHA-512" => Mechanism::ScramSha512,
                _ => return Err(bad("KAFKA_SASL_MECHANISM", text, "one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")),
            }),
        };
        settings.protocol = match get("KAFKA_SECURITY_PROTOCOL") {
            None => Protocol::Plaintext,
            Some(text) => match text.to_ascii_uppercase().as_str() {
                "PLAINTEXT" => Protocol::Plaintext,
                "SSL" => Protocol::Ssl,
                "SASL_PLAINTEXT" => Protocol::SaslPlaintext,
                "SASL_SSL" => Protocol::SaslSsl,
                _ => {
                    let want = "one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL";
                    return Err(bad("KAFKA_SECURITY_PROTOCOL", text, want));
                }
            },
        };
        settings.username = get("KAFKA_SASL_USERNAME").map(str::to_owned);
        // A password may begin or end with a space.
        settings.password = env.get("KAFKA_SASL_PASSWORD").filter(|value| !value.is_empty()).cloned();
        let file = |name: &str| get(name).map(PathBuf::from);
        settings.ca = file("KAFKA_SSL_CA_LOCATION");
        settings.certificate = file("KAFKA_SSL_CERTIFICATE_LOCATION");
        settings.key = file("KAFKA_SSL_KEY_LOCATION");
        settings.prefix = get("KAFKA_TOPIC_PREFIX").unwrap_or_default().to_owned();
        settings.compression = match get("KAFKA_COMPRESSION").map(str::to_ascii_lowercase).as_deref() {
            None | Some("zstd") => Compression::Zstd,
            Some("lz4") => Compression::Lz4,
            Some("snappy") => Compression::Snappy,
            Some("none") => Compression::None,
            Some(text) => return Err(bad("KAFKA_COMPRESSION", text, "one of zstd, lz4, snappy, none")),
        };
        let number = |name: &'static str, default: i32| match get(name) {
            None => Ok(default),
            Some(text) => match text.parse::<i32>() {
                Ok(number) if (1..=1000).contains(&number) => Ok(number),
                _ => Err(bad(name, text, "a number from 1 to 1000")),
            },
        };
        settings.partitions = number("KAFKA_PARTITIONS", 3)?;
        settings.replication = number("KAFKA_REPLICATION_FACTOR", 2)?;
        settings.min_in_sync = number("KAFKA_MIN_INSYNC_REPLICAS", settings.replication.min(2))?;
        settings.clamp = match get("KAFKA_CLAMP_REPLICATION") {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(text) => return Err(bad("KAFKA_CLAMP_REPLICATION", text, "`true` or `false`")),
        };
        settings.check()?;
        Ok(settings)
    }

    /// Says what fits not together.
    fn check(&self) -> Result<(), KafkaError> {
        let problem = |name: &'static str, problem: String| Err(KafkaError::Setting { name, problem });
        if self.protocol.has_sasl() {
            let protocol = self.protocol.as_str().to_ascii_uppercase();
            if self.mechanism.is_none() {
                let how = "set it to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
                return problem("KAFKA_SASL_MECHANISM", format!("{protocol} needs it; {how}"));
            }
            if self.username.is_none() {
                return problem("KAFKA_SASL_USERNAME", format!("{protocol} needs it"));
            }
            if self.password.is_none() {
                return problem("KAFKA_SASL_PASSWORD", format!("{protocol} needs it"));
            }
        } else if self.mechanism.is_some() || self.username.is_some() || self.password.is_some() {
            let what =
                format!("it is {}, which uses no name and password", self.protocol.as_str().to_ascii_uppercase());
            return problem(
                "KAFKA_SECURITY_PROTOCOL",
                format!("{what}, but KAFKA_SASL_… is set; set it to SASL_SSL or SASL_PLAINTEXT"),
            );
        }
        let files = [
            ("KAFKA_SSL_CA_LOCATION", &self.ca),
            ("KAFKA_SSL_CERTIFICATE_LOCATION", &self.certificate),
            ("KAFKA_SSL_KEY_LOCATION", &self.key),
        ];
        for (name, file) in files {
            let Some(file) = file else { continue };
            if !self.protocol.has_tls() {
                let protocol = self.protocol.as_str().to_ascii_uppercase();
                return problem(
                    name,
                    format!("{protocol} uses no TLS; set KAFKA_SECURITY_PROTOCOL to SSL or SASL_SSL"),
                );
            }
            if let Err(error) = std::fs::File::open(file) {
                return problem(name, format!("{}: {error}", file.display()));
            }
        }
        match (&self.certificate, &self.key) {
            (Some(_), None) => problem("KAFKA_SSL_KEY_LOCATION", "a certificate needs its key".to_owned()),
            (None, Some(_)) => problem("KAFKA_SSL_CERTIFICATE_LOCATION", "a key needs its certificate".to_owned()),
            (Some(_), Some(_)) | (None, None) => self.check_topics(),
        }
    }

    fn check_topics(&self) -> Result<(), KafkaError> {
        let problem = |name: &'static str, problem: String| Err(KafkaError::Setting { name, problem });
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        if !self.prefix.chars().all(is_plain) || self.prefix.len() > 100 {
            let want = "a prefix is at most 100 letters, digits, `.`, `_`, `-`";
            return problem("KAFKA_TOPIC_PREFIX", want.to_owned());
        }
        if self.min_in_sync > self.replication {
            let (min, all) = (self.min_in_sync, self.replication);
            return problem("KAFKA_MIN_INSYNC_REPLICAS", format!("{min} of {all} replicas can never be in sync"));
        }
        Ok(())
    }

    /// The same settings with a name and a password.
    #[must_use]
    pub fn with_sasl(mut self, mechanism: Mechanism, username: &str, password: &str) -> Self {
        self.mechanism = Some(mechanism);
        self.username = Some(username.to_owned());
        self.password = Some(password.to_owned());
        self
    }

    /// What every client needs.
    pub(super) fn client_config(&self, name: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        let bytes = (MAX_MESSAGE_BYTES + MESSAGE_SLACK).to_string();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", name)
            .set("security.protocol", self.protocol.as_str())
            .set("message.max.bytes", &bytes)
            .set("receive.message.max.bytes", (8 * (MAX_MESSAGE_BYTES + MESSAGE_SLACK)).to_string())
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            .set("broker.address.ttl", "1000")
            .set("topic.metadata.refresh.interval.ms", "60000")
            .set("allow.auto.create.topics", "false")
            // 20 lines a second about one broken connection help nobody.
            .set("log.connection.close", "false");
        if self.protocol.has_tls() {
            // Without a file of its own, the system's certificates are looked for where distributions put them.
            config.set("ssl.ca.location", path_or(self.ca.as_deref(), "probe"));
            if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
                config.set("ssl.certificate.location", certificate.to_string_lossy());
                config.set("ssl.key.location", key.to_string_lossy());
            }
        }
        if self.protocol.has_sasl()
            && let (Some(mechanism), Some(username), Some(password)) = (self.mechanism, &self.username, &self.password)
        {
            config.set("sasl.mechanism", mechanism.as_str());
            config.set("sasl.username", username);
            config.set("sasl.password", password);
        }
        config
    }
}

fn path_or(path: Option<&Path>, default: &str) -> String {
    path.map_or_else(|| default.to_owned(), |path| path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<KafkaSettings, String> {
        let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        KafkaSettings::from_env(&env).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_the_topics() {
        let settings = read(&[("KAFKA_BROKERS", "one:9092, two:9092"), ("KAFKA_SASL_USERNAME", "")]).unwrap();
        assert_eq!(settings.brokers, "one:9092,two:9092");
        assert_eq!((settings.partitions, settings.replication, settings.min_in_sync), (3, 2, 2));
        assert_eq!((settings.compression, settings.clamp), (Compression::Zstd, false));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        for (pairs, words) in [
            (&[][..], "KAFKA_BROKERS"),
            (&[("KAFKA_BROKERS", "here")], "`here` is not of the form HOST:PORT"),
            (&[("KAFKA_BROKERS", "h:1"), ("KAFKA_SECURITY_PROTOCOL", "tls")], "one of PLAINTEXT"),
            (&[("KAFKA_BROKERS", "h:1"), ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl")], "KAFKA_SASL_MECHANISM"),
            (&[("KAFKA_BROKERS", "h:1"), ("KAFKA_SASL_USERNAME", "u")], "set it to SASL_SSL"),
            (&[("KAFKA_BROKERS", "h:1"), ("KAFKA_COMPRESSION", "gzip")], "one of zstd"),
            (&[("KAFKA_BROKERS", "h:1"), ("KAFKA_REPLICATION_FACTOR", "0")], "a number from 1"),
            (
                &[("KAFKA_BROKERS", "h:1"), ("KAFKA_REPLICATION_FACTOR", "1"), ("KAFKA_MIN_INSYNC_REPLICAS", "2")],
                "can never be in sync",
            ),
            (
                &[("KAFKA_BROKERS", "h:1"), ("KAFKA_SECURITY_PROTOCOL", "ssl"), ("KAFKA_SSL_CA_LOCATION", "/no/file")],
                "/no/file: No such file",
            ),
            (&[("KAFKA_BROKERS", "h:1"), ("KAFKA_SSL_CA_LOCATION", "/dev/null")], "uses no TLS"),
            (&[("KAFKA_BROKERS", "h:1"), ("KAFKA_TOPIC_PREFIX", "a/b")], "letters, digits"),
        ] {
            let error = read(pairs).unwrap_err();
            assert!(error.contains(words), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let settings = read(&[
            ("KAFKA_BROKERS", "h:1"),
            ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
            ("KAFKA_SASL_MECHANISM", "scram-sha-512"),
            ("KAFKA_SASL_USERNAME", "me"),
            ("KAFKA_SASL_PASSWORD", "xyzzy"),
        ])
        .unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("me") && !shown.contains("xyzzy"), "{shown}");
        assert_eq!(settings.client_config("c").get("sasl.password"), Some("xyzzy"));
        assert_eq!(settings.client_config("c").get("ssl.ca.location"), Some("probe"));
    }
}
