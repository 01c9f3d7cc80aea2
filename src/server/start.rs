//! A server from its start to its end: it listens, serves the folder, takes up what was left, drives runs, and drains.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::artifact::Store;
use crate::dispatch::kafka::{Bus, BusOptions, KafkaSettings};
use crate::dispatch::{Hub, Joining, LocalSession, Perform, Stop, Terms};
use crate::gateway::{Gateway, GatewayConfig, Readiness};
use crate::handler::{LogFolder, WorkerContext};
use crate::id::RunId;
use crate::journal::{Journal, Partitions};
use crate::proto::MAX_MESSAGE_BYTES;
use crate::proto::v1::runs_server::RunsServer;
use crate::runtime::{Engine, EngineConfig, RuntimeError, SystemClock};
use crate::scheduler::Input;
use crate::server::core::{Core, Say};
use crate::server::division::{self, Division};
use crate::server::error::ServerError;
use crate::server::figures::Figures;
use crate::server::hall::Hall;
use crate::server::looks;
use crate::server::own_work::{Noting, OwnWork};
use crate::server::parcels::StoredParcels;
use crate::server::retention::Retention;
use crate::server::service::RunsService;
use crate::server::sink::Sink;
use crate::task::DEFAULT_QUEUE;
use crate::telemetry;
use crate::watch::{self, Change, Served};
use crate::worker::Worker;

/// How many actions the server's own worker runs at once if the settings do not say.
const LOCAL_CONCURRENCY: u32 = 8;
/// Lines of the local worker that wait for watchers; more are dropped from the screen (never from the log).
const LIVE_LINES: usize = 4096;
/// How often finished runs are looked at for what need not be kept.
const RETENTION_EVERY: Duration = Duration::from_secs(600);
/// How often it is looked at whether tasks wait for workers that are not there.
const UNSERVED_EVERY: Duration = Duration::from_secs(2);
/// How long the bus may take to send its last messages.
const BUS_END: Duration = Duration::from_secs(5);
/// How often it is looked at whether the server's own steps have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Whether the server itself does the work of the queue `default`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalWorker {
    /// As many actions at once as the settings say.
    On,
    Off,
}

/// How a server is set up.
pub struct ServerConfig {
    /// The folder that is served.
    pub folder: PathBuf,
    /// The project's folder, as runs are told it.
    pub root: PathBuf,
    pub state_dir: PathBuf,
    pub journal: Arc<dyn Journal>,
    /// The part in the division of the runs, where the journal has one.
    pub partitions: Option<Partitions>,
    pub environment: BTreeMap<String, String>,
    pub gateway: GatewayConfig,
    /// Where payloads lie that are too large for a message.
    pub artifacts: Arc<dyn Store>,
    /// The cluster that carries tasks to workers, if one does.
    pub kafka: Option<KafkaSettings>,
    /// Where figures and readiness are told over HTTP.
    pub metrics: Option<SocketAddr>,
    pub local_worker: LocalWorker,
    /// How long the server's own steps may take to end when it drains.
    pub grace: Duration,
    pub watch: watch::Options,
    pub say: Say,
}

/// What a server is asked to do from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// Read the files again.
    Reload,
    /// Drain, then end. A second one does not wait for steps.
    End,
}

/// A server that listens.
pub struct Server {
    core: Arc<Core>,
    hub: Arc<Hub>,
    engine_task: JoinHandle<Result<(), RuntimeError>>,
    gateway: JoinHandle<Result<(), crate::gateway::GatewayError>>,
    readiness: Readiness,
    address: SocketAddr,
    bus: Option<Arc<Bus>>,
    local: Option<LocalSession>,
    own_work: Option<Arc<OwnWork>>,
    local_context: Option<Arc<WorkerContext>>,
    /// What was last told of queues that no worker serves.
    unserved: BTreeMap<Arc<str>, usize>,
    changed: Arc<Notify>,
    /// Takes up what other processes left.
    taking: Option<JoinHandle<()>>,
    /// Closes the gateway.
    ending: CancellationToken,
    grace: Duration,
}

