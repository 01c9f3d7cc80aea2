//! The changes of one run, from the first or from a later one on, whoever drives it.
//!
//! What is in the journal is read from there. Then the changes of a run that this process drives come from the engine,
//! those of any other from looking into the journal again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

use crate::handler::LogLine;
use crate::id::{RunId, UnitPath};
use crate::journal::Journal;
use crate::report::{note_line, run_line};
use crate::runtime::{Rebuilt, RuntimeError, advance, read_events, rebuild_with};
use crate::scheduler::{Effect, Note, RunStatus, State};
use crate::server::hall::{End, Hall, Told};
use crate::server::kept::Kept;
use crate::time::Timestamp;

/// How often a run that another process drives is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// The same where the journal tells of changes.
const SLOW_LOOK: Duration = Duration::from_secs(5);
/// A look is followed by so many times its own length of rest, so that long histories do not take all of a processor.
const REST: u32 = 10;

/// One thing to tell of a run.
#[derive(Clone, Debug)]
pub enum Line {
    /// A line as `tol run --format json` prints it.
    Note(String),
    /// Only a person can move the run on: a line of the same form.
    Waiting(String),
    Log(Arc<LogLine>),
    /// The run has ended; nothing follows.
    End(Arc<End>),
}

/// Who rebuilds runs: a server keeps programs, a command compiles its one.
pub type Rebuild =
    Arc<dyn Fn(&RunId, &mut dyn FnMut(Timestamp, Vec<Effect>)) -> Result<Rebuilt, RuntimeError> + Send + Sync>;

/// Follows a run.
pub struct Tail {
    pub journal: Arc<dyn Journal>,
    pub hall: Option<Arc<Hall>>,
    pub rebuild: Rebuild,
    pub run: RunId,
    /// The number of the first change that is wanted.
    pub from: u64,
    /// What programs print, if that is wanted.
    pub logs: Option<Kept>,
    /// Tells of changes by others, if the journal does.
    pub changes: Option<watch::Receiver<u64>>,
    /// The time of what was told last.
    pub last: Timestamp,
}

/// Nobody listens any more.
#[derive(Debug)]
pub struct Gone;

/// Why nothing more is told.
enum Stopped {
    Gone,
    By(RuntimeError),
}

impl From<Gone> for Stopped {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<RuntimeError> for Stopped {
    fn from(error: RuntimeError) -> Self {
        Self::By(error)
    }
}

/// What comes after something was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    More,
    /// The journal is to be read again.
    Journal,
    /// The run has ended.
    Over,
}

/// How far the journal was read.
struct Known {
    state: State,
    events: u64,
}

impl Tail {
    /// A tail for a command, which drives nothing.
    pub fn of_journal(journal: Arc<dyn Journal>, run: RunId) -> Self {
        let reader = journal.clone();
        let rebuild: Rebuild = Arc::new(move |run, see| {
            rebuild_with(&*reader, run, &mut |row, profile| crate::runtime::load_program(&*reader, row, profile), see)
        });
        let changes = journal.subscribe();
        Self { journal, hall: None, rebuild, run, from: 0, logs: None, changes, last: Timestamp(0) }
    }

    /// Tells everything until the run has ended or nobody listens.
    ///
    /// # Errors
    /// If the run cannot be read.
    pub async fn follow(mut self, out: mpsc::Sender<Line>) -> Result<(), RuntimeError> {
        match self.tell_all(&out).await {
            Ok(()) | Err(Stopped::Gone) => Ok(()),
            Err(Stopped::By(error)) => Err(error),
        }
    }

    async fn tell_all(&mut self, out: &mpsc::Sender<Line>) -> Result<(), Stopped> {
        let mut known = None;
        loop {
            // First the place in the hall, then the journal, then the logs: what is new in between is told by both, and
            // given once.
            let watching = self.hall.as_ref().and_then(|hall| hall.watch(&self.run));
            let started = Instant::now();
            let (now_known, news) = self.read(known.take()).await?;
            if let Some(logs) = &mut self.logs {
                logs.look().await;
            }
            let took = started.elapsed();
            // While the engine tells, a second copy of the run's state would only take room.
            known = watching.is_none().then_some(now_known);
            for told in news {
                if self.tell(told, out).await? == Next::Over {
                    return Ok(());
                }
            }
            if let Some(logs) = &mut self.logs {
                logs.rest(out).await?;
            }
            match watching {
                Some(told) => match self.listen(told, out).await? {
                    Next::Over => return Ok(()),
                    Next::Journal | Next::More => {}
                },
                None => {
                    tokio::select! {
                        () = self.changed(took) => {}
                        () = out.closed() => return Ok(()),
                    }
                }
            }
        }
    }

