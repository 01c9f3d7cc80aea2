//! Checksums: the chain over a run's rows, and one over the fields of any other row. Also how events lie in a row.

use crate::id::RunId;

/// Bytes of a checksum.
pub(crate) const SUM_BYTES: usize = 16;

/// A BLAKE3 hash, cut: enough against any accident; it is no signature.
pub(crate) type Sum = [u8; SUM_BYTES];

/// Keys of the hashes, so that a row of one kind never passes for one of another.
const ROOT_KEY: [u8; 32] = *b"tol journal 1: the root of a run";
const ROW_KEY: [u8; 32] = *b"tol journal 1: a row of the log.";
const STATE_KEY: [u8; 32] = *b"tol journal 1: one transaction..";
const FIELDS_KEY: [u8; 32] = *b"tol journal 1: fields of a row..";

fn cut(hasher: &blake3::Hasher) -> Sum {
    let mut sum = [0; SUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// What the first row of a run is chained to.
pub(crate) fn root(run: &RunId) -> Sum {
    cut(blake3::Hasher::new_keyed(&ROOT_KEY).update(run.as_str().as_bytes()))
}

/// The checksum of a row: over the one before it, its place and its bytes. A run's root holds the run's name.
pub(crate) fn row(previous: &Sum, first_seq: u64, count: u64, packed: &[u8]) -> Sum {
    let mut place = [0; SUM_BYTES + 16];
    let (before, numbers) = place.split_at_mut(SUM_BYTES);
    before.copy_from_slice(previous);
    let (first, second) = numbers.split_at_mut(8);
    first.copy_from_slice(&first_seq.to_le_bytes());
    second.copy_from_slice(&count.to_le_bytes());
    cut(blake3::Hasher::new_keyed(&ROW_KEY).update(&place).update(packed))
}

/// The checksum of a state of the database: over the one before it, its number and the rows that were added.
pub(crate) fn state(previous: &Sum, counter: u64, added: &[u8]) -> Sum {
    cut(blake3::Hasher::new_keyed(&STATE_KEY).update(previous).update(&counter.to_le_bytes()).update(added))
}

/// A checksum over the fields of one row that is not part of a log.
pub(crate) struct Fields(blake3::Hasher);

impl Fields {
    /// Begins with the name of the table.
    pub(crate) fn of(table: &str) -> Self {
        let mut fields = Self(blake3::Hasher::new_keyed(&FIELDS_KEY));
        fields.add(table.as_bytes());
        fields
    }

    /// Adds a field; its length goes in too, so that no two rows run together alike.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    /// Adds a text that may be absent.
    pub(crate) fn add_optional(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.add(&[1]).add(text.as_bytes()),
            None => self.add(&[0]),
        }
    }

    /// Adds a number that may be absent.
    pub(crate) fn add_number(&mut self, number: Option<i64>) -> &mut Self {
        match number {
            Some(number) => self.add(&[1]).add(&number.to_le_bytes()),
            None => self.add(&[0]),
        }
    }

    /// The checksum.
    pub(crate) fn sum(&self) -> Sum {
        cut(&self.0)
    }
}

/// Puts an event behind the others of a row: four bytes of length, then its bytes.
pub(crate) fn pack(packed: &mut Vec<u8>, body: &[u8]) {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    packed.extend_from_slice(&length.to_le_bytes());
    packed.extend_from_slice(body);
}

/// Takes a row apart into exactly `count` events; `None` if it does not hold just these.
pub(crate) fn unpack(packed: &[u8], count: u64) -> Option<Vec<&[u8]>> {
    let mut bodies = Vec::new();
    let mut rest = packed;
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        let (body, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        bodies.push(body);
        rest = behind;
    }
    (rest.is_empty() && bodies.len() as u64 == count).then_some(bodies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_taken_apart_as_it_was_packed() {
        let check = |bodies: &[&[u8]]| {
            let mut packed = Vec::new();
            bodies.iter().for_each(|body| pack(&mut packed, body));
            assert_eq!(unpack(&packed, bodies.len() as u64).as_deref(), Some(bodies));
            assert_eq!(unpack(&packed, bodies.len() as u64 + 1), None);
            if !packed.is_empty() {
                assert_eq!(unpack(&packed[..packed.len() - 1], bodies.len() as u64), None);
            }
        };
        check(&[]);
        check(&[b""]);
        check(&[b"one", b"", b"three"]);
    }

    #[test]
    fn every_part_of_a_row_changes_its_checksum() {
        let base = root(&RunId::new("a"));
        let sum = row(&base, 1, 1, b"body");
        for other in [
            row(&root(&RunId::new("b")), 1, 1, b"body"),
            row(&base, 2, 1, b"body"),
            row(&base, 1, 2, b"body"),
            row(&base, 1, 1, b"bodx"),
        ] {
            assert_ne!(sum, other);
        }
    }

    #[test]
    fn fields_do_not_run_together() {
        let sum = |parts: &[&str]| {
            let mut fields = Fields::of("t");
            parts.iter().for_each(|part| {
                fields.add(part.as_bytes());
            });
            fields.sum()
        };
        assert_ne!(sum(&["ab", "c"]), sum(&["a", "bc"]));
    }
}
