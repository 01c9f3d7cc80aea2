//! What all parts of a server share, and what they do with runs: take them up, steer them, let go of them.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::compile::Program;
use crate::id::RunId;
use crate::journal::{Claim, Journal, ListFilter, RunRow};
use crate::project::git::GitState;
use crate::runtime::{
    Clock, ControlCommand, ControlReply, Engine, Rebuilt, RuntimeError, SystemClock, leave_command, load_program,
    rebuild_with,
};
use crate::scheduler::{Effect, Rejection, RunStatus};
use crate::server::division::Division;
use crate::server::hall::Hall;
use crate::time::Timestamp;
use crate::watch::Served;

/// Says something to whoever looks after the server.
pub type Say = Arc<dyn Fn(&str) + Send + Sync>;

/// Programs by the hash of their definition and the profile that was laid over it.
type Programs = HashMap<(String, Option<String>), Weak<Program>>;

/// The heart of a server.
pub struct Core {
    pub journal: Arc<dyn Journal>,
    pub engine: Engine,
    pub hall: Arc<Hall>,
    pub state_dir: PathBuf,
    /// The environment that runs may inherit from.
    pub environment: BTreeMap<String, String>,
    pub say: Say,
    /// The part in the division of the runs, if there may be other servers.
    pub division: Option<Division>,
    /// Set once the folder is watched.
    pub served: OnceLock<Served>,
    /// What git says of a pipeline's files, by the number of the set and the path.
    pub git: Mutex<HashMap<(u64, String), GitState>>,
    /// One submission with an idempotency key at a time.
    pub keyed: tokio::sync::Mutex<()>,
    programs: Mutex<Programs>,
    /// One run at a time is taken up, so that two callers do not take up the same one.
    taking: Mutex<()>,
    pub recovered: AtomicBool,
    pub draining: AtomicBool,
}

impl Core {
    /// A core that serves nothing yet.
    pub fn new(
        journal: Arc<dyn Journal>,
        engine: Engine,
        hall: Arc<Hall>,
        state_dir: PathBuf,
        environment: BTreeMap<String, String>,
        say: Say,
        division: Option<Division>,
    ) -> Self {
        Self {
            division,
            journal,
            engine,
            hall,
            state_dir,
            environment,
            say,
            served: OnceLock::new(),
            git: Mutex::default(),
            keyed: tokio::sync::Mutex::default(),
            programs: Mutex::default(),
            taking: Mutex::default(),
            recovered: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }
    }

