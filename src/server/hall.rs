//! Who drives and who watches: the runs that this process drives, and everybody who wants to be told of one of them.
//!
//! Nobody waits for a watcher. One that is too slow loses its place, and reads on from the journal.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, mpsc, oneshot};

use crate::handler::LogLine;
use crate::id::{RunId, UnitPath};
use crate::report::{summary, summary_text};
use crate::runtime::{RunEvent, RuntimeError};
use crate::scheduler::{Note, State};
use crate::time::Timestamp;

/// What a watcher may be behind by before it has to read from the journal.
const BACKLOG: usize = 1024;

/// Tells whether a run was accepted.
pub type Accepted = oneshot::Receiver<Result<(), RuntimeError>>;

/// What watchers are told of a run.
#[derive(Clone, Debug)]
pub enum Told {
    Note {
        at: Timestamp,
        note: Note,
    },
    /// Only a person can move it on.
    Waiting(Vec<UnitPath>),
    Log(Arc<LogLine>),
    Ended(Arc<End>),
    /// This process drives it no longer, and it has not ended.
    Left,
}

/// How a run ended, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The last line of `--format json`.
    pub summary: String,
    /// For people.
    pub text: String,
}

impl End {
    /// Of a run that has ended.
    pub fn of(state: &State) -> Self {
        Self { summary: summary(state).to_string(), text: summary_text(state) }
    }
}

/// The runs of this process.
#[derive(Default)]
pub struct Hall {
    runs: Mutex<HashMap<RunId, Entry>>,
}

struct Entry {
    /// Made when somebody first watches.
    watchers: Option<broadcast::Sender<Told>>,
    /// Who waits for the run to be accepted.
    accepted: Option<oneshot::Sender<Result<(), RuntimeError>>>,
}

impl Hall {
    /// A run is about to be driven here; gives the channel for what the engine tells of it, and the news whether it was
    /// accepted. None if it is driven here already.
    pub fn enter(self: &Arc<Self>, run: &RunId) -> Option<(mpsc::UnboundedSender<RunEvent>, Accepted)> {
        let (accepted, news) = oneshot::channel();
        let mut runs = self.runs();
        if runs.contains_key(run) {
            return None;
        }
        runs.insert(run.clone(), Entry { watchers: None, accepted: Some(accepted) });
        drop(runs);
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().follow(run.clone(), events));
        Some((sender, news))
    }

    /// True if this process drives a run.
    pub fn drives(&self, run: &RunId) -> bool {
        self.runs().contains_key(run)
    }

    /// The runs that this process drives.
    pub fn driven(&self) -> Vec<RunId> {
        self.runs().keys().cloned().collect()
    }

    /// What is told of a run from now on; none if it is not driven here.
    pub fn watch(&self, run: &RunId) -> Option<broadcast::Receiver<Told>> {
        let mut runs = self.runs();
        let entry = runs.get_mut(run)?;
        Some(entry.watchers.get_or_insert_with(|| broadcast::channel(BACKLOG).0).subscribe())
    }

    /// A program of a run printed a line.
    pub fn log(&self, line: LogLine) {
        let mut runs = self.runs();
        if let Some(entry) = runs.get_mut(&line.run).filter(|entry| entry.watchers.is_some()) {
            entry.tell(Told::Log(Arc::new(line)));
        }
    }

    async fn follow(self: Arc<Self>, run: RunId, mut events: mpsc::UnboundedReceiver<RunEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                RunEvent::Note { at, note } => self.with(&run, |entry| {
                    entry.answer(Ok(()));
                    entry.tell(Told::Note { at, note });
                }),
                RunEvent::Waiting { questions } => {
                    let names = questions.into_iter().map(|(path, _)| path).collect();
                    self.with(&run, |entry| entry.tell(Told::Waiting(names)));
                }
                RunEvent::Ended(state) => {
                    let told = match state.verdict {
                        Some(_) => Told::Ended(Arc::new(End::of(&state))),
                        None => Told::Left,
                    };
                    return self.leave(&run, told, RuntimeError::Stopped);
                }
                RunEvent::Failed(error) => return self.leave(&run, Told::Left, error),
            }
        }
        self.leave(&run, Told::Left, RuntimeError::Stopped);
    }

    fn leave(&self, run: &RunId, told: Told, why: RuntimeError) {
        if let Some(mut entry) = self.runs().remove(run) {
            entry.answer(Err(why));
            entry.tell(told);
        }
    }

    fn with(&self, run: &RunId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.runs().get_mut(run) {
            change(entry);
        }
    }

    /// Nothing is half changed where a task ended by a fault.
    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, Entry>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn answer(&mut self, result: Result<(), RuntimeError>) {
        if let Some(accepted) = self.accepted.take() {
            // Who asked may have gone.
            let _ = accepted.send(result);
        }
    }

    fn tell(&mut self, told: Told) {
        if let Some(watchers) = &self.watchers
            && watchers.send(told).is_err()
        {
            self.watchers = None;
        }
    }
}
