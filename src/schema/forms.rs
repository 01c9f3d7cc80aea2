//! Texts that have a form: ids, durations, names. What the published patterns mean, written by hand because compiling
//! them would cost more than checking a document; a test holds each to its pattern.

use serde_json::Value;

use super::codes;
use super::keywords::Keywords;
use super::types;
use super::walk::At;
use crate::diagnostic::Diagnostic;
use crate::yaml::Node;

/// A check of a text.
pub(super) type Matcher = fn(&str) -> bool;

/// The patterns of the published schemas, with their checks.
pub(super) const KNOWN: &[(&str, Matcher)] = &[
    (r"^([0-9]+(\.[0-9]+)?(d|h|m|s|ms))+$|^P([0-9.]+[WD])*(T([0-9.]+[HMS])+)?$", is_duration),
    ("^[a-z][a-z0-9_]*$", is_id),
    ("^[A-Za-z_][A-Za-z0-9_]*$", is_identifier),
    ("^[A-Za-z][A-Za-z0-9_]*$", |text| starts_with_letter(text) && rest_has(text, "_")),
    ("^[A-Za-z][A-Za-z0-9_-]*$", |text| starts_with_letter(text) && rest_has(text, "_-")),
    ("^[A-Za-z][A-Za-z0-9_.-]*$", |text| starts_with_letter(text) && rest_has(text, "_.-")),
    ("^[A-Za-z0-9][A-Za-z0-9_.-]*$", |text| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && rest_has(text, "_.-")
    }),
    (QUEUE, is_queue),
    ("^[^=]+$", |text| !text.is_empty() && !text.contains('=')),
    (r"^[A-Z]+$|\{\{", |text| {
        text.contains("{{") || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase()))
    }),
    ("^/?[A-Za-z0-9._~/-]+$", |text| !text.is_empty() && rest_has(text, "._~/-")),
    (r"^(hooks:)?[A-Za-z_][A-Za-z0-9_]*(\[[0-9]+\])?(/(hooks:)?[A-Za-z_][A-Za-z0-9_]*(\[[0-9]+\])?)*$", |text| {
        text.split('/').all(is_path_part)
    }),
];

/// The names of queues and of what workers can do.
const QUEUE: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";

fn is_queue(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    text.len() <= 63 && !text.is_empty() && !text.starts_with(['.', '_', '-']) && text.chars().all(inner)
}

/// The check of a published pattern; nothing for one that a user wrote.
pub(super) fn known(pattern: &str) -> Option<Matcher> {
    KNOWN.iter().find(|(text, _)| *text == pattern).map(|(_, matcher)| *matcher)
}

fn starts_with_letter(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn rest_has(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && rest_has(text, "_")
}

fn is_path_part(text: &str) -> bool {
    let text = text.strip_prefix("hooks:").unwrap_or(text);
    match text.split_once('[') {
        None => is_identifier(text),
        Some((name, item)) => {
            let digits = item.strip_suffix(']').unwrap_or_default();
            is_identifier(name) && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
    }
}

fn is_duration(text: &str) -> bool {
    match text.strip_prefix('P') {
        Some(body) => {
            let (date, time) = match body.split_once('T') {
                Some((date, time)) => (date, Some(time)),
                None => (body, None),
            };
            iso_parts(date, "WD") && time.is_none_or(|time| !time.is_empty() && iso_parts(time, "HMS"))
        }
        None => plain_parts(text),
    }
}

fn iso_parts(mut text: &str, units: &str) -> bool {
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let Some(unit) = text[digits..].chars().next() else { return false };
        if digits == 0 || !units.contains(unit) {
            return false;
        }
        text = &text[digits + unit.len_utf8()..];
    }
    true
}

fn plain_parts(mut text: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, behind) = text.split_at(digits);
        let whole = match number.split_once('.') {
            Some((whole, fraction)) if is_digits(fraction) => whole,
            Some(_) => return false,
            None => number,
        };
        if !is_digits(whole) {
            return false;
        }
        let Some(rest) = ["ms", "d", "h", "m", "s"].iter().find_map(|unit| behind.strip_prefix(unit)) else {
            return false;
        };
        text = rest;
    }
    true
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The mistake of a text that does not have its form.
pub(super) fn wrong_form(schema: &Keywords<'_>, pattern: &str, text: &str, node: &Node, at: At<'_>) -> Diagnostic {
    let said = types::short(node).map_or_else(|| "this text".to_owned(), |text| format!("`{text}`"));
    match at.place {
        "duration" => wrong_duration(text, &said, at).at(node),
        "id" => wrong_id(text, &said).at(node),
        _ => {
            let subject = at.subject.words();
            let shape = shape_of(pattern);
            let message = match shape {
                Some(shape) => format!("{said} is no value for {subject}: it must be {shape}"),
                None => format!("{subject} is {said}, which does not match the pattern `{pattern}`"),
            };
            let help = offer(pattern, text).or_else(|| {
                schema
                    .examples
                    .and_then(|list| list.get(0))
                    .and_then(Value::as_str)
                    .map(|example| format!("for example `{example}`"))
            });
            Diagnostic::error(codes::WRONG_FORM, node.span, message).maybe_help(help)
        }
    }
}

