//! Runs a pipeline against made-up outcomes in virtual time, and holds the end against what a test expects.
//!
//! The scheduler is the real one. There is no journal, no process, no network and no clock: an hour of waiting costs
//! nothing, and a case ends the same way every time.

mod expect;
mod mocks;
mod places;
mod play;

#[cfg(test)]
mod tests;

pub use expect::{CaseResult, Finding, check_case};
