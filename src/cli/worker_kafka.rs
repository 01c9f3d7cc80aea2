//! `tol worker --kafka`: takes tasks from Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::exit::{DONE, Failure};
use super::print::err;
use super::signals::Signals;
use super::worker::end_of_input;
use crate::dispatch::Perform;
use crate::dispatch::kafka::KafkaSettings;
use crate::handler::LogLine;
use crate::worker::kafka::{KafkaWorker, KafkaWorkerOptions};

/// How long the last words may take when work is cut off.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What a worker is, whatever brings its tasks.
pub struct Doing {
    pub options: KafkaWorkerOptions,
    pub performer: Arc<dyn Perform>,
    pub lines: mpsc::Receiver<LogLine>,
    pub until_stdin_ends: bool,
    pub drain_timeout: Duration,
}

/// The settings that the environment names.
pub fn settings(environment: &BTreeMap<String, String>) -> Result<KafkaSettings, Failure> {
    KafkaSettings::from_env(environment).map_err(|error| Failure::invalid(error.to_string()))
}

/// Takes tasks until a signal ends it.
pub async fn work(settings: &KafkaSettings, doing: Doing, signals: &mut Signals) -> Result<u8, Failure> {
    let Doing { options, performer, lines, until_stdin_ends, drain_timeout } = doing;
    let name = options.name.clone();
    let has_store = options.store.is_some();
    let failed = |error: crate::dispatch::kafka::KafkaError| Failure::failed(error.to_string());
    let mut worker = KafkaWorker::start(settings, options, performer, Some(lines)).await.map_err(failed)?;
    for difference in worker.differences() {
        err!("worker {name}: warning: {difference}");
    }
    err!("worker {name}: takes tasks from {}", settings.brokers);
    if !has_store {
        err!(
            "worker {name}: has no artifact store, so that outputs above 10 MiB fail; name that of the schedulers with \
             DATABASE_URL or --artifact-dir"
        );
    }
    let mut told = None;
    let mut looks = tokio::time::interval(Duration::from_secs(5));
    let mut input = std::pin::pin!(end_of_input(until_stdin_ends));
    loop {
        tokio::select! {
            _ = signals.next() => break,
            () = &mut input => {
                worker.drain(AT_ONCE).await;
                return Ok(DONE);
            }
            error = worker.ended() => return Err(Failure::failed(format!("the worker cannot go on: {error}"))),
            _ = looks.tick() => {
                // What stands in the way is told once, and that it does no longer.
                let problem = worker.problem().map(|error| error.to_string());
                if problem != told {
                    match &problem {
                        Some(words) => err!("worker {name}: {words}; it goes on trying"),
                        None => err!("worker {name}: Kafka is back"),
                    }
                    told = problem;
                }
            }
        }
    }
    err!("worker {name}: takes no more tasks, and ends when those in work have");
    let mut drain = std::pin::pin!(worker.drain(drain_timeout));
    tokio::select! {
        clean = &mut drain => {
            if !clean {
                err!("worker {name}: leaves with work or outcomes that no scheduler has taken in");
            }
        }
        _ = signals.next() => err!("worker {name}: ends what is in work now"),
    }
    Ok(DONE)
}
