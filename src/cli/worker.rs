//! `tol worker`: does the tasks of schedulers on other machines.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::args::StateArgs;
use super::artifacts::ArtifactArgs;
use super::context::Context;
use super::exit::{DONE, Failure};
use super::print::err;
use super::signals::Signals;
use super::worker_kafka::{self, Doing};
use crate::artifact::Store;
use crate::dispatch::Stop;
use crate::handler::WorkerContext;
use crate::task::DEFAULT_QUEUE;
use crate::time::parse_duration;
use crate::worker::grpc::{About, Access, Client, GatewayAddress, Notice, TlsSettings};
use crate::worker::kafka::KafkaWorkerOptions;
use crate::worker::{Elsewhere, Lines, Table, Worker};

/// Lines that wait to be sorted; then the programs that print them wait.
const LIVE_LINES: usize = 256;
/// Where Linux says how the machine is called.
const HOST_NAME_FILE: &str = "/proc/sys/kernel/hostname";
/// Where a worker keeps logs and artifacts in a state folder that nobody named.
const STATE_FOLDER: &str = "worker";
/// How long the last outcomes may take to reach the scheduler, after the work was ended.
const LAST_WORDS: Duration = Duration::from_secs(8);
/// How long a scheduler may take to say that it hands out nothing more.
const DRAINED_WAIT: Duration = Duration::from_secs(2);
const LAST_WORDS_NOW: Duration = Duration::from_secs(2);

/// `tol worker`.
#[derive(Clone, Debug, Args)]
pub struct WorkerArgs {
    /// A scheduler's gateway; several, separated by commas or each with its own --gateway
    #[arg(long, env = "TOL_GATEWAY", value_name = "HOST:PORT", value_delimiter = ',', required_unless_present = "kafka", value_parser = GatewayAddress::read)]
    pub gateway: Vec<GatewayAddress>,
    /// Take tasks from Kafka instead, which KAFKA_BROKERS and its kin name
    #[arg(long, conflicts_with = "gateway")]
    pub kafka: bool,
    /// A queue to take tasks from [default: default]
    #[arg(long, env = "TOL_WORKER_QUEUES", value_name = "QUEUE", value_delimiter = ',')]
    pub queue: Vec<String>,
    /// Something that this worker is able to do and not every worker is
    #[arg(long, env = "TOL_WORKER_CAPABILITIES", value_name = "NAME", value_delimiter = ',')]
    pub capability: Vec<String>,
    /// How many tasks are done at once
    #[arg(long, env = "TOL_WORKER_CONCURRENCY", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrency: u32,
    /// The worker's name; no two workers may have the same [default: the host's name and some digits]
    #[arg(long, env = "TOL_WORKER_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Where the scheduler's project lies on this machine [default: at the same path as there]
    #[arg(long, env = "TOL_WORKER_ROOT", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// How long work may go on after the worker was asked to end, such as 30s
    #[arg(long, env = "TOL_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s")]
    pub drain_timeout: String,
    /// End at once when the input ends, for a worker that must not outlive who started it
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub artifacts: ArtifactArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// How a connection to a scheduler is kept private. Any of these switches TLS on.
#[derive(Clone, Debug, Args)]
pub struct TlsArgs {
    /// Connect with TLS; for a gateway whose certificate the system trusts
    #[arg(long, env = "TOL_TLS")]
    pub tls: bool,
    /// The certificate that vouches for the gateway's, in PEM
    #[arg(long, env = "TOL_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This side's own certificate, in PEM
    #[arg(long, env = "TOL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of this side's certificate, in PEM
    #[arg(long, env = "TOL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// The name in the gateway's certificate, if it is not the host's
    #[arg(long, env = "TOL_TLS_DOMAIN", value_name = "NAME")]
    pub tls_domain: Option<String>,
}

impl TlsArgs {
    fn settings(&self) -> Option<TlsSettings> {
        let settings = TlsSettings {
            ca: self.tls_ca.clone(),
            identity: self.tls_cert.clone().zip(self.tls_key.clone()),
            domain: self.tls_domain.clone(),
        };
        (self.tls || settings != TlsSettings::default()).then_some(settings)
    }
}

/// Takes tasks until a signal ends it.
pub fn run(arguments: &WorkerArgs) -> Result<u8, Failure> {
    let context = Context::around(None, &arguments.state)?;
    let drain_timeout = parse_duration(&arguments.drain_timeout)
        .map_err(|problem| Failure::invalid(format!("--drain-timeout {}: {problem}", arguments.drain_timeout)))?;
    let environment = context.environment()?;
    // Over gRPC the schedulers keep what is too large.
    let store = if arguments.kafka { arguments.artifacts.of_worker(&context)? } else { None };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(work(arguments, &context, environment, store, drain_timeout));
    // Whatever is still going on belongs to nobody any more; its process groups end with it.
    runtime.shutdown_background();
    result
}

async fn work(
    arguments: &WorkerArgs,
    context: &Context,
    environment: BTreeMap<String, String>,
    store: Option<Arc<dyn Store>>,
    drain_timeout: Duration,
) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let set = |name: &str| environment.get(name).map(String::as_str).filter(|token| !token.is_empty());
    let token = set("TOL_WORKER_TOKEN").or_else(|| set("TOL_TOKEN"));
    let access =
        Access::new(arguments.tls.settings().as_ref(), token).map_err(|error| Failure::invalid(error.to_string()))?;
    let root = match &arguments.root {
        Some(root) => Some(
            std::fs::canonicalize(root)
                .map_err(|error| Failure::invalid(format!("--root {}: {error}", root.display())))?,
        ),
        None => None,
    };
    let name = arguments.name.clone().unwrap_or_else(name_of_its_own);
    let queues = match arguments.queue.is_empty() {
        true => vec![DEFAULT_QUEUE.to_owned()],
        false => arguments.queue.clone(),
    };
    let about = About {
        worker: name.clone(),
        queues,
        capabilities: arguments.capability.clone(),
        concurrency: arguments.concurrency,
    };
    let settings = arguments.kafka.then(|| worker_kafka::settings(&environment)).transpose()?;
    let (live, lines) = mpsc::channel(LIVE_LINES);
    // A scheduler on this machine may keep the same lines in the project's own state folder.
    let state_dir = match arguments.state.state_dir {
        Some(_) => context.state_dir.clone(),
        None => context.state_dir.join(STATE_FOLDER),
    };
    let worker = WorkerContext::new(&state_dir, environment, Some(live)).waiting();
    let performer = Arc::new(Elsewhere::new(Worker::new(Arc::new(worker)), root));
    if let Some(settings) = settings {
        let mut options = KafkaWorkerOptions::new(name, about.queues, arguments.concurrency as usize);
        options.capabilities = about.capabilities;
        options.store = store;
        let doing = Doing { options, performer, lines, until_stdin_ends: arguments.until_stdin_ends, drain_timeout };
        return worker_kafka::work(&settings, doing, &mut signals).await;
    }
    let table = Table::start(performer, arguments.concurrency as usize);
    let lines = Lines::start(lines, table.clone(), arguments.gateway.len());
    let (notices, mut noticed) = mpsc::unbounded_channel();
    let client = Client::start(&arguments.gateway, about, access, table.clone(), lines, notices)
        .map_err(|error| Failure::invalid(error.to_string()))?;
    let mut input = std::pin::pin!(end_of_input(arguments.until_stdin_ends));
    let mut refused = 0;
    loop {
        tokio::select! {
            _ = signals.next() => break,
            _ = &mut input => {
                table.stop_all(Stop::Now);
                wait_for_stops(&table).await;
                return Ok(DONE);
            }
            Some(notice) = noticed.recv() => {
                refused += usize::from(matches!(notice, Notice::Refused { .. }));
                say(&name, &notice);
                if refused == arguments.gateway.len() {
                    return Err(Failure::failed("no gateway takes this worker"));
                }
            }
        }
    }
    err!("worker {name}: takes no more tasks, and ends when those in work have");
    client.drain();
    // A scheduler that does not answer has nothing to hand out either, or loses what it does by the lease.
    let _ = tokio::time::timeout(DRAINED_WAIT.min(drain_timeout), client.drained()).await;
    wind_down(&name, &table, &mut signals, &mut noticed, drain_timeout).await;
    Ok(DONE)
}

