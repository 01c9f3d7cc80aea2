//! What the operators between two values do.

use serde_json::Value;

use super::evaluate::{Machine, Outcome, Settled, boolean, error};
use super::operand::{Operand, View, compare, weight};
use super::tree::Operator;

impl Machine<'_> {
    pub fn ordered(&self, operator: Operator, one: View<'_>, two: View<'_>) -> Outcome<Operand<'static>> {
        if let (View::Text(text), View::Text(_)) = (one, two) {
            self.charge_text(text)?;
        }
        let Some(order) = compare(one, two) else { return no_operands(operator, one, two) };
        Ok(boolean(match operator {
            Operator::Less => order.is_lt(),
            Operator::LessOrEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterOrEqual => order.is_ge(),
            Operator::Equal
            | Operator::NotEqual
            | Operator::In
            | Operator::Add
            | Operator::Subtract
            | Operator::Multiply
            | Operator::Divide
            | Operator::Remainder => order.is_eq(),
        }))
    }

    /// Deep equality; numbers compare by value, an int with a double too.
    pub fn equal(&self, one: &Value, two: &Value) -> Outcome<bool> {
        self.charge(1)?;
        match (one, two) {
            (Value::String(one), Value::String(two)) => {
                self.charge_text(one)?;
                Ok(one == two)
            }
            (Value::Array(one), Value::Array(two)) => {
                if one.len() != two.len() {
                    return Ok(false);
                }
                for (one, two) in one.iter().zip(two) {
                    if !self.equal(one, two)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(one), Value::Object(two)) => {
                if one.len() != two.len() {
                    return Ok(false);
                }
                for (key, one) in one {
                    let Some(two) = two.get(key) else { return Ok(false) };
                    if !self.equal(one, two)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Null, Value::Null) => Ok(true),
            (one, two) => Ok(compare(View::of(one), View::of(two)).is_some_and(std::cmp::Ordering::is_eq)),
        }
    }

    pub fn contained(&self, one: &Value, two: View<'_>) -> Outcome<Operand<'static>> {
        match (View::of(one), two) {
            (_, View::List(items)) => {
                for item in items {
                    if self.equal(one, item)? {
                        return Ok(boolean(true));
                    }
                }
                Ok(boolean(false))
            }
            (View::Text(key), View::Map(fields)) => Ok(boolean(fields.contains_key(key))),
            (one, two) => no_operands(Operator::In, one, two),
        }
    }

    pub fn arithmetic<'v>(&self, operator: Operator, one: Settled<'v>, two: Settled<'v>) -> Outcome<Operand<'v>> {
        let value = match (one.view(), two.view()) {
            (View::Int(one), View::Int(two)) => integer(operator, one, two)?,
            (View::Double(one), View::Double(two)) => double(operator, one, two)?,
            // A value that its schema calls a number may come without a fraction. Where the type of both is known
            // before, mixing them is refused there.
            #[expect(clippy::cast_precision_loss, reason = "the nearest double, as `double` gives it")]
            (View::Int(one), View::Double(two)) => double(operator, one as f64, two)?,
            #[expect(clippy::cast_precision_loss, reason = "the nearest double, as `double` gives it")]
            (View::Double(one), View::Int(two)) => double(operator, one, two as f64)?,
            (View::Text(_), View::Text(more)) if operator == Operator::Add => {
                self.charge_bytes(more.len() as u64)?;
                let more = more.to_owned();
                let Value::String(mut text) = self.owned(one.into_operand())? else { return Ok(boolean(false)) };
                text.push_str(&more);
                Value::String(text)
            }
            (View::List(_), View::List(more)) if operator == Operator::Add => {
                self.charge_bytes(more.iter().map(weight).sum())?;
                let more = more.to_vec();
                let Value::Array(mut items) = self.owned(one.into_operand())? else { return Ok(boolean(false)) };
                items.extend(more);
                Value::Array(items)
            }
            (one, two) => return no_operands(operator, one, two),
        };
        Ok(Operand::Owned(value))
    }
}

fn no_operands<T>(operator: Operator, one: View<'_>, two: View<'_>) -> Outcome<T> {
    let (one, two) = (one.type_name(), two.type_name());
    error(format!("`{}` does not take a value of type {one} and one of type {two}", operator.text()))
}

fn integer(operator: Operator, one: i64, two: i64) -> Outcome<Value> {
    if two == 0 && matches!(operator, Operator::Divide | Operator::Remainder) {
        return error(format!("division by zero: {one} {} 0", operator.text()));
    }
    let result = match operator {
        Operator::Add => one.checked_add(two),
        Operator::Subtract => one.checked_sub(two),
        Operator::Multiply => one.checked_mul(two),
        Operator::Divide => one.checked_div(two),
        Operator::Remainder => one.checked_rem(two),
        Operator::Equal
        | Operator::NotEqual
        | Operator::Less
        | Operator::LessOrEqual
        | Operator::Greater
        | Operator::GreaterOrEqual
        | Operator::In => None,
    };
    match result {
        Some(value) => Ok(Value::from(value)),
        None => error(format!("integer overflow: {one} {} {two} does not fit in 64 bits", operator.text())),
    }
}

/// Doubles stay finite, because JSON has no other; a result that is not is an error.
fn double(operator: Operator, one: f64, two: f64) -> Outcome<Value> {
    let result = match operator {
        Operator::Add => one + two,
        Operator::Subtract => one - two,
        Operator::Multiply => one * two,
        Operator::Divide if two == 0.0 => return error(format!("division by zero: {one} / {two}")),
        Operator::Divide => one / two,
        Operator::Remainder
        | Operator::Equal
        | Operator::NotEqual
        | Operator::Less
        | Operator::LessOrEqual
        | Operator::Greater
        | Operator::GreaterOrEqual
        | Operator::In => return error(format!("`{}` does not take doubles", operator.text())),
    };
    if result.is_finite() {
        Ok(Value::from(result))
    } else {
        error(format!("overflow: {one} {} {two} is too large for a double", operator.text()))
    }
}
