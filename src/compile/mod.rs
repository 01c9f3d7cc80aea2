//! Runs every check over a pipeline and all that it names; yields a program or all diagnostics.
//!
//! Texts come from a [`Sources`]; it is the shell's business where that finds them.

mod input;
mod program;
mod sources;

pub use input::InputTemplate;
pub use program::{Call, CallTarget, CompiledBlueprint, CompiledPipeline, Program};
pub use sources::{MemorySources, SourceProblem, Sources};