/// Tells of the end of the standard input, if that is asked for. A thread reads it, because a read of a terminal or a
/// pipe cannot be given up.
pub(super) async fn end_of_input(asked: bool) {
    let (sender, ended) = oneshot::channel();
    if asked {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
            sender.send(())
        });
        let _ = ended.await;
    } else {
        std::future::pending().await
    }
}

/// Gives what was stopped a moment to end.
async fn wait_for_stops(table: &Arc<Table>) {
    let until = Instant::now() + LAST_WORDS_NOW;
    while !table.in_work().is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for what is in work; ends it when its time is over, or on the next signal.
async fn wind_down(
    name: &str,
    table: &Arc<Table>,
    signals: &mut Signals,
    noticed: &mut UnboundedReceiver<Notice>,
    drain_timeout: Duration,
) {
    let mut changes = table.changes();
    let mut until = Instant::now() + drain_timeout;
    let mut stopping = None;
    while !table.is_empty() {
        tokio::select! {
            _ = signals.next() => {
                err!("worker {name}: ends what is in work now");
                table.stop_all(Stop::Now);
                stopping = Some(Stop::Now);
                until = Instant::now() + LAST_WORDS_NOW;
            }
            () = tokio::time::sleep_until(until) => {
                if stopping.is_some() {
                    err!("worker {name}: leaves with outcomes that no scheduler has taken in");
                    return;
                }
                err!("worker {name}: the time to drain is over, ends what is in work");
                table.stop_all(Stop::Graceful);
                stopping = Some(Stop::Graceful);
                until = Instant::now() + LAST_WORDS;
            }
            Some(notice) = noticed.recv() => say(name, &notice),
            Ok(()) = changes.changed() => {}
        }
    }
}

fn say(name: &str, notice: &Notice) {
    match notice {
        Notice::Connected { gateway, scheduler } => err!("worker {name}: connected to {scheduler} at {gateway}"),
        Notice::Disconnected { gateway, why } => err!("worker {name}: no connection to {gateway}: {why}"),
        Notice::Refused { gateway, why } => err!("worker {name}: {gateway} refuses this worker: {why}"),
        Notice::GivenUp { key, so_far } => err!(
            "worker {name}: warning: no scheduler knows run {} any more; the outcome of {} is given up ({so_far} so far)",
            key.run,
            key.unit
        ),
    }
}

/// How this machine is called.
pub(super) fn host() -> String {
    let host = std::fs::read_to_string(HOST_NAME_FILE).unwrap_or_default();
    host.trim().chars().filter(|one| one.is_ascii_graphic()).take(100).collect()
}

/// A name that no other worker has.
fn name_of_its_own() -> String {
    let host = host();
    let digits: String = uuid::Uuid::new_v4().simple().to_string().chars().take(8).collect();
    format!("{}-{digits}", if host.is_empty() { "worker" } else { &host })
}