impl Server {
    /// Listens, and takes up what an earlier process left. Calls are answered from the beginning; runs are taken in
    /// when all is there.
    ///
    /// # Errors
    /// If the address cannot be had or must not be, or the journal cannot be read.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let ServerConfig { folder, root, state_dir, journal, partitions, environment, .. } = config;
        let ServerConfig { gateway, local_worker, grace, watch, say, artifacts, kafka, metrics, .. } = config;
        let hall = Arc::new(Hall::default());
        let mut hub = None;
        let engine_config = EngineConfig {
            journal: journal.clone(),
            clock: Arc::new(SystemClock),
            root: Arc::from(root.to_string_lossy()),
            takes_commands: true,
        };
        let (outbox_sender, outbox) = mpsc::unbounded_channel();
        let carries = kafka.is_some().then_some(outbox_sender);
        let (engine, engine_task) = Engine::start(engine_config, |reports| {
            let started = Hub::start(Terms::default(), reports, carries, true);
            hub = Some(started.clone());
            started
        });
        let hub = hub.ok_or(ServerError::Fault)?;
        let division = partitions.map(|partitions| Division { partitions });
        let core =
            Core::new(journal, engine, hall.clone(), state_dir.clone(), environment.clone(), say.clone(), division);
        let core = Arc::new(core);
        let ending = CancellationToken::new();
        let sink = Arc::new(Sink { folder: LogFolder::new(state_dir.clone()), hall: hall.clone() });
        let service = RunsServer::new(RunsService { core: core.clone(), ending: ending.clone() })
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let bus = match &kafka {
            Some(settings) => {
                let options = BusOptions {
                    name: gateway.scheduler.clone(),
                    lines: Some(sink.clone()),
                    parcels: Some(Arc::new(StoredParcels(artifacts.clone()))),
                };
                let bus = Bus::start(settings, options, &hub, outbox).await?;
                for difference in bus.differences() {
                    say(&format!("warning: {difference}"));
                }
                Some(Arc::new(bus))
            }
            None => None,
        };
        let gateway = Gateway::new(gateway, hub.clone(), sink, Some(artifacts)).with_service(service);
        let readiness = gateway.readiness();
        let connections = gateway.connections();
        let listener: TcpListener = gateway.listen().await?;
        let address =
            listener.local_addr().map_err(|error| ServerError::Io { what: "the listener".to_owned(), error })?;
        let end = ending.clone();
        let gateway = tokio::spawn(gateway.serve(listener, async move { end.cancelled().await }));
        let mut server = Self {
            core,
            hub,
            bus,
            unserved: BTreeMap::new(),
            local_context: None,
            engine_task,
            gateway,
            readiness,
            address,
            local: None,
            own_work: None,
            changed: Arc::new(Notify::new()),
            taking: None,
            ending,
            grace,
        };
        server.serve_folder(folder, watch).await?;
        server.begin_notes();
        if local_worker == LocalWorker::On {
            server.start_local_worker(&hall, environment);
        }
        if let Some(address) = metrics {
            server.tell(address, Box::new(connections)).await?;
        }
        server.recover();
        looks::start(server.core.clone(), server.hub.clone(), server.ending.clone());
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it takes runs in.
    ///
    /// # Errors
    /// What it waits for.
    pub fn ready(&self) -> Result<(), String> {
        self.core.ready()
    }

    async fn serve_folder(&self, folder: PathBuf, options: watch::Options) -> Result<(), ServerError> {
        let (say, changed) = (self.core.say.clone(), self.changed.clone());
        let shown = folder.display().to_string();
        let tell = move |change: Change| {
            say(&words_of(&change, &shown));
            changed.notify_one();
        };
        let started = tokio::task::spawn_blocking(move || Served::start(&folder, options, tell)).await;
        let served = started
            .map_err(|_| ServerError::Fault)?
            .map_err(|error| ServerError::Io { what: "the served folder cannot be watched".to_owned(), error })?;
        // It is set here alone.
        let _ = self.core.served.set(served);
        Ok(())
    }

