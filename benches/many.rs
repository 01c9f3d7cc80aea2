//! What handing work out costs, in one process: `cargo bench --bench many [NAME…]`.
//!
//! Nothing here passes or fails: it prints, each figure beside a baseline of the same run. `docs/performance.md` keeps
//! the figures.

use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tol::compile::{CheckOptions, MemorySources, Program, check};
use tol::diagnostic::Files;
use tol::dispatch::{
    Dispatch, Hub, InProcess, Joining, LocalSession, Perform, Report, Stop, StopSignal, Terms, Verdict,
};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::journal::{MemoryJournal, NewRun};
use tol::runtime::{Clock, Engine, EngineConfig, StartRun, SystemClock};
use tol::scheduler::Accepted;
use tol::task::{Command, Outcome, Placement, Script, Task, Work};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let benches: [(&str, fn()); 3] = [("bus", bus), ("hub", hub), ("live_runs", live_runs)];
    for (name, bench) in benches {
        if runs(name) {
            bench();
        }
    }
}

fn say(name: &str, figure: impl std::fmt::Display, baseline: impl std::fmt::Display) {
    println!("{name:<44} {figure:<28} baseline: {baseline}");
    let _ = std::io::stdout().flush();
}

/// Does nothing, at once.
struct Nothing(Outcome);

impl Perform for Nothing {
    fn perform(&self, _: Task, _: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let outcome = self.0.clone();
        Box::pin(async move { outcome })
    }
}

fn task(number: u64) -> Task {
    let script = Script {
        command: Command::Argv(Vec::new()),
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: String::new(),
        json: false,
        permanent_exit_codes: Vec::new(),
        max_output: 0,
    };
    Task {
        run: RunId::new("01900000-0000-7000-8000-000000000000"),
        pipeline: Arc::from("bench"),
        unit: UnitPath::new("step"),
        attempt: 1,
        token: LeaseToken(number),
        idempotency_key: String::new(),
        deadline: None,
        place: Placement::default(),
        work: Work::Run(script),
    }
}

const TASKS: u64 = 500_000;
/// How many are out at once, as with many runs of a few steps.
const AT_ONCE: u64 = 1_000;

fn on_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.unwrap_or_else(|error| panic!("{error}")).block_on(work)
}

/// Hands tasks out and takes their reports in; tasks a second.
async fn pump(dispatch: &dyn Dispatch, reports: &mut UnboundedReceiver<Report>) -> f64 {
    let started = Instant::now();
    let (mut sent, mut done) = (0, 0);
    while done < TASKS {
        while sent < TASKS && sent - done < AT_ONCE {
            sent += 1;
            dispatch.dispatch(task(sent));
        }
        let Some(report) = reports.recv().await else { panic!("the workers are gone") };
        dispatch.answered(&report.run, &report.unit, report.token, Verdict::Recorded);
        done += 1;
    }
    TASKS as f64 / started.elapsed().as_secs_f64()
}

/// The least that a bus in one process does: the same messages through two channels and a task for each.
async fn raw_channels() -> f64 {
    let (reports, mut inbox) = unbounded_channel::<Report>();
    let started = Instant::now();
    let (mut sent, mut done) = (0, 0);
    while done < TASKS {
        while sent < TASKS && sent - done < AT_ONCE {
            sent += 1;
            let (task, reports) = (task(sent), reports.clone());
            tokio::spawn(async move {
                let result = Ok(Outcome::Stopped);
                reports.send(Report { run: task.run, unit: task.unit, token: task.token, result })
            });
        }
        if inbox.recv().await.is_none() {
            panic!("the channel is closed");
        }
        done += 1;
    }
    TASKS as f64 / started.elapsed().as_secs_f64()
}

fn bus() {
    let (ours, raw) = on_runtime(async {
        let (sender, mut reports) = unbounded_channel();
        let performer = Arc::new(Nothing(Outcome::success(1.into())));
        let dispatch = InProcess::new(tokio::runtime::Handle::current(), performer, sender);
        (pump(&dispatch, &mut reports).await, raw_channels().await)
    });
    // A task and its report are two messages.
    let [ours, raw] = [ours, raw].map(|tasks| format!("{:.2} million", tasks * 2.0 / 1e6));
    say("messages a second, in one process", ours, format!("{raw} through bare channels"));
}

