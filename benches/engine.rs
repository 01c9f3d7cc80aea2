//! What the engine costs, each figure beside a baseline of the same run: `cargo bench --bench engine [NAME…]`.
//!
//! Nothing here passes or fails: it prints. `docs/performance.md` keeps the figures.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tol::compile::{CheckOptions, MemorySources, Program, check, compile_pipeline};
use tol::diagnostic::Files;
use tol::dispatch::{Dispatch, Stop};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::journal::{Journal, MemoryJournal, NewRun, OpenMode, SqliteJournal};
use tol::runtime::{Clock, Engine, EngineConfig, RunEvent, StartRun, SystemClock, replay};
use tol::scheduler::{Accepted, Effect, Event, Input, PreparedWork, Stamped, State, admit, apply, prepare};
use tol::task::Task;
use tol::time::Timestamp;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let benches: [(&str, fn()); 7] = [
        ("scheduler_step", scheduler_step),
        ("durable_steps", durable_steps),
        ("chain_of_three", chain_of_three),
        ("three_step_runs", three_step_runs),
        ("large_run", large_run),
        ("compile_million", compile_million),
        ("replay_million", replay_million),
    ];
    for (name, bench) in benches {
        if runs(name) {
            bench();
        }
    }
}

fn program(yaml: &str) -> Arc<Program> {
    let sources = MemorySources([("p.yaml".to_owned(), Arc::from(yaml))].into());
    let mut diagnostics = Vec::new();
    let mut files = Files::default();
    let program = check("p.yaml", &sources, &mut files, &mut diagnostics, &CheckOptions { profile: None });
    Arc::new(program.unwrap_or_else(|| panic!("{}", tol::diagnostic::render_human(&files, &diagnostics, false))))
}

fn wide(steps: usize) -> String {
    let mut yaml = String::from("apiVersion: tol/v1\nname: wide\nsteps:\n");
    for step in 0..steps {
        let _ = writeln!(yaml, "  - {{ id: s{step}, transform: {{ n: {step} }} }}");
    }
    yaml
}

fn chain(steps: usize) -> String {
    let mut yaml = String::from("apiVersion: tol/v1\nname: chain\nsteps:\n  - { id: s0, transform: { n: 0 } }\n");
    for step in 1..steps {
        let _ = writeln!(yaml, "  - {{ id: s{step}, depends: [s{}], transform: {{ n: {step} }} }}", step - 1);
    }
    yaml
}

fn accepted(run: &str, program: &Program) -> Accepted {
    Accepted {
        run: RunId::new(run),
        definition_hash: program.hash.to_string(),
        params: serde_json::Map::new(),
        env: serde_json::Map::new(),
        options: tol::scheduler::Options::default(),
        parent: None,
        reused: Vec::new(),
    }
}

/// Runs a state to its end in memory and keeps its history.
fn run_in_memory(program: &Arc<Program>, keep: bool) -> (State, Vec<Stamped>) {
    let accepted = Arc::new(accepted("bench", program));
    let now = Timestamp(1_000);
    let mut state = State::new(program.clone(), accepted.clone(), now);
    let mut history = Vec::new();
    let first = Stamped::new(now, Event::Accepted(Box::new((*accepted).clone())));
    let mut open: std::collections::VecDeque<Effect> = apply(&mut state, &first).into();
    if keep {
        history.push(first);
    }
    while let Some(effect) = open.pop_front() {
        let Effect::Dispatch { unit, token } = effect else { continue };
        let PreparedWork::Outcome(outcome) = prepare(&state, unit, token, "/", "mark").work else { continue };
        let input = Input::Report { unit: state.path(unit), token, outcome, draw: 0.5 };
        let Ok(event) = admit(&state, input, now) else { continue };
        let stamped = Stamped::new(now, event);
        open.extend(apply(&mut state, &stamped));
        if keep {
            history.push(stamped);
        }
    }
    assert!(state.verdict.is_some(), "the run did not end");
    (state, history)
}

fn say(name: &str, figure: impl std::fmt::Display, baseline: impl std::fmt::Display) {
    println!("{name:<44} {figure:<28} baseline: {baseline}");
    let _ = std::io::stdout().flush();
}

fn scheduler_step() {
    let program = program(&wide(10_000));
    let best = (0..5)
        .map(|_| {
            let started = Instant::now();
            run_in_memory(&program, false);
            started.elapsed()
        })
        .min()
        .unwrap_or_default();
    let per_step = best.as_secs_f64() / 10_000.0 * 1e6;
    // The least that any scheduler does: a queue and a counter for each step.
    let started = Instant::now();
    let mut queue: std::collections::BTreeSet<(u32, u32)> = (0..10_000u32).map(|step| (0, step)).collect();
    let mut ended = std::collections::HashMap::new();
    while let Some((_, step)) = queue.pop_first() {
        ended.insert(step, serde_json::json!({ "n": step }));
    }
    let baseline = started.elapsed().as_secs_f64() / 10_000.0 * 1e6;
    say(
        "scheduler step, no durability",
        format!("{per_step:.2} µs"),
        format!("{baseline:.2} µs (queue and map alone)"),
    );
}

