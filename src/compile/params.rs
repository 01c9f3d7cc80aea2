//! A run's parameters: defaults filled in, every value held against its schema; and other values against theirs.

use serde_json::{Map, Value};

use super::CompiledPipeline;
use super::input_check::faults;
use crate::diagnostic::nearest;

/// The key of an object that names a secret: its value is not known here, so only its being there can be checked.
const SECRET_KEY: &str = "$secret";

/// Fills in what was not given and checks all of it.
///
/// # Errors
/// One sentence for each parameter that is unknown, missing or does not fit.
pub fn complete_params(
    pipeline: &CompiledPipeline,
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<String>> {
    let mut params = Map::new();
    let mut problems = Vec::new();
    for (name, param) in &pipeline.pipeline.params {
        let default = param.default.as_ref();
        let Some(value) = given.shift_remove(&**name).or_else(|| default.map(|default| default.value.clone())) else {
            let what = param.description.as_deref().map_or(String::new(), |words| format!(" ({words})"));
            problems.push(format!("parameter `{name}` is missing{what}; give it with --param {name}=…"));
            continue;
        };
        if value.get(SECRET_KEY).is_none() {
            problems.extend(
                faults(&param.schema, &value)
                    .into_iter()
                    .map(|fault| format!("parameter `{name}`: {}", fault.in_words())),
            );
        }
        params.insert(name.to_string(), value);
    }
    problems
        .extend(given.keys().map(|name| format!("`{name}` is not a parameter of `{}`", pipeline.pipeline.name.value)));
    if problems.is_empty() { Ok(params) } else { Err(problems) }
}

/// All parameters of a run: those that are given, then those of the texts `NAME=VALUE`, each read by the parameter's
/// type, then the defaults.
///
/// # Errors
/// One sentence for each parameter that is unknown, missing or of the wrong form.
pub fn read_params(
    pipeline: &CompiledPipeline,
    texts: &[String],
    mut given: Map<String, Value>,
) -> Result<Map<String, Value>, Vec<String>> {
    let mut problems = Vec::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=') else {
            problems.push(format!("--param {text}: expected NAME=VALUE"));
            continue;
        };
        match pipeline.pipeline.params.get(name) {
            Some(param) => match read_text(value, &param.schema) {
                Ok(value) => {
                    given.insert(name.to_owned(), value);
                }
                Err(problem) => problems.push(format!("parameter `{name}`: {problem}")),
            },
            None => problems.push(unknown(pipeline, name)),
        }
    }
    for name in given.keys().filter(|name| !pipeline.pipeline.params.contains_key(name.as_str())) {
        problems.push(unknown(pipeline, name));
    }
    given.retain(|name, _| pipeline.pipeline.params.contains_key(name.as_str()));
    match complete_params(pipeline, given) {
        Ok(params) if problems.is_empty() => return Ok(params),
        Ok(_) => {}
        Err(more) => {
            let is_new = |problem: &String| problems.iter().all(|known| !same_parameter(known, problem));
            let more: Vec<String> = more.into_iter().filter(is_new).collect();
            problems.extend(more);
        }
    }
    Err(problems)
}

/// True if two problems are about one parameter: the first one told is enough.
fn same_parameter(one: &str, other: &str) -> bool {
    let name = |problem: &str| problem.split('`').nth(1).map(str::to_owned);
    name(one).is_some() && name(one) == name(other)
}

fn unknown(pipeline: &CompiledPipeline, name: &str) -> String {
    let names = || pipeline.pipeline.params.keys().map(|name| &**name);
    match nearest(name, names()) {
        Some(near) => format!("`{name}` is not a parameter of this pipeline; did you mean `{near}`?"),
        None if pipeline.pipeline.params.is_empty() => format!("`{name}` is not a parameter: this pipeline takes none"),
        None => {
            format!("`{name}` is not a parameter of this pipeline; it takes {}", names().collect::<Vec<_>>().join(", "))
        }
    }
}

/// Reads a text as the type that a schema names; a string stays as it is.
fn read_text(text: &str, schema: &Value) -> Result<Value, String> {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let json = || serde_json::from_str::<Value>(text);
    match types.as_slice() {
        ["string"] => Ok(Value::String(text.to_owned())),
        ["integer"] => text.trim().parse::<i64>().map(Value::from).map_err(|_| format!("`{text}` is no integer")),
        ["number"] => match json() {
            Ok(value @ Value::Number(_)) => Ok(value),
            _ => Err(format!("`{text}` is no number")),
        },
        ["boolean"] => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("`{text}` is neither true nor false")),
        },
        ["array"] | ["object"] => json().map_err(|error| format!("`{text}` is no JSON: {error}")),
        // Several types, or none: JSON if it is any, else text, as long as the schema may take text.
        _ => Ok(json().unwrap_or_else(|_| Value::String(text.to_owned()))),
    }
}

/// Holds a value against a JSON Schema.
///
/// # Errors
/// What does not fit, in one line.
pub fn hold_against(schema: &Value, value: &Value) -> Result<(), String> {
    let faults = faults(schema, value);
    if faults.is_empty() {
        return Ok(());
    }
    Err(faults.iter().map(super::input_check::Fault::in_words).collect::<Vec<_>>().join("; "))
}

/// The JSON Schema of a blueprint, as a planner is told it.
pub fn blueprint_schema() -> Value {
    serde_json::from_str(crate::schema::schema_text(crate::schema::DocumentKind::Blueprint)).unwrap_or_default()
}
