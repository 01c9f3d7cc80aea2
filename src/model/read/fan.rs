//! `foreach:` and `matrix:`.

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Spanned, nearest};
use crate::model::read::{ReadContext, codes, scalar};
use crate::model::step::Fan;
use crate::yaml::{Entry, Node, Yaml};

/// A matrix is data in the file, all of it expanded before the run: a larger one is a mistake in its numbers.
const MAX_COMBINATIONS: usize = 10_000;

/// Reads `foreach:` or `matrix:` of a step.
pub(super) fn read_fan(step: &Node, context: &mut ReadContext<'_>) -> Option<Box<Fan>> {
    if let Some(foreach) = step.get("foreach") {
        return read_foreach(foreach, context).map(Box::new);
    }
    let entry = step.entry("matrix")?;
    read_matrix(entry, context).map(Box::new)
}

fn read_foreach(node: &Node, context: &mut ReadContext<'_>) -> Option<Fan> {
    let alias = scalar::spanned(node, "as");
    let max_parallel = scalar::unsigned_small(node, "max_parallel");
    // What is missing or no list was reported. It is still a fan-out, so that the step may name its item.
    let broken = |alias, span| Some(Fan::Static { items: Vec::new(), items_span: span, alias, max_parallel });
    let Some(items) = node.get("items") else { return broken(alias, node.span) };
    match &items.value {
        Yaml::List(list) => Some(Fan::Static {
            items: list.iter().map(|item| context.value_template(item)).collect(),
            items_span: items.span,
            alias,
            max_parallel,
        }),
        Yaml::String(_) => {
            let max_items = scalar::unsigned_small(node, "max_items");
            match context.expression(items) {
                Some(items) => Some(Fan::Dynamic { items, alias, max_items, max_parallel, span: node.span }),
                None => broken(alias, items.span),
            }
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::Map(_) => broken(alias, items.span),
    }
}

fn read_matrix(entry: &Entry, context: &mut ReadContext<'_>) -> Option<Fan> {
    let node = &entry.node;
    let axes: Vec<&Entry> = node
        .entries()
        .iter()
        .filter(|axis| !matches!(&*axis.key, "exclude" | "max_parallel") && matches!(axis.node.value, Yaml::List(_)))
        .collect();
    if axes.is_empty() {
        // A key with something else than a list has been reported, and so has an empty mapping or what is none.
        if node.entries().is_empty()
            || node.entries().iter().any(|axis| !matches!(&*axis.key, "exclude" | "max_parallel"))
        {
            return Some(matrix(Vec::new(), &axes, node));
        }
        let help = "add a key with a list, as in `matrix: { os: [linux, mac] }`";
        let diagnostic =
            Diagnostic::error(codes::MATRIX_SIZE, entry.key_span, "the matrix has no key with a list of values");
        context.report(diagnostic.help(help));
        return None;
    }
    let count = axes.iter().try_fold(1_usize, |count, axis| count.checked_mul(axis.node.items().len()));
    if count.is_none_or(|count| count > MAX_COMBINATIONS) {
        let message = format!("the matrix has more than {MAX_COMBINATIONS} combinations");
        let help = "use fewer values, or a `foreach` over a list that a step makes";
        context.report(Diagnostic::error(codes::MATRIX_SIZE, entry.key_span, message).help(help));
        return Some(matrix(Vec::new(), &axes, node));
    }
    let excluded = read_excluded(node, &axes, context);
    let combinations: Vec<Value> = combine(&axes)
        .into_iter()
        .filter(|combination| {
            !excluded.iter().any(|entry| entry.iter().all(|(key, value)| combination.get(key) == Some(value)))
        })
        .map(Value::Object)
        .collect();
    if combinations.is_empty() && count != Some(0) {
        let diagnostic =
            Diagnostic::error(codes::MATRIX_SIZE, entry.key_span, "`exclude` leaves no combination of the matrix");
        context.report(diagnostic.help("take entries out of `exclude`, or leave the step out"));
    }
    Some(matrix(combinations, &axes, node))
}

fn matrix(combinations: Vec<Value>, axes: &[&Entry], node: &Node) -> Fan {
    Fan::Matrix {
        combinations,
        keys: axes.iter().map(|axis| Spanned::new(axis.key.clone(), axis.key_span)).collect(),
        max_parallel: scalar::unsigned_small(node, "max_parallel"),
    }
}

/// Every combination, the last key varying fastest.
fn combine(axes: &[&Entry]) -> Vec<Map<String, Value>> {
    let mut combinations = vec![Map::new()];
    for axis in axes {
        let values: Vec<Value> = axis.node.items().iter().map(Node::to_json).collect();
        combinations = combinations
            .into_iter()
            .flat_map(|combination| {
                values.iter().map(move |value| {
                    let mut next = combination.clone();
                    next.insert(axis.key.to_string(), value.clone());
                    next
                })
            })
            .collect();
    }
    combinations
}

fn read_excluded(node: &Node, axes: &[&Entry], context: &mut ReadContext<'_>) -> Vec<Map<String, Value>> {
    let mut excluded = Vec::new();
    for entry in scalar::items(node, "exclude") {
        let mut pairs = Map::new();
        for pair in entry.entries() {
            let axis = axes.iter().find(|axis| axis.key == pair.key);
            let value = pair.node.to_json();
            match axis {
                None => {
                    let names = axes.iter().map(|axis| &*axis.key);
                    let help = nearest(&pair.key, names).map(|name| format!("did you mean `{name}`?"));
                    let message = format!("`{}` is not a key of this matrix, so nothing is excluded by it", pair.key);
                    context.report(Diagnostic::error(codes::MATRIX_EXCLUDE, pair.key_span, message).maybe_help(help));
                }
                Some(axis) if !axis.node.items().iter().any(|item| item.to_json() == value) => {
                    let values = axis.node.items().iter().filter_map(Node::as_str);
                    let help = pair
                        .node
                        .as_str()
                        .and_then(|text| nearest(text, values))
                        .map(|text| format!("did you mean `{text}`?"));
                    let message = format!("`{}` never has this value, so nothing is excluded by it", pair.key);
                    context.report(Diagnostic::error(codes::MATRIX_EXCLUDE, pair.node.span, message).maybe_help(help));
                }
                Some(_) => {}
            }
            pairs.insert(pair.key.to_string(), value);
        }
        if !pairs.is_empty() {
            excluded.push(pairs);
        }
    }
    excluded
}