    /// Tells figures and readiness over HTTP until the server ends.
    async fn tell(
        &self,
        address: SocketAddr,
        connections: Box<dyn Fn() -> usize + Send + Sync>,
    ) -> Result<(), ServerError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| ServerError::Io { what: format!("cannot listen on {address} for metrics"), error })?;
        let figures = Figures {
            core: self.core.clone(),
            hub: self.hub.clone(),
            connections,
            bus: self.bus.as_ref().map(Arc::downgrade).unwrap_or_default(),
            local: self.local_context.clone(),
        };
        let at = listener.local_addr().unwrap_or(address);
        (self.core.say)(&format!("metrics and readiness at http://{at}/metrics, /healthz and /readyz"));
        let ending = self.ending.clone();
        tokio::spawn(telemetry::serve(listener, Arc::new(figures), async move { ending.cancelled().await }));
        Ok(())
    }

    /// Says which queues have tasks that no worker could do, once for each change.
    fn tell_unserved(&mut self) {
        let unserved = if self.bus.is_some() { BTreeMap::new() } else { self.hub.unserved() };
        for (queue, count) in &unserved {
            if !self.unserved.contains_key(queue) {
                let tasks = if *count == 1 { "1 step waits".to_owned() } else { format!("{count} steps wait") };
                (self.core.say)(&format!(
                    "{tasks} for the queue `{queue}`, and no worker that has joined could do them; start one with \
                     `tol worker --gateway {} --queue {queue}`, with the `--capability` that they ask for",
                    self.address
                ));
            }
        }
        self.unserved = unserved;
    }

    /// Has the hub know what the local workers of earlier processes had, and begins notes of what this one's has.
    fn begin_notes(&mut self) {
        match OwnWork::begin(&self.core.state_dir) {
            Ok((own_work, gone)) => {
                self.hub.are_gone(gone);
                self.own_work = Some(Arc::new(own_work));
            }
            Err(error) => {
                (self.core.say)(&format!(
                    "warning: what this server works on cannot be noted in {}, so that the next one waits for the \
                     lease of it: {error}",
                    self.core.state_dir.display()
                ));
            }
        }
    }

    fn start_local_worker(&mut self, hall: &Arc<Hall>, environment: BTreeMap<String, String>) {
        let (lines, mut live) = mpsc::channel(LIVE_LINES);
        let hall = hall.clone();
        tokio::spawn(async move {
            while let Some(line) = live.recv().await {
                hall.log(line);
            }
        });
        let context = Arc::new(WorkerContext::new(&self.core.state_dir, environment, Some(lines)));
        self.local_context = Some(context.clone());
        let set = self.core.served.get().and_then(Served::set);
        let concurrency = set.and_then(|set| set.settings.engine.workers).unwrap_or(LOCAL_CONCURRENCY);
        let joining = Joining {
            worker: Arc::from(format!("local-{}", std::process::id())),
            queues: BTreeSet::from([DEFAULT_QUEUE.to_owned()]),
            capabilities: BTreeSet::new(),
            concurrency,
            leases: Vec::new(),
            local: true,
        };
        let performer = Worker::new(context);
        let performer: Arc<dyn Perform> = match self.own_work.clone() {
            Some(work) => Arc::new(Noting { performer, work }),
            None => Arc::new(performer),
        };
        self.local = Some(LocalSession::start(&self.hub, joining, performer));
    }

    /// Takes up what was left, beside everything else; among several servers, again and again.
    fn recover(&mut self) {
        let (core, changed) = (self.core.clone(), self.changed.clone());
        self.taking = Some(tokio::spawn(async move {
            for count in 0.. {
                let taker = core.clone();
                let taken = tokio::task::spawn_blocking(move || match &taker.division {
                    Some(division) => division.look(&taker, count).map_err(RuntimeError::Journal),
                    None => taker.recover().map(|count| taker.tell_taken(count)),
                });
                match taken.await {
                    Ok(Ok(())) => {
                        core.recovered.store(true, Ordering::Release);
                        changed.notify_one();
                    }
                    Ok(Err(error)) => (core.say)(&format!("the runs of other processes cannot be taken up: {error}")),
                    Err(_) => return,
                }
                let is_done = core.division.is_none() && core.recovered.load(Ordering::Acquire);
                if is_done || core.is_draining() {
                    return;
                }
                tokio::time::sleep(division::EVERY).await;
                if core.is_draining() {
                    return;
                }
            }
        }));
    }

    /// Serves until it is asked to end; then drains.
    ///
    /// # Errors
    /// If the journal or the listener fails. What was recorded before stays.
    pub async fn run(mut self, mut signals: mpsc::Receiver<Signalled>) -> Result<(), ServerError> {
        let mut retention = tokio::time::interval(RETENTION_EVERY);
        let mut looks = tokio::time::interval(UNSERVED_EVERY);
        let failure = loop {
            tokio::select! {
                signal = signals.recv() => match signal {
                    Some(Signalled::Reload) => {
                        if let Some(served) = self.core.served.get() {
                            served.reload();
                        }
                    }
                    Some(Signalled::End) | None => break None,
                },
                () = self.changed.notified() => {
                    self.readiness.set(self.core.ready().is_ok()).await;
                }
                _ = retention.tick() => self.enforce_retention(),
                _ = looks.tick() => self.tell_unserved(),
                ended = &mut self.engine_task => break Some(match ended {
                    Ok(Err(error)) => ServerError::Runtime(error),
                    Ok(Ok(())) | Err(_) => ServerError::Fault,
                }),
                ended = &mut self.gateway => break Some(match ended {
                    Ok(Err(error)) => ServerError::Gateway(error),
                    Ok(Ok(())) | Err(_) => ServerError::Fault,
                }),
            }
        };
        self.core.draining.store(true, Ordering::Release);
        self.readiness.set(false).await;
        self.hub.drain_all();
        if failure.is_none() {
            self.drain(&mut signals).await;
        }
        self.end().await;
        failure.map_or(Ok(()), Err)
    }

    /// Waits for the steps that this process does itself.
    async fn drain(&self, signals: &mut mpsc::Receiver<Signalled>) {
        let started = Instant::now();
        let running = || self.local.as_ref().map_or(0, LocalSession::running_count);
        if running() > 0 {
            let seconds = self.grace.as_secs();
            (self.core.say)(&format!("draining: {} steps have {seconds} s to end; nothing new is begun", running()));
        }
        while running() > 0 && started.elapsed() < self.grace {
            tokio::select! {
                () = tokio::time::sleep(DRAIN_LOOK) => {}
                signal = signals.recv() => match signal {
                    Some(Signalled::Reload) => {}
                    Some(Signalled::End) | None => break,
                },
            }
        }
        self.settle().await;
        if let Some(own_work) = &self.own_work {
            // No worker is given anything any more: the next process need not wait for one to name these.
            own_work.nobody_has(&self.hub.queued());
        }
        let left = running();
        if left > 0 {
            (self.core.say)(&format!("{left} steps are stopped; a new server begins them again"));
            // First the runs are let go, so that the stopped steps do not count as ended.
            for run in self.core.hall.driven() {
                self.core.engine.lose(&run);
            }
            self.settle().await;
            if let Some(local) = &self.local {
                local.stop_all(Stop::Now);
            }
        }
    }

    /// Waits until what was reported is with the journal.
    async fn settle(&self) {
        for _ in 0..3 {
            tokio::time::sleep(DRAIN_LOOK).await;
            // The loop answers when it has been through everything that came before.
            let _ = self.core.engine.input(&RunId::new(""), Input::Time).await;
        }
    }

    async fn end(self) {
        self.ending.cancel();
        let (core, gateway) = (self.core, self.gateway);
        if let Some(bus) = self.bus.and_then(Arc::into_inner) {
            bus.close(BUS_END).await;
        }
        if !gateway.is_finished() {
            let _ = gateway.await;
        }
        let left = core.hall.driven();
        if let Some(taking) = self.taking {
            // It looks at the flag between two short pauses.
            let _ = taking.await;
        }
        let (closer, runs) = (core.clone(), left.clone());
        let closed = tokio::task::spawn_blocking(move || {
            if let Some(division) = &closer.division {
                // Other servers need not wait until what is held here runs out.
                runs.iter().for_each(|run| closer.engine.lose(run));
                if let Err(error) = division.partitions.leave() {
                    (closer.say)(&format!("the partitions are not given up, and run out by themselves: {error}"));
                }
            }
            closer.journal.close();
        });
        let _ = closed.await;
        let left = left.len();
        let runs = match left {
            0 => String::new(),
            1 => "; 1 run goes on when a server starts again".to_owned(),
            left => format!("; {left} runs go on when a server starts again"),
        };
        (core.say)(&format!("ended{runs}"));
    }

    fn enforce_retention(&self) {
        let Some(set) = self.core.served.get().and_then(Served::set) else { return };
        let retention = Retention::of(&set.settings);
        let core = self.core.clone();
        tokio::task::spawn_blocking(move || {
            match retention.enforce(&*core.journal, &core.state_dir, core.now(), false) {
                Ok(removed) => {
                    for (place, reason) in removed.left {
                        (core.say)(&format!("{}: {reason}", place.display()));
                    }
                    match removed.runs.len() {
                        0 => {}
                        count => (core.say)(&format!("{count} ended runs are not kept any longer")),
                    }
                }
                Err(error) => (core.say)(&format!("old runs cannot be removed: {error}")),
            }
        });
    }
}

fn words_of(change: &Change, folder: &str) -> String {
    match change {
        Change::Live(set) => {
            let plural = if set.len() == 1 { "" } else { "s" };
            let version = if set.number == 1 { "serving" } else { "reloaded:" };
            let warnings = set.warnings.text(false);
            format!("{warnings}{version} {} pipeline{plural} of {folder}", set.len())
        }
        Change::Refused(problems) => {
            let text = problems.text(false);
            format!("{text}not reloaded: there are errors in {folder}; what was live before stays")
        }
        Change::Same => format!("nothing has changed in {folder}"),
        Change::Polling(why) => format!("{folder} is read at intervals, because changes are not told: {why}"),
    }
}