/// The words for a published pattern.
pub(super) fn shape_of(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        "^[a-z][a-z0-9_]*$" => "a lower-case letter, then lower-case letters, digits and `_`",
        "^[A-Za-z_][A-Za-z0-9_]*$" => "a letter or `_`, then letters, digits and `_`",
        "^[A-Za-z][A-Za-z0-9_]*$" => "a letter, then letters, digits and `_`",
        "^[A-Za-z][A-Za-z0-9_-]*$" => "a letter, then letters, digits, `_` and `-`",
        "^[A-Za-z][A-Za-z0-9_.-]*$" => "a letter, then letters, digits, `_`, `.` and `-`",
        "^[A-Za-z0-9][A-Za-z0-9_.-]*$" => "a letter or digit, then letters, digits, `_`, `.` and `-`",
        QUEUE => "lower-case letters, digits, `.`, `_` and `-`, with a letter or digit first, 63 at most",
        "^[^=]+$" => "a name without `=`",
        r"^[A-Z]+$|\{\{" => "a method in capital letters, such as `GET`",
        "^/?[A-Za-z0-9._~/-]+$" => "a path such as `/hooks/deploy`",
        r"^(hooks:)?[A-Za-z_][A-Za-z0-9_]*(\[[0-9]+\])?(/(hooks:)?[A-Za-z_][A-Za-z0-9_]*(\[[0-9]+\])?)*$" => {
            "the path of a step, such as `build`, `each[2]` or `child/step`"
        }
        _ => return None,
    })
}

/// A spelling of a text that has the form, if there is an obvious one.
pub(super) fn offer(pattern: &str, text: &str) -> Option<String> {
    let mended = match pattern {
        r"^[A-Z]+$|\{\{" => text.to_ascii_uppercase(),
        "^[a-z][a-z0-9_]*$" => mended_id(text)?,
        QUEUE => text.trim().to_ascii_lowercase().replace([' ', '/', ':'], "-"),
        _ => text.replace(['-', ' ', '.'], "_"),
    };
    (mended != text && known(pattern).is_some_and(|matches| matches(&mended))).then(|| format!("write `{mended}`"))
}

struct Words {
    code: &'static str,
    message: String,
    help: Option<String>,
}

impl Words {
    fn at(self, node: &Node) -> Diagnostic {
        Diagnostic::error(self.code, node.span, self.message).maybe_help(self.help)
    }
}

fn wrong_id(text: &str, said: &str) -> Words {
    let problem = if text.is_empty() {
        "an id may not be empty".to_owned()
    } else if text.contains('-') {
        format!("{said} is no id: in an expression the dash would be a minus")
    } else if text.contains(char::is_whitespace) {
        format!("{said} is no id: it has a space")
    } else if text.starts_with(|c: char| c.is_ascii_digit()) {
        format!("{said} is no id: it must begin with a letter")
    } else if text.contains(|c: char| c.is_ascii_uppercase()) {
        format!("{said} is no id: its letters must be lower case")
    } else {
        format!("{said} is no id")
    };
    let form = "an id is a lower-case letter, then a-z, 0-9 and `_`";
    let help = match mended_id(text) {
        Some(id) => format!("write `{id}`; {form}"),
        None => form.to_owned(),
    };
    Words { code: codes::BAD_ID, message: problem, help: Some(help) }
}

/// An id that says the same.
fn mended_id(text: &str) -> Option<String> {
    let mut id = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            id.push(c.to_ascii_lowercase());
        } else if !id.is_empty() && !id.ends_with('_') {
            id.push('_');
        }
    }
    let id = id.trim_end_matches('_');
    let id = if id.starts_with(|c: char| c.is_ascii_digit()) { format!("step_{id}") } else { id.to_owned() };
    (is_id(&id) && id != text && id.len() <= 60).then_some(id)
}

fn wrong_duration(text: &str, said: &str, at: At<'_>) -> Words {
    let key = at.subject.key();
    if let Some(rest) = text.trim().strip_prefix('-')
        && is_duration(rest.trim())
    {
        let message = format!("`{key}` is {said}, but a duration must be positive");
        return Words { code: codes::BAD_DURATION, message, help: Some(format!("write `{}`", rest.trim())) };
    }
    let help = match mended_duration(text) {
        Some(duration) => format!("write `{duration}`"),
        None => {
            "write a number with its unit: `250ms`, `30s`, `5m`, `1h30m`, `2d`, or ISO 8601 such as `PT30S`".to_owned()
        }
    };
    Words { code: codes::BAD_DURATION, message: format!("`{key}` is {said}, which is no duration"), help: Some(help) }
}

/// `5 minutes`, `5min` or `30` as the language writes them.
fn mended_duration(text: &str) -> Option<String> {
    let mut mended = String::new();
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(format!("{rest}s"));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let unit = match &*unit.to_lowercase() {
            "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => "ms",
            "s" | "sec" | "secs" | "second" | "seconds" => "s",
            "m" | "min" | "mins" | "minute" | "minutes" => "m",
            "h" | "hr" | "hrs" | "hour" | "hours" => "h",
            "d" | "day" | "days" => "d",
            _ => return None,
        };
        mended.push_str(number);
        mended.push_str(unit);
        rest = behind.trim_start_matches([' ', ',']).trim_start();
    }
    (is_duration(&mended) && mended != text).then_some(mended)
}
