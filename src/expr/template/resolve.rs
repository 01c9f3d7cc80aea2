//! Values behind paths, borrowed where they can be.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::helper::step;
use super::tree::{Argument, Path};
use crate::expr::cel::{View, missing_key};
use crate::expr::names::{Fields, Found, Names};
use crate::expr::nearest::shortened;
use crate::expr::problem::EvaluationError;
use crate::expr::reference::Segment;

/// The value behind a root name and fields; a missing one is an error that names what there is.
pub(super) fn resolve<'v>(names: &'v dyn Names, segments: &[Segment]) -> Result<Cow<'v, Value>, EvaluationError> {
    let Some((root, rest)) = segments.split_first() else { return Err(EvaluationError::new("a name is missing")) };
    let Some(found) = names.lookup(&root.name) else {
        return Err(EvaluationError::new(format!("there is no `{}` here", shortened(&root.name))));
    };
    let (value, rest, done) = match found {
        Found::Value(value) => (value, rest, 1),
        Found::Fields(fields) => match rest.split_first() {
            None => return Ok(Cow::Owned(whole(fields))),
            Some((first, rest)) => match fields.field(&first.name) {
                Some(value) => (value, rest, 2),
                None => return Err(missing(segments, 1, &fields.field_names())),
            },
        },
    };
    match value {
        Cow::Borrowed(value) => walk(value, rest, segments, done).map(Cow::Borrowed),
        Cow::Owned(value) if rest.is_empty() => Ok(Cow::Owned(value)),
        Cow::Owned(value) => walk(&value, rest, segments, done).map(|value| Cow::Owned(value.clone())),
    }
}

fn whole(fields: &dyn Fields) -> Value {
    let mut map = Map::new();
    for name in fields.field_names() {
        if let Some(value) = fields.field(&name) {
            let value = value.into_owned();
            map.insert(name, value);
        }
    }
    Value::Object(map)
}

fn walk<'v>(
    mut value: &'v Value,
    rest: &[Segment],
    all: &[Segment],
    done: usize,
) -> Result<&'v Value, EvaluationError> {
    for (index, segment) in rest.iter().enumerate() {
        value = match step(value, &segment.name) {
            Some(found) => found,
            None => return Err(not_there(value, all, done + index)),
        };
    }
    Ok(value)
}

/// The error for segment number `at`, which `value` does not have.
fn not_there(value: &Value, all: &[Segment], at: usize) -> EvaluationError {
    let name = all.get(at).map_or("", |segment| segment.name.as_str());
    let of = shortened(&joined(all.get(..at).unwrap_or_default()));
    match value {
        Value::Object(fields) => missing(all, at, &fields.keys().cloned().collect::<Vec<_>>()),
        Value::Array(items) => {
            let message = format!("`{of}` has {} element(s), none at `{}`", items.len(), shortened(name));
            EvaluationError::new(message)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let kind = View::of(value).type_name();
            EvaluationError::new(format!("`{of}` is of type {kind}: it has no key `{}`", shortened(name)))
        }
    }
}

fn missing(all: &[Segment], at: usize, names: &[String]) -> EvaluationError {
    let name = all.get(at).map_or("", |segment| segment.name.as_str());
    EvaluationError::new(missing_key(&shortened(&joined(all.get(..at).unwrap_or_default())), name, names))
}

/// A path as people write it.
pub(super) fn joined(segments: &[Segment]) -> String {
    let names: Vec<&str> = segments.iter().map(|segment| segment.name.as_str()).collect();
    names.join(".")
}

/// The value of what a tag shows, outside of blocks.
pub(super) fn value_of<'v>(names: &'v dyn Names, argument: &'v Argument) -> Result<Cow<'v, Value>, EvaluationError> {
    match argument {
        Argument::Literal(value) => Ok(Cow::Borrowed(value)),
        Argument::Path(Path { segments, .. }) => resolve(names, segments),
        Argument::Call(call) => {
            let mut arguments = Vec::with_capacity(call.arguments.len());
            for argument in &call.arguments {
                arguments.push(value_of(names, argument)?);
            }
            call.helper.call(&arguments).map_err(EvaluationError::new)
        }
    }
}
