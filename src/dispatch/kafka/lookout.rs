//! Notices that a cluster has lost its disk and come back empty, or that another one answers in its place.
//!
//! Clients that go on with it are not only slow to find their way. A cluster gives the numbers of its producers out from
//! the beginning again, and a producer that keeps its old one is taken for another: what it sends passes for a copy, and
//! is dropped as if it were written. So everything that holds a connection is made anew.

use std::time::Duration;

use crate::dispatch::kafka::admin::Admin;

/// How often to look.
pub(crate) const LOOK: Duration = Duration::from_secs(5);
/// Missing topics are made once they were missing in so many looks in a row: whoever looks as often has seen it too.
const PATIENCE: u32 = 2;

/// What was seen of a cluster from time to time.
#[derive(Default)]
pub(crate) struct Lookout {
    /// How often the cluster had been another one when the clients were made.
    moves: u64,
    /// For how many looks in a row topics have been missing.
    missing: u32,
}

impl Lookout {
    /// Makes topics that are gone. True if the cluster is whole and is not the one that it was: whoever is connected to it
    /// is to connect anew.
    pub(crate) async fn look(&mut self, admin: &Admin, topics: &[String]) -> bool {
        // While no broker answers there is nothing to do but to look again.
        let Ok((mut whole, moves)) = admin.look(topics).await else { return false };
        let moved = moves != self.moves;
        if !whole {
            self.missing += 1;
            if self.missing >= PATIENCE || moved {
                whole = admin.restore(topics).await.is_ok();
            }
        }
        let is_other = whole && (moved || self.missing > 0);
        if is_other {
            (self.moves, self.missing) = (moves, 0);
        }
        is_other
    }
}
