//! Parameters from the command line, read by each parameter's type.

use std::path::Path;

use serde_json::{Map, Value};

use super::exit::Failure;
use crate::compile::{CompiledPipeline, complete_params};
use crate::diagnostic::nearest;

/// All parameters of a run: those of the file, then those of the flags, then the defaults.
///
/// # Errors
/// Exit code 2 with every parameter that is unknown, missing or of the wrong form, named.
pub fn read(pipeline: &CompiledPipeline, flags: &[String], file: Option<&Path>) -> Result<Map<String, Value>, Failure> {
    let mut given = match file {
        Some(file) => read_file(file)?,
        None => Map::new(),
    };
    let mut problems = Vec::new();
    for flag in flags {
        let Some((name, text)) = flag.split_once('=') else {
            problems.push(format!("--param {flag}: expected NAME=VALUE"));
            continue;
        };
        match pipeline.pipeline.params.get(name) {
            Some(param) => match read_text(text, &param.schema) {
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
        Err(more) => problems.extend(
            more.into_iter()
                .filter(|problem| problems.iter().all(|known| !same_parameter(known, problem)))
                .collect::<Vec<_>>(),
        ),
    }
    Err(Failure::invalid(format!("{}: {}", pipeline.pipeline.path, problems.join("\n       "))))
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

fn read_file(file: &Path) -> Result<Map<String, Value>, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))?;
    let value: Value =
        serde_yaml::from_str(&text).map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))?;
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(Failure::invalid(format!("{}: expected a mapping of parameters", file.display()))),
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
