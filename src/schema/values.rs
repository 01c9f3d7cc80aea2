//! Single values against `enum`, `const`, ranges, lengths and counts.

use serde_json::Value;

use super::codes;
use super::keywords::Keywords;
use super::types;
use super::walk::At;
use crate::diagnostic::{Diagnostic, nearest};
use crate::yaml::{Node, Yaml};

/// `enum` and `const`.
pub(super) fn check_enum(schema: &Keywords<'_>, node: &Node, at: At<'_>) -> Option<Diagnostic> {
    if let Some(expected) = schema.constant
        && !is(node, expected)
    {
        return Some(wrong_constant(expected, node, at));
    }
    let options = schema.values?;
    if is_one_of(node, options) {
        return None;
    }
    let listed: Vec<String> = options.iter().take(12).map(|option| format!("`{}`", plain(option))).collect();
    let rest = if options.len() > listed.len() { ", …" } else { "" };
    let said = types::short(node).map_or_else(|| types::actual(node).to_owned(), |text| format!("`{text}`"));
    let subject = at.subject.words();
    let message = match listed.as_slice() {
        [only] => format!("{subject} is {said}, but can only be {only}"),
        _ => format!("{subject} is {said}, but must be one of {}{rest}", listed.join(", ")),
    };
    let help = node.as_str().and_then(|text| {
        other_word(at.subject.key(), text).or_else(|| {
            nearest(text, options.iter().filter_map(Value::as_str)).map(|word| format!("did you mean `{word}`?"))
        })
    });
    Some(Diagnostic::error(codes::NOT_ALLOWED, node.span, message).maybe_help(help))
}

/// True if a node is one of these values.
pub(super) fn is_one_of(node: &Node, options: &[Value]) -> bool {
    options.iter().any(|option| is(node, option))
}

/// True if a node is this value.
fn is(node: &Node, value: &Value) -> bool {
    match (&node.value, value) {
        (Yaml::String(text), Value::String(other)) => **text == **other,
        (Yaml::String(_), _) => false,
        _ => equal(&node.to_json(), value),
    }
}

/// Words of the language that stand in a list that does not have them.
fn other_word(key: &str, text: &str) -> Option<String> {
    match (key, text) {
        ("on", "cancelled" | "budget") => {
            Some("leave it out: what was cancelled or has used up a limit is not tried again".to_owned())
        }
        ("method", _) => None,
        ("retry", "no" | "none" | "off" | "false") => Some("write `retry: never`".to_owned()),
        _ => None,
    }
}

fn wrong_constant(expected: &Value, node: &Node, at: At<'_>) -> Diagnostic {
    let said = types::short(node).map_or_else(|| types::actual(node).to_owned(), |text| format!("`{text}`"));
    let expected = plain(expected);
    if at.subject.key() == "apiVersion" {
        return Diagnostic::error(
            codes::API_VERSION,
            node.span,
            format!("`apiVersion` is {said}, but this engine reads `{expected}`"),
        )
        .help(format!("write `apiVersion: {expected}`"));
    }
    let message = format!("{} is {said}, but can only be `{expected}`", at.subject.words());
    Diagnostic::error(codes::NOT_ALLOWED, node.span, message).help(format!("write `{expected}`"))
}

/// A value as it is written in a message: strings without quotes.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Equality of JSON: numbers by their value, so that `1` and `1.0` are the same; the order of keys means nothing.
fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => left == right,
            (None, _) | (_, None) => left.as_f64() == right.as_f64(),
        },
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(key, value)| right.get(key).is_some_and(|other| equal(value, other)))
        }
        _ => left == right,
    }
}

/// `minimum`, `maximum`, their exclusive forms, and `multipleOf`.
pub(super) fn check_number(schema: &Keywords<'_>, node: &Node, at: At<'_>) -> Option<Diagnostic> {
    let value = match node.value {
        Yaml::Int(value) => Number::Int(value),
        Yaml::Float(value) => Number::Float(value),
        Yaml::Null | Yaml::Bool(_) | Yaml::String(_) | Yaml::List(_) | Yaml::Map(_) => return None,
    };
    let at_least =
        schema.minimum.map(|bound| (bound, "at least", value.compare(bound).is_some_and(std::cmp::Ordering::is_ge)));
    let at_most =
        schema.maximum.map(|bound| (bound, "at most", value.compare(bound).is_some_and(std::cmp::Ordering::is_le)));
    let above = schema
        .exclusive_minimum
        .map(|bound| (bound, "more than", value.compare(bound).is_some_and(std::cmp::Ordering::is_gt)));
    let below = schema
        .exclusive_maximum
        .map(|bound| (bound, "less than", value.compare(bound).is_some_and(std::cmp::Ordering::is_lt)));
    let bounds: Vec<_> = [at_least, above, at_most, below].into_iter().flatten().collect();
    let said = types::short(node).unwrap_or_default();
    if bounds.iter().any(|(_, _, holds)| !holds) {
        let words: Vec<String> = bounds.iter().map(|(bound, word, _)| format!("{word} {bound}")).collect();
        let message = format!("{} is {said}, but must be {}", at.subject.words(), words.join(" and "));
        return Some(Diagnostic::error(codes::OUT_OF_RANGE, node.span, message));
    }
    let step = schema.multiple_of?;
    let quotient = value.as_float() / step;
    ((quotient - quotient.round()).abs() > 1e-9).then(|| {
        let message = format!("{} is {said}, but must be a multiple of {step}", at.subject.words());
        Diagnostic::error(codes::OUT_OF_RANGE, node.span, message)
    })
}

#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    fn as_float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    fn compare(self, bound: &Value) -> Option<std::cmp::Ordering> {
        if let (Self::Int(value), Some(bound)) = (self, bound.as_i64()) {
            return Some(value.cmp(&bound));
        }
        self.as_float().partial_cmp(&bound.as_f64()?)
    }
}

/// `minLength` and `maxLength`, in characters.
pub(super) fn check_length(schema: &Keywords<'_>, text: &str, node: &Node, at: At<'_>) -> Option<Diagnostic> {
    let least = schema.min_length;
    let most = schema.max_length;
    if least.is_none() && most.is_none() {
        return None;
    }
    let length = text.chars().count() as f64;
    let subject = at.subject.words();
    let message = if least.is_some_and(|least| length < least) {
        if text.is_empty() {
            format!("{subject} is empty")
        } else {
            format!("{subject} has {length} characters, but must have at least {}", least.unwrap_or_default())
        }
    } else if most.is_some_and(|most| length > most) {
        format!("{subject} has {length} characters, but may have at most {}", most.unwrap_or_default())
    } else {
        return None;
    };
    Some(Diagnostic::error(codes::OUT_OF_RANGE, node.span, message))
}

/// `minItems` and `maxItems`.
pub(super) fn check_count(schema: &Keywords<'_>, items: &[Node], node: &Node, at: At<'_>) -> Option<Diagnostic> {
    let count = items.len() as f64;
    let subject = at.subject.words();
    let least = schema.min_items.filter(|least| count < *least);
    let most = schema.max_items.filter(|most| count > *most);
    let message = match (least, most) {
        (Some(_), _) if items.is_empty() => format!("{subject} is empty, but must have at least one item"),
        (Some(least), _) => format!("{subject} has {count} items, but must have at least {least}"),
        (None, Some(most)) => format!("{subject} has {count} items, but may have at most {most}"),
        (None, None) => return None,
    };
    Some(Diagnostic::error(codes::OUT_OF_RANGE, node.span, message))
}
