//! Types: whether a node has one, and what to write when it has not.

use serde_json::Value;

use super::codes;
use super::walk::{At, Subject};
use crate::diagnostic::Diagnostic;
use crate::yaml::{Node, Yaml};

/// True if a node has the type, or one of the types, that `type:` of a schema names.
pub(super) fn admits(expected: &Value, node: &Node) -> bool {
    match expected {
        Value::String(name) => has_type(name, node),
        Value::Array(names) => names.iter().any(|name| name.as_str().is_some_and(|name| has_type(name, node))),
        _ => true,
    }
}

/// The names that `type:` of a schema holds.
pub(super) fn names(expected: &Value) -> Vec<&str> {
    match expected {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn has_type(name: &str, node: &Node) -> bool {
    match &node.value {
        Yaml::Null => name == "null",
        Yaml::Bool(_) => name == "boolean",
        Yaml::Int(_) => name == "integer" || name == "number",
        // JSON has neither infinity nor "not a number": such a value is null there.
        Yaml::Float(value) if !value.is_finite() => name == "null",
        Yaml::Float(value) => name == "number" || (name == "integer" && value.fract() == 0.0),
        Yaml::String(_) => name == "string",
        Yaml::List(_) => name == "array",
        Yaml::Map(_) => name == "object",
    }
}

/// The mistake of a wrong type, with what to write instead where that can be told.
pub(super) fn wrong_type(expected: &[&str], node: &Node, at: At<'_>) -> Diagnostic {
    let wanted = wanted(expected, at);
    let subject = at.subject.words();
    let message = match &node.value {
        Yaml::Null => format!("{subject} is empty, but must be {wanted}"),
        Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::String(_) | Yaml::List(_) | Yaml::Map(_) => {
            format!("{subject} must be {wanted}, not {}", actual(node))
        }
    };
    Diagnostic::error(codes::WRONG_TYPE, node.span, message).maybe_help(help(expected, node, at))
}

/// What is wanted, in the words of YAML.
fn wanted(expected: &[&str], at: At<'_>) -> String {
    if at.place == "duration" {
        return "a duration".to_owned();
    }
    let mut words: Vec<&str> = Vec::new();
    for name in expected {
        let word = match *name {
            "object" => "a mapping",
            "array" => "a list",
            "string" => "a string",
            "integer" => "an integer",
            "number" => "a number",
            "boolean" => "a boolean",
            "null" => "null",
            other => other,
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    match words.as_slice() {
        [] => "something else".to_owned(),
        [word] => (*word).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// What a node is, in the words of YAML.
pub(super) fn actual(node: &Node) -> &'static str {
    match &node.value {
        Yaml::Null => "null",
        Yaml::Bool(_) => "a boolean",
        Yaml::Int(_) => "an integer",
        Yaml::Float(_) => "a number",
        Yaml::String(_) => "a string",
        Yaml::List(_) => "a list",
        Yaml::Map(_) => "a mapping",
    }
}

/// A scalar as it may be written in YAML, short enough for a message.
pub(super) fn short(node: &Node) -> Option<String> {
    let text = match &node.value {
        Yaml::Bool(value) => value.to_string(),
        Yaml::Int(value) => value.to_string(),
        Yaml::Float(value) => value.to_string(),
        Yaml::String(text) => text.to_string(),
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => return None,
    };
    (text.chars().count() <= 40 && !text.contains('\n')).then_some(text)
}

fn help(expected: &[&str], node: &Node, at: At<'_>) -> Option<String> {
    let key = at.subject.key();
    let wants = |name: &str| expected.contains(&name);
    if let Some(help) = special_help(node, at) {
        return Some(help);
    }
    match &node.value {
        Yaml::String(text) if wants("integer") && text.parse::<i64>().is_ok() => {
            Some(format!("write `{text}` without quotes"))
        }
        Yaml::String(text) if wants("number") && text.parse::<f64>().is_ok() => {
            Some(format!("write `{text}` without quotes"))
        }
        Yaml::String(text) if wants("boolean") => match &*text.to_lowercase() {
            "yes" | "on" | "y" | "true" => Some("write `true`".to_owned()),
            "no" | "off" | "n" | "false" => Some("write `false`".to_owned()),
            _ => Some("write `true` or `false`".to_owned()),
        },
        Yaml::Int(_) | Yaml::Float(_) | Yaml::Bool(_) if wants("string") && !wants("object") => {
            short(node).map(|text| format!("write it in quotes: `\"{text}\"`"))
        }
        Yaml::Int(value) if wants("boolean") => Some(format!("write `{}`", *value != 0)),
        Yaml::Float(value) if wants("integer") => Some(format!("write a whole number, such as `{}`", value.trunc())),
        Yaml::String(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::Bool(_) if wants("array") => {
            short(node).map(|text| format!("write `{key}: [{text}]`"))
        }
        Yaml::Map(entries) if wants("array") => entries
            .first()
            .map(|first| format!("write a list, each item behind a dash: `- id: {}` and its keys below it", first.key))
            .filter(|_| matches!(key, "steps" | "finally"))
            .or_else(|| Some("write each item behind a dash, `- `".to_owned())),
        Yaml::List(items) if wants("object") => {
            Some(match items.first().and_then(Node::as_str).and_then(|text| text.split_once('=')) {
                Some((name, value)) => format!("write `{name}: {value}`, one pair a line, without dashes"),
                None => "write `name: value` pairs, without dashes".to_owned(),
            })
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::String(_) | Yaml::List(_) | Yaml::Map(_) => {
            None
        }
    }
}

/// What to write in places that have a form of their own.
fn special_help(node: &Node, at: At<'_>) -> Option<String> {
    match (at.place, &node.value) {
        ("duration", Yaml::Int(value)) if *value > 0 => Some(format!("say the unit: write `{value}s` for seconds")),
        ("duration", Yaml::Float(value)) if *value > 0.0 => Some(format!("say the unit: write `{value}s` for seconds")),
        ("duration", _) => Some("write a length of time such as `30s`, `5m` or `1h30m`".to_owned()),
        ("retry", Yaml::Int(0) | Yaml::Bool(false)) => Some("write `retry: never` for no second attempt".to_owned()),
        ("retry", Yaml::Int(value)) if *value > 0 => Some(format!("write `retry: {{ limit: {value} }}`")),
        ("retry", Yaml::Bool(true) | Yaml::Null) => Some("write `retry: {}` for the usual retries".to_owned()),
        ("param", Yaml::String(text)) => Some(format!("write `{{ type: {text} }}`")),
        ("param", Yaml::Null) => Some("write `{}` for a parameter of any type".to_owned()),
        ("wait", Yaml::Int(value)) if *value > 0 => Some(format!("say the unit: write `{value}s` for seconds")),
        ("hook" | "fallback", Yaml::String(text)) => Some(format!("write `run: {text}`")),
        ("approve", Yaml::String(text)) if text.chars().count() <= 40 => {
            Some(format!("write `{{ message: \"{text}\" }}`"))
        }
        (_, Yaml::Bool(_)) if matches!(at.subject, Subject::Key("required")) => {
            Some("leave it out: a parameter without `default` must be given".to_owned())
        }
        _ => None,
    }
}
