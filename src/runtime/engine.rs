//! The loop itself: one task that owns every run of the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::control::{ControlCommand, ControlReply};
use super::live::Live;
use super::{Clock, RuntimeError};
use crate::compile::Program;
use crate::dispatch::{Dispatch, Report, Stop, Verdict};
use crate::id::{LeaseToken, RunId};
use crate::journal::{CachePut, CommandReply, Journal, JournalError, NewRun};
use crate::scheduler::{
    Accepted, Effect, Event, Input, Note, PreparedWork, Rejection, RunStatus, State, StepStatus, UnitKey, admit,
    prepare,
};
use crate::task::Outcome;
use crate::time::Timestamp;

/// How often commands of other processes are looked for. One look costs a few microseconds.
const COMMAND_POLL: Duration = Duration::from_millis(50);
/// How many messages are taken in before what they led to is written: bounds both latency and the size of a batch.
const MESSAGES_PER_TURN: usize = 4096;

/// What an engine works with.
pub struct EngineConfig {
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    /// The project's absolute folder.
    pub root: Arc<str>,
    /// Whether other processes may leave commands for this one's runs.
    pub takes_commands: bool,
}

/// A run to start.
pub struct StartRun {
    pub program: Arc<Program>,
    pub accepted: Accepted,
    pub row: NewRun,
    pub watcher: Option<mpsc::UnboundedSender<RunEvent>>,
}

/// What a watcher of a run is told, each once it is durable.
pub enum RunEvent {
    Note {
        at: Timestamp,
        note: Note,
    },
    /// Only a person can move the run on; with the units that wait.
    Waiting {
        questions: Vec<(crate::id::UnitPath, StepStatus)>,
    },
    /// The run has ended, or was given up by this process (`state.verdict` tells which).
    Ended(Box<State>),
    /// The journal cannot be written: nothing more happens here.
    Failed(RuntimeError),
}

/// Where the answer to an input goes.
pub(super) type Reply = oneshot::Sender<Result<(), RuntimeError>>;

enum Message {
    Start(Box<StartRun>),
    Adopt { state: Box<State>, watcher: Option<mpsc::UnboundedSender<RunEvent>> },
    Input { run: RunId, input: Input, reply: Reply, durable: bool },
    Detach(RunId),
    Lose(RunId),
    Durable { run: RunId, seq: u64, result: Result<(), JournalError> },
}

/// A handle to the loop.
#[derive(Clone)]
pub struct Engine {
    sender: mpsc::UnboundedSender<Message>,
}

impl Engine {
    /// Starts the loop on the current tokio runtime. `connect` gets the channel for reports and gives the dispatch.
    pub fn start(
        config: EngineConfig,
        connect: impl FnOnce(mpsc::UnboundedSender<Report>) -> Arc<dyn Dispatch>,
    ) -> (Self, tokio::task::JoinHandle<Result<(), RuntimeError>>) {
        let (sender, inbox) = mpsc::unbounded_channel();
        let (report_sender, reports) = mpsc::unbounded_channel();
        let dispatch = connect(report_sender);
        let turn = Loop {
            config,
            dispatch,
            inbox,
            reports,
            sender: sender.clone(),
            live: HashMap::new(),
            touched: Vec::new(),
            timers: BTreeSet::new(),
            unsure: BTreeMap::new(),
            draws: Draws::seeded(),
            mark: uuid::Uuid::new_v4().simple().to_string(),
            dead: None,
        };
        (Self { sender }, tokio::spawn(turn.run()))
    }

    /// Accepts a run. Its watcher hears of it once the acceptance is durable.
    pub fn run(&self, start: StartRun) {
        self.tell(Message::Start(Box::new(start)));
    }

    /// Takes over a run that was rebuilt from the journal and whose owner this process is.
    pub fn adopt(&self, state: State, watcher: Option<mpsc::UnboundedSender<RunEvent>>) {
        self.tell(Message::Adopt { state: Box::new(state), watcher });
    }

    /// Offers an input; the answer comes when it is taken in (not yet durable) or refused.
    pub async fn input(&self, run: &RunId, input: Input) -> Result<(), RuntimeError> {
        self.offer(run, input, false).await
    }

