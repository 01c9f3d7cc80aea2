//! The loop: take inputs in, write events to the journal, perform effects once they are durable.
//!
//! It decides nothing about a run; the scheduler does. It owns the clock, the draws and the order of writing.

mod clock;
mod control;
mod engine;
mod error;
mod live;
mod replay;

pub use clock::{Clock, SystemClock};
pub use control::{ControlCommand, ControlReply, leave_command, write_event};
pub use engine::{Engine, EngineConfig, RunEvent, StartRun};
pub use error::RuntimeError;
pub use replay::{Rebuilt, advance, load_program, read_events, rebuild, rebuild_with, replay};