fn hub() {
    let ours = on_runtime(async {
        let (sender, mut reports) = unbounded_channel();
        let hub = Hub::start(Terms::default(), sender, None, false);
        let joining = Joining {
            worker: Arc::from("local"),
            queues: ["default".to_owned()].into(),
            capabilities: Default::default(),
            concurrency: AT_ONCE as u32,
            leases: Vec::new(),
            local: true,
        };
        let _session = LocalSession::start(&hub, joining, Arc::new(Nothing(Outcome::success(1.into()))));
        pump(&*hub, &mut reports).await
    });
    let ours = format!("{:.2} million", ours * 2.0 / 1e6);
    say("messages a second, through leases", ours, "the line above");
}

/// Keeps what it is given.
struct Holds(Mutex<Vec<Task>>);

impl Dispatch for Holds {
    fn dispatch(&self, task: Task) {
        if let Ok(mut tasks) = self.0.lock() {
            tasks.push(task);
        }
    }

    fn stop(&self, _: &RunId, _: &UnitPath, _: LeaseToken, _: Stop) {}
}

fn program(yaml: &str) -> Arc<Program> {
    let sources = MemorySources([("p.yaml".to_owned(), Arc::from(yaml))].into());
    let (mut files, mut diagnostics) = (Files::default(), Vec::new());
    let program = check("p.yaml", &sources, &mut files, &mut diagnostics, &CheckOptions { profile: None });
    Arc::new(program.unwrap_or_else(|| panic!("{}", tol::diagnostic::render_human(&files, &diagnostics, false))))
}

fn memory_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Many runs that wait for a worker: what one more costs, and whether each is as quick among many as among few.
fn live_runs() {
    let yaml = "apiVersion: tol/v1\nname: live\nsteps:\n  - { id: a, run: x }\n  - { id: b, run: x, depends: [a] }\n  - { id: c, run: x, depends: [b] }\n";
    let program = program(yaml);
    let definition: Arc<[u8]> = Arc::from(serde_json::to_vec(&program.sources).unwrap_or_default());
    for runs in [100, 1_000, 10_000, 100_000] {
        let before = memory_bytes();
        let (took, steps, after) = on_runtime(async {
            let (handle, held) = (Arc::new(Mutex::new(None)), Arc::new(Holds(Mutex::new(Vec::new()))));
            let journal = Arc::new(MemoryJournal::new());
            let config =
                EngineConfig { journal, clock: Arc::new(SystemClock), root: Arc::from("/"), takes_commands: false };
            let (engine, _loop) = Engine::start(config, |reports| {
                if let Ok(mut handle) = handle.lock() {
                    *handle = Some(reports);
                }
                held.clone()
            });
            for run in 0..runs {
                let accepted = Accepted {
                    run: RunId::new(&format!("01900000-0000-7000-8000-{run:012}")),
                    definition_hash: program.hash.to_string(),
                    params: serde_json::Map::new(),
                    env: serde_json::Map::new(),
                    options: tol::scheduler::Options::default(),
                    parent: None,
                    reused: Vec::new(),
                };
                let row = NewRun {
                    pipeline: "live".to_owned(),
                    path: "p.yaml".to_owned(),
                    definition_hash: program.hash.to_string(),
                    definition: definition.clone(),
                    git_commit: None,
                    git_dirty: None,
                    parent: None,
                    started_at: SystemClock.now(),
                };
                engine.run(StartRun { program: program.clone(), accepted, row, watcher: None });
            }
            let held_now = || held.0.lock().map_or(0, |tasks| tasks.len());
            while held_now() < runs {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let after = memory_bytes();
            let reports: Option<UnboundedSender<Report>> = handle.lock().ok().and_then(|mut handle| handle.take());
            let Some(reports) = reports else { panic!("the engine has connected to nobody") };
            // The second step of each run.
            let tasks = held.0.lock().map(|mut tasks| std::mem::take(&mut *tasks)).unwrap_or_default();
            let started = Instant::now();
            for task in tasks {
                let result = Ok(Outcome::success(1.into()));
                let _ = reports.send(Report { run: task.run, unit: task.unit, token: task.token, result });
            }
            while held_now() < runs {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            (started.elapsed(), runs, after)
        });
        say(
            &format!("{runs} live runs of three steps"),
            format!("{:.1} KB each", (after.saturating_sub(before)) as f64 / runs as f64 / 1024.0),
            format!("{:.1} µs from report to the next hand-out, all at once", took.as_secs_f64() / steps as f64 * 1e6),
        );
    }
}
