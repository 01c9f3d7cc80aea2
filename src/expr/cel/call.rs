//! What the functions do.

use serde_json::Value;

use super::evaluate::{Fail, Machine, Outcome, Scope, Settled, boolean, error};
use super::functions::Function;
use super::operand::{Operand, View, double_text};
use super::parser::compile_pattern;
use super::tree::Call;

/// Steps that compiling a regular expression costs at least.
const PATTERN_STEPS: u64 = 20_000;

impl Machine<'_> {
    /// Calls a function with its evaluated arguments.
    pub fn call<'v>(&'v self, call: &'v Call, scope: Option<&'v Scope<'v>>) -> Outcome<Operand<'v>> {
        let mut arguments = Vec::with_capacity(call.arguments.len());
        for argument in &call.arguments {
            arguments.push(self.settled(self.eval(argument, scope)?)?);
        }
        if call.function == Function::Dyn {
            return match arguments.pop() {
                Some(value) => Ok(value.into_operand()),
                None => error("`dyn` takes one argument"),
            };
        }
        let views: Vec<View<'_>> = arguments.iter().map(Settled::view).collect();
        for view in &views {
            if let View::Text(text) = view {
                self.charge_text(text)?;
            }
        }
        match (call.function, views.as_slice()) {
            (Function::Size, [View::Text(text)]) => Ok(count(text.chars().count())),
            (Function::Size, [View::List(items)]) => Ok(count(items.len())),
            (Function::Size, [View::Map(fields)]) => Ok(count(fields.len())),
            (Function::Int, [view]) => to_int(*view),
            (Function::Double, [view]) => to_double(*view),
            (Function::Bool, [view]) => to_bool(*view),
            (Function::String, [view]) => self.to_text(*view),
            (Function::Type, [view]) => self.text(view.type_name().to_owned()),
            (Function::Matches, [View::Text(text), View::Text(pattern)]) => match &call.pattern {
                Some(regex) => Ok(boolean(regex.is_match(text))),
                None => self.matches(text, pattern),
            },
            (Function::Contains, [View::Text(text), View::Text(part)]) => Ok(boolean(text.contains(part))),
            (Function::StartsWith, [View::Text(text), View::Text(part)]) => Ok(boolean(text.starts_with(part))),
            (Function::EndsWith, [View::Text(text), View::Text(part)]) => Ok(boolean(text.ends_with(part))),
            (Function::LowerAscii, [View::Text(text)]) => self.text(text.to_ascii_lowercase()),
            (Function::UpperAscii, [View::Text(text)]) => self.text(text.to_ascii_uppercase()),
            (Function::Trim, [View::Text(text)]) => self.text(text.trim().to_owned()),
            (Function::Reverse, [View::Text(text)]) => self.text(text.chars().rev().collect()),
            (Function::CharAt, [View::Text(text), View::Int(at)]) => self.character(text, *at),
            (Function::Substring, [View::Text(text), View::Int(from)]) => self.substring(text, *from, None),
            (Function::Substring, [View::Text(text), View::Int(from), View::Int(to)]) => {
                self.substring(text, *from, Some(*to))
            }
            (Function::IndexOf, [View::Text(text), View::Text(part)]) => index_of(text, part, 0),
            (Function::IndexOf, [View::Text(text), View::Text(part), View::Int(from)]) => index_of(text, part, *from),
            (Function::LastIndexOf, [View::Text(text), View::Text(part)]) => last_index_of(text, part, None),
            (Function::LastIndexOf, [View::Text(text), View::Text(part), View::Int(to)]) => {
                last_index_of(text, part, Some(*to))
            }
            (Function::Replace, [View::Text(text), View::Text(old), View::Text(new)]) => {
                self.replace(text, old, new, -1)
            }
            (Function::Replace, [View::Text(text), View::Text(old), View::Text(new), View::Int(limit)]) => {
                self.replace(text, old, new, *limit)
            }
            (Function::Split, [View::Text(text), View::Text(separator)]) => self.split(text, separator, -1),
            (Function::Split, [View::Text(text), View::Text(separator), View::Int(limit)]) => {
                self.split(text, separator, *limit)
            }
            (Function::Join, [View::List(items)]) => self.join(items, ""),
            (Function::Join, [View::List(items), View::Text(separator)]) => self.join(items, separator),
            (function, views) => refuse(function, views),
        }
    }

    fn to_text(&self, view: View<'_>) -> Outcome<Operand<'static>> {
        self.text(match view {
            View::Text(text) => text.to_owned(),
            View::Bool(value) => value.to_string(),
            View::Int(value) => value.to_string(),
            View::Large(value) => value.to_string(),
            View::Double(value) => double_text(value),
            View::Null | View::List(_) | View::Map(_) => return refuse(Function::String, &[view]),
        })
    }

    fn matches(&self, text: &str, pattern: &str) -> Outcome<Operand<'static>> {
        self.charge(PATTERN_STEPS + pattern.len() as u64 * 100)?;
        match compile_pattern(pattern) {
            Ok(regex) => Ok(boolean(regex.is_match(text))),
            Err(reason) => error(format!("the pattern of `matches` cannot be used: {reason}")),
        }
    }

    fn character(&self, text: &str, at: i64) -> Outcome<Operand<'static>> {
        let length = text.chars().count();
        match usize::try_from(at) {
            Ok(at) if at <= length => self.text(text.chars().nth(at).map(String::from).unwrap_or_default()),
            Ok(_) | Err(_) => error(format!("`charAt`: there is no index {at} in a string of {length} characters")),
        }
    }

    fn substring(&self, text: &str, from: i64, to: Option<i64>) -> Outcome<Operand<'static>> {
        let length = text.chars().count();
        let last = to.map_or(Ok(length), usize::try_from);
        let (Ok(from), Ok(to)) = (usize::try_from(from), last) else {
            return error("`substring`: an index is below zero");
        };
        if from > to || to > length {
            return error(format!("`substring`: there is no {from} to {to} in a string of {length} characters"));
        }
        self.text(text.chars().skip(from).take(to - from).collect())
    }

    /// At most `limit` places, or all if it is below zero. What it makes is counted before it is made.
    fn replace(&self, text: &str, old: &str, new: &str, limit: i64) -> Outcome<Operand<'static>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let places = text.matches(old).take(limit).count() as u64;
        let bytes = (text.len() as u64).saturating_add(places.saturating_mul(new.len() as u64));
        self.charge_bytes(bytes)?;
        Ok(Operand::Owned(Value::String(text.replacen(old, new, limit))))
    }

    /// An empty separator splits into characters, as in the strings extension.
    fn split(&self, text: &str, separator: &str, limit: i64) -> Outcome<Operand<'static>> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut parts = Vec::new();
        let mut push = |part: &str| -> Outcome<()> {
            self.charge_bytes(16 + part.len() as u64)?;
            parts.push(Value::String(part.to_owned()));
            Ok(())
        };
        if separator.is_empty() {
            let mut rest = text;
            let mut made = 1;
            while let Some(next) = rest.chars().next() {
                if made >= limit {
                    break;
                }
                let (head, tail) = rest.split_at(next.len_utf8());
                push(head)?;
                rest = tail;
                made += 1;
            }
            if !rest.is_empty() && limit > 0 {
                push(rest)?;
            }
        } else {
            for part in text.splitn(limit, separator) {
                push(part)?;
            }
        }
        Ok(Operand::Owned(Value::Array(parts)))
    }

    fn join(&self, items: &[Value], separator: &str) -> Outcome<Operand<'static>> {
        let mut text = String::new();
        for (index, item) in items.iter().enumerate() {
            let Value::String(part) = item else {
                let kind = View::of(item).type_name();
                return error(format!(
                    "`join` needs a list of strings; the element at index {index} is of type {kind}"
                ));
            };
            if index > 0 {
                text.push_str(separator);
            }
            self.charge_bytes((part.len() + separator.len()) as u64)?;
            text.push_str(part);
        }
        Ok(Operand::Owned(Value::String(text)))
    }
}

