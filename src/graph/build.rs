//! Puts a graph together: names first, then the arrows. Whether a name may be used twice is not asked here.

use std::collections::HashMap;

use petgraph::graph::{DiGraph, NodeIndex};

use super::{Edge, EdgeSource, StepGraph};

/// A graph in the making.
#[derive(Debug)]
pub struct GraphBuilder {
    names: Vec<Box<str>>,
    index: HashMap<Box<str>, u32>,
    arrows: Vec<(u32, u32, Edge)>,
    first_finally: u32,
}

impl GraphBuilder {
    /// Takes the names in file order, `finally` steps last. Of two equal names the first one counts.
    pub fn new(names: Vec<Box<str>>, first_finally: u32) -> Self {
        let mut index = HashMap::with_capacity(names.len());
        for (number, name) in (0u32..).zip(&names) {
            index.entry(name.clone()).or_insert(number);
        }
        Self { arrows: Vec::with_capacity(names.len()), names, index, first_finally }
    }

    /// The number of a step.
    pub fn number(&self, name: &str) -> Option<u32> {
        self.index.get(name).copied()
    }

    /// The names in file order.
    pub fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// Adds what one step waits for. Two arrows from the same dependency become one: a declared one stays declared,
    /// and one that reads the status still does. Arrows from a step to itself are left out.
    pub fn wait_for(&mut self, step: u32, dependencies: &mut [(u32, Edge)]) {
        dependencies.sort_by_key(|(from, edge)| (*from, edge.source));
        let mut last: Option<(u32, Edge)> = None;
        for &(from, edge) in dependencies.iter() {
            match &mut last {
                Some((number, kept)) if *number == from => {
                    kept.reads_status |= edge.reads_status;
                    if edge.source == EdgeSource::Declared {
                        kept.source = EdgeSource::Declared;
                    }
                }
                _ => {
                    if let Some((number, kept)) = last.replace((from, edge)) {
                        self.arrow(number, step, kept);
                    }
                }
            }
        }
        if let Some((number, kept)) = last {
            self.arrow(number, step, kept);
        }
    }

    fn arrow(&mut self, from: u32, to: u32, edge: Edge) {
        let count = self.names.len();
        if from != to && (from as usize) < count && (to as usize) < count {
            self.arrows.push((from, to, edge));
        }
    }

    /// The graph. `critical` is filled in if it has no cycle.
    pub fn finish(self) -> StepGraph {
        let mut dag = DiGraph::with_capacity(self.names.len(), self.arrows.len());
        for _ in &self.names {
            dag.add_node(());
        }
        for (from, to, edge) in self.arrows {
            dag.add_edge(NodeIndex::new(from as usize), NodeIndex::new(to as usize), edge);
        }
        let mut graph = StepGraph {
            names: self.names,
            index: self.index,
            dag,
            critical: Vec::new(),
            first_finally: self.first_finally,
        };
        graph.critical = graph.critical_weights();
        graph
    }
}