    /// Offers an input; the answer comes when what follows from it is durable, or when it is refused.
    pub async fn ask(&self, run: &RunId, input: Input) -> Result<(), RuntimeError> {
        self.offer(run, input, true).await
    }

    async fn offer(&self, run: &RunId, input: Input, durable: bool) -> Result<(), RuntimeError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Message::Input { run: run.clone(), input, reply, durable });
        answer.await.unwrap_or(Err(RuntimeError::Stopped))
    }

    /// Gives a run up without ending it: the watcher gets its state, and another process may take it.
    pub fn detach(&self, run: &RunId) {
        self.tell(Message::Detach(run.clone()));
    }

    /// Another process has the run now, or may have: it is let go without a word to the journal or to its workers.
    pub fn lose(&self, run: &RunId) {
        self.tell(Message::Lose(run.clone()));
    }

    fn tell(&self, message: Message) {
        // A loop that has ended has told its watchers why.
        let _ = self.sender.send(message);
    }
}

struct Loop {
    config: EngineConfig,
    dispatch: Arc<dyn Dispatch>,
    inbox: mpsc::UnboundedReceiver<Message>,
    reports: mpsc::UnboundedReceiver<Report>,
    sender: mpsc::UnboundedSender<Message>,
    live: HashMap<RunId, Live>,
    /// Runs with something to write, each once.
    touched: Vec<RunId>,
    /// When each run wants to be looked at next; only runs that have a timer stand here.
    timers: BTreeSet<(Option<Timestamp>, RunId)>,
    /// Runs whose effects are held back because another process may have taken them over, with the number of the event
    /// that is durable.
    unsure: BTreeMap<RunId, u64>,
    draws: Draws,
    /// Keeps secrets apart from text while work is filled in; it never leaves this process.
    mark: String,
    dead: Option<RuntimeError>,
}

impl Loop {
    async fn run(mut self) -> Result<(), RuntimeError> {
        let mut poll = tokio::time::interval(COMMAND_POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(error) = self.dead.take() {
                for live in self.live.values_mut() {
                    live.tell(RunEvent::Failed(error.clone()));
                }
                return Err(error);
            }
            let next = self.timers.first().and_then(|(at, _)| *at);
            tokio::select! {
                message = self.inbox.recv() => match message {
                    Some(message) => self.on_message(message),
                    None => return Ok(()),
                },
                Some(report) = self.reports.recv() => self.on_report(report),
                () = sleep_until(next, self.config.clock.now()) => self.on_time(),
                _ = poll.tick(), if self.polls() => self.on_poll(),
            }
            self.drain();
            self.flush();
        }
    }

    /// Takes in what else is there already, so that it is written together.
    fn drain(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            match (self.reports.try_recv(), self.inbox.try_recv()) {
                (Err(_), Err(_)) => break,
                (report, message) => {
                    if let Ok(report) = report {
                        self.on_report(report);
                    }
                    if let Ok(message) = message {
                        self.on_message(message);
                    }
                }
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Start(start) => self.on_start(*start),
            Message::Adopt { state, watcher } => {
                let run = state.run.clone();
                let mut live = Live::new(*state, watcher);
                live.unannounced = true;
                self.live.insert(run.clone(), live);
                let input = if self.dispatch.outlives() { Input::Reclaim } else { Input::Recover };
                if let Err(error) = self.take_in(&run, input)
                    && let Some(live) = self.live.remove(&run)
                    && let Some(watcher) = live.watcher
                {
                    let _ = watcher.send(RunEvent::Failed(error));
                }
            }
            Message::Input { run, input, reply, durable } => {
                let result = self.take_in(&run, input);
                match self.live.get_mut(&run) {
                    Some(live) if durable && result.is_ok() => live.asked.push_back((live.state.seq, reply)),
                    // Who asked may have gone.
                    Some(_) | None => drop(reply.send(result)),
                }
            }
            Message::Detach(run) => self.let_go(&run),
            Message::Lose(run) => self.lose(&run, RuntimeError::Stopped),
            Message::Durable { run, seq, result } => match result {
                Ok(()) => self.on_durable(&run, seq),
                Err(error) if error.is_of_one_run() => self.lose(&run, RuntimeError::Journal(error)),
                Err(error) => self.dead = Some(RuntimeError::Journal(error)),
            },
        }
    }

