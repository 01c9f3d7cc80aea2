//! A run's parameters: defaults filled in, every value held against its schema; and other values against theirs.

use serde_json::{Map, Value};

use super::CompiledPipeline;
use super::input_check::faults;

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
