//! What the benches of several ways to workers share: runs with a journal, and a clock at the hub's door.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tol::compile::{CheckOptions, MemorySources, Program, check};
use tol::diagnostic::Files;
use tol::dispatch::{Dispatch, Hub, Report, Stop, Verdict};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::journal::{Journal, NewRun, OpenMode, SqliteJournal};
use tol::runtime::{Clock, Engine, EngineConfig, RunEvent, RuntimeError, StartRun, SystemClock};
use tol::scheduler::{Accepted, RunStatus};
use tol::task::Task;

/// An empty folder, removed with this.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tol-bench-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
        Self(folder)
    }

    pub fn sqlite(&self) -> Arc<dyn Journal> {
        Arc::new(SqliteJournal::open(&self.0, OpenMode::ReadWrite).unwrap_or_else(|error| panic!("{error}")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Passes everything on to a hub, and notes how long each step took of a run that has one step at a time: from the
/// moment that it was ready, which is when the outcome of the step before was recorded, until its own was.
struct Timed {
    hub: Arc<Hub>,
    times: Arc<Mutex<Times>>,
}

#[derive(Default)]
struct Times {
    before: Option<(RunId, Instant)>,
    steps: Vec<Duration>,
}

impl Dispatch for Timed {
    fn dispatch(&self, task: Task) {
        self.hub.dispatch(task);
    }

    fn stop(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, how: Stop) {
        self.hub.stop(run, unit, token, how);
    }

    fn outlives(&self) -> bool {
        self.hub.outlives()
    }

    fn reclaim(&self, task: Task) {
        self.hub.reclaim(task);
    }

    fn begin(&self, run: &RunId) {
        self.hub.begin(run);
    }

    fn answered(&self, run: &RunId, unit: &UnitPath, token: LeaseToken, verdict: Verdict) {
        assert_eq!(verdict, Verdict::Recorded);
        let now = Instant::now();
        if let Ok(mut times) = self.times.lock()
            && let Some((_, before)) = times.before.replace((run.clone(), now)).filter(|(before, _)| before == run)
        {
            times.steps.push(now - before);
        }
        self.hub.answered(run, unit, token, verdict);
    }

    fn forget(&self, run: &RunId, ended: bool) {
        self.hub.forget(run, ended);
    }
}

/// An engine whose tasks go through a hub.
pub struct Durable {
    pub hub: Arc<Hub>,
    engine: Engine,
    turns: tokio::task::JoinHandle<Result<(), RuntimeError>>,
    times: Arc<Mutex<Times>>,
}

impl Durable {
    pub fn start(journal: Arc<dyn Journal>, hub: impl FnOnce(UnboundedSender<Report>) -> Arc<Hub>) -> Self {
        let config =
            EngineConfig { journal, clock: Arc::new(SystemClock), root: Arc::from("/"), takes_commands: false };
        let (times, mut started) = (Arc::<Mutex<Times>>::default(), None);
        let (engine, turns) = Engine::start(config, |reports| {
            let hub = hub(reports);
            started = Some(hub.clone());
            Arc::new(Timed { hub, times: times.clone() })
        });
        let Some(hub) = started else { panic!("the engine has connected to nobody") };
        Self { hub, engine, turns, times }
    }

    /// Does runs of so many steps in a row, so many runs at once, and says how long all of it took and each step.
    pub async fn chains(&self, steps: usize, runs: usize, at_once: usize) -> (Duration, Vec<Duration>) {
        let program = chain(steps);
        let definition: Arc<[u8]> = Arc::from(serde_json::to_vec(&program.sources).unwrap_or_default());
        let (sender, mut events) = unbounded_channel();
        let began = Instant::now();
        let (mut begun, mut ended) = (0, 0);
        while ended < runs {
            while begun < runs && begun - ended < at_once {
                let start = start(&program, &definition, sender.clone());
                self.engine.run(start);
                begun += 1;
            }
            match events.recv().await {
                Some(RunEvent::Ended(state)) => {
                    assert_eq!(state.status(), RunStatus::Succeeded);
                    ended += 1;
                }
                Some(RunEvent::Failed(error)) => panic!("{error}"),
                Some(_) => {}
                None => panic!("the engine is gone"),
            }
        }
        let took = began.elapsed();
        let steps = self.times.lock().map(|mut times| std::mem::take(&mut times.steps)).unwrap_or_default();
        (took, steps)
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.turns.abort();
    }
}

fn chain(steps: usize) -> Arc<Program> {
    let mut yaml = String::from("apiVersion: tol/v1\nname: chain\nsteps:\n  - { id: s0, run: x }\n");
    for step in 1..steps {
        let _ = writeln!(yaml, "  - {{ id: s{step}, depends: [s{}], run: x }}", step - 1);
    }
    let sources = MemorySources([("p.yaml".to_owned(), Arc::from(yaml))].into());
    let (mut files, mut diagnostics) = (Files::default(), Vec::new());
    let program = check("p.yaml", &sources, &mut files, &mut diagnostics, &CheckOptions { profile: None });
    Arc::new(program.unwrap_or_else(|| panic!("{}", tol::diagnostic::render_human(&files, &diagnostics, false))))
}

fn start(program: &Arc<Program>, definition: &Arc<[u8]>, watcher: UnboundedSender<RunEvent>) -> StartRun {
    let accepted = Accepted {
        run: RunId::new(&uuid::Uuid::now_v7().to_string()),
        definition_hash: program.hash.to_string(),
        params: serde_json::Map::new(),
        env: serde_json::Map::new(),
        options: tol::scheduler::Options::default(),
        parent: None,
        reused: Vec::new(),
    };
    let row = NewRun {
        pipeline: "chain".to_owned(),
        path: "p.yaml".to_owned(),
        definition_hash: program.hash.to_string(),
        definition: definition.clone(),
        git_commit: None,
        git_dirty: None,
        parent: None,
        started_at: SystemClock.now(),
    };
    StartRun { program: program.clone(), accepted, row, watcher: Some(watcher) }
}
