//! Pictures of a graph.
