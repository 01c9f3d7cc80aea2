//! `provider: command`: a local program that takes one JSON object on standard input and answers on standard output.
//!
//! This is the form of both, version 1. Starting the program is the handler's.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::llm::Answer;
use crate::task::{AgentCall, AgentPhase, Failure, ToolCard, Usage};

/// The version of the request.
const VERSION: u32 = 1;
/// The exit code by which a program says that another try may help (`EX_TEMPFAIL`).
pub const TEMPORARY_EXIT_CODE: i32 = 75;
/// The largest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 10 * 1024 * 1024;

#[derive(Serialize)]
struct Request<'a> {
    version: u32,
    agent: &'a str,
    phase: AgentPhase,
    system_prompt: &'a str,
    prompt: &'a str,
    input: &'a Value,
    schema: &'a Option<Value>,
    tools: &'a [ToolCard],
    limits: Limits,
    deadline_ms: Option<u64>,
    idempotency_key: &'a str,
}

#[derive(Serialize)]
struct Limits {
    max_tokens: u64,
}

/// The request as it is written to the program. `deadline_ms` is how long it has from now.
pub fn request(call: &AgentCall, idempotency_key: &str, deadline_ms: Option<u64>) -> Vec<u8> {
    let request = Request {
        version: VERSION,
        agent: &call.agent,
        phase: call.phase,
        system_prompt: &call.system_prompt,
        prompt: &call.prompt,
        input: &call.input,
        schema: &call.schema,
        tools: &call.tools,
        limits: Limits { max_tokens: call.max_tokens },
        deadline_ms,
        idempotency_key,
    };
    // Nothing in a request can fail to be written as JSON: its keys are strings and its numbers come from JSON.
    let mut bytes = serde_json::to_vec(&request).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// What the program's standard output means: a JSON object with one of the keys `version`, `output` and `usage` is an
/// answer in parts, everything else is text.
///
/// # Errors
/// A permanent failure if the parts are not of their types.
pub fn answer(stdout: &[u8]) -> Result<Answer, Failure> {
    let text = String::from_utf8_lossy(stdout);
    if text.trim_start().starts_with('{')
        && let Ok(parts) = serde_json::from_str::<Map<String, Value>>(&text)
        && ["version", "output", "usage"].iter().any(|key| parts.contains_key(*key))
    {
        return parts_of(parts);
    }
    Ok(Answer { text: Some(text.strip_suffix('\n').unwrap_or(&text).to_owned()), output: None, usage: None })
}

fn parts_of(mut parts: Map<String, Value>) -> Result<Answer, Failure> {
    let wrong = |what: &str| Failure::permanent(format!("the agent's answer: {what}"));
    let text = match parts.remove("text") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(_) => return Err(wrong("`text` is not a string")),
    };
    let usage = match parts.remove("usage") {
        None | Some(Value::Null) => None,
        Some(Value::Object(counts)) => {
            let count = |key: &str| match counts.get(key) {
                None | Some(Value::Null) => Ok(0),
                Some(count) => count.as_u64().ok_or_else(|| wrong(&format!("`usage.{key}` is not a number of tokens"))),
            };
            Some(Usage { input_tokens: count("input_tokens")?, output_tokens: count("output_tokens")? })
        }
        Some(_) => return Err(wrong("`usage` is not an object")),
    };
    let output = parts.remove("output").filter(|output| !output.is_null());
    Ok(Answer { text, output, usage })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(text: &str) -> Answer {
        Answer { text: Some(text.to_owned()), ..Answer::default() }
    }

    fn check(stdout: &[u8], expect: Result<Answer, &str>) {
        match (answer(stdout), expect) {
            (Ok(answer), Ok(expect)) => assert_eq!(answer, expect),
            (Err(failure), Err(words)) => assert!(failure.message.contains(words), "{}", failure.message),
            (got, expect) => panic!("{got:?}, not {expect:?}"),
        }
    }

    #[test]
    fn an_answer_has_two_forms() {
        check(b"plain words\n\n", Ok(text("plain words\n")));
        check(b"", Ok(text("")));
        check(b"{\"text\": \"no mark\"}\n", Ok(text("{\"text\": \"no mark\"}")));
        check(b"{\"output\": broken", Ok(text("{\"output\": broken")));
        check(b"[{\"output\": 1}]", Ok(text("[{\"output\": 1}]")));
        check(b"```json\n{\"output\": 1}\n```\n", Ok(text("```json\n{\"output\": 1}\n```")));
        check(b"ye\xff", Ok(text("ye\u{FFFD}")));
        check(b" {\"version\": 1, \"text\": \"hi\"}\n", Ok(text("hi")));
        let usage = Some(Usage { input_tokens: 10, output_tokens: 5 });
        check(
            br#"{"text":null,"output":{"a":[1]},"usage":{"input_tokens":10,"output_tokens":5}}"#,
            Ok(Answer { text: None, output: Some(json!({"a": [1]})), usage }),
        );
        check(br#"{"output":null,"text":"t"}"#, Ok(text("t")));
        check(br#"{"output":1,"text":[]}"#, Err("`text` is not a string"));
        check(br#"{"usage":{"input_tokens":-1}}"#, Err("`usage.input_tokens`"));
    }
}
