//! Where the boxes stand: in rows by level, in each row near what they wait for.

use super::View;

/// How often rows are put in order from above; more makes no better picture.
const SWEEPS: usize = 4;

/// Rows of nodes, from top to bottom, each from left to right.
pub fn rows(view: &View) -> Vec<Vec<usize>> {
    let levels = levels(view);
    let deepest = levels.iter().copied().max().unwrap_or(0);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); if view.nodes.is_empty() { 0 } else { deepest + 1 }];
    for (node, level) in levels.iter().enumerate() {
        if let Some(row) = rows.get_mut(*level) {
            row.push(node);
        }
    }
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); view.nodes.len()];
    for arrow in &view.arrows {
        if let Some(list) = before.get_mut(arrow.to) {
            list.push(arrow.from);
        }
    }
    let mut places = vec![0.0f64; view.nodes.len()];
    for _ in 0..SWEEPS {
        for row in &mut rows {
            let wish = |node: usize| -> f64 {
                let parents = before.get(node).map(Vec::as_slice).unwrap_or_default();
                if parents.is_empty() {
                    return places.get(node).copied().unwrap_or(0.0);
                }
                let sum: f64 = parents.iter().filter_map(|parent| places.get(*parent)).sum();
                sum / parents.len() as f64
            };
            let mut wishes: Vec<(f64, usize)> = row.iter().map(|node| (wish(*node), *node)).collect();
            wishes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            *row = wishes.into_iter().map(|(_, node)| node).collect();
            let middle = (row.len().saturating_sub(1)) as f64 / 2.0;
            for (index, node) in row.iter().enumerate() {
                if let Some(place) = places.get_mut(*node) {
                    *place = index as f64 - middle;
                }
            }
        }
    }
    rows
}

/// The level of each node: one below the lowest that it waits for; `finally` steps stand below all others.
pub fn levels(view: &View) -> Vec<usize> {
    let count = view.nodes.len();
    let mut waiting = vec![0usize; count];
    let mut behind: Vec<Vec<usize>> = vec![Vec::new(); count];
    for arrow in &view.arrows {
        if let (Some(list), Some(number)) = (behind.get_mut(arrow.from), waiting.get_mut(arrow.to)) {
            list.push(arrow.to);
            *number += 1;
        }
    }
    let mut levels = vec![0usize; count];
    let mut ready: Vec<usize> = (0..count).filter(|node| waiting.get(*node) == Some(&0)).collect();
    while let Some(node) = ready.pop() {
        let below = levels.get(node).copied().unwrap_or(0) + 1;
        for next in behind.get(node).map(Vec::as_slice).unwrap_or_default() {
            if let (Some(level), Some(number)) = (levels.get_mut(*next), waiting.get_mut(*next)) {
                *level = below.max(*level);
                *number -= 1;
                if *number == 0 {
                    ready.push(*next);
                }
            }
        }
    }
    let is_finally = |node: usize| view.nodes.get(node).is_some_and(|node| node.finally);
    let lowest = levels.iter().enumerate().filter(|(node, _)| !is_finally(*node)).map(|(_, level)| level + 1).max();
    for (node, level) in levels.iter_mut().enumerate() {
        if is_finally(node) {
            *level += lowest.unwrap_or(0);
        }
    }
    levels
}
