//! A bounded memory of what may still be asked for.

use std::collections::{HashMap, VecDeque};
use std::io;

use serde::Serialize;

/// How much is remembered.
const REMEMBERED: usize = 4096;

/// How large all of it may be.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// The newest of what was put in; the oldest goes when there is too much.
pub(super) struct Remembered<K, V> {
    /// Each with its size.
    values: HashMap<K, (V, usize)>,
    order: VecDeque<K>,
    bytes: usize,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<K: Clone + Eq + std::hash::Hash, V> Remembered<K, V> {
    /// Puts something in that takes so many bytes. What alone is too large is not kept.
    pub(super) fn put(&mut self, key: K, value: V, bytes: usize) {
        match self.values.insert(key.clone(), (value, bytes)) {
            Some((_, before)) => self.bytes -= before,
            None => self.order.push_back(key),
        }
        self.bytes += bytes;
        while self.order.len() > REMEMBERED || self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some((_, bytes)) = self.values.remove(&oldest) {
                self.bytes -= bytes;
            }
        }
    }

    pub(super) fn take(&mut self, key: &K) -> Option<V> {
        let (value, bytes) = self.values.remove(key)?;
        self.bytes -= bytes;
        self.order.retain(|other| other != key);
        Some(value)
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.values.contains_key(key)
    }
}

/// How many bytes a value takes as JSON, which is near enough to what it takes in memory.
pub(super) fn size_of(value: &impl Serialize) -> usize {
    struct Counted(usize);
    impl io::Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counted = Counted(0);
    // Counting does not fail; what cannot be written as JSON counts as far as it went.
    let _ = serde_json::to_writer(&mut counted, value);
    counted.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_number_nor_size_grows_without_bound() {
        let mut many = Remembered::default();
        for key in 0..=REMEMBERED {
            many.put(key, (), 0);
        }
        assert_eq!((many.has(&0), many.has(&1), many.order.len()), (false, true, REMEMBERED));
        let mut large = Remembered::default();
        for key in 0..10 {
            large.put(key, key, BYTES_MAX / 4);
        }
        large.put(9, 99, BYTES_MAX / 4);
        assert_eq!((large.has(&5), large.has(&6), large.bytes), (false, true, BYTES_MAX));
        assert_eq!((large.take(&9), large.take(&9)), (Some(99), None));
        assert_eq!((large.order.len(), large.bytes), (3, BYTES_MAX / 4 * 3));
        large.put(10, 10, BYTES_MAX + 1);
        assert_eq!((large.order.len(), large.bytes), (0, 0));
    }
}