    /// Waits until the journal may have something new, which a look of this length would find.
    async fn changed(&mut self, took: Duration) {
        let rest = took * REST;
        match &mut self.changes {
            // No notice comes of what programs print.
            _ if self.logs.is_some() => tokio::time::sleep(LOOK.max(rest)).await,
            Some(changes) => {
                tokio::time::sleep(rest).await;
                // A change that is not told of, and the end of the telling, are found by the slow look.
                let told = tokio::time::timeout(SLOW_LOOK, changes.changed()).await;
                if !matches!(told, Ok(Ok(()))) {
                    tokio::time::sleep(LOOK).await;
                }
            }
            None => tokio::time::sleep(LOOK.max(rest)).await,
        }
    }

    /// Reads what is new in the journal, and gives what is to be told of it.
    async fn read(&mut self, known: Option<Known>) -> Result<(Known, Vec<Told>), RuntimeError> {
        let (journal, rebuild, run) = (self.journal.clone(), self.rebuild.clone(), self.run.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut notes: Vec<(Timestamp, Note)> = Vec::new();
            let mut see = |at: Timestamp, effects: Vec<Effect>| {
                notes.extend(effects.into_iter().filter_map(|effect| match effect {
                    Effect::Note(note) => Some((at, note)),
                    Effect::Dispatch { .. }
                    | Effect::Reclaim { .. }
                    | Effect::RecordStart { .. }
                    | Effect::Stop { .. }
                    | Effect::Finish => None,
                }));
            };
            let is_first = known.is_none();
            let known = match known {
                None => {
                    let rebuilt = rebuild(&run, &mut see)?;
                    Known { events: rebuilt.history.len() as u64, state: rebuilt.state }
                }
                Some(mut known) => {
                    let events = read_events(&run, &journal.load_from(&run, known.events + 1)?)?;
                    advance(&mut known.state, known.events, &events, &mut see)
                        .map_err(|(seq, problem)| RuntimeError::Corrupt { run: run.clone(), seq, problem })?;
                    known.events += events.len() as u64;
                    known
                }
            };
            Ok::<_, RuntimeError>((known, notes, is_first))
        });
        let (known, notes, is_first) = read.await.map_err(|_| RuntimeError::Stopped)??;
        let has_news = !notes.is_empty();
        let mut news: Vec<Told> = notes.into_iter().map(|(at, note)| Told::Note { at, note }).collect();
        let state = &known.state;
        if state.verdict.is_some() {
            news.push(Told::Ended(Arc::new(End::of(state))));
        } else if state.status() == RunStatus::Waiting && (is_first || has_news) {
            self.last = state.now;
            news.push(Told::Waiting(state.open_questions().map(|key| state.path(key)).collect()));
        }
        Ok((known, news))
    }

    /// Tells what the engine tells, until the run has ended or the journal is to be read again.
    async fn listen(&mut self, mut told: broadcast::Receiver<Told>, out: &mpsc::Sender<Line>) -> Result<Next, Gone> {
        loop {
            let next = tokio::select! {
                next = told.recv() => next,
                () = out.closed() => return Err(Gone),
            };
            let next = match next {
                Ok(told) => self.tell(told, out).await?,
                Err(RecvError::Lagged(_) | RecvError::Closed) => Next::Journal,
            };
            if next != Next::More {
                return Ok(next);
            }
        }
    }

    /// Tells one thing, unless it was told or is not wanted.
    async fn tell(&mut self, told: Told, out: &mpsc::Sender<Line>) -> Result<Next, Gone> {
        let line = match told {
            Told::Note { at, note } => {
                self.last = self.last.max(at);
                if let Some(logs) = &mut self.logs {
                    logs.before(&note, out).await?;
                }
                if note.seq < self.from {
                    return Ok(Next::More);
                }
                self.from = note.seq + 1;
                Line::Note(note_line(&self.run, at, &note))
            }
            Told::Waiting(names) => self.waiting(self.last, &names),
            Told::Log(line) => {
                if let Some(logs) = &mut self.logs {
                    logs.line(line, out).await?;
                }
                return Ok(Next::More);
            }
            Told::Ended(end) => {
                if let Some(logs) = &mut self.logs {
                    logs.rest(out).await?;
                }
                out.send(Line::End(end)).await.map_err(|_| Gone)?;
                return Ok(Next::Over);
            }
            Told::Left => return Ok(Next::Journal),
        };
        out.send(line).await.map_err(|_| Gone)?;
        Ok(Next::More)
    }

    fn waiting(&self, at: Timestamp, names: &[UnitPath]) -> Line {
        let names: Vec<String> = names.iter().map(UnitPath::to_string).collect();
        Line::Waiting(run_line(&self.run, at, self.from, RunStatus::Waiting.as_str(), &names))
    }
}
