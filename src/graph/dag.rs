//! Which step waits for which, in compact form.

use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::HashMap;

/// Where a dependency comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeSource {
    /// `depends` or `needs`.
    Declared,
    /// A reference in a template, an expression or an action.
    Referenced,
}

/// One dependency. `status_only` is true when the dependant's `if` reads the dependency's `status`, so that its
/// failure does not skip the dependant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub source: EdgeSource,
    pub reads_status: bool,
}

/// The steps of one pipeline or blueprint by number (their place in the file, `finally` steps behind the others) and
/// the arrows from each dependency to its dependants.
#[derive(Clone, Debug, Default)]
pub struct StepGraph {
    pub names: Vec<Box<str>>,
    pub index: HashMap<Box<str>, u32>,
    pub dag: DiGraph<(), Edge, u32>,
    /// The weight of the longest way from a step's start to the end, itself included: what a scheduler prefers.
    pub critical: Vec<u32>,
    /// Steps from this number on are `finally` steps.
    pub first_finally: u32,
}

impl StepGraph {
    /// The numbers of the steps that a step waits for.
    pub fn dependencies(&self, step: u32) -> impl Iterator<Item = (u32, Edge)> + '_ {
        use petgraph::visit::EdgeRef;
        self.dag
            .edges_directed(NodeIndex::new(step as usize), petgraph::Direction::Incoming)
            .map(|edge| (edge.source().index() as u32, *edge.weight()))
    }

    /// The numbers of the steps that wait for a step.
    pub fn dependants(&self, step: u32) -> impl Iterator<Item = u32> + '_ {
        self.dag.neighbors(NodeIndex::new(step as usize)).map(|node| node.index() as u32)
    }
}
