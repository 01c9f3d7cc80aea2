//! A graph as lines of text: each step, and below it what it waits for.

use std::fmt::Write;

use super::View;

/// The steps in the order in which they can start, level by level; `*` marks the critical path, and each dependency
/// says whether it was declared or comes from a reference.
pub fn text(view: &View) -> String {
    let mut lines = String::new();
    let _ = writeln!(lines, "{}", view.title);
    let levels = super::layout::levels(view);
    let mut order: Vec<usize> = (0..view.nodes.len()).collect();
    let level = |node: usize| levels.get(node).copied().unwrap_or(0);
    order.sort_by_key(|node| (view.nodes.get(*node).is_some_and(|node| node.finally), level(*node), *node));
    let mut waits: Vec<Vec<(usize, bool)>> = vec![Vec::new(); view.nodes.len()];
    for arrow in &view.arrows {
        if let Some(list) = waits.get_mut(arrow.to) {
            list.push((arrow.from, arrow.declared));
        }
    }
    for (position, number) in order.iter().enumerate() {
        let Some(node) = view.nodes.get(*number) else { continue };
        let last = position + 1 == order.len();
        let mark = if node.critical { " *" } else { "" };
        let finally = if node.finally { " [finally]" } else { "" };
        let branch = if last { "└─" } else { "├─" };
        let _ = writeln!(lines, "{branch} {}{finally}{mark}", node.caption());
        let bar = if last { "  " } else { "│ " };
        let list = waits.get(*number).map(Vec::as_slice).unwrap_or_default();
        for (place, (from, declared)) in list.iter().enumerate() {
            let Some(from) = view.nodes.get(*from) else { continue };
            let branch = if place + 1 == list.len() { "└─" } else { "├─" };
            let origin = if *declared { "depends" } else { "reference" };
            let _ = writeln!(lines, "{bar} {branch} after {} ({origin})", from.label);
        }
    }
    if view.nodes.iter().any(|node| node.critical) {
        lines.push_str("* critical path\n");
    }
    lines
}
