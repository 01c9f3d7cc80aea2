//! What handing work out over gRPC costs: `cargo bench --bench grpc [NAME…]`.
//!
//! Hub, gateway and workers are in one process and talk over the loopback device; the work is nothing at all. Nothing
//! here passes or fails: it prints. Beside the way of a task stands a bare exchange of the same bytes over the same
//! kind of stream, so that what is measured is what hub, leases and worker add. The durable benches are whole runs with
//! a journal; PostgreSQL is one that the bench starts, or that `DATABASE_URL` names.

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tol::database::DatabaseUrl;
use tol::dispatch::{Dispatch, Hub, LogSink, Perform, Report, StopSignal, Terms, Verdict, WorkerLine};
use tol::gateway::{Gateway, GatewayConfig};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::journal::{Journal, MemoryJournal, OpenMode, PostgresJournal};
use tol::proto::v1::workers_client::WorkersClient;
use tol::proto::v1::workers_server::{Workers, WorkersServer};
use tol::proto::v1::{self, from_worker, to_worker};
use tol::task::{Command, Outcome, Placement, Script, Task, Work};
use tol::worker::grpc::{About, Access, Client, GatewayAddress};
use tol::worker::{Lines, Table};
use tonic::{Request, Response, Status, Streaming};

use crate::durable::{Durable, Folder};

mod durable;
#[expect(dead_code, reason = "tests use more of it")]
#[path = "../tests/support/postgres.rs"]
mod postgres;

const ROUNDS: usize = 5_000;
const TASKS: usize = 50_000;
/// What a step adds to a log at least.
const SYNCED_BYTES: usize = 300;
/// Runs of so many durable steps in a row.
const CHAIN: usize = 30;
const CHAINS: usize = 2_000;
const CHAINS_AT_ONCE: usize = 1_000;
/// How many tasks a worker does at once.
const CONCURRENCY: u32 = 64;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
    if runs("latency") {
        runtime.block_on(latency());
    }
    if runs("throughput") {
        runtime.block_on(throughput());
    }
    if runs("durable_step") {
        runtime.block_on(durable_step());
    }
    if runs("durable_rate") {
        runtime.block_on(durable_rate());
    }
    runtime.shutdown_background();
}

fn say(name: &str, figure: impl std::fmt::Display) {
    println!("{name:<44} {figure}");
    let _ = std::io::stdout().flush();
}

/// Does nothing, at once.
struct Nothing;

fn outcome() -> Outcome {
    Outcome::success(serde_json::json!({"text": "done"}))
}

impl Perform for Nothing {
    fn perform(&self, _: Task, _: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        Box::pin(async { outcome() })
    }
}

/// Keeps nothing.
struct NoLogs;

impl LogSink for NoLogs {
    fn write(&self, _: &str, _: &[WorkerLine]) {}
}

fn task(number: u64) -> Task {
    let script = Script {
        command: Command::Argv(vec!["true".to_owned()]),
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: "/srv/project".to_owned(),
        json: false,
        permanent_exit_codes: Vec::new(),
        max_output: 1_000_000,
    };
    Task {
        run: RunId::new("01900000-0000-7000-8000-000000000000"),
        pipeline: Arc::from("bench"),
        unit: UnitPath::new("step"),
        attempt: 1,
        token: LeaseToken(number),
        idempotency_key: "01900000-0000-7000-8000-000000000000/step".to_owned(),
        deadline: None,
        place: Placement { root: Arc::from("/srv/project"), ..Placement::default() },
        work: Work::Run(script),
    }
}

struct Rig {
    hub: Arc<Hub>,
    reports: UnboundedReceiver<Report>,
    _workers: Vec<Client>,
}

async fn rig(workers: usize) -> Rig {
    let (sender, reports) = unbounded_channel();
    let hub = Hub::start(Terms::default(), sender, None, true);
    let workers = serve(&hub, workers).await;
    Rig { hub, reports, _workers: workers }
}

