//! Several real schedulers and workers on one machine: started, frozen, cut off and killed by a test.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The token of every scheduler and worker of these tests.
const TOKEN: &str = "a-token-of-the-tests-0123456789";

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A process of `tol` that is killed with this.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    fn start(arguments: &[&str], folder: &Path, log: PathBuf, env: &[(&str, &str)]) -> Self {
        let out = std::fs::File::options().create(true).append(true).open(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
        command.args(arguments).current_dir(folder).env("TOL_TOKEN", TOKEN).env_remove("DATABASE_URL");
        let child = command
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle"))
            .stderr(out)
            .spawn()
            .expect("tol starts");
        Self { child, log }
    }

    /// Sends a signal by its name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(sent.success(), "kill -{name} {pid}");
    }

    /// Ends it without a word, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Waits for its end and gives its exit code.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no end within {limit:?}: {}", self.said());
    }

    /// What it said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A frozen process does not die of SIGTERM; it is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A scheduler: `tol serve` on the folder of a cluster.
pub struct Scheduler {
    pub process: Process,
    pub address: String,
    /// It does not answer: killed, frozen, or cut off.
    pub away: bool,
}

/// A served folder, and what runs on it.
pub struct Cluster {
    folder: tempfile::TempDir,
    /// What processes keep and say, apart from what is served.
    states: tempfile::TempDir,
    database: String,
    pub schedulers: Vec<Scheduler>,
    pub workers: Vec<Process>,
    /// Variables for whatever is started from now on.
    pub env: Vec<(String, String)>,
}

