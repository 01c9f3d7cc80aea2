//! Blueprints, from a file's tree or from the JSON that a planner answers.

use serde_json::Value;

use crate::diagnostic::{Span, Spanned};
use crate::model::blueprint::{Blueprint, BlueprintStep, Callee, OnError};
use crate::model::read::scalar;
use crate::yaml::{Entry, Node, Yaml};

/// The deepest answer of a planner that is read, in nested lists and mappings.
const MAX_DEPTH: usize = 128;

/// Reads a blueprint; calls without an id or a callee are left out. Nothing else can be wrong once its form is right.
pub fn read_blueprint(node: &Node) -> Blueprint {
    let steps = scalar::items(node, "steps").iter().filter_map(read_step).collect();
    Blueprint { steps, span: node.span }
}

/// Reads a blueprint out of JSON, as a planner answers it. Every place is empty.
///
/// # Errors
///
/// All mistakes of form, in words that the planner can work with; whether names mean something is not asked.
pub fn blueprint_from_json(value: &Value) -> Result<Blueprint, Vec<String>> {
    let mut mistakes = Vec::new();
    let Some(steps) = value.get("steps").and_then(Value::as_array) else {
        return Err(vec!["the blueprint must be an object with a list `steps`".to_owned()]);
    };
    if steps.is_empty() {
        mistakes.push("`steps` is empty; a blueprint has at least one step".to_owned());
    }
    for (index, step) in steps.iter().enumerate() {
        check_json_step(index, step, &mut mistakes);
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    match node_from_json(value) {
        Some(node) => Ok(read_blueprint(&node)),
        None => Err(vec![format!("the blueprint is nested deeper than {MAX_DEPTH} levels")]),
    }
}

fn check_json_step(index: usize, step: &Value, mistakes: &mut Vec<String>) {
    const KEYS: [&str; 9] = ["id", "thought", "tool", "agent", "input", "depends", "on_error", "default", "effect"];
    let id = step.get("id").and_then(Value::as_str);
    let name = id.map_or_else(|| format!("step {}", index + 1), |id| format!("step `{id}`"));
    let Some(keys) = step.as_object() else {
        mistakes.push(format!("{name} must be an object"));
        return;
    };
    for key in keys.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        mistakes.push(format!("{name} has the key `{key}`, which means nothing; the keys are {}", KEYS.join(", ")));
    }
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    if !id.is_some_and(is_name) {
        mistakes.push(format!("{name} needs an `id`: a letter, then letters, digits and `_`"));
    }
    let callee = |key: &str| step.get(key).map(|value| value.as_str().is_some_and(|text| !text.is_empty()));
    match (callee("tool"), callee("agent")) {
        (Some(true), None) | (None, Some(true)) => {}
        _ => mistakes.push(format!("{name} needs exactly one of `tool` and `agent`, the name of what it calls")),
    }
    if step.get("input").is_some_and(|input| !input.is_object() && !input.is_string()) {
        mistakes.push(format!("`input` of {name} must be an object or a string"));
    }
    let depends =
        step.get("depends").map(|depends| depends.as_array().is_some_and(|ids| ids.iter().all(Value::is_string)));
    if depends == Some(false) {
        mistakes.push(format!("`depends` of {name} must be a list of ids"));
    }
    if let Some(text) = step.get("thought")
        && !text.is_string()
    {
        mistakes.push(format!("`thought` of {name} must be a string"));
    }
    match step.get("on_error").map(|word| word.as_str().unwrap_or_default()) {
        None | Some("fail" | "skip" | "replan") => {}
        Some("default") if step.get("default").is_some() => {}
        Some("default") => mistakes.push(format!("{name} says `on_error: default` and has no `default`")),
        Some(_) => mistakes.push(format!("`on_error` of {name} must be one of fail, skip, default, replan")),
    }
    if step.get("effect").is_some_and(|effect| !matches!(effect.as_str(), Some("read" | "write"))) {
        mistakes.push(format!("`effect` of {name} must be read or write"));
    }
}

fn read_step(node: &Node) -> Option<BlueprintStep> {
    let callee = match (scalar::spanned(node, "tool"), scalar::spanned(node, "agent")) {
        (Some(tool), _) => Callee::Tool(tool),
        (None, Some(agent)) => Callee::Agent(agent),
        (None, None) => return None,
    };
    let on_error = match node.get("on_error").and_then(Node::as_str) {
        Some("skip") => OnError::Skip,
        Some("default") => OnError::Default,
        Some("replan") => OnError::Replan,
        Some(_) | None => OnError::Fail,
    };
    let mut leaf_spans = Vec::new();
    let input = match node.get("input") {
        Some(input) => {
            collect_leaves(input, &mut String::new(), &mut leaf_spans);
            Spanned::new(input.to_json(), input.span)
        }
        None => Spanned::new(Value::Object(serde_json::Map::new()), node.span),
    };
    Some(BlueprintStep {
        id: scalar::spanned(node, "id")?,
        span: node.span,
        thought: scalar::text(node, "thought"),
        callee,
        input,
        depends: scalar::spanned_texts(node, "depends"),
        on_error,
        default: node.get("default").map(Node::to_json),
        writes: node.get("effect").and_then(Node::as_str) == Some("write"),
        leaf_spans,
    })
}

/// The JSON pointers and places of all strings below a node.
fn collect_leaves(node: &Node, pointer: &mut String, leaves: &mut Vec<(String, Span)>) {
    let length = pointer.len();
    match &node.value {
        Yaml::String(_) => leaves.push((pointer.clone(), node.span)),
        Yaml::List(items) => {
            for (index, item) in items.iter().enumerate() {
                pointer.push_str(&format!("/{index}"));
                collect_leaves(item, pointer, leaves);
                pointer.truncate(length);
            }
        }
        Yaml::Map(entries) => {
            for entry in entries {
                pointer.push('/');
                pointer.push_str(&entry.key.replace('~', "~0").replace('/', "~1"));
                collect_leaves(&entry.node, pointer, leaves);
                pointer.truncate(length);
            }
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => {}
    }
}

/// JSON as a tree without places, so that it can be held against a schema; nothing if it is nested too deep.
pub fn node_from_json(value: &Value) -> Option<Node> {
    build(value, 0)
}

fn build(value: &Value, depth: usize) -> Option<Node> {
    if depth > MAX_DEPTH {
        return None;
    }
    let value = match value {
        Value::Null => Yaml::Null,
        Value::Bool(value) => Yaml::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => Yaml::Int(value),
            None => Yaml::Float(number.as_f64()?),
        },
        Value::String(text) => Yaml::String(Box::from(text.as_str())),
        Value::Array(items) => Yaml::List(items.iter().map(|item| build(item, depth + 1)).collect::<Option<_>>()?),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| {
                let node = build(value, depth + 1)?;
                Some(Entry { key: Box::from(key.as_str()), key_span: Span::default(), node })
            };
            Yaml::Map(map.iter().map(entry).collect::<Option<_>>()?)
        }
    };
    Some(Node { span: Span::default(), value })
}