    /// Whether runs are taken in.
    ///
    /// # Errors
    /// What is waited for.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_draining() {
            return Err("the server is draining: it takes no new runs and will end".to_owned());
        }
        if !self.recovered.load(Ordering::Acquire) {
            return Err("the runs of the last process are being taken up; try again in a moment".to_owned());
        }
        let Some(served) = self.served.get() else {
            return Err("the pipelines are being read; try again in a moment".to_owned());
        };
        if served.set().is_none() {
            let text = served.problems().map(|problems| problems.text(false)).unwrap_or_default();
            return Err(format!("there are errors in the served files, and no earlier version is live\n{text}"));
        }
        Ok(())
    }

    /// True once the server is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    /// Takes up every run that has not ended and that nobody drives. Blocks; gives how many.
    ///
    /// # Errors
    /// If the journal cannot be read. A run that cannot be taken up is told of and left as it is.
    pub fn recover(&self) -> Result<usize, RuntimeError> {
        let mut taken = 0;
        for status in [RunStatus::Running, RunStatus::Waiting] {
            let filter = ListFilter { status: Some(status.as_str().to_owned()), ..ListFilter::default() };
            // The oldest first: they have waited longest.
            for row in self.journal.list(&filter)?.into_iter().rev() {
                match self.take_up(&row.run) {
                    Ok(true) => taken += 1,
                    Ok(false) | Err(RuntimeError::Held { .. }) => {}
                    Err(error @ RuntimeError::Journal(_)) => return Err(error),
                    Err(error) => (self.say)(&format!("run {} is not taken up: {error}", row.run)),
                }
            }
        }
        Ok(taken)
    }

    /// Drives a run from now on that this process does not drive, unless another one does. Blocks; false if there is
    /// nothing to drive because it has ended or is driven here.
    ///
    /// # Errors
    /// If another process drives it, or it cannot be rebuilt.
    pub fn take_up(&self, run: &RunId) -> Result<bool, RuntimeError> {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.hall.drives(run) {
            return Ok(false);
        }
        if let Claim::Held { holder } = self.journal.claim(run)? {
            return Err(RuntimeError::Held { run: run.clone(), holder });
        }
        let state = match self.rebuild(run, &mut |_, _| {}) {
            Ok(rebuilt) if rebuilt.state.verdict.is_none() => rebuilt.state,
            other => {
                self.journal.release(run)?;
                return other.map(|_| false);
            }
        };
        let Some((watcher, _)) = self.hall.enter(run) else { return Ok(false) };
        self.engine.adopt(state, Some(watcher));
        Ok(true)
    }

    /// Says how many runs were taken up.
    pub fn tell_taken(&self, count: usize) {
        match count {
            0 => {}
            1 => (self.say)("1 run is taken up where its process left it"),
            count => (self.say)(&format!("{count} runs are taken up where their process left them")),
        }
    }

    /// A run as it stands in the journal; its program is shared with other runs of the same definition.
    ///
    /// # Errors
    /// If there is no such run, or it cannot be replayed.
    pub fn rebuild(&self, run: &RunId, see: &mut dyn FnMut(Timestamp, Vec<Effect>)) -> Result<Rebuilt, RuntimeError> {
        rebuild_with(&*self.journal, run, &mut |row, profile| self.program(row, profile), see)
    }

    fn program(&self, row: &RunRow, profile: Option<String>) -> Result<Arc<Program>, RuntimeError> {
        let key = (format!("{} {}", row.definition_hash, row.path), profile.clone());
        let known = |programs: &Programs| programs.get(&key).and_then(Weak::upgrade);
        if let Some(program) = known(&self.programs.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(program);
        }
        let program = load_program(&*self.journal, row, profile)?;
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.retain(|_, program| program.strong_count() > 0);
        programs.insert(key, Arc::downgrade(&program));
        Ok(program)
    }

    /// Has a command carried out; when this returns, its effect is durable.
    ///
    /// # Errors
    /// If the run does not take it, or another process drives it and does not answer.
    pub async fn steer(self: &Arc<Self>, run: &RunId, command: ControlCommand) -> Result<ControlReply, RuntimeError> {
        if !self.hall.drives(run) {
            let (core, id) = (self.clone(), run.clone());
            let taken = tokio::task::spawn_blocking(move || core.take_up(&id)).await;
            match taken.map_err(|_| RuntimeError::Stopped)? {
                Ok(_) => {}
                Err(RuntimeError::Held { .. }) => return self.leave(run, command).await,
                Err(error) => return Err(error),
            }
        }
        match self.engine.ask(run, command.clone().into_input()).await {
            Ok(()) => Ok(ControlReply::done()),
            Err(RuntimeError::Rejected(Rejection::Same)) => Ok(ControlReply::same()),
            // It has ended, or has another driver by now.
            Err(RuntimeError::NoSuchRun(_)) => self.leave(run, command).await,
            Err(error) => Err(error),
        }
    }

    async fn leave(self: &Arc<Self>, run: &RunId, command: ControlCommand) -> Result<ControlReply, RuntimeError> {
        let (core, run) = (self.clone(), run.clone());
        let left = tokio::task::spawn_blocking(move || leave_command(&*core.journal, &SystemClock, &run, &command));
        let reply = left.await.map_err(|_| RuntimeError::Stopped)??;
        match reply.refused {
            Some(why) => Err(RuntimeError::Refused(why)),
            None => Ok(reply),
        }
    }
}
