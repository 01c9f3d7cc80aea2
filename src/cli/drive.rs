//! Drives one run in the foreground: engine, worker, signals and what is shown, until the run ends or is left waiting.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::args::WatchArgs;
use super::elsewhere::{Beginning, DispatchMode, Elsewhere};
use super::exit::{Failure, WAITING, code_of};
use super::progress::Progress;
use super::retention::enforce;
use super::signals::{Asked, Signals};
use crate::dispatch::InProcess;
use crate::handler::WorkerContext;
use crate::id::RunId;
use crate::journal::Journal;
use crate::runtime::{Engine, EngineConfig, RunEvent, StartRun, SystemClock};
use crate::scheduler::{Input, RunStatus, State, StepStatus};
use crate::server::Retention;
use crate::worker::Worker;

/// Lines that wait to be shown; more than that are dropped from the screen (never from the log).
const LIVE_LINES: usize = 1024;

/// What is to be driven.
pub enum Start {
    New(Box<StartRun>),
    /// A run that this process has claimed.
    Adopted(Box<State>),
}

/// Where and how.
pub struct Surroundings<'a> {
    pub root: &'a Path,
    pub state_dir: &'a Path,
    pub journal: Arc<dyn Journal>,
    pub environment: BTreeMap<String, String>,
    pub watch: &'a WatchArgs,
    /// What is kept of the runs that have ended.
    pub retention: Retention,
}

/// Drives a run to its end and gives the exit code.
///
/// # Errors
/// If the journal cannot be written; what was recorded before stays, and the run can be resumed.
pub fn drive(start: Start, surroundings: Surroundings<'_>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(follow(start, &surroundings));
    // Whatever is still going on belongs to nobody any more; its process groups end with it.
    runtime.shutdown_background();
    if code.is_ok() {
        enforce(surroundings.retention, &*surroundings.journal, surroundings.state_dir, false)?;
    }
    surroundings.journal.close();
    code
}

async fn follow(start: Start, surroundings: &Surroundings<'_>) -> Result<u8, Failure> {
    let mut signals = Signals::listen()?;
    let run = match &start {
        Start::New(start) => start.accepted.run.clone(),
        Start::Adopted(state) => state.run.clone(),
    };
    let mut progress = Progress::new(&run, surroundings.watch);
    let (live_sender, mut live) = mpsc::channel(LIVE_LINES);
    let live_sender = progress.shows_logs().then_some(live_sender);
    let config = EngineConfig {
        journal: surroundings.journal.clone(),
        clock: Arc::new(SystemClock),
        root: Arc::from(surroundings.root.to_string_lossy()),
        takes_commands: true,
    };
    let mut hub = None;
    let (engine, _task) = Engine::start(config, |reports| match surroundings.watch.dispatch {
        DispatchMode::Local => {
            let worker =
                WorkerContext::new(surroundings.state_dir, surroundings.environment.clone(), live_sender.clone());
            let worker = Arc::new(Worker::new(Arc::new(worker)));
            Arc::new(InProcess::new(tokio::runtime::Handle::current(), worker, reports))
        }
        DispatchMode::Grpc | DispatchMode::Kafka => {
            let (beginning, dispatch) = Beginning::new(reports, surroundings.watch.dispatch == DispatchMode::Kafka);
            hub = Some(beginning);
            dispatch
        }
    });
    let mut elsewhere = match hub {
        Some(hub) => Some(Elsewhere::start(hub, surroundings.state_dir, &surroundings.environment, live_sender).await?),
        None => None,
    };
    let (watcher, mut events) = mpsc::unbounded_channel();
    match start {
        Start::New(mut start) => {
            start.watcher = Some(watcher);
            engine.run(*start);
        }
        Start::Adopted(state) => engine.adopt(*state, Some(watcher)),
    }
    let mut watch = Watch { signalled: 0, waits: false, unknown: false, fail_on: surroundings.watch.fail_on.is_some() };
    let mut tick = tokio::time::interval(progress.tick());
    loop {
        tokio::select! {
            biased;
            asked = signals.next() => watch.on_signal(asked, &engine, &run).await,
            event = events.recv() => match event {
                None => return Err(Failure::failed("the engine has stopped")),
                Some(RunEvent::Note { at, note }) => {
                    watch.waits = false;
                    progress.note(at, &note);
                }
                Some(RunEvent::Waiting { questions }) => {
                    watch.waits = true;
                    watch.unknown = questions.iter().any(|(_, status)| *status == StepStatus::Unknown);
                    progress.waiting(&questions);
                    if watch.unknown || surroundings.watch.detach_on_wait {
                        engine.detach(&run);
                    }
                }
                Some(RunEvent::Ended(state)) => {
                    while let Ok(line) = live.try_recv() {
                        progress.log(&line);
                    }
                    progress.ended(&state);
                    if let Some(elsewhere) = elsewhere {
                        elsewhere.end().await;
                    }
                    return Ok(watch.code(&state));
                }
                Some(RunEvent::Failed(error)) => {
                    progress.clear();
                    return Err(Failure::failed(format!("{error}\nrun {run} is not lost: what was recorded stays, and `tol resume {run}` goes on from there")));
                }
            },
            Some(line) = live.recv() => progress.log(&line),
            why = ended_early(&mut elsewhere) => {
                progress.clear();
                return Err(why);
            }
            _ = tick.tick(), if progress.is_live() => progress.redraw(),
        }
    }
}

/// Waits for the end of a worker process that is still needed.
async fn ended_early(elsewhere: &mut Option<Elsewhere>) -> Failure {
    match elsewhere {
        Some(elsewhere) => elsewhere.ended().await,
        None => std::future::pending().await,
    }
}

struct Watch {
    signalled: u32,
    waits: bool,
    unknown: bool,
    fail_on: bool,
}

impl Watch {
    async fn on_signal(&mut self, asked: Asked, engine: &Engine, run: &RunId) {
        if asked == Asked::Terminate && self.waits && self.signalled == 0 {
            // It only waits for a person: whoever ends this process does not mean to answer in their place.
            engine.detach(run);
            return;
        }
        self.signalled += 1;
        let by = match asked {
            Asked::Interrupt => "SIGINT",
            Asked::Terminate => "SIGTERM",
        };
        // A run that ends in this very moment has no use for it.
        let _ = engine.input(run, Input::Cancel { by: by.to_owned(), now: self.signalled > 1 }).await;
    }

    fn code(&self, state: &State) -> u8 {
        match state.status() {
            RunStatus::Running | RunStatus::Waiting => WAITING,
            status => code_of(status, self.signalled > 0, self.fail_on),
        }
    }
}
