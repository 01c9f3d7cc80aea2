//! A bounded memory of what may still be asked for.

use std::collections::{HashMap, VecDeque};

/// How much is remembered.
const REMEMBERED: usize = 4096;

/// The newest of what was put in; the oldest goes when there is too much.
pub(super) struct Remembered<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Remembered<K, V> {
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.values.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.values.remove(&oldest);
            }
        }
    }

    pub(super) fn take(&mut self, key: &K) -> Option<V> {
        let value = self.values.remove(key);
        if value.is_some() {
            self.order.retain(|other| other != key);
        }
        value
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }
}
