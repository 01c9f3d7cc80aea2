//! Trees to typed values. Lenient: what `schema` has reported already is left out or stands as something harmless.
//!
//! Two things are found here that a schema cannot say: mistakes inside expressions, templates and scripts, and values
//! that contradict each other (a backoff whose longest pause is below its first).

mod action;
mod agents;
mod blueprint;
mod codes;
mod context;
mod fan;
mod merge;
mod pipeline;
mod plan;
mod retry;
mod scalar;
mod settings;
mod step;
mod test;
mod tool;
mod trigger;

#[cfg(test)]
mod tests;

pub use agents::read_agents;
pub use blueprint::{blueprint_from_json, node_from_json, read_blueprint};
pub use context::ReadContext;
pub use merge::{apply_templates, merge_includes};
pub use pipeline::read_pipeline;
pub use settings::read_settings;
pub use test::read_test;
