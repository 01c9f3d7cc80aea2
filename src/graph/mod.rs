//! The step graph over petgraph: order, cycles, critical path, pictures. It knows names and arrows, not what steps do.

mod build;
mod dag;
mod order;
pub mod picture;

pub use build::GraphBuilder;
pub use dag::{Edge, EdgeSource, StepGraph};
