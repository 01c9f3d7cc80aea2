//! The JSON Schemas that users write inside documents: parameters, inputs of tools, answers of agents.
//!
//! They are compiled by the `jsonschema` crate: offline, draft 2020-12, patterns matched in linear time.

use serde_json::Value;

use super::codes;
use super::documents::{DocumentKind, schema};
use super::walk::{At, Subject, Walker};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::yaml::{Node, Yaml};

/// Why a JSON Schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SchemaFault {
    /// JSON pointer to the part that is at fault.
    pub pointer: String,
    pub message: String,
    /// True if a regular expression is at fault.
    pub pattern: bool,
}

/// Compiles a JSON Schema of draft 2020-12 without touching the network; patterns run in linear time.
pub fn compile_schema(schema: &Value) -> Result<jsonschema::Validator, SchemaFault> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .offline()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
        .map_err(|error| fault(schema, &error))
}

fn fault(schema: &Value, error: &jsonschema::ValidationError<'_>) -> SchemaFault {
    let pointer = error.instance_path().as_str().to_owned();
    if let jsonschema::error::ValidationErrorKind::Format { format } = error.kind()
        && format == "regex"
    {
        let pattern = schema.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
        return SchemaFault { message: pattern_message(pattern), pointer, pattern: true };
    }
    if let jsonschema::error::ValidationErrorKind::Referencing(_) = error.kind() {
        let message = "a `$ref` of this schema leads nowhere; only references into the schema itself are followed";
        return SchemaFault { message: message.to_owned(), pointer, pattern: false };
    }
    SchemaFault { message: format!("this is no JSON Schema of draft 2020-12: {error}"), pointer, pattern: false }
}

fn pattern_message(pattern: &str) -> String {
    let looks_around = ["(?=", "(?!", "(?<=", "(?<!"].iter().any(|start| pattern.contains(start));
    let refers_back = pattern.as_bytes().windows(2).any(|pair| matches!(pair, [b'\\', b'1'..=b'9']));
    if looks_around {
        format!("the pattern `{pattern}` looks around, which cannot be matched in linear time")
    } else if refers_back {
        format!("the pattern `{pattern}` refers back, which cannot be matched in linear time")
    } else {
        match regex::Regex::new(pattern) {
            Err(regex::Error::CompiledTooBig(_)) => "this pattern is too large when it is compiled".to_owned(),
            Err(_) | Ok(_) => format!("`{pattern}` is no regular expression"),
        }
    }
}

/// Checks every JSON Schema of a document, and the defaults of parameters against theirs.
pub(super) fn check_embedded(kind: DocumentKind, node: &Node, out: &mut Vec<Diagnostic>) {
    let mut pass = Pass { faulty: out.iter().map(|diagnostic| diagnostic.span).collect(), out };
    match kind {
        DocumentKind::Pipeline => {
            for entry in entries(node, "params") {
                pass.check(&entry.node, true);
            }
            pass.check_tools(node);
            for list in ["steps", "finally"] {
                for step in node.get(list).map(Node::items).unwrap_or_default() {
                    pass.check_step(step);
                }
            }
            for hook in entries(node, "hooks").iter().flat_map(|entry| entry.node.items()) {
                pass.check_step(hook);
            }
            pass.check_templates(node);
        }
        DocumentKind::Include => {
            pass.check_tools(node);
            pass.check_templates(node);
        }
        DocumentKind::Agents => pass.check_tools(node),
        DocumentKind::Settings | DocumentKind::Blueprint | DocumentKind::Test => {}
    }
}

fn entries<'n>(node: &'n Node, key: &str) -> &'n [crate::yaml::Entry] {
    node.get(key).map(Node::entries).unwrap_or_default()
}

struct Pass<'o> {
    /// Where mistakes were found already: a schema with one is not looked at again.
    faulty: Vec<Span>,
    out: &'o mut Vec<Diagnostic>,
}

impl Pass<'_> {
    fn check_tools(&mut self, document: &Node) {
        for tool in entries(document, "tools") {
            if let Some(schema) = tool.node.get("input_schema") {
                self.check(schema, false);
            }
        }
    }

    fn check_templates(&mut self, document: &Node) {
        for template in entries(document, "templates") {
            self.check_step(&template.node);
        }
    }

    fn check_step(&mut self, step: &Node) {
        for entry in step.entries() {
            match &*entry.key {
                "schema" => self.check(&entry.node, false),
                "fallback" => self.check_step(&entry.node),
                _ => {}
            }
        }
    }

    fn check(&mut self, node: &Node, is_param: bool) {
        if !matches!(node.value, Yaml::Map(_)) {
            return;
        }
        let inside =
            |span: &Span| span.file == node.span.file && node.span.start <= span.start && span.end <= node.span.end;
        if self.faulty.iter().any(inside) {
            return;
        }
        warn_of_unknown_keywords(node, self.out);
        let default = node.entry("default").filter(|_| is_param);
        let value = node.to_json();
        if default.is_none() && !needs_compiling(&value) {
            return;
        }
        if is_plain(&value) {
            if let Some(default) = default {
                self.out.append(&mut explain_default(&value, &default.node));
            }
            return;
        }
        match compile_schema(&value) {
            Err(fault) => self.out.push(fault_diagnostic(&fault, node)),
            Ok(validator) => {
                if let Some(default) = default {
                    check_default(&validator, &value, &default.node, self.out);
                }
            }
        }
    }
}