/// Nothing goes to a worker here: transforms are computed by the engine itself.
struct NoWorkers;

impl Dispatch for NoWorkers {
    fn dispatch(&self, _task: Task) {}
    fn stop(&self, _run: &RunId, _unit: &UnitPath, _token: LeaseToken, _how: Stop) {}
}

fn engine_run(
    journal: Arc<dyn Journal>,
    program: &Arc<Program>,
    runs: usize,
    at_once: usize,
) -> (Duration, Vec<Duration>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap_or_else(|error| panic!("{error}"));
    runtime.block_on(async {
        let config =
            EngineConfig { journal, clock: Arc::new(SystemClock), root: Arc::from("/"), takes_commands: false };
        let (engine, _task) = Engine::start(config, |_reports| Arc::new(NoWorkers));
        let definition: Arc<[u8]> = Arc::from(serde_json::to_vec(&program.sources).unwrap_or_default());
        let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
        let started = Instant::now();
        let mut begun: std::collections::HashMap<RunId, Instant> = std::collections::HashMap::new();
        let mut latencies = Vec::with_capacity(runs);
        let mut next = 0;
        while latencies.len() < runs {
            while next < runs && next - latencies.len() < at_once {
                let accepted = accepted(&format!("run-{next}-{}", uuid::Uuid::new_v4().simple()), program);
                begun.insert(accepted.run.clone(), Instant::now());
                let row = NewRun {
                    pipeline: program.root.pipeline.name.value.to_string(),
                    path: "p.yaml".to_owned(),
                    definition_hash: program.hash.to_string(),
                    definition: definition.clone(),
                    git_commit: None,
                    git_dirty: None,
                    parent: None,
                    started_at: SystemClock.now(),
                };
                engine.run(StartRun { program: program.clone(), accepted, row, watcher: Some(sender.clone()) });
                next += 1;
            }
            match events.recv().await {
                Some(RunEvent::Ended(state)) => {
                    let since = begun.remove(&state.run).map_or(Duration::ZERO, |at| at.elapsed());
                    latencies.push(since);
                }
                Some(RunEvent::Failed(error)) => panic!("{error}"),
                Some(_) => {}
                None => panic!("the engine is gone"),
            }
        }
        (started.elapsed(), latencies)
    })
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("tol-bench-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
    folder
}

fn sqlite(folder: &Path) -> Arc<dyn Journal> {
    Arc::new(SqliteJournal::open(folder, OpenMode::ReadWrite).unwrap_or_else(|error| panic!("{error}")))
}

/// Inserts rows of so many bytes, so many in a transaction, as SQLite alone does it.
fn raw_inserts(rows: usize, bytes: usize, in_one: usize) -> f64 {
    let folder = folder("raw");
    let connection = rusqlite::Connection::open(folder.join("raw.db")).unwrap_or_else(|error| panic!("{error}"));
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE log (id INTEGER PRIMARY KEY, body BLOB);",
        )
        .unwrap_or_else(|error| panic!("{error}"));
    let body = vec![b'x'; bytes];
    let started = Instant::now();
    let mut done = 0;
    while done < rows {
        connection.execute_batch("BEGIN IMMEDIATE").unwrap_or_else(|error| panic!("{error}"));
        let mut insert =
            connection.prepare_cached("INSERT INTO log (body) VALUES (?1)").unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..in_one.min(rows - done) {
            insert.execute([&body]).unwrap_or_else(|error| panic!("{error}"));
            done += 1;
        }
        connection.execute_batch("COMMIT").unwrap_or_else(|error| panic!("{error}"));
    }
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    let _ = std::fs::remove_dir_all(folder);
    rate
}

fn durable_steps() {
    let program = program(&chain(30));
    let at = folder("durable");
    let (took, _) = engine_run(sqlite(&at), &program, 4_000, 1_000);
    let rate = 4_000.0 * 30.0 / took.as_secs_f64();
    let (memory, _) = engine_run(Arc::new(MemoryJournal::default()), &program, 4_000, 1_000);
    let in_memory = 4_000.0 * 30.0 / memory.as_secs_f64();
    let raw = raw_inserts(120_000, 150, 256);
    say(
        "durable steps a second, 1000 runs at once",
        format!("{rate:.0}"),
        format!("{raw:.0} raw SQLite inserts/s of 150 B, 256 a transaction; {in_memory:.0} with the memory journal"),
    );
    let _ = std::fs::remove_dir_all(at);
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted.get(((sorted.len() - 1) as f64 * share) as usize).copied().unwrap_or_default()
}

