//! What a ledger counts.

/// What went otherwise than planned so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub handed_out: u64,
    pub reported: u64,
    pub lost: u64,
    pub resent: u64,
    /// Reports of hand-outs that were no longer current.
    pub stale: u64,
    /// Reports of runs that this scheduler does not have.
    pub unknown: u64,
    /// Hand-outs of an earlier scheduler that a worker was found to have.
    pub reclaimed: u64,
}
