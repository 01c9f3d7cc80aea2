//! The keywords of one schema, found in one pass: a hash lookup for each keyword that a schema might have took two
//! thirds of the time of checking a document.

use serde_json::{Map, Value};

/// What a schema says; nothing for what it does not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Keywords<'a> {
    pub(super) additional_properties: Option<&'a Value>,
    pub(super) all_of: Option<&'a [Value]>,
    pub(super) any_of: Option<&'a [Value]>,
    pub(super) condition: Option<&'a Value>,
    pub(super) constant: Option<&'a Value>,
    pub(super) dependent_required: Option<&'a Map<String, Value>>,
    pub(super) dependent_schemas: Option<&'a Map<String, Value>>,
    pub(super) examples: Option<&'a Value>,
    pub(super) exclusive_maximum: Option<&'a Value>,
    pub(super) exclusive_minimum: Option<&'a Value>,
    pub(super) items: Option<&'a Value>,
    pub(super) max_items: Option<f64>,
    pub(super) max_length: Option<f64>,
    pub(super) max_properties: Option<f64>,
    pub(super) maximum: Option<&'a Value>,
    pub(super) min_items: Option<f64>,
    pub(super) min_length: Option<f64>,
    pub(super) min_properties: Option<f64>,
    pub(super) minimum: Option<&'a Value>,
    pub(super) multiple_of: Option<f64>,
    pub(super) not: Option<&'a Value>,
    pub(super) one_of: Option<&'a [Value]>,
    pub(super) otherwise: Option<&'a Value>,
    pub(super) pattern: Option<&'a str>,
    pub(super) pattern_properties: Option<&'a Map<String, Value>>,
    pub(super) prefix_items: Option<&'a [Value]>,
    pub(super) properties: Option<&'a Map<String, Value>>,
    pub(super) property_names: Option<&'a Value>,
    pub(super) required: Option<&'a [Value]>,
    pub(super) then: Option<&'a Value>,
    pub(super) types: Option<&'a Value>,
    pub(super) unique_items: bool,
    pub(super) values: Option<&'a [Value]>,
}

impl<'a> Keywords<'a> {
    /// Reads the keywords of a schema.
    pub(super) fn of(schema: &'a Map<String, Value>) -> Self {
        let mut keywords = Self::default();
        for (keyword, value) in schema {
            let list = || value.as_array().map(Vec::as_slice);
            let number = || Some(value).filter(|value| value.is_number());
            match keyword.as_str() {
                "additionalProperties" => keywords.additional_properties = Some(value),
                "allOf" => keywords.all_of = list(),
                "anyOf" => keywords.any_of = list(),
                "const" => keywords.constant = Some(value),
                "dependentRequired" => keywords.dependent_required = value.as_object(),
                "dependentSchemas" => keywords.dependent_schemas = value.as_object(),
                "else" => keywords.otherwise = Some(value),
                "enum" => keywords.values = list(),
                "examples" => keywords.examples = Some(value),
                "exclusiveMaximum" => keywords.exclusive_maximum = number(),
                "exclusiveMinimum" => keywords.exclusive_minimum = number(),
                "if" => keywords.condition = Some(value),
                "items" => keywords.items = Some(value),
                "maxItems" => keywords.max_items = value.as_f64(),
                "maxLength" => keywords.max_length = value.as_f64(),
                "maxProperties" => keywords.max_properties = value.as_f64(),
                "maximum" => keywords.maximum = number(),
                "minItems" => keywords.min_items = value.as_f64(),
                "minLength" => keywords.min_length = value.as_f64(),
                "minProperties" => keywords.min_properties = value.as_f64(),
                "minimum" => keywords.minimum = number(),
                "multipleOf" => keywords.multiple_of = value.as_f64().filter(|step| *step > 0.0),
                "not" => keywords.not = Some(value),
                "oneOf" => keywords.one_of = list(),
                "pattern" => keywords.pattern = value.as_str(),
                "patternProperties" => keywords.pattern_properties = value.as_object(),
                "prefixItems" => keywords.prefix_items = list(),
                "properties" => keywords.properties = value.as_object(),
                "propertyNames" => keywords.property_names = Some(value),
                "required" => keywords.required = list(),
                "then" => keywords.then = Some(value),
                "type" => keywords.types = Some(value),
                "uniqueItems" => keywords.unique_items = *value == Value::Bool(true),
                _ => {}
            }
        }
        keywords
    }
}