fn chain_of_three() {
    let program = program(&chain(3));
    let at = folder("three");
    let (_, mut latencies) = engine_run(sqlite(&at), &program, 500, 1);
    latencies.sort_unstable();
    let mut raw = Vec::new();
    let mut file = std::fs::File::create(at.join("raw")).unwrap_or_else(|error| panic!("{error}"));
    for _ in 0..500 {
        let started = Instant::now();
        for _ in 0..3 {
            file.write_all(&[b'x'; 300]).unwrap_or_else(|error| panic!("{error}"));
            file.sync_data().unwrap_or_else(|error| panic!("{error}"));
        }
        raw.push(started.elapsed());
    }
    raw.sort_unstable();
    say(
        "durable chain of three steps, p50 / p99",
        format!(
            "{:.2} / {:.2} ms",
            percentile(&latencies, 0.5).as_secs_f64() * 1e3,
            percentile(&latencies, 0.99).as_secs_f64() * 1e3
        ),
        format!("{:.2} ms for three raw fsyncs (p50); Restate 6.9 ms p50", percentile(&raw, 0.5).as_secs_f64() * 1e3),
    );
    let _ = std::fs::remove_dir_all(at);
}

fn three_step_runs() {
    let program = program(&chain(3));
    let at = folder("runs");
    let (took, _) = engine_run(sqlite(&at), &program, 20_000, 1_000);
    say("runs of three durable steps a second", format!("{:.0}", 20_000.0 / took.as_secs_f64()), "701 (Restate)");
    let _ = std::fs::remove_dir_all(at);
}

fn large_run() {
    let started = Instant::now();
    let program = program(&wide(100_000));
    let compiled = started.elapsed();
    let at = folder("large");
    let (took, _) = engine_run(sqlite(&at), &program, 1, 1);
    say(
        "one run of 100,000 durable steps",
        format!("{:.2} s", took.as_secs_f64()),
        format!("{:.2} s to read and check its YAML; peak memory {} MB", compiled.as_secs_f64(), peak_memory_mb()),
    );
    let _ = std::fs::remove_dir_all(at);
}

fn memory_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn peak_memory_mb() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<usize>().ok()).unwrap_or(0) / 1024
}

fn compile_million() {
    const STEPS: usize = 1_000_000;
    let small = program("apiVersion: tol/v1\nname: million\nsteps: [{ id: s0, run: ./a.sh }]\n");
    let before = memory_bytes();
    let mut pipeline = small.root.pipeline.clone();
    let template = pipeline.steps.remove(0);
    for number in 0..STEPS {
        let mut step = template.clone();
        step.id.value = format!("s{number}").into();
        if number > 0 {
            step.depends = vec![tol::diagnostic::Spanned::new(format!("s{}", number / 2).into(), template.span)];
        }
        pipeline.steps.push(step);
    }
    let model = memory_bytes();
    let started = Instant::now();
    let compiled = compile_pipeline(pipeline).unwrap_or_else(|diagnostics| panic!("{:?}", diagnostics.first()));
    let took = started.elapsed();
    let after = memory_bytes();
    let started = Instant::now();
    let mut plain = petgraph::graph::DiGraph::<(), (), u32>::with_capacity(STEPS, STEPS);
    let nodes: Vec<_> = (0..STEPS).map(|_| plain.add_node(())).collect();
    for number in 1..STEPS {
        plain.add_edge(nodes[number / 2], nodes[number], ());
    }
    let order = petgraph::algo::toposort(&plain, None).map(|order| order.len()).unwrap_or(0);
    let baseline = started.elapsed();
    say(
        "compile of a graph of 1,000,000 steps",
        format!(
            "{:.2} s, {} B a step ({} B of them the model)",
            took.as_secs_f64(),
            (after - before) / STEPS,
            (model - before) / STEPS
        ),
        format!("{:.2} s for petgraph alone to build and sort {order} nodes", baseline.as_secs_f64()),
    );
    assert_eq!(compiled.len(), STEPS);
}

fn replay_million() {
    const STEPS: usize = 100_000;
    let program = program(&wide(STEPS));
    let (_, history) = run_in_memory(&program, true);
    let bytes: Vec<Vec<u8>> = history.iter().map(|event| serde_json::to_vec(event).unwrap_or_default()).collect();
    let accepted = Arc::new(accepted("bench", &program));
    let started = Instant::now();
    let mut events = 0;
    for _ in 0..10 {
        let history: Vec<Stamped> =
            bytes.iter().map(|body| serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}"))).collect();
        events += history.len();
        replay(program.clone(), accepted.clone(), Timestamp(1_000), &history)
            .unwrap_or_else(|error| panic!("{error:?}"));
    }
    let took = started.elapsed();
    let started = Instant::now();
    for _ in 0..10 {
        for body in &bytes {
            let value: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
            std::hint::black_box(value);
        }
    }
    let baseline = started.elapsed();
    say(
        "replay of 1,000,000 events",
        format!("{:.2} s ({:.2} µs an event)", took.as_secs_f64(), took.as_secs_f64() / events as f64 * 1e6),
        format!("{:.2} s to read them as plain JSON", baseline.as_secs_f64()),
    );
}
