//! What waits for a slot, best first. A queue that the run's limits bound has a lane of its own, so that what waits for
//! room in it stands in nobody's way; the best of all is found without a look at those that have no room.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::state::{Body, State, UnitKey};
use crate::diagnostic::Spanned;
use crate::model::{Action, Priority, StepPlace};
use crate::task::DEFAULT_QUEUE;

/// What a unit is sorted by while it waits for a slot: priority, then the longest way ahead, then age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReadyKey {
    pub priority: Priority,
    pub short_of_critical: u32,
    pub unit: UnitKey,
}

/// The units that wait for a slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Ready {
    /// Those of queues without a bound.
    open: BTreeSet<ReadyKey>,
    /// In the order of `limits.queues`.
    lanes: Vec<Lane>,
}

/// One bounded queue.
#[derive(Clone, Debug)]
struct Lane {
    queue: Box<str>,
    most: u32,
    out: u32,
    waiting: BTreeSet<ReadyKey>,
}

impl Lane {
    fn has_room(&self) -> bool {
        self.out < self.most
    }
}

impl Ready {
    /// Nothing waits; the queues of the limits are bounded.
    pub(super) fn new(limits: &[(Spanned<Box<str>>, u32)]) -> Self {
        let lane = |(queue, most): &(Spanned<Box<str>>, u32)| Lane {
            queue: queue.value.clone(),
            most: (*most).max(1),
            out: 0,
            waiting: BTreeSet::new(),
        };
        Self { open: BTreeSet::new(), lanes: limits.iter().map(lane).collect() }
    }

    /// The lane of a queue, if it is bounded.
    fn lane(&self, queue: &str) -> Option<u32> {
        self.lanes.iter().position(|lane| &*lane.queue == queue).map(|index| index as u32)
    }

    pub(super) fn insert(&mut self, key: ReadyKey, lane: Option<u32>) {
        match lane.and_then(|lane| self.lanes.get_mut(lane as usize)) {
            Some(lane) => lane.waiting.insert(key),
            None => self.open.insert(key),
        };
    }

    /// Takes a unit out, wherever it waits: its queue may have changed since it was put there.
    pub(super) fn remove(&mut self, key: &ReadyKey) {
        self.open.remove(key);
        for lane in &mut self.lanes {
            lane.waiting.remove(key);
        }
    }

    /// The best of those whose queue has room.
    pub(super) fn best(&self) -> Option<ReadyKey> {
        self.best_that(|_| true)
    }

    /// The best of those whose queue has room and which may go.
    pub(super) fn best_that(&self, may_go: impl Fn(UnitKey) -> bool) -> Option<ReadyKey> {
        let find = |waiting: &BTreeSet<ReadyKey>| waiting.iter().find(|key| may_go(key.unit)).copied();
        let lanes = self.lanes.iter().filter(|lane| lane.has_room()).filter_map(|lane| find(&lane.waiting));
        find(&self.open).into_iter().chain(lanes).min()
    }

    /// Any unit that waits, with room in its queue or without.
    pub(super) fn any(&self) -> Option<UnitKey> {
        let lanes = self.lanes.iter().filter_map(|lane| lane.waiting.first());
        self.open.first().into_iter().chain(lanes).min().map(|key| key.unit)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.lanes.iter().all(|lane| lane.waiting.is_empty())
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.lanes.iter_mut().for_each(|lane| lane.waiting.clear());
    }

    /// Counts a unit that goes out on a bounded queue.
    pub(super) fn went_out(&mut self, lane: Option<u32>) {
        if let Some(lane) = lane.and_then(|lane| self.lanes.get_mut(lane as usize)) {
            lane.out += 1;
        }
    }

    /// Gives back the room of a unit that was out on a bounded queue.
    pub(super) fn came_back(&mut self, lane: Option<u32>) {
        if let Some(lane) = lane.and_then(|lane| self.lanes.get_mut(lane as usize)) {
            lane.out = lane.out.saturating_sub(1);
        }
    }
}

impl State {
    /// Where the work of a unit is done; nothing for the default queue without further demands. The calls of a plan go
    /// where their `execute` step says, and a planner that is asked again is asked where the plan was made.
    pub(super) fn place_of(&self, key: UnitKey) -> Option<Arc<StepPlace>> {
        let scope = self.scope(key.scope);
        match &scope.body {
            Body::Blueprint(_) => self.definition(scope.parent?).step()?.place.clone(),
            Body::Pipeline | Body::Hooks { .. } => {
                let definition = self.definition(key);
                let step = definition.step()?;
                match (&step.action, scope.pipeline.plans.get(&key.step)) {
                    (Action::Execute(_), Some(plan)) => scope.pipeline.step(*plan).place.clone(),
                    _ => step.place.clone(),
                }
            }
        }
    }

    /// The bounded queue that a unit goes out on.
    pub(super) fn lane_of(&self, key: UnitKey) -> Option<u32> {
        if self.ready.lanes.is_empty() || matches!(self.definition(key).action(), Some(Action::Transform(_))) {
            return None;
        }
        let place = self.place_of(key);
        self.ready.lane(place.as_ref().map_or(DEFAULT_QUEUE, |place| &place.queue))
    }
}
