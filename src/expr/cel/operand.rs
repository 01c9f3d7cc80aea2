//! A value while an expression is evaluated: borrowed where it can be, so that large inputs are not copied.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::expr::names::Fields;

/// What a node evaluates to.
pub(super) enum Operand<'v> {
    Borrowed(&'v Value),
    Owned(Value),
    /// A root whose fields are made when asked for.
    Fields(&'v dyn Fields),
}

/// A look at a value by its CEL type.
#[derive(Clone, Copy)]
pub(in crate::expr) enum View<'v> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer from outside that has no sign and 64 bits: it can be handed on and printed, not computed with.
    Large(u64),
    Double(f64),
    Text(&'v str),
    List(&'v [Value]),
    Map(&'v Map<String, Value>),
}

impl<'v> View<'v> {
    /// Looks at a value.
    pub fn of(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Self::Int(value),
                (None, Some(value)) => Self::Large(value),
                (None, None) => Self::Double(number.as_f64().unwrap_or_default()),
            },
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items),
            Value::Object(fields) => Self::Map(fields),
        }
    }

    /// The name of its type.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Large(_) => "int",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
        }
    }
}

/// The order of an int and a double by their exact values.
pub(super) fn compare_int_double(int: i64, double: f64) -> Ordering {
    // 2^63 is exact as a double, the largest i64 is not.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if double >= BEYOND {
        return Ordering::Less;
    }
    if double < -BEYOND {
        return Ordering::Greater;
    }
    let whole = double.trunc();
    #[expect(clippy::cast_possible_truncation, reason = "the bounds were checked above and there is no fraction")]
    let nearest = whole as i64;
    int.cmp(&nearest).then_with(|| 0.0.partial_cmp(&(double - whole)).unwrap_or(Ordering::Equal))
}

/// The order of two numbers, strings or bools; `None` for what has no order.
pub(in crate::expr) fn compare(left: View<'_>, right: View<'_>) -> Option<Ordering> {
    Some(match (left, right) {
        (View::Int(one), View::Int(two)) => one.cmp(&two),
        (View::Large(one), View::Large(two)) => one.cmp(&two),
        (View::Large(_), View::Int(_)) => Ordering::Greater,
        (View::Int(_), View::Large(_)) => Ordering::Less,
        (View::Double(one), View::Double(two)) => one.partial_cmp(&two)?,
        (View::Int(one), View::Double(two)) => compare_int_double(one, two),
        (View::Double(one), View::Int(two)) => compare_int_double(two, one).reverse(),
        #[expect(clippy::cast_precision_loss, reason = "integers of this size come from outside only")]
        (View::Large(one), View::Double(two)) => (one as f64).partial_cmp(&two)?,
        #[expect(clippy::cast_precision_loss, reason = "integers of this size come from outside only")]
        (View::Double(one), View::Large(two)) => one.partial_cmp(&(two as f64))?,
        (View::Text(one), View::Text(two)) => one.cmp(two),
        (View::Bool(one), View::Bool(two)) => one.cmp(&two),
        (
            View::Null
            | View::Bool(_)
            | View::Int(_)
            | View::Large(_)
            | View::Double(_)
            | View::Text(_)
            | View::List(_)
            | View::Map(_),
            _,
        ) => return None,
    })
}

/// A rough size of a value in memory, for the bound on what an evaluation makes: 16 bytes a node and its text.
pub(super) fn weight(value: &Value) -> u64 {
    const NODE: u64 = 16;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => NODE,
        Value::String(text) => NODE + text.len() as u64,
        Value::Array(items) => items.iter().map(weight).fold(NODE, u64::saturating_add),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.len() as u64).saturating_add(weight(value)))
            .fold(NODE, u64::saturating_add),
    }
}

/// A double as people write it: without `.0` where there is no fraction.
pub(in crate::expr) fn double_text(value: f64) -> String {
    const PLAIN: f64 = 1e15;
    if value.fract() == 0.0 && value.abs() < PLAIN { format!("{value:.0}") } else { Value::from(value).to_string() }
}
