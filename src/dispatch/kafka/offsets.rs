//! Which messages of a partition are done with, so that an offset is stored only when all before it are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::dispatch::kafka::consumer::Received;

#[derive(Default)]
struct Partition {
    assignment: u64,
    open: BTreeSet<i64>,
    /// The offset behind the last message that was taken.
    next: i64,
}

/// The messages that were taken and are not done with, for each partition.
#[derive(Default)]
pub struct Offsets {
    partitions: HashMap<(Arc<str>, i32), Partition>,
}

impl Offsets {
    /// A message was taken. What was open of an earlier assignment of its partition is another consumer's now.
    pub fn take(&mut self, message: &Received) {
        let key = (message.topic.clone(), message.partition);
        let partition = self.partitions.entry(key).or_default();
        // A broker that lost its disk begins to count anew.
        if partition.assignment != message.assignment || message.offset < partition.next {
            *partition = Partition { assignment: message.assignment, ..Partition::default() };
        }
        partition.open.insert(message.offset);
        partition.next = partition.next.max(message.offset + 1);
    }

    /// A message is done with. Gives the offset from which a consumer would have to go on, if that has moved.
    pub fn done(&mut self, place: &Place) -> Option<i64> {
        let partition = self.partitions.get_mut(&(place.topic.clone(), place.partition))?;
        if partition.assignment != place.assignment {
            return None;
        }
        let was_first = partition.open.first() == Some(&place.offset);
        if !partition.open.remove(&place.offset) || !was_first {
            return None;
        }
        Some(partition.open.first().copied().unwrap_or(partition.next))
    }

    /// True if nothing before a message is open.
    pub fn is_first(&self, place: &Place) -> bool {
        self.partitions
            .get(&(place.topic.clone(), place.partition))
            .is_some_and(|partition| partition.open.first() == Some(&place.offset))
    }

    /// How many messages are open.
    pub fn open(&self) -> usize {
        self.partitions.values().map(|partition| partition.open.len()).sum()
    }
}

/// Where a message stood, and in which assignment of its partition it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
    pub assignment: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(offset: i64, assignment: u64) -> Received {
        Received::at(Place { topic: Arc::from("t"), partition: 0, offset, assignment })
    }

    #[test]
    fn an_offset_moves_over_what_is_done_only() {
        let mut offsets = Offsets::default();
        let messages: Vec<Received> = [3, 4, 7].into_iter().map(|offset| message(offset, 1)).collect();
        for message in &messages {
            offsets.take(message);
        }
        assert_eq!(offsets.done(&messages[1].place()), None);
        assert!(offsets.is_first(&messages[0].place()));
        assert_eq!(offsets.done(&messages[0].place()), Some(7));
        assert_eq!(offsets.done(&messages[0].place()), None);
        assert_eq!(offsets.done(&messages[2].place()), Some(8));
        assert_eq!(offsets.open(), 0);
    }

    #[test]
    fn a_partition_that_begins_anew_is_counted_anew() {
        let mut offsets = Offsets::default();
        offsets.take(&message(40, 1));
        let new = message(0, 1);
        offsets.take(&new);
        assert_eq!(offsets.done(&new.place()), Some(1));
        assert_eq!(offsets.open(), 0);
    }

    #[test]
    fn an_earlier_assignment_counts_no_more() {
        let mut offsets = Offsets::default();
        let old = message(3, 1);
        offsets.take(&old);
        let new = message(3, 2);
        offsets.take(&new);
        assert_eq!(offsets.done(&old.place()), None);
        assert_eq!(offsets.done(&new.place()), Some(4));
    }
}
