//! What a planner answered, as a checked blueprint or as all that is wrong with it, in words that it can be told.

use serde_json::Value;

use super::{BlueprintFault, FaultPlace, PlanRules, compile, dialect};
use crate::compile::CompiledBlueprint;
use crate::diagnostic::renew_comparisons;
use crate::model::{Blueprint, blueprint_from_json};

/// Reads an agent's answer, `{"text": …, "output": …|null}`, and checks it against the rules of its plan. JSON goes
/// first: the output, a text that is JSON, one fenced block. Then the text dialect, then one `{…}` within prose.
///
/// # Errors
/// Every mistake, each with the id of its step.
pub fn blueprint_from_answer(answer: &Value, rules: &PlanRules) -> Result<CompiledBlueprint, Vec<String>> {
    renew_comparisons();
    let json = json_of(answer, rules)?;
    let blueprint = blueprint_from_json(&json)?;
    let (compiled, faults) = compile(blueprint, rules, &|_| false);
    if faults.is_empty() {
        return Ok(compiled);
    }
    Err(faults.iter().map(|fault| in_words(fault, &compiled.blueprint)).collect())
}

fn in_words(fault: &BlueprintFault, blueprint: &Blueprint) -> String {
    let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    let step = fault.place.step().and_then(|step| blueprint.steps.get(step));
    let place = match (&fault.place, step) {
        (FaultPlace::Input { pointer, .. }, Some(step)) if !pointer.is_empty() => {
            format!("step `{}`, input `{}`: ", step.id.value, pointer.trim_start_matches('/'))
        }
        (_, Some(step)) => format!("step `{}`: ", step.id.value),
        (_, None) => String::new(),
    };
    format!("{place}{}{help}", fault.message)
}

/// The answer's blueprint as JSON, whichever form it came in.
fn json_of(answer: &Value, rules: &PlanRules) -> Result<Value, Vec<String>> {
    match answer.get("output") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) => return json_of_text(text, rules),
        Some(output) => return Ok(unwrap(output)),
    }
    match answer.get("text").and_then(Value::as_str) {
        Some(text) => json_of_text(text, rules),
        None => Err(vec!["the answer has neither `text` nor `output`".to_owned()]),
    }
}

/// Some planners wrap the steps once more, `{"blueprint": {"steps": …}}`, or give the bare list.
fn unwrap(output: &Value) -> Value {
    match output {
        Value::Array(_) => serde_json::json!({ "steps": output }),
        Value::Object(map) if !map.contains_key("steps") => match map.get("blueprint").or_else(|| map.get("plan")) {
            Some(inner @ Value::Object(_)) => inner.clone(),
            _ => output.clone(),
        },
        other => other.clone(),
    }
}

fn json_of_text(text: &str, rules: &PlanRules) -> Result<Value, Vec<String>> {
    let trimmed = text.trim_start_matches('\u{feff}').trim();
    if trimmed.is_empty() {
        return Err(vec!["the answer is empty".to_owned()]);
    }
    let whole = serde_json::from_str::<Value>(trimmed);
    if let Ok(value @ (Value::Object(_) | Value::Array(_))) = &whole {
        return Ok(unwrap(value));
    }
    if let Some(fenced) = fenced(trimmed) {
        return Ok(unwrap(&fenced));
    }
    if let Some(steps) = dialect::parse(trimmed, rules) {
        return steps;
    }
    let single = trimmed.find('{').zip(trimmed.rfind('}')).and_then(|(start, end)| trimmed.get(start..=end));
    if let Some(Ok(value @ Value::Object(_))) = single.map(serde_json::from_str::<Value>) {
        return Ok(unwrap(&value));
    }
    let why = match whole {
        Err(error) if trimmed.starts_with(['{', '[']) => format!(" (as JSON: {error})"),
        Ok(_) | Err(_) => String::new(),
    };
    Err(vec![format!(
        "the answer is no blueprint: give JSON, {{\"steps\": [{{\"id\", \"tool\", \"input\"}}]}}, or lines of \
         `Plan: …` and `#E1 = tool[input]`{why}"
    )])
}

/// The JSON of the only fenced block that holds an object or a list.
fn fenced(text: &str) -> Option<Value> {
    let mut blocks = Vec::new();
    let mut open: Option<usize> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            match open.take() {
                Some(start) => blocks.extend(text.get(start..at)),
                None => open = Some(at + line.len()),
            }
        }
        at += line.len();
    }
    let mut values = blocks.into_iter().filter_map(|block| serde_json::from_str::<Value>(block.trim()).ok());
    let mut structured = values.by_ref().filter(|value| value.is_object() || value.is_array());
    match (structured.next(), structured.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}
