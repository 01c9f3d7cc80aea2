//! Runs in the foreground whose steps go over the wire: a gateway on this machine, and one worker process of it.
//!
//! It is for trying out how a file behaves with workers. What is sent, leased, reported and recorded is the same as
//! with workers on other machines.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use clap::ValueEnum;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::exit::Failure;
use crate::dispatch::kafka::{Admin, Bus, BusOptions, KafkaError, KafkaSettings, Topics};
use crate::dispatch::{
    ANYTHING, BusMessage, Dispatch, Hub, LogSink, LogStream, Report, Stop, Terms, Verdict, WorkerLine,
};
use crate::gateway::{Gateway, GatewayConfig, Tokens};
use crate::handler::LogLine;
use crate::handler::process::Stream;
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::Task;

/// Where the steps of a foreground run are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DispatchMode {
    /// In this process
    #[default]
    Local,
    /// In a worker process, over gRPC
    Grpc,
    /// In a worker process, over the Kafka that KAFKA_BROKERS names
    Kafka,
}

/// Gives every task of a run to the one worker that it has on the bus, whatever queue it names.
struct OneQueue {
    hub: Arc<Hub>,
    queue: Arc<str>,
}

impl Dispatch for OneQueue {
    fn dispatch(&self, mut task: Task) {
        task.place.queue = self.queue.clone();
        task.place.capabilities.clear();
        self.hub.dispatch(task);
    }

    fn stop(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, how: Stop) {
        self.hub.stop(run, unit, token, how);
    }

    fn begin(&self, run: &RunId) {
        self.hub.begin(run);
    }

    fn answered(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, verdict: Verdict) {
        self.hub.answered(run, unit, token, verdict);
    }

    fn forget(&self, run: &RunId, ended: bool) {
        self.hub.forget(run, ended);
    }
}

/// The hub of a foreground run, and what it needs to be started.
pub struct Beginning {
    hub: Arc<Hub>,
    bus: Option<(Arc<str>, mpsc::UnboundedReceiver<BusMessage>)>,
}

impl Beginning {
    /// A hub that has no worker yet.
    pub fn new(reports: mpsc::UnboundedSender<Report>, is_kafka: bool) -> (Self, Arc<dyn Dispatch>) {
        if !is_kafka {
            let hub = Hub::start(Terms::default(), reports, None, false);
            return (Self { hub: hub.clone(), bus: None }, hub);
        }
        let (sender, outbox) = mpsc::unbounded_channel();
        let hub = Hub::start(Terms::default(), reports, Some(sender), false);
        let digits: String = uuid::Uuid::new_v4().simple().to_string().chars().take(12).collect();
        let queue: Arc<str> = Arc::from(format!("run-{digits}"));
        let dispatch = Arc::new(OneQueue { hub: hub.clone(), queue: queue.clone() });
        (Self { hub, bus: Some((queue, outbox)) }, dispatch)
    }
}

/// How many tasks the worker process takes at once: `max_parallel` of a run is what bounds it.
const CONCURRENCY: &str = "1024";
/// How long the worker and the bus may take to end.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(5);
/// How much of what the worker process said is told when it ends too early.
const LAST_WORDS_BYTES: usize = 2000;

/// A hub with a worker process of its own. The process ends when this is dropped, because its input ends.
pub struct Elsewhere {
    child: Child,
    hub: Arc<Hub>,
    bus: Option<OnKafka>,
}

/// What a run has on a Kafka cluster.
struct OnKafka {
    bus: Bus,
    settings: KafkaSettings,
    queue: Arc<str>,
}