    fn on_start(&mut self, start: StartRun) {
        let at = start.row.started_at;
        let accepted = Arc::new(start.accepted);
        let run = accepted.run.clone();
        let state = State::new(start.program, accepted.clone(), at);
        let mut live = Live::new(state, start.watcher);
        live.accept(Box::new(start.row));
        // Another process may be accepting it at this moment: until it is this one's, workers hear nothing of it here.
        live.unannounced = true;
        self.live.insert(run.clone(), live);
        self.record(&run, at, Event::Accepted(Box::new((*accepted).clone())));
    }

    fn on_report(&mut self, report: Report) {
        let Report { run, unit, token, result } = report;
        let input = match result {
            Ok(outcome) => Input::Report { unit: unit.clone(), token, outcome, draw: self.draws.next() },
            Err(lost) => Input::Lost { unit: unit.clone(), token, why: lost.why },
        };
        match self.take_in(&run, input) {
            Ok(()) => {
                if let Some(live) = self.live.get_mut(&run) {
                    live.reported.push_back((live.state.seq, unit, token));
                }
            }
            // A late report is no error: the attempt that it belongs to is over.
            Err(_) => self.dispatch.answered(&run, &unit, token, Verdict::Stale),
        }
    }

    fn on_time(&mut self) {
        let now = self.config.clock.now();
        let due: Vec<RunId> = self
            .timers
            .iter()
            .take_while(|(at, _)| at.is_some_and(|at| at <= now))
            .map(|(_, run)| run.clone())
            .collect();
        for run in due {
            let _ = self.take_in(&run, Input::Time);
        }
    }

    /// Holds an input against its run; an event that comes of it is recorded.
    fn take_in(&mut self, run: &RunId, input: Input) -> Result<(), RuntimeError> {
        let Some(live) = self.live.get_mut(run) else { return Err(RuntimeError::NoSuchRun(run.to_string())) };
        let now = self.config.clock.now().max(live.state.now);
        let event = admit(&live.state, input, now)?;
        if let Event::Reported { token, outcome, .. } = &event {
            let use_ = live.cache_uses.remove(&token.0);
            if let (Some(cache), Outcome::Succeeded { outputs, cached: false, .. }) = (use_, outcome)
                && let Ok(value) = serde_json::to_vec(outputs)
            {
                live.keep(CachePut {
                    key: cache.key,
                    value,
                    expires_at: cache.ttl.map(|ttl| now.plus(ttl)),
                    created_at: now,
                });
            }
        }
        self.record(run, now, event);
        Ok(())
    }

    fn record(&mut self, run: &RunId, at: Timestamp, event: Event) {
        let Some(live) = self.live.get_mut(run) else { return };
        if let Err(problem) = live.record(at, event) {
            self.dead = Some(RuntimeError::Refused(format!("an event of run {run} cannot be written: {problem}")));
            return;
        }
        self.touch(run);
    }

    fn touch(&mut self, run: &RunId) {
        if let Some(live) = self.live.get_mut(run)
            && !std::mem::replace(&mut live.touched, true)
        {
            self.touched.push(run.clone());
        }
    }

    /// Hands everything that is to be written to the journal.
    fn flush(&mut self) {
        for run in std::mem::take(&mut self.touched) {
            let Some(live) = self.live.get_mut(&run) else { continue };
            live.touched = false;
            let timer = live.state.next_timer();
            if timer != live.timer {
                self.timers.remove(&(live.timer, run.clone()));
                live.timer = timer;
                if timer.is_some() {
                    self.timers.insert((timer, run.clone()));
                }
            }
            let seq = live.state.seq;
            if let Some(batch) = live.batch() {
                let sender = self.sender.clone();
                self.config.journal.append(
                    batch,
                    Box::new(move |result| {
                        let _ = sender.send(Message::Durable { run, seq, result });
                    }),
                );
            }
        }
    }

