//! The helpers: what they take and give, the same with and without blocks around them.
//!
//! | helper | gives |
//! |---|---|
//! | `json x` | compact JSON text |
//! | `lookup x key` | the field or element of that name or index |
//! | `eq a b`, `ne a b` | whether they are equal; numbers by value, lists and maps deeply |
//! | `gt a b`, `gte a b`, `lt a b`, `lte a b` | order of numbers, strings or bools |
//! | `and a b …`, `or a b …`, `not a` | a bool; empty text, `0`, null, an empty list or map count as false |
//! | `len x` | characters, elements or entries |

use std::borrow::Cow;

use serde_json::Value;

use crate::expr::cel::{View, compare, double_text};
use crate::expr::nearest::shortened;
use crate::expr::types::Type;

/// What may be called in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    Json,
    Lookup,
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    And,
    Or,
    Not,
    Len,
}

/// All of them.
pub(super) const HELPERS: [Helper; 12] = [
    Helper::Json,
    Helper::Lookup,
    Helper::Eq,
    Helper::Ne,
    Helper::Gt,
    Helper::Gte,
    Helper::Lt,
    Helper::Lte,
    Helper::And,
    Helper::Or,
    Helper::Not,
    Helper::Len,
];

impl Helper {
    /// The helper of that name.
    pub fn named(name: &str) -> Option<Self> {
        HELPERS.into_iter().find(|helper| helper.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Lookup => "lookup",
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Len => "len",
        }
    }

    /// The least and most arguments.
    pub fn arguments(self) -> (usize, usize) {
        match self {
            Self::Json | Self::Not | Self::Len => (1, 1),
            Self::Lookup | Self::Eq | Self::Ne | Self::Gt | Self::Gte | Self::Lt | Self::Lte => (2, 2),
            Self::And | Self::Or => (2, 16),
        }
    }

    /// The type of its result.
    pub fn gives(self) -> Type {
        match self {
            Self::Json => Type::String,
            Self::Lookup => Type::Any,
            Self::Len => Type::Int,
            Self::Eq | Self::Ne | Self::Gt | Self::Gte | Self::Lt | Self::Lte | Self::And | Self::Or | Self::Not => {
                Type::Bool
            }
        }
    }

    /// The result, from arguments that are all there. An error is in words.
    pub fn call<'v>(self, arguments: &[Cow<'v, Value>]) -> Result<Cow<'v, Value>, String> {
        let (Some(one), two) = (arguments.first(), arguments.get(1)) else {
            return Err(format!("`{}` has no argument", self.name()));
        };
        let two = two.map_or(&Value::Null, |value| &**value);
        let value = match self {
            Self::Json => Value::String(json_text(one)),
            Self::Lookup => return lookup(one, two),
            Self::Eq => Value::Bool(equal(one, two)),
            Self::Ne => Value::Bool(!equal(one, two)),
            Self::Gt => Value::Bool(self.order(one, two)?.is_gt()),
            Self::Gte => Value::Bool(self.order(one, two)?.is_ge()),
            Self::Lt => Value::Bool(self.order(one, two)?.is_lt()),
            Self::Lte => Value::Bool(self.order(one, two)?.is_le()),
            Self::And => Value::Bool(arguments.iter().all(|value| is_true(value))),
            Self::Or => Value::Bool(arguments.iter().any(|value| is_true(value))),
            Self::Not => Value::Bool(!is_true(one)),
            Self::Len => match &**one {
                Value::String(text) => Value::from(text.chars().count()),
                Value::Array(items) => Value::from(items.len()),
                Value::Object(fields) => Value::from(fields.len()),
                other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => {
                    let kind = View::of(other).type_name();
                    return Err(format!("`len` takes a string, a list or a map, not a value of type {kind}"));
                }
            },
        };
        Ok(Cow::Owned(value))
    }

    fn order(self, one: &Value, two: &Value) -> Result<std::cmp::Ordering, String> {
        let (one, two) = (View::of(one), View::of(two));
        compare(one, two).ok_or_else(|| {
            let (one, two) = (one.type_name(), two.type_name());
            format!("`{}` does not compare a value of type {one} with one of type {two}", self.name())
        })
    }
}

/// What `#if` sees.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value in text: a list or map is compact JSON, null is empty.
pub(super) fn text_of(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(value) => Cow::Owned(double_text(value)),
            None => Cow::Owned(number.to_string()),
        },
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(_) | Value::Object(_) => Cow::Owned(json_text(value)),
    }
}

fn json_text(value: &Value) -> String {
    value.to_string()
}

/// A field of a map or an element of a list; `None` if it is not there.
pub(super) fn step<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn lookup<'v>(of: &Cow<'v, Value>, key: &Value) -> Result<Cow<'v, Value>, String> {
    let name = match key {
        Value::String(_) | Value::Number(_) => text_of(key),
        other => {
            return Err(format!(
                "`lookup` takes a key or an index, not a value of type {}",
                View::of(other).type_name()
            ));
        }
    };
    let found = match of {
        Cow::Borrowed(value) => step(value, &name).map(Cow::Borrowed),
        Cow::Owned(value) => step(value, &name).map(|found| Cow::Owned(found.clone())),
    };
    found.ok_or_else(|| {
        format!("`lookup`: a value of type {} has no key `{}`", View::of(of).type_name(), shortened(&name))
    })
}

fn equal(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Array(one), Value::Array(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| equal(one, two))
        }
        (Value::Object(one), Value::Object(two)) => {
            one.len() == two.len() && one.iter().all(|(key, one)| two.get(key).is_some_and(|two| equal(one, two)))
        }
        (Value::Null, Value::Null) => true,
        (one, two) => compare(View::of(one), View::of(two)).is_some_and(std::cmp::Ordering::is_eq),
    }
}