impl Elsewhere {
    /// Serves a hub and starts its worker.
    ///
    /// # Errors
    /// If no port can be had, Kafka does not answer, or the program cannot be started again.
    pub async fn start(
        beginning: Beginning,
        state_dir: &Path,
        environment: &BTreeMap<String, String>,
        live: Option<mpsc::Sender<LogLine>>,
    ) -> Result<Self, Failure> {
        let Beginning { hub, bus } = beginning;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", "--until-stdin-ends", "--concurrency", CONCURRENCY]);
        // It keeps logs and artifacts where this process would have kept them.
        command.arg("--state-dir").arg(state_dir);
        let settings = [
            "TOL_TOKEN",
            "TOL_GATEWAY",
            "TOL_WORKER_ROOT",
            "TOL_WORKER_NAME",
            "TOL_TLS",
            "TOL_TLS_CA",
            "TOL_ARTIFACT_DIR",
        ];
        command.env_clear().envs(environment.iter().filter(|(name, _)| !settings.contains(&name.as_str())));
        let shown = Arc::new(Shown(live));
        let bus = match bus {
            Some((queue, outbox)) => {
                let settings = super::worker_kafka::settings(environment)?;
                let failed = |error: KafkaError| Failure::failed(error.to_string());
                let options = BusOptions { lines: Some(shown), ..BusOptions::new(&*queue) };
                let bus = Bus::start(&settings, options, &hub, outbox).await.map_err(failed)?;
                command.args(["--kafka", "--queue", &queue, "--name", &queue]);
                Some(OnKafka { bus, settings, queue })
            }
            None => {
                Self::serve(&hub, shown, &mut command).await?;
                None
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A Ctrl-C is for this process: it cancels the run, and the worker is still needed for that.
        command.process_group(0);
        let child = command.spawn().map_err(|error| Failure::failed(format!("the worker does not start: {error}")))?;
        Ok(Self { child, hub, bus })
    }

    async fn serve(hub: &Arc<Hub>, shown: Arc<Shown>, command: &mut Command) -> Result<(), Failure> {
        let token = uuid::Uuid::new_v4().simple().to_string();
        let config = GatewayConfig { port: 0, tokens: Tokens::new(None, Some(&token)), ..GatewayConfig::default() };
        let failed = |error: crate::gateway::GatewayError| Failure::failed(error.to_string());
        let gateway = Gateway::new(config, hub.clone(), shown, None);
        let listener = gateway.listen().await.map_err(failed)?;
        let address = listener.local_addr()?;
        tokio::spawn(gateway.serve(listener, std::future::pending()));
        command.args(["--queue", ANYTHING, "--capability", ANYTHING, "--gateway"]).arg(address.to_string());
        command.env("TOL_WORKER_TOKEN", token);
        Ok(())
    }

    /// Waits for the end of the worker, which comes too early while a run goes on; gives what it said.
    pub async fn ended(&mut self) -> Failure {
        let mut said = Vec::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            let _ = stderr.read_to_end(&mut said).await;
        }
        let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS_BYTES)..]).into_owned();
        let open = self.hub.in_work();
        Failure::failed(format!("the worker has ended with {open} steps in work ({status})\n{}", said.trim_end()))
    }

    /// Lets the worker end, which has nothing more to do.
    pub async fn end(mut self) {
        drop(self.child.stdin.take());
        let _ = tokio::time::timeout(GOODBYE, self.child.wait()).await;
        if let Some(OnKafka { bus, settings, queue }) = self.bus {
            bus.close(GOODBYE).await;
            // The queue was for this run alone. Topics that stay behind do no harm.
            if let Ok(admin) = Admin::new(&settings) {
                let topics = Topics::new(&settings).of_queue(&queue);
                let dead = topics.iter().map(|topic| Topics::dead_letters(topic));
                let _ = admin.remove(&topics.iter().cloned().chain(dead).collect::<Vec<_>>()).await;
            }
        }
    }
}

/// Shows the lines that workers send; the worker on this machine has kept them already.
struct Shown(Option<mpsc::Sender<LogLine>>);

impl LogSink for Shown {
    fn write(&self, _worker: &str, lines: &[WorkerLine]) {
        let Some(live) = &self.0 else { return };
        for line in lines {
            let stream = match line.stream {
                LogStream::Out => Stream::Out,
                LogStream::Err => Stream::Err,
                LogStream::Note => continue,
            };
            let line = LogLine {
                run: line.key.run.clone(),
                unit: line.key.unit.clone(),
                attempt: line.attempt,
                stream,
                text: line.text.clone(),
                token: line.key.token,
                at: crate::time::Timestamp(line.at_ms),
                kept_to: None,
            };
            // More than can be shown is dropped from the screen, not from the log.
            let _ = live.try_send(line);
        }
    }
}
