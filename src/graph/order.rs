//! Questions about a graph's order: a topological order, its cycles, the longest way to the end.

use std::collections::{BTreeMap, VecDeque};

use super::StepGraph;

/// Of so many cycles the paths are told; a file with more has one cause more often than a thousand.
const MOST_CYCLES: usize = 1000;

impl StepGraph {
    /// The steps so that each stands behind all that it waits for, in file order where that leaves a choice of level.
    /// Steps on a cycle, and those behind one, are missing.
    pub fn topological_order(&self) -> Vec<u32> {
        let count = self.names.len();
        let mut waiting = vec![0u32; count];
        for edge in self.dag.raw_edges() {
            if let Some(number) = waiting.get_mut(edge.target().index()) {
                *number += 1;
            }
        }
        let mut ready: VecDeque<u32> =
            (0u32..).zip(&waiting).filter(|(_, number)| **number == 0).map(|(step, _)| step).collect();
        let mut order = Vec::with_capacity(count);
        while let Some(step) = ready.pop_front() {
            order.push(step);
            for dependant in self.dependants(step) {
                let Some(number) = waiting.get_mut(dependant as usize) else { continue };
                *number -= 1;
                if *number == 0 {
                    ready.push_back(dependant);
                }
            }
        }
        order
    }

    /// One cycle for every knot of steps that wait for each other: the shortest one through the knot's first step in
    /// file order. It starts with that step, and each step waits for the next, the last for the first.
    pub fn cycles(&self) -> Vec<Vec<u32>> {
        if self.topological_order().len() == self.names.len() {
            return Vec::new();
        }
        let mut knots: Vec<Vec<u32>> = petgraph::algo::kosaraju_scc(&self.dag)
            .into_iter()
            .filter(|knot| knot.len() > 1)
            .map(|knot| {
                let mut steps: Vec<u32> = knot.into_iter().map(|node| node.index() as u32).collect();
                steps.sort_unstable();
                steps
            })
            .collect();
        knots.sort();
        knots.truncate(MOST_CYCLES);
        knots.iter().map(|knot| self.shortest_cycle(knot)).collect()
    }

    /// Goes through a knot breadth first, from its first step along what each step waits for, until that step is met
    /// again.
    fn shortest_cycle(&self, knot: &[u32]) -> Vec<u32> {
        let Some(&first) = knot.first() else { return Vec::new() };
        let mut came_from: BTreeMap<u32, u32> = BTreeMap::new();
        let mut queue = VecDeque::from([first]);
        while let Some(step) = queue.pop_front() {
            let mut next: Vec<u32> = self.dependencies(step).map(|(number, _)| number).collect();
            next.sort_unstable();
            for dependency in next {
                if dependency == first {
                    let mut path = vec![step];
                    let mut at = step;
                    while let Some(&before) = came_from.get(&at).filter(|_| at != first) {
                        path.push(before);
                        at = before;
                    }
                    path.reverse();
                    return path;
                }
                if knot.binary_search(&dependency).is_ok() && !came_from.contains_key(&dependency) {
                    came_from.insert(dependency, step);
                    queue.push_back(dependency);
                }
            }
        }
        knot.to_vec()
    }

    /// For each step the number of steps on the longest way from it to an end, itself included; empty if there is a
    /// cycle.
    pub(super) fn critical_weights(&self) -> Vec<u32> {
        let order = self.topological_order();
        if order.len() != self.names.len() {
            return Vec::new();
        }
        let mut weights = vec![1u32; order.len()];
        for &step in order.iter().rev() {
            let behind =
                self.dependants(step).filter_map(|next| weights.get(next as usize)).max().copied().unwrap_or(0);
            if let Some(weight) = weights.get_mut(step as usize) {
                *weight = behind + 1;
            }
        }
        weights
    }

