//! The definitions that a server serves: a folder's pipelines, agents and settings, checked as a whole, and checked again
//! whenever a file changes. What is live is swapped at once, and only for a set without an error.
//!
//! It decides nothing about runs: those that are under way keep the program that they began with.

mod files;
mod folders;
mod interest;
mod look;
mod served;
mod set;
mod snapshot;
mod survey;
mod wake;

#[cfg(test)]
mod tests;

pub use files::Files;
pub use served::{Change, Options, Served};
pub use set::{Problems, Set};
pub use snapshot::Snapshot;
pub use survey::{Findings, Purpose, SurveyError, Target, survey};
