//! What a script's output means: text, JSON, and the pairs that it wrote to `TOL_OUTPUT`.

use serde_json::{Map, Value};

use crate::task::Failure;

/// The largest standard output that is read as JSON, in bytes.
pub const JSON_BYTES_MAX: usize = 10 * 1024 * 1024;
/// The largest file of pairs, in bytes.
pub const PAIRS_BYTES_MAX: u64 = 1024 * 1024;
/// How much of a text is shown in a message, in characters.
const SHOWN_CHARACTERS: usize = 200;

/// Standard output as text: without its last newline, and with a replacement character for bytes that are no UTF-8.
pub fn text_of(stdout: &[u8]) -> String {
    String::from_utf8_lossy(stdout.strip_suffix(b"\n").unwrap_or(stdout)).into_owned()
}

/// Standard output as JSON: all of it, else its last line that is not empty.
///
/// # Errors
/// A permanent failure that shows how the output begins.
pub fn json_of(stdout: &[u8]) -> Result<Value, Failure> {
    let text = String::from_utf8_lossy(stdout);
    let whole = match serde_json::from_str(&text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let Some(last) = text.lines().rev().find(|line| !line.trim().is_empty()) else {
        return Err(Failure::permanent("`outputs: json`: the script printed nothing on standard output"));
    };
    serde_json::from_str(last).map_err(|_| {
        Failure::permanent(format!(
            "`outputs: json`: neither standard output nor its last line is JSON ({whole}); it begins `{}`",
            start_of(&text)
        ))
    })
}

/// The pairs of a `TOL_OUTPUT` file: one JSON object, or lines `key=value` whose values are strings. Of two values for
/// one key the later counts.
///
/// # Errors
/// A permanent failure that names the line that is neither.
pub fn pairs_of(content: &[u8]) -> Result<Map<String, Value>, Failure> {
    let text = String::from_utf8_lossy(content);
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(&text)
            .map_err(|error| Failure::permanent(format!("TOL_OUTPUT begins as a JSON object, but is none: {error}")));
    }
    let mut pairs = Map::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match line.split_once('=') {
            Some((key, value)) if is_key(key) => {
                pairs.insert(key.to_owned(), Value::from(value));
            }
            Some(_) | None => {
                return Err(Failure::permanent(format!(
                    "TOL_OUTPUT, line {}: `{}` is no `key=value`; a key is letters, digits, `_`, `-` and `.`",
                    index + 1,
                    start_of(line)
                )));
            }
        }
    }
    Ok(pairs)
}

fn is_key(key: &str) -> bool {
    key.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && key.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.'))
}

/// Adds the pairs to the outputs as keys; a pair wins over a key that is there.
///
/// # Errors
/// A permanent failure if there are pairs beside JSON that is no object.
pub fn join(outputs: Value, pairs: Map<String, Value>) -> Result<Value, Failure> {
    if pairs.is_empty() {
        return Ok(outputs);
    }
    let kind = match outputs {
        Value::Object(mut keys) => {
            keys.extend(pairs);
            return Ok(Value::Object(keys));
        }
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
    };
    Err(Failure::permanent(format!(
        "the script wrote pairs to TOL_OUTPUT, but its JSON output is {kind}: pairs can only be added to an object"
    )))
}

/// The beginning of a text, on one line, for a message.
pub fn start_of(text: &str) -> String {
    let mut start = String::new();
    for (count, character) in text.trim().chars().enumerate() {
        if count == SHOWN_CHARACTERS {
            start.push('…');
            break;
        }
        start.push(if character.is_control() { ' ' } else { character });
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check_json(stdout: &str, expect: Result<Value, &str>) {
        match (json_of(stdout.as_bytes()), expect) {
            (Ok(value), Ok(expect)) => assert_eq!(value, expect),
            (Err(failure), Err(words)) => assert!(failure.message.contains(words), "{}", failure.message),
            (got, expect) => panic!("{got:?}, not {expect:?}"),
        }
    }

    #[test]
    fn json_is_all_of_the_output_or_its_last_line() {
        check_json("{\n \"a\": [1, {\"b\": null}]\n}\n", Ok(json!({"a": [1, {"b": null}]})));
        check_json("working…\n{\"ok\": true}\n\n  \n", Ok(json!({"ok": true})));
        check_json("3", Ok(json!(3)));
        check_json("9007199254740993", Ok(json!(9_007_199_254_740_993_u64)));
        check_json("a\n\"b\"\r\n", Ok(json!("b")));
        check_json(" \n", Err("printed nothing"));
        check_json("oak and elm", Err("begins `oak and elm`"));
        check_json(&"[".repeat(5000), Err("is JSON"));
    }

    fn check_pairs(content: &[u8], expect: Result<Value, &str>) {
        match (pairs_of(content), expect) {
            (Ok(pairs), Ok(expect)) => assert_eq!(Value::Object(pairs), expect),
            (Err(failure), Err(words)) => assert!(failure.message.contains(words), "{}", failure.message),
            (got, expect) => panic!("{got:?}, not {expect:?}"),
        }
    }

    #[test]
    fn pairs_have_two_forms() {
        check_pairs(b"", Ok(json!({})));
        check_pairs(b"colour=green\n\ncount=3\r\n", Ok(json!({"colour": "green", "count": "3"})));
        check_pairs(b"a=1\na=2=3\nb=", Ok(json!({"a": "2=3", "b": ""})));
        check_pairs(b" {\"count\": 3}\n", Ok(json!({"count": 3})));
        check_pairs(b"{\"count\": 3}\n{}", Err("begins as a JSON object"));
        check_pairs(b"a=1\nno pair\n", Err("line 2: `no pair` is no `key=value`"));
        check_pairs(b"=1", Err("line 1"));
        check_pairs(b"a b=1", Err("line 1"));
        check_pairs(b"a=\xff", Ok(json!({"a": "\u{FFFD}"})));
    }

    #[test]
    fn pairs_are_added_to_objects_only() {
        let pairs = || pairs_of(b"b=2").unwrap();
        assert_eq!(join(json!({"a": 1, "b": 1}), pairs()), Ok(json!({"a": 1, "b": "2"})));
        assert_eq!(join(json!([1]), Map::new()), Ok(json!([1])));
        assert!(join(json!([1]), pairs()).unwrap_err().message.contains("a list"));
    }

    #[test]
    fn text_loses_one_newline() {
        assert_eq!(text_of(b"one\n\n"), "one\n");
        assert_eq!(text_of(b"one"), "one");
        assert_eq!(text_of(b"\xff\n"), "\u{FFFD}");
    }
}
