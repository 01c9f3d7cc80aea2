//! The workers of docs/workers in another language: they run as the page says, over gRPC against `tol serve` and over a
//! real Kafka against a scheduler's hub.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tol::dispatch::kafka::{Producer, Record, Topics};
use tol::dispatch::{Dispatch, Stop, Terms};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::task::{Command as TaskCommand, Failure, Outcome, Phase, Placement, Script, Shell, Task, Work};

use crate::kafka;
use crate::support::{Project, root};

const TOKEN: &str = "a-token-of-the-tests-0123456789";
/// How long a worker may take to end when nothing holds it up.
const END: Duration = Duration::from_secs(20);

/// A virtual environment with what the workers need, and the modules of the protocol.
struct Python {
    program: PathBuf,
    modules: PathBuf,
}

/// Made once for all tests of a target folder. None, loudly, if it cannot be had; with `CI=true` that is a failure.
fn python() -> Option<&'static Python> {
    static PYTHON: OnceLock<Result<Python, String>> = OnceLock::new();
    match PYTHON.get_or_init(make_python) {
        Ok(python) => Some(python),
        Err(why) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "the Python workers cannot be tried: {why}");
            eprintln!("SKIPPED: the Python workers: {why}");
            None
        }
    }
}

fn make_python() -> Result<Python, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-workers");
    let requirements = root().join("docs/workers/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).map_err(|error| error.to_string())?;
    let python = Python { program: folder.join("venv/bin/python"), modules: folder.join("modules") };
    let stamp = folder.join("installed.txt");
    if std::fs::read_to_string(&stamp).unwrap_or_default() != wanted {
        let venv = folder.join("venv");
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
        let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
        run(Command::new(&python.program).args(install).arg(&requirements))?;
        std::fs::write(&stamp, &wanted).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir_all(&python.modules).map_err(|error| error.to_string())?;
    let mut protoc = Command::new(&python.program);
    protoc.current_dir(root()).args(["-m", "grpc_tools.protoc", "--proto_path=proto"]);
    for kind in ["--python_out", "--grpc_python_out"] {
        protoc.arg(format!("{kind}={}", python.modules.display()));
    }
    run(protoc.args(["envelope", "task", "worker"].map(|name| format!("tol/v1/{name}.proto"))))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

/// A process that is killed with this.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(command: &mut Command, log: PathBuf) -> Self {
        let file = std::fs::File::create(&log).expect("a log");
        let second = file.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(second).spawn().expect("it starts");
        Self { child, log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line with these words, and gives it.
    fn line(&self, words: &str) -> String {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(30) {
            let file = std::fs::File::open(&self.log).expect("a log");
            if let Some(line) = BufReader::new(file).lines().map_while(Result::ok).find(|line| line.contains(words)) {
                return line;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it does not say `{words}`:\n{}", self.said());
    }

    fn terminate(&self) {
        run(Command::new("kill").args(["-TERM", &self.child.id().to_string()])).expect("a signal");
    }

    /// Waits for its end and gives its exit code.
    fn end(&mut self, limit: Duration) -> Option<i32> {
        let began = Instant::now();
        while began.elapsed() < limit {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no end within {limit:?}:\n{}", self.said());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker with this name for the queue `python`.
fn worker(python: &Python, script: &str, name: &str, folder: &Path, set: impl FnOnce(&mut Command)) -> Process {
    let mut command = Command::new(&python.program);
    command.arg(root().join("docs/workers").join(script)).args(["--queue", "python", "--name", name]);
    command.env("PYTHONPATH", &python.modules).env("TOL_SECRET_PASS", "a-secret-word");
    set(&mut command);
    Process::start(&mut command, folder.join(format!("{name}.log")))
}

const PIPELINE: &str = r#"apiVersion: tol/v1
name: elsewhere
queue: python
steps:
  - id: numbers
    run: |
      echo '{"big": 9007199254740993}'
      echo 'added=yes' >> "$TOL_OUTPUT"
    outputs: json
  - id: each
    foreach: { items: "[1, 2, 3]", as: n, max_items: 5 }
    run: [echo, "item {{ n }} of $HOME"]
  - id: secret
    run: 'echo "it is $WORD"; echo "$WORD" | wc -c'
    env: { WORD: "{{ secrets.PASS }}" }
  - id: again
    run: 'test "$TOL_ATTEMPT" -eq 2; echo "$TOL_STEP"'
    retry: { limit: 2, backoff: { initial: 10ms, factor: 1, max: 10ms } }
  - id: never
    run: exit 7
    permanent_exit_codes: [7]
    retry: { limit: 3 }
    continue_on_error: true
  - id: slow
    run: 'sleep 987654 & sleep 987654'
    timeout: 1s
    continue_on_error: true
outputs:
  numbers: "{{ numbers.outputs }}"
  each: "{{ each.outputs }}"
  secret: "{{ secret.outputs.text }}"
  again: "{{ again.outputs.text }}"
"#;

/// `tol serve` on a project that does no work itself; with its address.
fn serve(project: &Project, address: &str) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
    command.args(["serve", ".", "--listen", address, "--no-local-worker"]).current_dir(project.path());
    command.env("TOL_TOKEN", TOKEN).env_remove("DATABASE_URL");
    let process = Process::start(&mut command, project.path().join("serve.log"));
    let line = process.line("listening on http://");
    let (_, rest) = line.split_once("http://").expect("an address");
    let address = rest.split(';').next().expect("an address").to_owned();
    (process, address)
}

#[test]
fn a_grpc_worker_in_python_does_the_steps_of_its_queue() {
    let Some(python) = python() else { return };
    let slow = "apiVersion: tol/v1\nname: slow\nqueue: python\nsteps:\n  - id: s\n    \
                run: 'echo \"$TOL_ATTEMPT\" >> ran; while [ ! -e go ]; do sleep 0.1; done'\n";
    let project = Project::new(&[("elsewhere.yaml", PIPELINE), ("slow.yaml", slow)]);
    let (server, address) = serve(&project, "127.0.0.1:0");
    let start = |name: &str| {
        let set = |command: &mut Command| {
            command.args(["--gateway", &address]).env("TOL_WORKER_TOKEN", TOKEN);
        };
        worker(python, "grpc_worker.py", name, project.path(), set)
    };
    let tol = |line: &str| project.sh(&format!("TOL_TOKEN={TOKEN} tol {line} --server {address}"));
    let mut worker = start("anna");
    worker.line("connected to");

    let ran = tol("run elsewhere --format json");
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.said(), worker.said());
    let outputs = &ran.summary()["outputs"];
    assert_eq!(outputs["numbers"], json!({"big": 9_007_199_254_740_993_u64, "added": "yes"}));
    assert_eq!(outputs["each"][2], json!({"text": "item 3 of $HOME"}));
    assert_eq!(outputs["secret"], json!("it is ***\n14"));
    assert_eq!(outputs["again"], json!("again"));
    let all = format!("{}{}", ran.stdout, worker.said());
    assert!(!all.contains("a-secret-word"), "{all}");
    let left = Command::new("pgrep").args(["-f", "sleep 98765[4]"]).output().expect("pgrep runs");
    assert!(left.stdout.is_empty(), "a stopped step leaves programs behind");

    // The scheduler dies in the middle; the worker goes on, and reports to the next one.
    let detached = tol("run slow --detach");
    let run = detached.stdout.trim().to_owned();
    worker.line(" s: attempt 1");
    drop(server);
    let (_server, _) = serve(&project, &address);
    // It drains: what is in work may end, and is reported before the worker leaves.
    worker.terminate();
    project.write("go", "");
    assert_eq!(worker.end(END), Some(0), "{}", worker.said());
    let shown = tol(&format!("runs show {run} --format json"));
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{}", shown.said()));
    assert_eq!(shown["status"], json!("succeeded"), "{shown}");
    assert_eq!(std::fs::read_to_string(project.path().join("ran")).expect("it ran"), "1\n");
}

/// A shell script for the queue `python`.
fn task(unit: &str, token: u64, script: &str, once: bool) -> Task {
    let work = Script {
        command: TaskCommand::Shell { shell: Shell::Sh, script: script.to_owned() },
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: "/".to_owned(),
        json: true,
        permanent_exit_codes: vec![7],
        max_output: 1000,
    };
    let place = Placement { queue: Arc::from("python"), once, ..Placement::default() };
    Task { unit: UnitPath::new(unit), place, work: Work::Run(work), ..kafka::task("run", unit, token, once) }
}

#[test]
fn a_kafka_worker_in_python_takes_leases_and_says_how_tasks_ended() {
    let (Some(python), Some(cluster)) = (python(), kafka::broker()) else { return };
    let settings = kafka::settings(cluster);
    let folder = tempfile::tempdir().expect("a folder");
    let topic = Topics::new(&settings).tasks("python", Phase::Execute);
    kafka::wait(async {
        let mut scheduler = kafka::Scheduler::start(&settings, "one", Terms::default()).await;
        let set = |command: &mut Command| {
            command.env("KAFKA_BROKERS", cluster.brokers()).env("KAFKA_TOPIC_PREFIX", &settings.prefix);
        };
        let mut worker = worker(python, "kafka_worker.py", "anna", folder.path(), set);
        // The topics of the queue are made with its first task, and the worker finds them some seconds later. Until then
        // a task that must not begin twice would be void, and not sent again.
        scheduler.hub.dispatch(task("first", 100, "echo 100", false));
        let report = scheduler.next(60).await;
        assert!(matches!(report.result, Ok(Outcome::Succeeded { .. })), "{report:?}\n{}", worker.said());
        // More than it does at once, some of which must not begin twice.
        for token in 101..=112 {
            let script = format!("echo {token} >> {}/ran; echo {token}", folder.path().display());
            scheduler.hub.dispatch(task(&format!("u{token}"), token, &script, token % 3 == 0));
        }
        let mut seen = Vec::new();
        for _ in 101..=112 {
            let report = scheduler.next(60).await;
            let Ok(Outcome::Succeeded { outputs, .. }) = &report.result else {
                panic!("{report:?}\n{}", worker.said())
            };
            assert_eq!(**outputs, json!(report.token.0));
            seen.push(report.token.0);
        }
        seen.sort_unstable();
        assert_eq!(seen, (101..=112).collect::<Vec<u64>>());

        scheduler.hub.dispatch(task("bad", 120, "echo no >&2; exit 7", false));
        let report = scheduler.next(30).await;
        let Ok(Outcome::Failed { failure, .. }) = report.result else { panic!("{:?}", report.result) };
        let expected =
            Failure { exit_code: Some(7), stderr: Some("no\n".to_owned()), ..Failure::permanent("exit code 7") };
        assert_eq!(failure, expected);

        // A message that is none is put aside; a stop ends the work of the one behind it.
        let producer = Producer::new(&settings, "somebody").expect("a producer");
        for partition in 0..settings.partitions {
            let junk =
                Record { topic: &topic, partition: Some(partition), key: "k", headers: &[], payload: b"\xff\xff" };
            producer.send(junk).await.expect("sent").written().await.expect("written");
        }
        scheduler.hub.dispatch(task("slow", 121, "sleep 876543", false));
        worker.line(" slow: attempt 1");
        scheduler.hub.stop(&RunId::new("run"), &UnitPath::new("slow"), LeaseToken(121), Stop::Graceful);
        assert_eq!(scheduler.next(30).await.result, Ok(Outcome::Stopped));
        let dead = kafka::read_all(&settings, &Topics::dead_letters(&topic), 3).await;
        assert!(dead.iter().all(|record| record.payload() == b"\xff\xff"), "{dead:?}");
        assert!(dead.iter().all(|record| record.header("source").is_some_and(|source| source.starts_with(&topic))));

        worker.terminate();
        assert_eq!(worker.end(END), Some(0), "{}", worker.said());
        assert_eq!(scheduler.hub.out(), 0);
        assert!(scheduler.bus.close(Duration::from_secs(10)).await);
    });
    let ran = std::fs::read_to_string(folder.path().join("ran")).expect("they ran");
    assert_eq!(ran.lines().count(), 12, "a task was begun twice: {ran}");
}