    /// The steps of one longest way through the graph, from a start to an end; empty if there is a cycle.
    pub fn critical_path(&self) -> Vec<u32> {
        let weight = |step: u32| self.critical.get(step as usize).copied().unwrap_or(0);
        let pick =
            |steps: &mut dyn Iterator<Item = u32>| steps.max_by_key(|step| (weight(*step), std::cmp::Reverse(*step)));
        let mut path = Vec::new();
        let mut next = pick(&mut (0..self.critical.len() as u32));
        while let Some(step) = next {
            path.push(step);
            next = pick(&mut self.dependants(step));
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use crate::graph::{Edge, EdgeSource, GraphBuilder, StepGraph};

    fn graph(count: u32, arrows: &[(u32, u32)]) -> StepGraph {
        let names = (0..count).map(|number| format!("s{number}").into_boxed_str()).collect();
        let mut builder = GraphBuilder::new(names, count);
        for step in 0..count {
            let edge = Edge { source: EdgeSource::Declared, reads_status: false };
            let mut waits: Vec<_> =
                arrows.iter().filter(|(_, to)| *to == step).map(|(from, _)| (*from, edge)).collect();
            builder.wait_for(step, &mut waits);
        }
        builder.finish()
    }

    #[test]
    fn order_weights_and_path() {
        let check = |count, arrows: &[(u32, u32)], order: &[u32], weights: &[u32], path: &[u32]| {
            let graph = graph(count, arrows);
            assert_eq!(graph.topological_order(), order, "{arrows:?}");
            assert_eq!(graph.critical, weights, "{arrows:?}");
            assert_eq!(graph.critical_path(), path, "{arrows:?}");
        };
        check(0, &[], &[], &[], &[]);
        check(2, &[], &[0, 1], &[1, 1], &[0]);
        check(3, &[(2, 0), (0, 1)], &[2, 0, 1], &[2, 1, 3], &[2, 0, 1]);
        check(4, &[(0, 1), (0, 2), (2, 3)], &[0, 2, 1, 3], &[3, 1, 2, 1], &[0, 2, 3]);
    }

    #[test]
    fn cycles_are_found_once_each_and_start_with_their_first_step() {
        let check = |count, arrows: &[(u32, u32)], cycles: &[&[u32]]| {
            assert_eq!(graph(count, arrows).cycles(), cycles, "{arrows:?}");
        };
        check(3, &[(0, 1), (1, 2)], &[]);
        check(2, &[(0, 1), (1, 0)], &[&[0, 1]]);
        check(3, &[(0, 1), (1, 2), (2, 0)], &[&[0, 2, 1]]);
        check(5, &[(0, 1), (1, 0), (2, 3), (3, 2), (1, 4)], &[&[0, 1], &[2, 3]]);
        check(4, &[(1, 0), (2, 1), (0, 2), (3, 0), (0, 3)], &[&[0, 3]]);
        check(1, &[(0, 0)], &[]);
    }

    #[test]
    fn equal_arrows_are_merged() {
        let mut builder = GraphBuilder::new(vec!["a".into(), "b".into()], 2);
        let read = Edge { source: EdgeSource::Referenced, reads_status: true };
        let declared = Edge { source: EdgeSource::Declared, reads_status: false };
        builder.wait_for(1, &mut [(0, read), (0, declared), (0, read)]);
        let graph = builder.finish();
        let edges: Vec<_> = graph.dependencies(1).collect();
        assert_eq!(edges, [(0, Edge { source: EdgeSource::Declared, reads_status: true })]);
    }

    #[test]
    fn a_chain_and_a_ring_of_200_000_steps() {
        let count = 200_000u32;
        let names: Vec<Box<str>> = (0..count).map(|number| format!("s{number}").into()).collect();
        for ring in [false, true] {
            let mut builder = GraphBuilder::new(names.clone(), count);
            let edge = Edge { source: EdgeSource::Declared, reads_status: false };
            for step in 0..count {
                let before = if step == 0 { if ring { count - 1 } else { continue } } else { step - 1 };
                builder.wait_for(step, &mut [(before, edge)]);
            }
            let graph = builder.finish();
            assert_eq!(graph.cycles().len(), usize::from(ring));
            assert_eq!(graph.critical.first().copied(), if ring { None } else { Some(count) });
        }
    }
}
