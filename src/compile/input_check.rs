//! JSON values held against JSON Schemas, with messages in the words of this program.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::report::did_you_mean;
use crate::model::Tool;

/// Mistakes of one value that are told; the rest of a hopeless value helps nobody.
const MOST_FAULTS: usize = 20;

/// One way in which a value does not match its schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where in the value, as a JSON pointer.
    pub pointer: String,
    /// For an unknown property: its name, below `pointer`.
    pub property: Option<String>,
    /// True if the schema looks at several parts at once (`anyOf`, `not`, …), so that a part nobody knows yet matters.
    pub composed: bool,
    pub message: String,
    pub help: Option<String>,
}

/// A schema made ready; `None` if it is no schema, which is said where it stands. Patterns run in linear time.
pub fn validator(schema: &Value) -> Option<Validator> {
    jsonschema::options().with_pattern_options(PatternOptions::regex()).build(schema).ok()
}

/// All faults of a value.
pub fn faults(schema: &Value, value: &Value) -> Vec<Fault> {
    validator(schema).map(|validator| faults_by(&validator, schema, value)).unwrap_or_default()
}

/// All faults of a value, by a validator that was made before.
pub fn faults_by(validator: &Validator, schema: &Value, value: &Value) -> Vec<Fault> {
    validator.iter_errors(value).take(MOST_FAULTS).flat_map(|error| describe(&error, schema)).collect()
}

/// Checks the filled-in input of a tool.
///
/// # Errors
/// What is wrong with it, in one sentence for each fault.
pub fn check_input(tool: &Tool, input: &Value) -> Result<(), String> {
    let faults = faults(&tool.input_schema, input);
    if faults.is_empty() {
        return Ok(());
    }
    let faults: Vec<String> = faults.into_iter().map(|fault| fault.in_words()).collect();
    Err(format!("the input of tool `{}` does not match its schema: {}", tool.name.value, faults.join("; ")))
}

impl Fault {
    /// Message, place and help in one line.
    pub fn in_words(&self) -> String {
        let place = if self.pointer.is_empty() {
            String::new()
        } else {
            format!("`{}`: ", self.pointer.trim_start_matches('/'))
        };
        match &self.help {
            Some(help) => format!("{place}{} ({help})", self.message),
            None => format!("{place}{}", self.message),
        }
    }
}

fn describe(error: &ValidationError<'_>, schema: &Value) -> Vec<Fault> {
    let fault = |message: String| Fault {
        pointer: error.instance_path().to_string(),
        property: None,
        composed: false,
        message,
        help: None,
    };
    match error.kind() {
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(kind) => kind.to_string(),
                TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or "),
            };
            vec![fault(format!("{} is not of type {wanted}", short(error.instance())))]
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![fault(format!("the property `{name}` is missing"))]
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = known_properties(schema, error.schema_path().as_str());
            let one = |name: &String| Fault {
                property: Some(name.clone()),
                help: did_you_mean(crate::diagnostic::nearest(name, known.iter().map(String::as_str))),
                ..fault(format!("there is no property `{name}`"))
            };
            unexpected.iter().map(one).collect()
        }
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().map(|options| options.iter().map(short).collect::<Vec<_>>().join(", "));
            vec![fault(format!("{} is none of {}", short(error.instance()), options.unwrap_or_default()))]
        }
        kind => {
            let composed = ["anyOf", "oneOf", "not", "contains", "uniqueItems", "if", "allOf", "dependentSchemas"]
                .contains(&kind.keyword());
            vec![Fault { composed, ..fault(error.to_string()) }]
        }
    }
}

/// The properties that the object schema at `…/additionalProperties` knows.
fn known_properties(schema: &Value, schema_path: &str) -> Vec<String> {
    let parent = schema_path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let object = schema.pointer(parent).and_then(|object| object.get("properties"));
    object.and_then(Value::as_object).map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
}

/// A value in a message: compact, and cut where it gets long.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
