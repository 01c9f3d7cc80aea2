//! Scalars and short lists as values of Rust; nothing for what has another type.

use std::borrow::Cow;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Spanned};
use crate::model::read::ReadContext;
use crate::time::{DurationError, parse_duration};
use crate::yaml::{Node, Yaml};

/// A scalar as text: strings as they are, numbers and booleans as YAML would write them.
pub(super) fn text_of(node: &Node) -> Option<Cow<'_, str>> {
    match &node.value {
        Yaml::String(text) => Some(Cow::Borrowed(text)),
        Yaml::Bool(value) => Some(Cow::Owned(value.to_string())),
        Yaml::Int(value) => Some(Cow::Owned(value.to_string())),
        Yaml::Float(_) => Some(Cow::Owned(node.to_json().to_string())),
        Yaml::Null | Yaml::List(_) | Yaml::Map(_) => None,
    }
}

/// The string under a key.
pub(super) fn text(node: &Node, key: &str) -> Option<Box<str>> {
    node.get(key)?.as_str().map(Box::from)
}

/// The string of a node with its place.
pub(super) fn spanned_text(node: &Node) -> Option<Spanned<Box<str>>> {
    node.as_str().map(|text| Spanned::new(Box::from(text), node.span))
}

/// The string under a key with its place.
pub(super) fn spanned(node: &Node, key: &str) -> Option<Spanned<Box<str>>> {
    node.get(key).and_then(spanned_text)
}

/// The boolean under a key.
pub(super) fn boolean(node: &Node, key: &str) -> Option<bool> {
    match node.get(key)?.value {
        Yaml::Bool(value) => Some(value),
        Yaml::Null | Yaml::Int(_) | Yaml::Float(_) | Yaml::String(_) | Yaml::List(_) | Yaml::Map(_) => None,
    }
}

/// The whole number, not below zero, of a node; `3.0` is 3, as in JSON Schema.
pub(super) fn whole(node: &Node) -> Option<u64> {
    match node.value {
        Yaml::Int(value) => u64::try_from(value).ok(),
        Yaml::Float(value) if value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value) => {
            Some(value as u64)
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Float(_) | Yaml::String(_) | Yaml::List(_) | Yaml::Map(_) => None,
    }
}

/// The whole number under a key.
pub(super) fn unsigned(node: &Node, key: &str) -> Option<u64> {
    node.get(key).and_then(whole)
}

/// The whole number under a key; more than fits stays at the most that does.
pub(super) fn unsigned_small(node: &Node, key: &str) -> Option<u32> {
    unsigned(node, key).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

/// The number of a node.
pub(super) fn number_of(node: &Node) -> Option<f64> {
    match node.value {
        Yaml::Int(value) => Some(value as f64),
        Yaml::Float(value) if value.is_finite() => Some(value),
        Yaml::Null | Yaml::Bool(_) | Yaml::Float(_) | Yaml::String(_) | Yaml::List(_) | Yaml::Map(_) => None,
    }
}

/// The number under a key.
pub(super) fn number(node: &Node, key: &str) -> Option<f64> {
    node.get(key).and_then(number_of)
}

/// The strings of the list under a key.
pub(super) fn texts(node: &Node, key: &str) -> Vec<Box<str>> {
    items(node, key).iter().filter_map(|item| item.as_str().map(Box::from)).collect()
}

/// The strings of the list under a key, with their places.
pub(super) fn spanned_texts(node: &Node, key: &str) -> Vec<Spanned<Box<str>>> {
    items(node, key).iter().filter_map(spanned_text).collect()
}

/// The items of the list under a key.
pub(super) fn items<'n>(node: &'n Node, key: &str) -> &'n [Node] {
    node.get(key).map(Node::items).unwrap_or_default()
}

/// The pairs of the mapping under a key.
pub(super) fn entries<'n>(node: &'n Node, key: &str) -> &'n [crate::yaml::Entry] {
    node.get(key).map(Node::entries).unwrap_or_default()
}

impl ReadContext<'_> {
    /// The duration under a key; one that cannot be is reported.
    pub(super) fn duration(&mut self, node: &Node, key: &str) -> Option<Duration> {
        let value = node.get(key)?;
        self.duration_of(value)
    }

    /// The duration of a node.
    pub(super) fn duration_of(&mut self, node: &Node) -> Option<Duration> {
        let text = node.as_str()?;
        let (code, message, help) = match parse_duration(text) {
            Ok(duration) => return Some(duration),
            // A text without this shape has been reported as one that breaks its pattern.
            Err(_) if !has_units(text) => return None,
            Err(DurationError::Form(_)) => (
                super::codes::BAD_DURATION,
                format!("`{text}` is no duration"),
                "write the larger unit first, each unit once, and a fraction only where there is one unit: `1h30m`, `1.5s`",
            ),
            Err(DurationError::NotPositive) => (
                super::codes::DURATION_RANGE,
                format!("`{text}` is no time at all: a duration must be positive"),
                "write at least `1ms`, or leave the key out",
            ),
            Err(DurationError::TooLong) => (
                super::codes::DURATION_RANGE,
                format!("`{text}` is too long for a duration; the longest is `36500d`"),
                "leave the key out where there is no bound",
            ),
        };
        self.report(Diagnostic::error(code, node.span, message).help(help));
        None
    }
}

/// True for numbers with units in whatever order, and for what begins as ISO 8601: texts that the published pattern of
/// durations lets pass.
fn has_units(text: &str) -> bool {
    if let Some(body) = text.strip_prefix('P') {
        return body.chars().all(|c| c.is_ascii_digit() || ".WDTHMS".contains(c));
    }
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let unit = ["ms", "d", "h", "m", "s"].into_iter().find_map(|unit| behind.strip_prefix(unit));
        let is_number = number.parse::<f64>().is_ok() && !number.starts_with('.') && !number.ends_with('.');
        let (Some(behind), true) = (unit, is_number) else { return false };
        rest = behind;
    }
    !text.is_empty()
}
