//! Pictures of a graph: text, Mermaid, Graphviz and SVG. They show what they are given and look nothing up.

mod dot;
mod layout;
mod mermaid;
mod svg;
mod text;

pub use dot::dot;
pub use mermaid::mermaid;
pub use svg::svg;
pub use text::text;

use super::{EdgeSource, StepGraph};

/// What a picture shows.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The name above the picture.
    pub title: String,
    pub nodes: Vec<ViewNode>,
    pub arrows: Vec<ViewArrow>,
}

/// One step.
#[derive(Clone, Debug, Default)]
pub struct ViewNode {
    pub label: String,
    /// The key of its action, such as `run`.
    pub action: String,
    /// How it ended, in the picture of a run.
    pub status: Option<String>,
    /// True for a `finally` step.
    pub finally: bool,
    /// True if it lies on the longest way through the graph.
    pub critical: bool,
}

/// One dependency: `to` waits for `from`, by their positions in the list of nodes.
#[derive(Clone, Copy, Debug)]
pub struct ViewArrow {
    pub from: usize,
    pub to: usize,
    /// True if `depends` says so, false if it comes from a reference.
    pub declared: bool,
    pub critical: bool,
}

impl View {
    /// The view of a graph. `action` and `status` are asked for each step by its number.
    pub fn of(
        title: &str,
        graph: &StepGraph,
        action: &dyn Fn(u32) -> String,
        status: &dyn Fn(u32) -> Option<String>,
    ) -> Self {
        let path = graph.critical_path();
        // The step behind each step of the critical path; the last one is followed by nothing.
        let mut next: Vec<Option<Option<u32>>> = vec![None; graph.names.len()];
        for (at, step) in path.iter().enumerate() {
            if let Some(slot) = next.get_mut(*step as usize) {
                *slot = Some(path.get(at + 1).copied());
            }
        }
        let follower = |step: usize| next.get(step).copied().flatten();
        let nodes = (0u32..)
            .zip(&graph.names)
            .map(|(number, name)| ViewNode {
                label: name.to_string(),
                action: action(number),
                status: status(number),
                finally: number >= graph.first_finally,
                critical: follower(number as usize).is_some(),
            })
            .collect();
        let mut arrows: Vec<ViewArrow> = graph
            .dag
            .raw_edges()
            .iter()
            .map(|edge| {
                let (from, to) = (edge.source().index(), edge.target().index());
                ViewArrow {
                    from,
                    to,
                    declared: edge.weight.source == EdgeSource::Declared,
                    critical: follower(from).flatten().is_some_and(|step| step as usize == to),
                }
            })
            .collect();
        arrows.sort_by_key(|arrow| (arrow.to, arrow.from));
        Self { title: title.to_owned(), nodes, arrows }
    }
}

impl ViewNode {
    /// Label, action and status in one line.
    fn caption(&self) -> String {
        match &self.status {
            Some(status) => format!("{} ({}, {status})", self.label, self.action),
            None => format!("{} ({})", self.label, self.action),
        }
    }
}

#[cfg(test)]
mod tests;