/// Opens a gateway for a hub and lets workers join.
async fn serve(hub: &Arc<Hub>, workers: usize) -> Vec<Client> {
    let listener = bind().await;
    let address = address_of(&listener);
    let gateway = Gateway::new(GatewayConfig::default(), hub.clone(), Arc::new(NoLogs), None);
    tokio::spawn(gateway.serve(listener, std::future::pending()));
    let mut clients = Vec::new();
    for number in 0..workers {
        let table = Table::start(Arc::new(Nothing), CONCURRENCY as usize);
        let (_, lines) = channel(1);
        let lines = Lines::start(lines, table.clone(), 1);
        let (notices, _) = unbounded_channel();
        let about = About {
            worker: format!("w{number}"),
            queues: vec!["default".to_owned()],
            capabilities: Vec::new(),
            concurrency: CONCURRENCY,
        };
        let gateway = GatewayAddress::read(&address.to_string()).unwrap_or_else(|error| panic!("{error}"));
        let client = Client::start(&[gateway], about, Access::default(), table, lines, notices);
        clients.push(client.unwrap_or_else(|error| panic!("{error}")));
    }
    while hub.workers().len() < workers {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    clients
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap_or_else(|error| panic!("{error}"))
}

fn address_of(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|error| panic!("{error}"))
}

impl Rig {
    async fn report(&mut self) {
        let Some(report) = self.reports.recv().await else { panic!("the hub is gone") };
        assert!(report.result.is_ok(), "{report:?}");
        self.hub.answered(&report.run, &report.unit, report.token, Verdict::Recorded);
    }
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    format!("p50 {:.3} ms   p95 {:.3} ms   p99 {:.3} ms", at(50), at(95), at(99))
}

/// One task after the other: from the hand-out to its report.
async fn latency() {
    let mut rig = rig(1).await;
    let mut times = Vec::with_capacity(ROUNDS);
    for number in 0..ROUNDS + ROUNDS / 10 {
        let began = Instant::now();
        rig.hub.dispatch(task(number as u64));
        rig.report().await;
        // The first tenth warms up.
        if number >= ROUNDS / 10 {
            times.push(began.elapsed());
        }
    }
    say("hand-out to report, hub and worker", spread(times));
    say("the same bytes over a bare stream", spread(bare(None).await));
}

/// Sends a task and waits for its report, without anything between; syncs a file after each if there is one.
async fn bare(file: Option<File>) -> Vec<Duration> {
    let (times, mut measured) = unbounded_channel();
    let listener = bind().await;
    let address = address_of(&listener);
    let service = WorkersServer::new(Bare { times, file });
    tokio::spawn(
        tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
    let channel_of = endpoint.unwrap_or_else(|error| panic!("{error}")).tcp_nodelay(true).connect().await;
    let mut client = WorkersClient::new(channel_of.unwrap_or_else(|error| panic!("{error}")));
    let (out, outgoing) = channel(4);
    let answers = client.session(ReceiverStream::new(outgoing)).await;
    let mut answers = answers.unwrap_or_else(|error| panic!("{error}")).into_inner();
    while let Ok(Some(message)) = answers.message().await {
        let Some(to_worker::Message::Task(task)) = message.message else { continue };
        let report = v1::Report { key: task.key, outcome: Some(v1::Outcome::from(&outcome())) };
        let message = v1::FromWorker { message: Some(from_worker::Message::Report(report)), number: 0 };
        if out.send(message).await.is_err() {
            break;
        }
    }
    measured.recv().await.unwrap_or_default()
}

struct Bare {
    times: UnboundedSender<Vec<Duration>>,
    file: Option<File>,
}

#[tonic::async_trait]
impl Workers for Bare {
    type SessionStream = ReceiverStream<Result<v1::ToWorker, Status>>;
    type GetArtifactStream = ReceiverStream<Result<v1::ArtifactPiece, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (out, outgoing) = channel(4);
        let measured = self.times.clone();
        let mut file = self.file.as_ref().and_then(|file| file.try_clone().ok());
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(ROUNDS);
            for number in 0..ROUNDS + ROUNDS / 10 {
                let began = Instant::now();
                let task = to_worker::Message::Task(v1::Task::from(&task(number as u64)));
                if out.send(Ok(v1::ToWorker { message: Some(task) })).await.is_err() {
                    break;
                }
                if !matches!(incoming.message().await, Ok(Some(_))) {
                    break;
                }
                if let Some(file) = &mut file {
                    file.write_all(&[b'x'; SYNCED_BYTES])
                        .and_then(|()| file.sync_data())
                        .unwrap_or_else(|error| panic!("{error}"));
                }
                if number >= ROUNDS / 10 {
                    times.push(began.elapsed());
                }
            }
            let _ = measured.send(times);
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }

    async fn put_artifact(
        &self,
        _: Request<Streaming<v1::ArtifactPiece>>,
    ) -> Result<Response<v1::ArtifactRef>, Status> {
        Err(Status::unimplemented("this exchange has no artifacts"))
    }

    async fn get_artifact(&self, _: Request<v1::ArtifactRef>) -> Result<Response<Self::GetArtifactStream>, Status> {
        Err(Status::unimplemented("this exchange has no artifacts"))
    }
}

