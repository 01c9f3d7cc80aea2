//! Blueprints: what a planner answers or a file holds, read, checked and made ready before anything in it runs.
//!
//! What may be called is decided here and only here: names of tools and agents are constants of the blueprint, so no
//! evidence can ever choose one.

mod answer;
mod check;
mod dialect;
mod hash;
mod place;
mod rules;
#[cfg(test)]
mod tests;

pub use answer::blueprint_from_answer;
pub use check::{BlueprintFault, FaultPlace, compile};
pub use place::compile_static;
pub use rules::PlanRules;