    fn on_durable(&mut self, run: &RunId, seq: u64) {
        self.answer(run, seq);
        let goes_on = self.live.get(run).is_some_and(|live| live.state.verdict.is_none());
        if goes_on && !self.config.journal.is_sure(run) {
            // What follows may be another process's to do by now. It is done once this one is sure again; if it
            // never is, its next write is refused.
            self.unsure.insert(run.clone(), seq);
            return;
        }
        loop {
            let Some(live) = self.live.get_mut(run) else { return };
            let Some((_, at, effects)) = live.due(seq) else { break };
            for effect in effects {
                self.perform(run, at, effect);
            }
            // Only now is the run surely this process's, and all that had been out is out here. Whoever came before with
            // some of it was not sent away.
            if let Some(live) = self.live.get_mut(run)
                && std::mem::take(&mut live.unannounced)
            {
                self.dispatch.begin(run);
            }
        }
        self.look_for_waiting(run);
    }

    fn polls(&self) -> bool {
        !self.unsure.is_empty() || (self.config.takes_commands && !self.live.is_empty())
    }

    fn on_poll(&mut self) {
        self.on_unsure();
        if self.config.takes_commands && !self.live.is_empty() {
            self.on_commands();
        }
    }

    /// Does what was held back while it was not sure whose the runs are.
    fn on_unsure(&mut self) {
        for (run, seq) in std::mem::take(&mut self.unsure) {
            self.on_durable(&run, seq);
        }
    }

    /// Workers hear of what is recorded before anything follows from it.
    fn answer(&mut self, run: &RunId, durable: u64) {
        let Some(live) = self.live.get_mut(run) else { return };
        while let Some((_, unit, token)) = live.reported.pop_front_if(|(seq, _, _)| *seq <= durable) {
            self.dispatch.answered(run, &unit, token, Verdict::Recorded);
        }
        while let Some((_, reply)) = live.asked.pop_front_if(|(seq, _)| *seq <= durable) {
            let _ = reply.send(Ok(()));
        }
    }

    fn perform(&mut self, run: &RunId, at: Timestamp, effect: Effect) {
        let Some(live) = self.live.get_mut(run) else { return };
        match effect {
            Effect::Note(note) => live.tell(RunEvent::Note { at, note }),
            Effect::Dispatch { unit, token } => self.hand_out(run, unit, token, false),
            Effect::Reclaim { unit, token } => self.hand_out(run, unit, token, true),
            Effect::RecordStart { unit, token } => {
                let unit = live.state.path(unit);
                let _ = self.take_in(run, Input::Start { unit, token });
            }
            Effect::Stop { unit, token, now } => {
                let path = live.state.path(unit);
                self.dispatch.stop(run, &path, token, if now { Stop::Now } else { Stop::Graceful });
            }
            Effect::Finish => self.let_go(run),
        }
    }

    /// Fills in a unit's work and gives it to a worker, unless it needs none.
    fn hand_out(&mut self, run: &RunId, unit: UnitKey, token: LeaseToken, reclaim: bool) {
        let Some(live) = self.live.get_mut(run) else { return };
        if live.state.unit(unit).is_none_or(|at| at.token != token.0) {
            return;
        }
        let prepared = prepare(&live.state, unit, token, &self.config.root, &self.mark);
        let path = live.state.path(unit);
        let mut outcome = None;
        if let Some(cache) = prepared.cache {
            // What a worker may be about to begin is not ended behind its back.
            let kept = if reclaim { Ok(None) } else { self.config.journal.cached(&cache.key, self.config.clock.now()) };
            match kept {
                Ok(Some(value)) => outcome = cached_outcome(&value),
                Ok(None) => {}
                Err(error) => {
                    self.dead = Some(RuntimeError::Journal(error));
                    return;
                }
            }
            if outcome.is_none() {
                live.cache_uses.insert(token.0, cache);
            }
        }
        let outcome = match (outcome, prepared.work) {
            (Some(outcome), _) | (None, PreparedWork::Outcome(outcome)) => outcome,
            (None, PreparedWork::Task(task)) if reclaim => return self.dispatch.reclaim(*task),
            (None, PreparedWork::Task(task)) => return self.dispatch.dispatch(*task),
        };
        let draw = self.draws.next();
        let _ = self.take_in(run, Input::Report { unit: path, token, outcome, draw });
    }