impl Cluster {
    /// A folder with these files, served by nobody yet.
    pub fn new(database: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let states = tempfile::tempdir().expect("a folder");
        let (database, schedulers, workers, env) = (database.to_owned(), Vec::new(), Vec::new(), Vec::new());
        let cluster = Self { folder, states, database, schedulers, workers, env };
        for (name, text) in [("duo-agent.config.yaml", "apiVersion: tol/v1\n")].iter().chain(files) {
            std::fs::write(cluster.path().join(name), text).expect("a file");
        }
        cluster
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn env(&self) -> Vec<(&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Starts a scheduler, over a database of its own address if one is given. Waits until it is ready.
    pub fn serve(&mut self, name: &str, database: Option<&str>, more: &[&str]) {
        let address = format!("127.0.0.1:{}", free_port());
        let scheduler = self.start_scheduler(name, &address, database, more);
        self.schedulers.push(scheduler);
    }

    /// Starts a scheduler at an address.
    pub fn start_scheduler(&self, name: &str, address: &str, database: Option<&str>, more: &[&str]) -> Scheduler {
        let state = self.states.path().join(format!("state-{name}"));
        let state = state.to_str().expect("a plain path");
        let mut arguments = vec!["serve", ".", "--listen", address, "--name", name, "--no-local-worker"];
        arguments.extend(["--state-dir", state]);
        arguments.extend(more);
        let database = database.unwrap_or(&self.database);
        let mut env = self.env();
        env.extend((!database.is_empty()).then_some(("DATABASE_URL", database)));
        let process = Process::start(&arguments, self.path(), self.states.path().join(format!("{name}.log")), &env);
        let scheduler = Scheduler { process, address: address.to_owned(), away: false };
        let until = Instant::now() + Duration::from_secs(30);
        while !scheduler.process.said().contains("listening on ")
            || self.try_tol(&["runs", "list", "--server", &scheduler.address]).is_err()
        {
            assert!(Instant::now() < until, "scheduler {name} does not answer: {}", scheduler.process.said());
            std::thread::sleep(Duration::from_millis(50));
        }
        scheduler
    }

    /// Starts a worker that knows all schedulers of now.
    pub fn work(&mut self, name: &str, more: &[&str]) {
        let gateways: Vec<String> = self.schedulers.iter().map(|scheduler| scheduler.address.clone()).collect();
        self.work_at(name, &gateways.join(","), more);
    }

    /// Starts a worker that knows these gateways.
    pub fn work_at(&mut self, name: &str, gateways: &str, more: &[&str]) {
        let state = self.states.path().join(format!("worker-{name}"));
        let mut arguments = vec!["worker", "--gateway"];
        arguments.extend([gateways, "--name", name]);
        if !more.contains(&"--concurrency") {
            arguments.extend(["--concurrency", "4"]);
        }
        arguments.extend(["--state-dir", state.to_str().expect("a plain path")]);
        arguments.extend(more);
        let process =
            Process::start(&arguments, self.path(), self.states.path().join(format!("{name}.log")), &self.env());
        self.workers.push(process);
    }

    /// Runs a client command to its end; its standard output, or what it said when it failed.
    pub fn try_tol(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
        command.args(arguments).current_dir(self.path()).env("TOL_TOKEN", TOKEN).env_remove("DATABASE_URL");
        let done = command.stdin(Stdio::null()).output().expect("tol runs");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        if done.status.success() { Ok(String::from_utf8_lossy(&done.stdout).into_owned()) } else { Err(said) }
    }

    /// Submits a run to one of the schedulers, to another if that one is away.
    pub fn submit(&self, pipeline: &str, number: usize) -> String {
        let mut said = String::new();
        for turn in 0..self.schedulers.len() * 50 {
            let scheduler = &self.schedulers[(number + turn) % self.schedulers.len()];
            if scheduler.away {
                continue;
            }
            match self.try_tol(&["run", pipeline, "--server", &scheduler.address, "--detach"]) {
                Ok(id) => return id.trim().to_owned(),
                Err(words) => said = words,
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("nobody takes the run: {said}");
    }

    /// How every run stands, by its id, as the first scheduler that answers says.
    pub fn statuses(&self) -> std::collections::BTreeMap<String, String> {
        for scheduler in self.schedulers.iter().filter(|scheduler| !scheduler.away) {
            let list = ["runs", "list", "--server", &scheduler.address, "--format", "json", "--limit", "1000"];
            if let Ok(text) = self.try_tol(&list) {
                let rows: Vec<Value> = serde_json::from_str(&text).expect("a list");
                let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
                return rows.iter().map(|row| (word(row, "run_id"), word(row, "status"))).collect();
            }
        }
        std::collections::BTreeMap::new()
    }

    /// Waits until all of these runs have ended, and gives what became of them.
    pub fn wait_for(&self, runs: &[String], limit: Duration) -> Vec<String> {
        let until = Instant::now() + limit;
        loop {
            let all = self.statuses();
            let ended = |run: &String| {
                all.get(run).filter(|status| !matches!(status.as_str(), "running" | "waiting" | "pending")).cloned()
            };
            let found: Vec<String> = runs.iter().filter_map(ended).collect();
            if found.len() == runs.len() {
                return found;
            }
            assert!(
                Instant::now() < until,
                "I1: {} of {} runs have ended: {all:?}\n{}",
                found.len(),
                runs.len(),
                self.said()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The last that every process said.
    pub fn said(&self) -> String {
        let processes = self.schedulers.iter().map(|scheduler| &scheduler.process).chain(&self.workers);
        let last = |process: &Process| {
            let said = process.said();
            let lines: Vec<&str> = said.lines().rev().take(15).collect();
            format!("--- {}\n{}\n", process.log.display(), lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        processes.map(last).collect()
    }

    /// The events of a run.
    pub fn history(&self, run: &str) -> Vec<Value> {
        for scheduler in self.schedulers.iter().filter(|scheduler| !scheduler.away) {
            if let Ok(text) = self.try_tol(&["runs", "show", run, "--history", "--server", &scheduler.address]) {
                return text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            }
        }
        panic!("nobody shows the history of {run}: {}", self.said());
    }
}

/// A wire that can be cut: connections through it hang while it is, and go on or break when it is mended.
pub struct Wire {
    pub port: u16,
    cut: Arc<AtomicBool>,
}

impl Wire {
    /// A wire to an address.
    pub fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let cut = Arc::new(AtomicBool::new(false));
        let seen = cut.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let pairs = [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())];
                for (from, to) in pairs {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let cut = seen.clone();
                    std::thread::spawn(move || carry(from, to, &cut));
                }
            }
        });
        Self { port, cut }
    }

    /// From now on nothing gets through, and nobody is told.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    /// What was sent in the meantime arrives.
    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        while cut.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}
