//! The text dialect of ReWOO: `Plan: …` and `#E1 = Tool[input]`, read into the same JSON that planners may answer with.

use serde_json::{Map, Value, json};

use super::PlanRules;
use crate::model::Tool;

/// One `#E1 = Tool[` and what follows it.
struct Statement<'t> {
    id: &'t str,
    callee: &'t str,
    thought: Option<String>,
    /// The text behind the opening bracket, to the end of the answer.
    behind: &'t str,
}

/// Reads an answer in the dialect. `None` if it holds no statement at all.
///
/// # Errors
/// What is wrong with each statement.
pub fn parse(text: &str, rules: &PlanRules) -> Option<Result<Value, Vec<String>>> {
    let mut steps = Vec::new();
    let mut errors = Vec::new();
    let mut rest = text;
    let mut found = false;
    while let Some(statement) = next_statement(rest) {
        found = true;
        let (input, after) = match input_of(statement.behind) {
            Some(split) => split,
            None => {
                errors.push(format!(
                    "step `{}`: the input of `{}[` is not closed; its `]` must end a line",
                    statement.id, statement.callee
                ));
                rest = statement.behind;
                continue;
            }
        };
        match step_of(&statement, input, rules) {
            Ok(step) => steps.push(step),
            Err(error) => errors.push(error),
        }
        rest = after;
    }
    if !found {
        return None;
    }
    Some(if errors.is_empty() { Ok(json!({ "steps": steps })) } else { Err(errors) })
}

/// The next statement and the plan that stands before it.
fn next_statement(text: &str) -> Option<Statement<'_>> {
    let mut thought: Option<String> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        if let Some((id, callee, opening)) = head(line) {
            let behind = text.get(at + opening..)?;
            let thought = thought.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            return Some(Statement { id, callee, thought, behind });
        }
        let trimmed = line.trim_start();
        if let Some(plan) = strip_word(trimmed, "plan:") {
            thought = Some(plan.trim_end().to_owned());
        } else if let Some(thought) = &mut thought {
            let line = line.trim();
            if !line.is_empty() {
                thought.push(' ');
                thought.push_str(line);
            }
        }
        at = end;
    }
    None
}

fn strip_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| text.get(word.len()..)).flatten()
}

/// Id, callee and the offset behind the `[` of a line that opens a statement.
fn head(line: &str) -> Option<(&str, &str, usize)> {
    let start = line.len() - line.trim_start().len();
    let rest = line.get(start..)?.strip_prefix('#')?;
    let id_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (id, rest) = rest.split_at_checked(id_end)?;
    if !id.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let rest = rest.trim_start().strip_prefix('=')?;
    let bracket = rest.find('[')?;
    let callee = rest.get(..bracket)?.trim();
    if callee.is_empty() || callee.contains(['=', '#', '\n']) {
        return None;
    }
    let opening = line.len() - rest.len() + bracket + 1;
    Some((id, callee, opening))
}

/// The input up to its closing bracket, and what stands behind that. The bracket balances the opening one and ends
/// its line but for blanks; where no bracket balances, the last one that ends a line before the next statement counts.
fn input_of(behind: &str) -> Option<(&str, &str)> {
    let mut depth = 1usize;
    for (at, c) in behind.char_indices() {
        match c {
            '[' => depth += 1,
            ']' if depth > 1 => depth -= 1,
            ']' if ends_line(behind, at) => return behind.get(..at).zip(behind.get(at + 1..)),
            _ => {}
        }
    }
    let block = block_of(behind);
    let last = block.char_indices().rfind(|(at, c)| *c == ']' && ends_line(block, *at));
    let (at, _) = last?;
    behind.get(..at).zip(behind.get(at + 1..))
}

/// True if only blanks and a carriage return stand between a bracket and the end of its line.
fn ends_line(text: &str, bracket: usize) -> bool {
    let rest = text.get(bracket + 1..).unwrap_or_default();
    let line = rest.split('\n').next().unwrap_or_default();
    line.chars().all(char::is_whitespace)
}

/// The text before the next plan or statement.
fn block_of(text: &str) -> &str {
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if number > 0 && (head(line).is_some() || strip_word(line.trim_start(), "plan:").is_some()) {
            return text.get(..at).unwrap_or(text);
        }
        at += line.len();
    }
    text
}

/// A statement as a step of the JSON form.
fn step_of(statement: &Statement<'_>, input: &str, rules: &PlanRules) -> Result<Value, String> {
    let mut step = Map::new();
    step.insert("id".to_owned(), json!(statement.id));
    if let Some(thought) = &statement.thought {
        step.insert("thought".to_owned(), json!(thought));
    }
    let (key, name, tool) = callee_of(statement.callee, rules);
    step.insert(key.to_owned(), json!(name));
    let input = match tool {
        Some(tool) => input_value(tool, input).map_err(|error| format!("step `{}`: {error}", statement.id))?,
        None => object_of(input).unwrap_or_else(|| json!({ "text": input.trim() })),
    };
    step.insert("input".to_owned(), input);
    Ok(Value::Object(step))
}

/// What a name means: a tool by its exact name or, where only one fits, whatever its case; then an agent likewise. A
/// name that is neither stays as it is, and the checks call it unknown.
fn callee_of<'r>(name: &'r str, rules: &'r PlanRules) -> (&'static str, &'r str, Option<&'r Tool>) {
    if let Some(tool) = rules.tools.get(name) {
        return ("tool", name, Some(tool));
    }
    if rules.agents.contains_key(name) {
        return ("agent", name, None);
    }
    let mut like = rules.tools.iter().filter(|(tool, _)| tool.eq_ignore_ascii_case(name));
    if let (Some((tool_name, tool)), None) = (like.next(), like.next()) {
        return ("tool", tool_name, Some(tool));
    }
    let mut like = rules.agents.keys().filter(|agent| agent.eq_ignore_ascii_case(name));
    match (like.next(), like.next()) {
        (Some(agent), None) => ("agent", agent, None),
        _ => ("tool", name, None),
    }
}

/// The input as an object, if it is one.
fn object_of(input: &str) -> Option<Value> {
    serde_json::from_str(input.trim()).ok().filter(Value::is_object)
}

/// An object is the input itself; any other text goes to the only property that the tool requires.
fn input_value(tool: &Tool, input: &str) -> Result<Value, String> {
    if let Some(object) = object_of(input) {
        return Ok(object);
    }
    let required = tool.input_schema.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    match (required.next(), required.next()) {
        (Some(name), None) => {
            let schema = tool.input_schema.get("properties").and_then(|properties| properties.get(name));
            let value = typed(schema, input);
            Ok(Value::Object(Map::from_iter([(name.to_owned(), value)])))
        }
        (None, _) if input.trim().is_empty() => Ok(json!({})),
        _ => Err(format!(
            "tool `{}` takes no single text; write its input as a JSON object: {}[{{…}}]",
            tool.name.value, tool.name.value
        )),
    }
}

/// The text, or the number or boolean that it spells where the property wants one.
fn typed(schema: Option<&Value>, input: &str) -> Value {
    let kind = schema.and_then(|schema| schema.get("type")).and_then(Value::as_str);
    let parsed = match kind {
        Some("integer" | "number" | "boolean" | "array") => serde_json::from_str::<Value>(input.trim()).ok(),
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::String(input.to_owned()))
}
