//! Runs every check over a pipeline and all that it names; yields a program or all diagnostics.
//!
//! Texts come from a [`Sources`]; it is the shell's business where that finds them.

mod actions;
mod blueprint;
mod cascade;
mod checker;
mod codes;
mod documents;
#[cfg(test)]
mod fixtures;
mod input;
mod input_check;
mod kind;
mod links;
mod lint;
mod load;
mod params;
mod paths;
mod pipeline;
mod profile;
mod program;
mod report;
mod scope;
mod sites;
mod sources;
mod tools;
mod typing;

#[cfg(test)]
mod checker_tests;
#[cfg(test)]
mod tests;

pub use blueprint::{PlanRules, blueprint_from_answer};
pub use checker::{CheckOptions, Checker, check, settings};
pub use input::InputTemplate;
pub use input_check::check_input;
pub use kind::kind_of;
pub use params::{blueprint_schema, complete_params, hold_against, read_params};
pub use paths::{folder_of, join};
pub use pipeline::{compile_pipeline, fallback_number};
pub use program::{Call, CallTarget, CompiledBlueprint, CompiledPipeline, Program};
pub use sources::{MemorySources, SourceProblem, Sources};
