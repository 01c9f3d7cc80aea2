//! The high-water mark: a small file beside the database that says how far writes were acknowledged.
//!
//! SQLite takes a broken or missing write-ahead log for one that ends earlier, so a lost tail would look like a
//! shorter history. The mark is written after each commit and before anyone hears of it. It is not synced each time:
//! after a power cut it may lag behind the database, which is harmless, but it is never ahead of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::journal::chain::{self, SUM_BYTES, Sum};
use crate::journal::error::JournalError;

/// Two slots, written in turn: a torn write spoils one, and the other is at most one write older.
const SLOTS: usize = 2;
/// One sector of a disk, so that no write touches both slots.
const SLOT_BYTES: usize = 512;
const MAGIC: [u8; 8] = *b"tolmark\n";
const VERSION: u32 = 1;

/// A state of the database, as the mark and the database's own row say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    /// Drawn when the database was created.
    pub(crate) journal: [u8; 16],
    /// How many write transactions there were.
    pub(crate) counter: u64,
    /// The last row of the log; rows get ever higher positions, and none is given twice.
    pub(crate) position: u64,
    /// The chained checksum over all transactions.
    pub(crate) state: Sum,
    /// The checksum of the row at `position`.
    pub(crate) row: Sum,
}

impl Point {
    /// The state of a database in which nothing is written yet.
    pub(crate) fn start(journal: [u8; 16]) -> Self {
        Self { journal, counter: 0, position: 0, state: [0; SUM_BYTES], row: [0; SUM_BYTES] }
    }

    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut body = Vec::with_capacity(SLOT_BYTES);
        body.extend_from_slice(&MAGIC);
        body.extend_from_slice(&VERSION.to_le_bytes());
        body.extend_from_slice(&self.journal);
        body.extend_from_slice(&self.counter.to_le_bytes());
        body.extend_from_slice(&self.position.to_le_bytes());
        body.extend_from_slice(&self.state);
        body.extend_from_slice(&self.row);
        let sum = chain::Fields::of("high-water").add(&body).sum();
        body.extend_from_slice(&sum);
        let mut slot = [0; SLOT_BYTES];
        slot.iter_mut().zip(body).for_each(|(to, from)| *to = from);
        slot
    }

    fn decode(slot: &[u8]) -> Option<Self> {
        let (magic, rest) = slot.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (journal, rest) = rest.split_first_chunk::<16>()?;
        let (counter, rest) = rest.split_first_chunk::<8>()?;
        let (position, rest) = rest.split_first_chunk::<8>()?;
        let (state, rest) = rest.split_first_chunk::<SUM_BYTES>()?;
        let (row, _) = rest.split_first_chunk::<SUM_BYTES>()?;
        let point = Self {
            journal: *journal,
            counter: u64::from_le_bytes(*counter),
            position: u64::from_le_bytes(*position),
            state: *state,
            row: *row,
        };
        let fits = *magic == MAGIC && u32::from_le_bytes(*version) == VERSION && point.encode() == *slot;
        fits.then_some(point)
    }
}

/// The open mark.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Opens the mark; `None` if there is no such file.
    pub(crate) fn open(path: &Path, write: bool) -> Result<Option<Self>, JournalError> {
        match OpenOptions::new().read(true).write(write).open(path) {
            Ok(file) => Ok(Some(Self { file, path: path.to_owned() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(JournalError::disk(path, "open the high-water mark", &error)),
        }
    }

    /// Creates the mark, or sets it whatever it said before; its bytes are durable, its name is when the folder is
    /// synced. Nobody ever meets half of it.
    pub(crate) fn set(path: &Path, point: &Point) -> Result<Self, JournalError> {
        let fresh = path.with_extension("new");
        let write = || -> io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&fresh)?;
            for slot in 0..SLOTS {
                file.write_all_at(&point.encode(), (slot * SLOT_BYTES) as u64)?;
            }
            file.sync_data()?;
            fs::rename(&fresh, path)?;
            Ok(file)
        };
        let file = write().map_err(|error| JournalError::disk(path, "write the high-water mark", &error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    fn slots(&self) -> Result<[Option<Point>; SLOTS], JournalError> {
        let mut bytes = [0; SLOTS * SLOT_BYTES];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(JournalError::disk(&self.path, "read the high-water mark", &error)),
            }
        }
        let (first, second) = bytes.split_at(SLOT_BYTES);
        Ok([Point::decode(first), Point::decode(second)])
    }

    /// What the mark says: the higher of its good slots.
    ///
    /// One spoilt slot is a write that was cut off; two are damage.
    pub(crate) fn read(&self) -> Result<Point, JournalError> {
        match self.slots()? {
            [Some(first), Some(second)] if second.counter > first.counter => Ok(second),
            [Some(first), _] => Ok(first),
            [None, Some(second)] => Ok(second),
            [None, None] => Err(JournalError::Lost {
                file: self.path.clone(),
                what: "the high-water mark is unreadable, so nobody can tell whether the database is complete"
                    .to_owned(),
            }),
        }
    }

    /// Raises the mark to a point that is durable; it never lowers it, whatever other processes do meanwhile.
    pub(crate) fn raise(&self, point: &Point) -> Result<(), JournalError> {
        let disk = |error: &io::Error| JournalError::disk(&self.path, "write the high-water mark", error);
        self.file.lock().map_err(|error| disk(&error))?;
        let result = self.slots().and_then(|slots| {
            let counter = |slot: Option<Point>| slot.map(|point| point.counter);
            let [first, second] = slots;
            if counter(first).max(counter(second)) >= Some(point.counter) {
                return Ok(());
            }
            // The better slot stays as it is until this write is done.
            let slot = if counter(first) <= counter(second) { 0 } else { SLOT_BYTES };
            self.file.write_all_at(&point.encode(), slot as u64).map_err(|error| disk(&error))
        });
        self.file.unlock().map_err(|error| disk(&error))?;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(counter: u64) -> Point {
        Point { counter, position: counter * 2, ..Point::start([7; 16]) }
    }

    #[test]
    fn the_mark_only_rises() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let mark = Mark::set(&path, &point(0)).unwrap();
        let check = |raise: u64, expect: u64| {
            mark.raise(&point(raise)).unwrap();
            assert_eq!(Mark::open(&path, false).unwrap().unwrap().read().unwrap(), point(expect));
        };
        check(1, 1);
        check(5, 5);
        check(3, 5);
        check(6, 6);
    }

    #[test]
    fn one_torn_slot_is_survived_and_two_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let mark = Mark::set(&path, &point(0)).unwrap();
        mark.raise(&point(1)).unwrap();
        mark.raise(&point(2)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let check = |offset: usize| {
            let mut bytes = whole.clone();
            bytes[offset] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            let read = Mark::open(&path, false).unwrap().unwrap().read().unwrap();
            assert!(read == point(1) || read == point(2), "{read:?}");
        };
        (0..whole.len()).for_each(check);
        std::fs::write(&path, &whole[..100.min(whole.len())]).unwrap();
        std::fs::write(&path, vec![0; 1024]).unwrap();
        assert!(matches!(Mark::open(&path, false).unwrap().unwrap().read(), Err(JournalError::Lost { .. })));
    }
}