/// As many at once as the workers take.
async fn throughput() {
    for workers in [1, 2, 4] {
        let mut rig = rig(workers).await;
        let at_once = workers * CONCURRENCY as usize;
        let began = Instant::now();
        for number in 0..TASKS {
            if number >= at_once {
                rig.report().await;
            }
            rig.hub.dispatch(task(number as u64));
        }
        for _ in 0..at_once {
            rig.report().await;
        }
        let rate = TASKS as f64 / began.elapsed().as_secs_f64();
        say(&format!("{workers} workers, {at_once} tasks at once"), format!("{rate:.0} tasks/s"));
    }
}

/// One step after the other: from being ready until its outcome is recorded, which is when its worker may forget it.
async fn durable_step() {
    let folder = Folder::new("grpc-step");
    let times = durable_times(folder.sqlite()).await;
    say("step ready to outcome recorded, SQLite", spread(times));
    if let Some(database) = postgres::database() {
        say("step ready to outcome recorded, PostgreSQL", spread(durable_times(on_postgres(&database.url)).await));
    }
    let file = File::create(folder.0.join("raw")).unwrap_or_else(|error| panic!("{error}"));
    say("the same bytes over a bare stream and a sync", spread(bare(Some(file)).await));
}

async fn durable_times(journal: Arc<dyn Journal>) -> Vec<Duration> {
    let rig = Durable::start(journal, |reports| Hub::start(Terms::default(), reports, None, true));
    let _workers = serve(&rig.hub, 1).await;
    let runs = ROUNDS / CHAIN;
    // The first runs warm up.
    rig.chains(CHAIN, runs / 10, 1).await;
    rig.chains(CHAIN, runs, 1).await.1
}

fn on_postgres(url: &str) -> Arc<dyn Journal> {
    let url = DatabaseUrl::parse(url).unwrap_or_else(|error| panic!("{error}"));
    Arc::new(PostgresJournal::open(&url, OpenMode::ReadWrite).unwrap_or_else(|error| panic!("{error}")))
}

/// Many runs at once, with each journal.
async fn durable_rate() {
    for workers in [1, 2, 4] {
        let folder = Folder::new("grpc-rate");
        let sqlite = rate(folder.sqlite(), workers).await;
        let database = postgres::database();
        let postgres = match &database {
            Some(database) => Some(rate(on_postgres(&database.url), workers).await),
            None => None,
        };
        let memory = rate(Arc::new(MemoryJournal::default()), workers).await;
        let postgres = postgres.map_or_else(|| "not measured".to_owned(), |rate| format!("{rate:.0}"));
        let baseline = format!("baseline: {memory:.0} with the journal in memory");
        say(
            &format!("durable steps a second, {workers} workers"),
            format!("{sqlite:.0} SQLite, {postgres} PostgreSQL   {baseline}"),
        );
    }
}

async fn rate(journal: Arc<dyn Journal>, workers: usize) -> f64 {
    let rig = Durable::start(journal, |reports| Hub::start(Terms::default(), reports, None, true));
    let _workers = serve(&rig.hub, workers).await;
    rig.chains(CHAIN, CHAINS / 10, CHAINS_AT_ONCE).await;
    let (took, _) = rig.chains(CHAIN, CHAINS, CHAINS_AT_ONCE).await;
    (CHAIN * CHAINS) as f64 / took.as_secs_f64()
}