    /// The run is no longer this process's: it has ended, or it waits for somebody else.
    fn let_go(&mut self, run: &RunId) {
        let Some(live) = self.live.remove(run) else { return };
        self.timers.remove(&(live.timer, run.clone()));
        self.dispatch.forget(run, live.state.verdict.is_some());
        // The journal gives an ended run up by itself.
        if live.state.verdict.is_none()
            && let Err(error) = self.config.journal.release(run)
        {
            self.dead = Some(RuntimeError::Journal(error));
        }
        if let Some(watcher) = live.watcher {
            let _ = watcher.send(RunEvent::Ended(Box::new(live.state)));
        }
    }

    /// The run is another process's, or cannot be written: nothing more is done for it here.
    fn lose(&mut self, run: &RunId, why: RuntimeError) {
        let Some(mut live) = self.live.remove(run) else { return };
        self.timers.remove(&(live.timer, run.clone()));
        self.dispatch.forget(run, false);
        live.tell(RunEvent::Failed(why));
    }

    fn look_for_waiting(&mut self, run: &RunId) {
        let Some(live) = self.live.get_mut(run) else { return };
        if live.state.out > 0 || !live.is_quiet() || live.state.status() != RunStatus::Waiting {
            live.told_waiting &= live.state.out == 0;
            return;
        }
        if std::mem::replace(&mut live.told_waiting, true) {
            return;
        }
        let state = &live.state;
        let questions = state
            .open_questions()
            .map(|key| (state.path(key), state.unit(key).map_or(StepStatus::Unknown, |unit| unit.status)))
            .collect();
        live.tell(RunEvent::Waiting { questions });
    }

    /// Answers what other processes have asked of this one's runs.
    fn on_commands(&mut self) {
        match self.config.journal.changed() {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => {
                self.dead = Some(RuntimeError::Journal(error));
                return;
            }
        }
        let runs = match self.config.journal.runs_with_commands() {
            Ok(runs) => runs,
            Err(error) => {
                self.dead = Some(RuntimeError::Journal(error));
                return;
            }
        };
        for run in runs.into_iter().filter(|run| self.live.contains_key(run)).collect::<Vec<_>>() {
            let commands = match self.config.journal.pending_commands(&run) {
                Ok(commands) => commands,
                Err(error) => {
                    self.dead = Some(RuntimeError::Journal(error));
                    return;
                }
            };
            for (id, body) in commands {
                // The answer of an earlier look may still be on its way to the journal.
                if !self.live.get_mut(&run).is_some_and(|live| live.obeyed.insert(id)) {
                    continue;
                }
                let reply = self.obey(&run, &body);
                if let Some(live) = self.live.get_mut(&run) {
                    live.reply(CommandReply { id, body: serde_json::to_vec(&reply).unwrap_or_default() });
                }
                self.touch(&run);
            }
        }
    }

    fn obey(&mut self, run: &RunId, body: &[u8]) -> ControlReply {
        let command: ControlCommand = match serde_json::from_slice(body) {
            Ok(command) => command,
            Err(error) => return ControlReply::refused(format!("the command cannot be read: {error}")),
        };
        match self.take_in(run, command.into_input()) {
            Ok(()) => ControlReply::done(),
            Err(RuntimeError::Rejected(Rejection::Same)) => ControlReply::same(),
            Err(error) => ControlReply::refused(error.to_string()),
        }
    }
}

fn cached_outcome(value: &[u8]) -> Option<Outcome> {
    let outputs = serde_json::from_slice(value).ok()?;
    Some(Outcome::Succeeded { outputs: Arc::new(outputs), exit_code: None, stderr: None, usage: None, cached: true })
}

/// Draws numbers from 0 to 1, so that the scheduler never has to (xorshift64*: the pauses between attempts need to be
/// spread, not secret).
struct Draws(u64);

impl Draws {
    fn seeded() -> Self {
        Self(uuid::Uuid::new_v4().as_u64_pair().0 | 1)
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        bits as f64 / f64::from(u32::MAX)
    }
}

async fn sleep_until(at: Option<Timestamp>, now: Timestamp) {
    match at {
        // A timer that lies more than a day ahead is looked at again then: clocks are set, machines sleep.
        Some(at) => tokio::time::sleep(at.since(now).min(Duration::from_secs(86_400))).await,
        None => std::future::pending().await,
    }
}