fn refuse<T>(function: Function, views: &[View<'_>]) -> Outcome<T> {
    let types: Vec<&str> = views.iter().map(|view| view.type_name()).collect();
    let wanted = function.takes(0).words();
    error(format!("`{}` cannot be called with ({}): it takes {wanted}", function.name(), types.join(", ")))
}

fn count(number: usize) -> Operand<'static> {
    Operand::Owned(Value::from(i64::try_from(number).unwrap_or(i64::MAX)))
}

fn to_int(view: View<'_>) -> Outcome<Operand<'static>> {
    let value = match view {
        View::Int(value) => value,
        View::Double(value) => {
            // The bounds are exact as doubles; a cast within them loses only the fraction.
            if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
                return error(format!("`int`: {value} does not fit in 64 bits"));
            }
            #[expect(clippy::cast_possible_truncation, reason = "the bounds were checked; the fraction is to go")]
            let whole = value as i64;
            whole
        }
        View::Text(text) => match text.parse() {
            Ok(value) => value,
            Err(_) => return error(format!("`int`: {} is not an integer", quoted(text))),
        },
        View::Large(value) => return error(format!("`int`: {value} does not fit in 64 bits with a sign")),
        View::Null | View::Bool(_) | View::List(_) | View::Map(_) => return refuse(Function::Int, &[view]),
    };
    Ok(Operand::Owned(Value::from(value)))
}

