//! The step graph over petgraph: order, critical path, pictures.

mod dag;
pub use dag::{Edge, EdgeSource, StepGraph};
