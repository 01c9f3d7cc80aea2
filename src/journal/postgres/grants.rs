//! What this process holds: under which epoch, and until when by its own clock.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// How long a lease lasts without being renewed, by the database's clock.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// How often leases are renewed.
pub(crate) const RENEW: Duration = Duration::from_secs(3);
/// By this much earlier a holder stops on its own: clocks do not run alike.
const MARGIN: Duration = Duration::from_secs(1);

/// One thing that is held: a partition (`p/3`) or a single run (`r/…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) epoch: i64,
    /// From then on the lease may have run out; measured from before it was asked for.
    pub(crate) until: Instant,
}

/// Everything that is held, by key.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    held: HashMap<String, Grant>,
}

/// When a lease that was asked for at `asked` may have run out.
pub(crate) fn until(asked: Instant) -> Instant {
    asked + LEASE - MARGIN
}

impl Grants {
    pub(crate) fn get(&self, key: &str) -> Option<Grant> {
        self.held.get(key).copied()
    }

    /// Notes a lease that was asked for at `asked`. It never shortens one of the same epoch, nor brings an older back.
    pub(crate) fn put(&mut self, key: &str, epoch: i64, asked: Instant) {
        let fresh = Grant { epoch, until: until(asked) };
        match self.held.get_mut(key) {
            Some(grant) if grant.epoch > epoch => {}
            Some(grant) if grant.epoch == epoch => grant.until = grant.until.max(fresh.until),
            Some(grant) => *grant = fresh,
            None => {
                self.held.insert(key.to_owned(), fresh);
            }
        }
    }

    /// Forgets a key if it is held under this epoch still.
    pub(crate) fn remove(&mut self, key: &str, epoch: i64) {
        if self.held.get(key).is_some_and(|grant| grant.epoch == epoch) {
            self.held.remove(key);
        }
    }

    /// All keys with their epochs.
    pub(crate) fn all(&self) -> Vec<(String, i64)> {
        self.held.iter().map(|(key, grant)| (key.clone(), grant.epoch)).collect()
    }

    /// Whether a key is held, and surely so by this process's clock.
    pub(crate) fn is_sure(&self, key: &str, now: Instant) -> bool {
        self.held.get(key).is_some_and(|grant| grant.until > now)
    }

    /// Notes the answer to a renewal: what was not renewed is lost.
    pub(crate) fn renewed(&mut self, asked_for: &[(String, i64)], renewed: &[String], asked: Instant) {
        let renewed: HashSet<&String> = renewed.iter().collect();
        for (key, epoch) in asked_for {
            if renewed.contains(key) {
                if let Some(grant) = self.held.get_mut(key).filter(|grant| grant.epoch == *epoch) {
                    grant.until = grant.until.max(until(asked));
                }
            } else {
                self.remove(key, *epoch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_sure_for_less_than_the_lease() {
        let mut grants = Grants::default();
        let start = Instant::now();
        grants.put("p/1", 3, start);
        assert!(grants.is_sure("p/1", start + LEASE - MARGIN - Duration::from_millis(1)));
        assert!(!grants.is_sure("p/1", start + LEASE - MARGIN));
        assert!(!grants.is_sure("p/2", start));
        let asked_for = grants.all();
        grants.renewed(&asked_for, &["p/1".to_owned()], start + RENEW);
        assert!(grants.is_sure("p/1", start + LEASE));
        grants.put("p/1", 2, start + LEASE);
        assert_eq!(grants.get("p/1").unwrap().epoch, 3);
        grants.renewed(&asked_for, &[], start + RENEW);
        assert_eq!(grants.get("p/1"), None);
    }
}
