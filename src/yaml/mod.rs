//! Text to tree. Every node knows its span; YAML 1.2 core schema; duplicate keys, hostile sizes and bad bytes are
//! diagnostics. It does not know what the keys mean.

mod build;
mod codes;
mod decode;
mod load;
mod mapping;
mod place;
mod scalar;
mod syntax;

pub use decode::{decode, lossy, not_utf8};
pub use load::{Limits, load};
pub use place::place_in_scalar;

use crate::diagnostic::Span;

/// One node of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub span: Span,
    pub value: Yaml,
}

/// What a node holds, by the core schema of YAML 1.2.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(Box<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One pair of a mapping, in file order; merge keys are already resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: Box<str>,
    pub key_span: Span,
    pub node: Node,
}

impl Node {
    /// The value under a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.node)
    }

    /// The pair of a key, if this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| &*entry.key == key)
    }

    /// The pairs of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Yaml::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Yaml::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a string node.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Yaml::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same tree as JSON, in file order. Floats that JSON cannot hold become null.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.value {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => Value::Bool(*value),
            Yaml::Int(value) => Value::from(*value),
            Yaml::Float(value) => serde_json::Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Yaml::String(text) => Value::String(text.to_string()),
            Yaml::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Yaml::Map(entries) => {
                Value::Object(entries.iter().map(|entry| (entry.key.to_string(), entry.node.to_json())).collect())
            }
        }
    }
}