fn to_double(view: View<'_>) -> Outcome<Operand<'static>> {
    #[expect(clippy::cast_precision_loss, reason = "`double` rounds to the nearest double, as it says")]
    let value = match view {
        View::Int(value) => value as f64,
        View::Large(value) => value as f64,
        View::Double(value) => value,
        View::Text(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => value,
            Ok(_) | Err(_) => return error(format!("`double`: {} is not a number", quoted(text))),
        },
        View::Null | View::Bool(_) | View::List(_) | View::Map(_) => return refuse(Function::Double, &[view]),
    };
    Ok(Operand::Owned(Value::from(value)))
}

fn to_bool(view: View<'_>) -> Outcome<Operand<'static>> {
    match view {
        View::Bool(value) => Ok(boolean(value)),
        View::Text("true" | "True" | "TRUE" | "t" | "1") => Ok(boolean(true)),
        View::Text("false" | "False" | "FALSE" | "f" | "0") => Ok(boolean(false)),
        View::Text(text) => error(format!("`bool`: {} is neither true nor false", quoted(text))),
        View::Null | View::Int(_) | View::Large(_) | View::Double(_) | View::List(_) | View::Map(_) => {
            refuse(Function::Bool, &[view])
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", crate::expr::nearest::shortened(text))
}

fn index_of(text: &str, part: &str, from: i64) -> Outcome<Operand<'static>> {
    let Some(start) = offset(text, from) else { return out_of_range("indexOf", text, from) };
    let found = text.get(start..).and_then(|rest| rest.find(part)).and_then(|at| text.get(..start + at));
    Ok(found.map_or_else(|| Operand::Owned(Value::from(-1)), |before| count(before.chars().count())))
}

fn last_index_of(text: &str, part: &str, to: Option<i64>) -> Outcome<Operand<'static>> {
    let end = match to {
        None => text.len(),
        Some(to) => match offset(text, to) {
            Some(at) => (at + part.len()).min(text.len()),
            None => return out_of_range("lastIndexOf", text, to),
        },
    };
    let end = (0..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let found = text.get(..end).and_then(|rest| rest.rfind(part)).and_then(|at| text.get(..at));
    Ok(found.map_or_else(|| Operand::Owned(Value::from(-1)), |before| count(before.chars().count())))
}

/// The byte at which a character stands; the end of the text counts too.
fn offset(text: &str, character: i64) -> Option<usize> {
    let character = usize::try_from(character).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(character)
}

fn out_of_range(name: &str, text: &str, at: i64) -> Result<Operand<'static>, Fail> {
    error(format!("`{name}`: there is no index {at} in a string of {} characters", text.chars().count()))
}
