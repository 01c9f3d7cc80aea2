//! Kafka as the way between schedulers and workers: settings, topics, a producer, a consumer, and the scheduler's end
//! of the bus.
//!
//! Kafka is a transport here, not the truth: what it loses is sent again from the journal's knowledge. The worker's end
//! is in [`crate::worker`].

mod admin;
mod bus;
mod check;
mod consumer;
mod context;
mod error;
mod lookout;
mod offsets;
mod producer;
mod settings;
mod subscription;
mod topics;
mod upkeep;
mod wire;

pub use admin::{Admin, TopicDifference};
pub use bus::{Bus, BusCounters, BusOptions, Parcels};
pub use check::{Finding, Level, check};
pub use consumer::{Consumer, Lag, Received};
pub use context::Watch;
pub use error::KafkaError;
pub(crate) use lookout::{LOOK, Lookout};
pub use offsets::{Offsets, Place};
pub use producer::{Producer, Record, Sent};
pub use settings::{Compression, KafkaSettings, Mechanism, Protocol};
pub use subscription::{From, Subscription};
pub use topics::{Topic, TopicSpec, Topics};
pub use wire::{CONTENT_TYPE, HEADERS, decode, encode, error_report, header, now};