fn fault_diagnostic(fault: &SchemaFault, node: &Node) -> Diagnostic {
    let at = find_pointer(node, &fault.pointer).unwrap_or(node);
    if fault.pattern {
        let help = "write it without look-around and back-references";
        return Diagnostic::error(codes::BAD_PATTERN, at.span, fault.message.clone()).help(help);
    }
    let at = if fault.pointer.is_empty() { find_reference(at).unwrap_or(at) } else { at };
    Diagnostic::error(codes::BAD_SCHEMA, at.span, fault.message.clone())
}

/// The first `$ref` that does not point into the schema itself.
fn find_reference(node: &Node) -> Option<&Node> {
    let own = node.get("$ref").filter(|reference| reference.as_str().is_some_and(|text| !text.starts_with("#/$defs/")));
    own.or_else(|| node.entries().iter().find_map(|entry| find_reference(&entry.node)))
        .or_else(|| node.items().iter().find_map(find_reference))
}

/// The node that a JSON pointer names.
pub(super) fn find_pointer<'n>(node: &'n Node, pointer: &str) -> Option<&'n Node> {
    let mut node = node;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        node = match &node.value {
            Yaml::List(items) => items.get(token.parse::<usize>().ok()?)?,
            Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::String(_) | Yaml::Map(_) => {
                node.get(&token)?
            }
        };
    }
    Some(node)
}

fn check_default(validator: &jsonschema::Validator, schema: &Value, default: &Node, out: &mut Vec<Diagnostic>) {
    let value = default.to_json();
    if validator.is_valid(&value) {
        return;
    }
    let mut found = explain_default(schema, default);
    if found.is_empty() {
        found.extend(validator.iter_errors(&value).take(8).map(|error| {
            let at = find_pointer(default, error.instance_path().as_str()).unwrap_or(default);
            Diagnostic::error(codes::BAD_DEFAULT, at.span, format!("the default does not fit: {error}"))
        }));
    }
    out.append(&mut found);
}

/// Holds a default against its schema with the evaluator of published schemas, which knows what to say.
pub(super) fn explain_default(schema: &Value, default: &Node) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut walker = Walker::new(schema, &mut found);
    walker.check(schema, default, At { subject: Subject::Key("default"), place: "" });
    for diagnostic in &mut found {
        diagnostic.code = codes::BAD_DEFAULT;
        diagnostic.help.get_or_insert_with(|| "the default must fit the schema of its own parameter".into());
    }
    found
}

/// True for a schema of everyday keywords. The evaluator decides over these alone: the first schema that the
/// `jsonschema` crate compiles costs 1.8 ms, a fifth of what a whole start may take.
pub(super) fn is_plain(schema: &Value) -> bool {
    let Some(keywords) = schema.as_object() else { return schema.is_boolean() };
    keywords.iter().all(|(keyword, value)| match keyword.as_str() {
        "title" | "description" | "default" | "examples" | "deprecated" | "$comment" | "format" => true,
        "type" | "enum" | "const" | "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => true,
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" | "required" => true,
        "items" | "additionalProperties" => is_plain(value),
        "properties" => value.as_object().is_some_and(|properties| properties.values().all(is_plain)),
        _ => false,
    })
}

/// True if a schema holds what only compiling it can check.
fn needs_compiling(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.iter().any(|(key, value)| {
            matches!(
                key.as_str(),
                "pattern" | "patternProperties" | "$ref" | "$dynamicRef" | "$schema" | "$id" | "$anchor"
            ) || needs_compiling(value)
        }),
        Value::Array(items) => items.iter().any(needs_compiling),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A misspelt keyword would be passed over in silence, as the standard wants; here it is a warning.
fn warn_of_unknown_keywords(node: &Node, out: &mut Vec<Diagnostic>) {
    let Some(known) = schema(DocumentKind::Pipeline).pointer("/$defs/jsonSchema/properties").and_then(Value::as_object)
    else {
        return;
    };
    for entry in node.entries() {
        let key = &*entry.key;
        match key {
            "properties" | "patternProperties" | "$defs" | "dependentSchemas" => {
                entry.node.entries().iter().for_each(|entry| warn_of_unknown_keywords(&entry.node, out));
            }
            "items" | "additionalProperties" | "propertyNames" | "contains" | "not" | "if" | "then" | "else" => {
                warn_of_unknown_keywords(&entry.node, out);
            }
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => {
                entry.node.items().iter().for_each(|item| warn_of_unknown_keywords(item, out));
            }
            _ if known.contains_key(key) || key.starts_with("x-") || key.starts_with('$') => {}
            _ => {
                let help = match super::vocabulary::other("param", key) {
                    Some(super::vocabulary::Other::Key(right)) => Some(format!("write `{right}`")),
                    Some(super::vocabulary::Other::Advice(advice)) => Some(advice.to_owned()),
                    Some(super::vocabulary::Other::NotBuilt) | None => {
                        nearest(key, known.keys().map(String::as_str)).map(|word| format!("did you mean `{word}`?"))
                    }
                };
                let message = format!("`{key}` is no keyword of JSON Schema and has no effect");
                out.push(Diagnostic::warning(codes::UNKNOWN_KEYWORD, entry.key_span, message).maybe_help(help));
            }
        }
    }
}
