//! Where an evaluation finds the values behind names.

use std::borrow::Cow;

use serde_json::Value;

/// The names that an expression or template may use, with their values.
pub trait Names {
    /// What stands under a root name (`params`, `fetch`, `item`); `None` if there is no such name.
    fn lookup(&self, root: &str) -> Option<Found<'_>>;
}

/// What a root name stands for.
pub enum Found<'a> {
    /// A value that is there as a whole.
    Value(Cow<'a, Value>),
    /// Something whose fields are made when asked for, such as a step with `outputs` and `status`.
    Fields(&'a dyn Fields),
}

/// A root name whose fields are looked up one by one, so that no large value is copied for a small question.
pub trait Fields {
    /// The value of one field; `None` if there is no such field.
    fn field(&self, name: &str) -> Option<Cow<'_, Value>>;
    /// The names of all fields, for a whole view and for messages.
    fn field_names(&self) -> Vec<String>;
}

impl Names for serde_json::Map<String, Value> {
    fn lookup(&self, root: &str) -> Option<Found<'_>> {
        self.get(root).map(|value| Found::Value(Cow::Borrowed(value)))
    }
}

/// Names of two layers: those of `inner` hide those of `outer`.
#[derive(Clone, Copy)]
pub struct Layered<'a> {
    pub inner: &'a dyn Names,
    pub outer: &'a dyn Names,
}

impl Names for Layered<'_> {
    fn lookup(&self, root: &str) -> Option<Found<'_>> {
        self.inner.lookup(root).or_else(|| self.outer.lookup(root))
    }
}
