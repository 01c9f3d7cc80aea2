//! A worker that takes its tasks from Kafka and says there how they ended.
//!
//! It takes a lease by a heartbeat, and only then is a task's offset stored: from there on the scheduler notices when
//! work is lost. A task that must not begin twice is committed before it begins. An outcome is kept until a scheduler
//! says that it is recorded.

mod client;
mod intake;
mod kept;
mod session;
mod worker;

pub use worker::{KafkaCounters, KafkaWorker, KafkaWorkerOptions};
