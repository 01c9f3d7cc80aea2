//! The core that decides: `admit` says no, `apply` changes a run's state and says what is to be done, `prepare` fills in
//! the work. No clock, no randomness, no I/O: times and draws arrive inside events, so that a run replayed from its
//! journal is the same run.

mod admit;
mod agents;
mod apply;
mod event;
mod limits;
#[cfg(test)]
mod loss_tests;
mod names;
mod prepare;
mod preview;
mod ready;
#[cfg(test)]
mod ready_tests;
mod scope;
mod state;
mod status;
mod step;
#[cfg(test)]
mod tests;
mod unit;

pub use admit::admit;
pub use apply::apply;
pub use event::{Accepted, Decision, EVENT_VERSION, Event, Input, Options, Rejection, ReusedStep, Settlement, Stamped};
pub use prepare::{CacheUse, Prepared, PreparedWork, prepare};
pub use preview::preview;
pub use state::{
    About, Body, Effect, FanState, HookKind, Note, Phase, Scope, ScopeId, Stage, State, StepState, StopReason,
    SynthesizeState, TimerKind, UnitKey, UnitState,
};
pub use status::{RunStatus, StepStatus, Verdict};
