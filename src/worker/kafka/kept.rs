//! What a worker keeps: the newest keys that it has seen, and the outcomes that nobody has answered yet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::dispatch::LeaseKey;

/// The newest of what was put in; the oldest goes when there is too much.
pub(super) struct Newest<V> {
    most: usize,
    values: HashMap<LeaseKey, V>,
    order: VecDeque<LeaseKey>,
}

impl<V> Newest<V> {
    pub(super) fn new(most: usize) -> Self {
        Self { most, values: HashMap::new(), order: VecDeque::new() }
    }

    /// False if it was there already; then its value is replaced.
    pub(super) fn put(&mut self, key: LeaseKey, value: V) -> bool {
        let is_new = self.values.insert(key.clone(), value).is_none();
        if is_new {
            self.order.push_back(key);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
        is_new
    }

    pub(super) fn get(&self, key: &LeaseKey) -> Option<&V> {
        self.values.get(key)
    }

    pub(super) fn remove(&mut self, key: &LeaseKey) {
        if self.values.remove(key).is_some() {
            self.order.retain(|other| other != key);
        }
    }
}

/// An outcome that waits for its receipt.
struct Kept {
    bytes: Vec<u8>,
    since: Instant,
    /// When it is due to be sent again; none while it is on its way.
    again: Option<Instant>,
}

/// The outcomes that nobody has answered yet.
#[derive(Default)]
pub(super) struct Outcomes(BTreeMap<LeaseKey, Kept>);

impl Outcomes {
    pub(super) fn put(&mut self, key: LeaseKey, bytes: Vec<u8>, now: Instant) {
        self.0.insert(key, Kept { bytes, since: now, again: None });
    }

    /// A scheduler has it, or wants it no more. False if it was not kept.
    pub(super) fn answered(&mut self, key: &LeaseKey) -> bool {
        self.0.remove(key).is_some()
    }

    /// It left, or could not: it is sent again if nobody answers.
    pub(super) fn sent(&mut self, key: &LeaseKey, again: Instant) {
        if let Some(kept) = self.0.get_mut(key) {
            kept.again = Some(again);
        }
    }

    /// Those that are to be sent again now, and how many were given up.
    pub(super) fn due(&mut self, now: Instant, give_up: Duration) -> (Vec<(LeaseKey, Vec<u8>)>, u64) {
        let before = self.0.len();
        self.0.retain(|_, kept| now.duration_since(kept.since) < give_up);
        let given_up = before - self.0.len();
        let mut due = Vec::new();
        for (key, kept) in &mut self.0 {
            if kept.again.is_some_and(|again| again <= now) {
                kept.again = None;
                due.push((key.clone(), kept.bytes.clone()));
            }
        }
        (due, u64::try_from(given_up).unwrap_or(u64::MAX))
    }

    pub(super) fn has(&self, key: &LeaseKey) -> bool {
        self.0.contains_key(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &LeaseKey> {
        self.0.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LeaseToken, RunId, UnitPath};

    fn key(token: u64) -> LeaseKey {
        LeaseKey { run: RunId::new("r"), unit: UnitPath::new("u"), token: LeaseToken(token) }
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut newest = Newest::new(2);
        assert!(newest.put(key(1), ()) && newest.put(key(2), ()) && !newest.put(key(2), ()));
        assert!(newest.put(key(3), ()));
        assert!(newest.get(&key(1)).is_none() && newest.get(&key(2)).is_some());
    }

    #[test]
    fn an_outcome_is_sent_again_until_it_is_answered_or_given_up() {
        let (mut outcomes, start, second) = (Outcomes::default(), Instant::now(), Duration::from_secs(1));
        outcomes.put(key(1), vec![1], start);
        // It is on its way.
        assert!(outcomes.due(start + second * 60, second * 600).0.is_empty());
        outcomes.sent(&key(1), start + second * 10);
        assert!(outcomes.due(start + second * 9, second * 600).0.is_empty());
        assert_eq!(outcomes.due(start + second * 10, second * 600).0, [(key(1), vec![1])]);
        assert!(outcomes.has(&key(1)));
        assert_eq!(outcomes.due(start + second * 600, second * 600).1, 1);
        assert!(!outcomes.answered(&key(1)) && outcomes.len() == 0);
    }
}
