//! A scheduler's side in the test's own process: hub, gateway, and a hand that plays the scheduler.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tol::artifact::{FolderStore, Store};
use tol::dispatch::{Dispatch, Hub, Report, Terms, Verdict};
use tol::gateway::{Gateway, GatewayConfig, Readiness};
use tol::handler::{LogFolder, logs};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::task::{AgentCall, AgentPhase, Command as Words, Outcome, Placement, Provider, Script, Shell, Task, Work};

/// Short, so that a test sees a lease run out.
pub const TERMS: Terms = Terms {
    lease: Duration::from_millis(2500),
    heartbeat: Duration::from_millis(400),
    resend: Duration::from_secs(20),
    once: Duration::from_secs(20),
};

/// What a test waits for at most.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Stage {
    pub hub: Arc<Hub>,
    pub reports: UnboundedReceiver<Report>,
    pub address: SocketAddr,
    pub folder: TempDir,
    pub readiness: Readiness,
    /// What the gateway was last set up with.
    config: GatewayConfig,
    has_store: bool,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

pub fn run_id() -> RunId {
    RunId::new("run-1")
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(GatewayConfig::default()).await
    }

    pub async fn with(config: GatewayConfig) -> Self {
        Self::with_store(config, false).await
    }

    /// With an artifact store, if wanted.
    pub async fn with_store(config: GatewayConfig, has_store: bool) -> Self {
        let (sender, reports) = unbounded_channel();
        let hub = Hub::start(TERMS, sender, None, true);
        hub.begin(&run_id());
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, stop, served) = serve(&config, &hub, folder.path(), has_store, listener);
        readiness.set(true).await;
        Self { hub, reports, address, folder, readiness, config, has_store, stop: Some(stop), served }
    }

    /// Ends the gateway, and starts one anew at the same place with the same hub.
    pub async fn restart_gateway(&mut self, pause: Duration) {
        let _ = self.stop.take().unwrap().send(());
        (&mut self.served).await.unwrap();
        tokio::time::sleep(pause).await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        let (readiness, stop, served) = serve(&self.config, &self.hub, self.folder.path(), self.has_store, listener);
        (self.readiness, self.stop, self.served) = (readiness, Some(stop), served);
    }

    /// The next report, taken in as a scheduler does once it is durable.
    pub async fn report(&mut self) -> Report {
        let report = self.report_unanswered().await;
        self.hub.answered(&report.run, &report.unit, report.token, Verdict::Recorded);
        report
    }

    pub async fn report_unanswered(&mut self) -> Report {
        tokio::time::timeout(PATIENCE, self.reports.recv()).await.expect("a report in time").expect("a hub")
    }

    /// The next report's outputs as text.
    pub async fn text(&mut self) -> String {
        let report = self.report().await;
        let Ok(Outcome::Succeeded { outputs, .. }) = &report.result else { panic!("{report:?}") };
        outputs["text"].as_str().unwrap_or_else(|| panic!("{report:?}")).to_owned()
    }

    /// No report comes for so long.
    pub async fn quiet(&mut self, length: Duration) {
        if let Ok(report) = tokio::time::timeout(length, self.reports.recv()).await {
            panic!("an unexpected report: {report:?}");
        }
    }

    /// What the scheduler keeps of the log of a unit's first attempt.
    pub fn log(&self, unit: &str) -> String {
        let logs = logs::list(self.folder.path(), &run_id()).unwrap();
        let log = logs.iter().find(|log| log.unit.as_str() == unit).unwrap_or_else(|| panic!("no log of {unit}"));
        logs::read(log).unwrap().map(|piece| piece.unwrap().text).collect()
    }

    /// A worker that is connected.
    pub async fn worker(&self, name: &str, arguments: &[&str]) -> Worker {
        let worker = Worker::start(&self.address.to_string(), name, arguments, &[]);
        self.joined(name).await;
        worker
    }

    pub async fn joined(&self, name: &str) {
        until(&format!("worker {name} joins"), || self.hub.workers().iter().any(|(one, _, _)| &**one == name)).await;
    }
}

fn serve(
    config: &GatewayConfig,
    hub: &Arc<Hub>,
    folder: &Path,
    has_store: bool,
    listener: TcpListener,
) -> (Readiness, oneshot::Sender<()>, JoinHandle<()>) {
    let store = has_store.then(|| Arc::new(FolderStore::new(folder.join("artifacts"))) as Arc<dyn Store>);
    let gateway = Gateway::new(config.clone(), hub.clone(), Arc::new(LogFolder::new(folder.to_owned())), store);
    let readiness = gateway.readiness();
    let (stop, stopped) = oneshot::channel();
    let served = tokio::spawn(async move {
        let shutdown = async {
            let _ = stopped.await;
        };
        gateway.serve(listener, shutdown).await.unwrap();
    });
    (readiness, stop, served)
}

/// Waits until it is so.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The built `tol worker`. It is killed when this goes.
pub struct Worker {
    child: Child,
    pub folder: TempDir,
}

impl Worker {
    pub fn start(gateway: &str, name: &str, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let said = std::fs::File::create(folder.path().join("said")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
        command
            .args(["worker", "--gateway", gateway, "--name", name])
            .args(arguments)
            .current_dir(folder.path())
            .env_remove("TOL_TOKEN")
            .env_remove("TOL_WORKER_TOKEN")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said);
        Self { child: command.spawn().unwrap(), folder }
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Its exit code, once it has ended.
    pub async fn ended(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(began.elapsed() < PATIENCE, "the worker does not end; it said\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn says(&self, words: &str) {
        let began = Instant::now();
        while !self.said().contains(words) {
            assert!(began.elapsed() < PATIENCE, "it does not say `{words}` but\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn task(unit: &str, token: u64, work: Work) -> Task {
    Task {
        run: run_id(),
        pipeline: Arc::from("p"),
        unit: UnitPath::new(unit),
        attempt: 1,
        token: LeaseToken(token),
        idempotency_key: format!("key-{unit}"),
        deadline: None,
        place: Placement::default(),
        work,
    }
}

pub fn script(text: &str) -> Work {
    Work::Run(Script {
        command: Words::Shell { shell: Shell::Sh, script: text.to_owned() },
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: "/tmp".to_owned(),
        json: false,
        permanent_exit_codes: Vec::new(),
        max_output: 64 * 1024 * 1024,
    })
}

pub fn agent(argv: &[&str]) -> Work {
    Work::Agent(AgentCall {
        agent: "a".to_owned(),
        phase: AgentPhase::Execute,
        system_prompt: String::new(),
        prompt: "go".to_owned(),
        input: serde_json::json!({"n": 9_007_199_254_740_993_u64}),
        schema: None,
        tools: Vec::new(),
        max_tokens: 1,
        temperature: None,
        model: None,
        provider: Provider::Command {
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            dir: "/tmp".to_owned(),
        },
        env: Vec::new(),
    })
}
