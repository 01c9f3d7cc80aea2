//! One run that this process drives: its state, what is not yet durable, and who watches.

use std::collections::{BTreeSet, HashMap, VecDeque};

use tokio::sync::mpsc::UnboundedSender;

use super::engine::{Reply, RunEvent};
use crate::id::{LeaseToken, UnitPath};
use crate::journal::{Batch, CachePut, CommandReply, NewRun, RunSummaryRow};
use crate::scheduler::{CacheUse, Effect, Event, RunStatus, Stamped, State, apply};
use crate::time::Timestamp;

/// A run in memory.
pub(super) struct Live {
    pub state: State,
    pub watcher: Option<UnboundedSender<RunEvent>>,
    /// Effects that wait for their event to be durable, by the event's number.
    held: VecDeque<(u64, Timestamp, Vec<Effect>)>,
    /// Reports taken in, each with the number of its event: workers hear of them once that is durable.
    pub reported: VecDeque<(u64, UnitPath, LeaseToken)>,
    /// Inputs whose askers wait until their event, by its number, is durable.
    pub asked: VecDeque<(u64, Reply)>,
    bodies: Vec<Box<[u8]>>,
    accept: Option<Box<NewRun>>,
    replies: Vec<CommandReply>,
    /// The commands of other processes that were carried out here, by their numbers.
    pub obeyed: BTreeSet<i64>,
    cache: Vec<CachePut>,
    /// Where the outputs of a unit that is out are kept, by its token.
    pub cache_uses: HashMap<u64, CacheUse>,
    shown: Option<(RunStatus, bool)>,
    /// Set while the run waits in the list of those to be written.
    pub touched: bool,
    /// The timer under which the loop knows the run.
    pub timer: Option<Timestamp>,
    /// Workers are not told yet that what is not out here is stale.
    pub unannounced: bool,
    /// True once watchers were told that only people can move it on.
    pub told_waiting: bool,
}

impl Live {
    pub fn new(state: State, watcher: Option<UnboundedSender<RunEvent>>) -> Self {
        Self {
            state,
            watcher,
            held: VecDeque::new(),
            reported: VecDeque::new(),
            asked: VecDeque::new(),
            bodies: Vec::new(),
            accept: None,
            replies: Vec::new(),
            obeyed: BTreeSet::new(),
            cache: Vec::new(),
            cache_uses: HashMap::new(),
            shown: None,
            touched: false,
            timer: None,
            unannounced: false,
            told_waiting: false,
        }
    }

    /// Takes an event in. Its effects are held until it is durable.
    pub fn record(&mut self, at: Timestamp, event: Event) -> Result<(), String> {
        let stamped = Stamped::new(at, event);
        let body = serde_json::to_vec(&stamped).map_err(|error| error.to_string())?;
        let effects = apply(&mut self.state, &stamped);
        self.bodies.push(body.into_boxed_slice());
        self.held.push_back((self.state.seq, at, effects));
        Ok(())
    }

    pub fn accept(&mut self, row: Box<NewRun>) {
        self.accept = Some(row);
    }

    pub fn reply(&mut self, reply: CommandReply) {
        self.replies.push(reply);
    }

    pub fn keep(&mut self, put: CachePut) {
        self.cache.push(put);
    }

    /// What is to be written next, if anything.
    pub fn batch(&mut self) -> Option<Batch> {
        let status = self.state.status();
        let paused = self.state.paused;
        let changed = self.shown != Some((status, paused));
        if self.bodies.is_empty() && self.replies.is_empty() && !changed {
            return None;
        }
        self.shown = Some((status, paused));
        let summary = changed.then(|| RunSummaryRow {
            status: status.as_str().to_owned(),
            paused,
            finished_at: self.state.ended_at,
        });
        Some(Batch {
            run: self.state.run.clone(),
            first_seq: self.state.seq + 1 - self.bodies.len() as u64,
            bodies: std::mem::take(&mut self.bodies),
            accept: self.accept.take(),
            summary,
            cache: std::mem::take(&mut self.cache),
            handled: std::mem::take(&mut self.replies),
        })
    }

    /// The next effects whose event is durable.
    pub fn due(&mut self, durable: u64) -> Option<(u64, Timestamp, Vec<Effect>)> {
        if self.held.front().is_some_and(|(seq, _, _)| *seq <= durable) { self.held.pop_front() } else { None }
    }

    /// True if nothing is on its way to the journal or held back.
    pub fn is_quiet(&self) -> bool {
        self.held.is_empty() && self.bodies.is_empty()
    }

    pub fn tell(&mut self, event: RunEvent) {
        if let Some(watcher) = &self.watcher
            && watcher.send(event).is_err()
        {
            // Nobody looks any more; the run goes on all the same.
            self.watcher = None;
        }
    }
}
