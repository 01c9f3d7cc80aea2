//! The evaluator and the `jsonschema` crate accept the same documents: over examples of all kinds, and over what becomes
//! of them when one place is changed.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::documents::{DocumentKind, schema};
use super::{compile_schema, forms, walk};
use crate::diagnostic::{FileId, Span};
use crate::yaml::{Entry, Node, Yaml};

/// A tree whose every node has a place of its own, so that nothing is taken for an alias.
fn tree(value: &Value, next: &mut u32) -> Node {
    *next += 2;
    let span = Span { file: FileId(0), start: *next, end: *next + 1 };
    let value = match value {
        Value::Null => Yaml::Null,
        Value::Bool(value) => Yaml::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => Yaml::Int(value),
            None => Yaml::Float(number.as_f64().unwrap()),
        },
        Value::String(text) => Yaml::String(text.as_str().into()),
        Value::Array(items) => Yaml::List(items.iter().map(|item| tree(item, next)).collect()),
        Value::Object(map) => Yaml::Map(
            map.iter()
                .map(|(key, value)| {
                    *next += 2;
                    let key_span = Span { file: FileId(0), start: *next, end: *next + 1 };
                    Entry { key: key.as_str().into(), key_span, node: tree(value, next) }
                })
                .collect(),
        ),
    };
    Node { span, value }
}

/// Holds one document against both; they must agree.
fn check(kind: DocumentKind, validator: &jsonschema::Validator, document: &Value) {
    let node = tree(document, &mut 0);
    let mut found = Vec::new();
    walk::check_document(kind, &node, &mut found);
    assert_eq!(
        found.is_empty(),
        validator.is_valid(document),
        "{kind:?} {document}\nours: {found:#?}\ntheirs: {:#?}",
        validator.iter_errors(document).map(|error| error.to_string()).collect::<Vec<_>>()
    );
}

/// Calls with every version of a document in which one place is another value, or is gone, or has a further key.
fn each_mutation(document: &Value, replacements: &[Value], visit: &mut dyn FnMut(&Value)) {
    let mut pointers = Vec::new();
    collect(document, String::new(), &mut pointers);
    for pointer in pointers {
        for replacement in replacements {
            let mut changed = document.clone();
            *changed.pointer_mut(&pointer).unwrap() = replacement.clone();
            visit(&changed);
        }
        let mut changed = document.clone();
        if let Some((parent, key)) = pointer.rsplit_once('/') {
            match changed.pointer_mut(parent).unwrap() {
                Value::Object(map) => {
                    map.shift_remove(key);
                }
                Value::Array(items) => {
                    items.remove(key.parse().unwrap());
                }
                _ => {}
            }
            visit(&changed);
        }
        if document.pointer(&pointer).is_some_and(Value::is_object) {
            for key in ["runn", "run", "http", "template", "env", "depends", "needs", "with", "default", "x-y", "1 2"] {
                let mut changed = document.clone();
                let map = changed.pointer_mut(&pointer).unwrap().as_object_mut().unwrap();
                map.entry(key).or_insert_with(|| json!("a"));
                visit(&changed);
            }
        }
    }
}

fn collect(value: &Value, pointer: String, pointers: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| collect(value, format!("{pointer}/{key}"), pointers)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| collect(value, format!("{pointer}/{index}"), pointers));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    pointers.push(pointer);
}

fn replacements() -> Vec<Value> {
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(3),
        json!(1.5),
        json!(2.0),
        json!(70000),
        json!(""),
        json!("a"),
        json!("never"),
        json!("nope-x"),
        json!("5 minutes"),
        json!("1m"),
        json!("if"),
        json!("{{ x }}"),
        json!([]),
        json!(["a"]),
        json!(["a", "a"]),
        json!([1]),
        json!({}),
        json!({ "a": 1 }),
        json!({ "run": "x" }),
        json!({ "run": "x", "http": { "url": "y" } }),
        json!({ "until": "x" }),
        json!([{ "id": "b", "run": "y" }]),
    ]
}

/// Documents that use every key once.
fn examples(kind: DocumentKind) -> Vec<Value> {
    match kind {
        DocumentKind::Pipeline => pipelines(),
        DocumentKind::Include => vec![json!({
            "defaults": { "retry": "never", "env": { "A": 1, "B": true } },
            "agents": { "a": { "name": "A", "provider": "command", "command": ["x"] } },
            "templates": { "t": { "http": { "url": "x" }, "depends": ["a"], "foreach": { "items": [1] } } },
        })],
        DocumentKind::Agents => vec![json!({
            "agents": { "a": { "name": "A", "type": "t", "system_prompt": "s", "temperature": 1, "max_tokens": 5, "model": "m",
                "provider": "openai", "tools": ["x"], "deny_tools": ["y"], "capabilities": ["c"], "retry": { "limit": 1 },
                "price": { "input_per_million": 1, "output_per_million": 2.5 } } },
            "tools": { "t": { "description": "d", "input_schema": { "type": "object" }, "effect": "read", "run": ["x"],
                "env": { "A": "b" }, "timeout": "5s", "retry": {} } },
        })],
        DocumentKind::Settings => vec![json!({
            "project": { "name": "p", "type": "web_app", "language": "python" },
            "agents": { "moderator": { "model": "m", "temperature": 0.3, "max_tokens": 8000 }, "timeout_minutes": 45,
                "monitor": { "check_interval_seconds": 60, "alert_channels": ["console"] } },
            "limits": { "max_tokens_total": 5, "max_runtime_hours": 24, "max_improvement_cycles": 5, "max_error_rate": 0.2 },
            "engine": { "workers": 8, "max_parallel": 4 }, "health": { "healthy": 0.9, "degraded": 0.5, "weights": { "a": 1 } },
            "retention": { "days": 1, "runs": 2 }, "provider": "anthropic", "weights": { "a": 0.5, "b": 0.5 },
            "orchestrator": { "mode": "blocking" }, "logging": { "level": "INFO" },
            "monitoring": { "metrics_collection": true, "alert_thresholds": { "error_rate": 0.05 } },
        })],
        DocumentKind::Blueprint => vec![json!({ "steps": [
            { "id": "E1", "thought": "t", "tool": "x", "input": { "q": "#E2" }, "depends": ["E2"], "on_error": "default",
                "default": 1, "effect": "read" },
            { "id": "E2", "agent": "a", "input": "q" },
        ] })],
        DocumentKind::Test => vec![json!({
            "apiVersion": "tol/v1", "pipeline": "p.yaml",
            "cases": [{ "name": "n", "params": { "a": 1 }, "env": { "CI": "1" }, "profile": "p",
                "mocks": { "a": { "outputs": { "text": "x" }, "exit_code": 0, "tokens": 3 },
                    "each[2]": [{ "fail": { "class": "transient", "message": "m", "exit_code": 3 } }, { "outputs": 1 }], "b": { "hang": true, "takes": "5s" }, "c": { "decision": "approved", "by": "x", "comment": "y" } },
                "expect": { "status": "failed", "reason": "r", "steps": { "a": { "status": "failed", "attempts": 2,
                    "input": { "argv": ["x"], "env": {} }, "outputs": 1 } }, "ran": ["a"], "not_ran": ["b/c"],
                    "outputs": { "x": 1 } } }],
        })],
    }
}

fn pipelines() -> Vec<Value> {
    let pipeline = |keys: Value| {
        let mut whole = Map::new();
        whole.insert("apiVersion".to_owned(), json!("tol/v1"));
        whole.insert("steps".to_owned(), json!([{ "id": "a", "run": "x" }]));
        whole.extend(keys.as_object().unwrap().clone());
        Value::Object(whole)
    };
    vec![
        pipeline(json!({ "name": "n", "description": "d", "timeout": "1h", "fail_fast": true, "inherit_env": ["CI"],
            "queue": "gpu", "limits": { "max_tokens": 1, "max_cost": 0.5, "max_runtime": "1h", "max_parallel": 1, "error_rate": 1,
                "queues": { "gpu": 2 } },
            "include": ["x.yaml"], "outputs": { "o": "{{ a.outputs.text }}" },
            "defaults": { "retry": { "limit": 0 }, "timeout": "1m", "attempt_timeout": "1s", "env": { "A": 1 }, "shell": "sh",
                "dir": ".", "inherit_env": ["B"], "queue": "x" } })),
        pipeline(json!({ "params": { "p": { "type": ["string", "null"], "minLength": 1, "enum": ["a"], "default": "a",
                "items": { "type": "string" }, "required": ["a"], "anyOf": [{}, true] } },
            "hooks": { "failure": [{ "run": "x", "timeout": "1s", "queue": "q", "capabilities": ["c"] }], "exit": [{ "http": { "url": "x" } }] },
            "finally": [{ "id": "z", "wait": "5s" }] })),
        pipeline(
            json!({ "triggers": [{ "cron": "0 6 * * *", "timezone": "UTC", "overlap": "skip", "catch_up": "all" },
                { "webhook": { "path": "/x", "hmac": { "secret": "S", "algorithm": "sha256", "tolerance": "5m" } } },
                { "kafka": { "topic": "t", "group": "g" } }, { "file": "*" }],
            "profiles": { "prod": { "params": { "p": 1 }, "limits": { "max_parallel": 1 }, "retry": "never", "env": {} } } }),
        ),
        pipeline(
            json!({ "tools": { "t": { "description": "d", "input_schema": { "type": "object" }, "effect": "write",
                "http": { "url": "x" } } },
            "templates": { "t": { "run": "x", "env": {} } }, "steps": [{ "id": "b", "template": "t", "dir": "x" }] }),
        ),
        pipeline(
            json!({ "steps": [{ "id": "a", "name": "n", "depends": ["b"], "if": "true", "run": ["x", "y"], "env": { "A": "b" },
            "inherit_env": ["C"], "dir": "d", "shell": "bash", "outputs": "json", "permanent_exit_codes": [2], "max_output": 5,
            "timeout": "1h30m", "attempt_timeout": "PT5M", "continue_on_error": true, "fallback": { "run": "y", "shell": "sh", "queue": "q", "capabilities": ["c"] },
            "queue": "eu-1.fast", "capabilities": ["gpu", "cuda12"],
            "retry": { "limit": 1, "backoff": { "initial": "1s", "factor": 1, "max": "1.5s" }, "jitter": "equal", "on": ["timeout"] },
            "cache": { "key": "k", "ttl": "1h" }, "priority": "low", "foreach": { "items": ["a"], "as": "n", "max_parallel": 2 } }] }),
        ),
        pipeline(json!({ "steps": [
            { "id": "a", "http": { "method": "GET", "url": "x", "headers": { "a": "b" }, "query": { "c": 1 }, "json": { "a": [1] },
                "follow_redirects": false, "max_bytes": 5 }, "matrix": { "os": ["a"], "exclude": [{ "os": "a" }], "max_parallel": 1 } },
            { "id": "b", "transform": { "a": "1 + 1", "b": [1] }, "needs": ["a"] },
            { "id": "c", "pipeline": "x.yaml", "with": { "a": 1 } }, { "id": "d", "wait": { "until": "x" } },
            { "id": "e", "approve": { "message": "m", "mode": "blocking", "timeout": "1s", "on_timeout": "fail", "approvers": ["a"] } },
            { "id": "f", "agent": "a", "prompt": "p", "input": { "x": 1 }, "schema": { "type": "object" }, "tools": ["t"], "env": {} },
        ] })),
        pipeline(json!({ "steps": [
            { "id": "g", "plan": { "agent": "a", "goal": "g", "tools": ["t"], "max_steps": 3, "write": "ask", "repair": 0 } },
            { "id": "h", "plan": { "blueprint": { "steps": [{ "id": "E1", "tool": "t" }] } } }, { "id": "i", "plan": { "file": "x.json" } },
            { "id": "j", "execute": "g" },
            { "id": "k", "synthesize": { "agent": "a", "critic": "c", "from": ["j"], "prompt": "p", "verify": "b", "accept": "score > 1",
                "max_cycles": 2, "on_unaccepted": "keep" }, "schema": {} },
        ] })),
    ]
}

#[test]
fn both_accept_the_same_documents() {
    let replacements = replacements();
    for kind in DocumentKind::ALL {
        let validator = compile_schema(schema(kind)).unwrap();
        for example in examples(kind) {
            assert!(validator.is_valid(&example), "{kind:?} {example} {:?}", validator.iter_errors(&example).next());
            each_mutation(&example, &replacements, &mut |document| check(kind, &validator, document));
        }
    }
}

/// Calls for every string under a keyword of a schema, but not for keys of that name.
fn each_schema<'v>(value: &'v Value, visit: &mut dyn FnMut(&'v Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            visit(map);
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("properties" | "$defs" | "dependentSchemas", Value::Object(named)) => {
                        named.values().for_each(|value| each_schema(value, visit));
                    }
                    ("examples" | "enum" | "const" | "default" | "required" | "dependentRequired", _) => {}
                    _ => each_schema(value, visit),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| each_schema(item, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn every_published_pattern_is_known_and_means_the_same() {
    let mut patterns = BTreeSet::new();
    for kind in DocumentKind::ALL {
        each_schema(schema(kind), &mut |map| patterns.extend(map.get("pattern").and_then(Value::as_str)));
    }
    let texts = [
        "",
        "a",
        "A",
        "_",
        "a_b",
        "a-b",
        "a.b",
        "1a",
        "a1",
        "a b",
        "ä",
        "a=b",
        "=",
        "GET",
        "Get",
        "{{ x }}",
        "x{{",
        "/a/b",
        "/",
        "a/b",
        "a[1]",
        "a[1]/b[2]",
        "a[]",
        "a[x]",
        "a[1]b",
        "[1]",
        "hooks:a_0",
        "a/hooks:b[2]",
        "hooks:",
        "hooks:hooks:a",
        "a:b",
        "a//b",
        "30s",
        "5m",
        "1h30m",
        "1m1h",
        "1.5s",
        "1.s",
        ".5s",
        "30",
        "s",
        "5 m",
        "250ms",
        "2d",
        "1x",
        "ms",
        "P",
        "PT",
        "PT30S",
        "P1D",
        "P1DT2H",
        "P1DT",
        "PT1H30M",
        "PT1",
        "P1X",
        "p1d",
        "-3s",
        "30s ",
        "30s\n",
        "1.5.2s",
        "1ms2s",
        "PTS",
        "P1W",
        "PT.S",
    ];
    for (pattern, _) in forms::KNOWN {
        assert!(patterns.remove(pattern), "`{pattern}` is in no schema any more");
    }
    assert_eq!(patterns, BTreeSet::new(), "published patterns that `forms` does not know");
    for (pattern, matches) in forms::KNOWN {
        let regex = regex::Regex::new(pattern).unwrap();
        for text in texts {
            assert_eq!(matches(text), regex.is_match(text), "`{pattern}` over {text:?}");
        }
        assert!(
            forms::shape_of(pattern).is_some() || pattern.contains("PT") || pattern.contains("[WD]"),
            "`{pattern}` has no words"
        );
    }
}

#[test]
fn published_schemas_are_closed_described_and_made_of_known_keywords() {
    const KEYWORDS: &[&str] = &[
        "$schema",
        "default",
        "$id",
        "$ref",
        "$defs",
        "title",
        "description",
        "examples",
        "type",
        "enum",
        "const",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "minLength",
        "pattern",
        "items",
        "minItems",
        "uniqueItems",
        "properties",
        "additionalProperties",
        "propertyNames",
        "required",
        "minProperties",
        "dependentRequired",
        "dependentSchemas",
        "oneOf",
        "anyOf",
        "not",
        "if",
        "then",
    ];
    for kind in DocumentKind::ALL {
        let root = schema(kind);
        assert!(jsonschema::draft202012::meta::is_valid(root), "{kind:?}");
        each_schema(root, &mut |map| {
            for keyword in map.keys() {
                assert!(KEYWORDS.contains(&keyword.as_str()), "{kind:?}: the evaluator does not know `{keyword}`");
            }
            let Some(properties) = map.get("properties").and_then(Value::as_object) else { return };
            for (key, property) in properties {
                let target = property
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|name| root.pointer(name.trim_start_matches('#')));
                for keyword in ["description", "examples"] {
                    let has = |schema: &Value| schema.get(keyword).is_some();
                    let is_condition =
                        property.as_object().is_some_and(|map| map.keys().all(|keyword| keyword == "const"));
                    assert!(
                        is_condition || has(property) || target.is_some_and(has),
                        "{kind:?}: `{key}` has no {keyword}: {property}"
                    );
                }
            }
        });
    }
}

#[test]
fn examples_in_published_schemas_fit_their_own_schema() {
    for kind in DocumentKind::ALL {
        let root = schema(kind);
        each_schema(root, &mut |map| {
            let Some(examples) = map.get("examples").and_then(Value::as_array) else { return };
            let mut alone = map.clone();
            alone.insert("$defs".to_owned(), root.get("$defs").cloned().unwrap_or_else(|| json!({})));
            alone.shift_remove("$id");
            let validator = compile_schema(&Value::Object(alone)).unwrap();
            for example in examples {
                assert!(validator.is_valid(example), "{kind:?}: {example} {:?}", validator.iter_errors(example).next());
            }
        });
    }
}

#[test]
fn definitions_that_several_schemas_share_are_the_same() {
    let pipeline = schema(DocumentKind::Pipeline).get("$defs").and_then(Value::as_object).unwrap();
    for kind in DocumentKind::ALL {
        for (name, definition) in schema(kind).get("$defs").and_then(Value::as_object).into_iter().flatten() {
            if let Some(other) = pipeline.get(name) {
                assert_eq!(definition, other, "{kind:?}: `{name}`");
            }
        }
    }
}

#[test]
fn both_accept_the_same_defaults() {
    let schemas = [
        json!({ "type": "integer", "minimum": 1, "exclusiveMaximum": 3 }),
        json!({ "type": ["string", "null"], "minLength": 1, "maxLength": 2 }),
        json!({ "enum": [1, "a", null, [1], { "a": 1.0 }] }),
        json!({ "const": { "a": [1] } }),
        json!({ "type": "array", "items": { "type": "number", "maximum": 2 }, "minItems": 1, "maxItems": 2 }),
        json!({ "type": "object", "required": ["a"], "properties": { "a": { "type": "boolean" } }, "additionalProperties": false }),
        json!({ "properties": { "a": { "items": false } }, "additionalProperties": { "type": "integer" }, "minProperties": 1 }),
        json!({ "minimum": 2, "minLength": 2, "minItems": 1, "maxProperties": 0 }),
        json!(true),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(1.0),
        json!(2.5),
        json!(3),
        json!(i64::MAX),
        json!(""),
        json!("a"),
        json!("ab"),
        json!("\u{1f389}\u{1f389}"),
        json!("abc"),
        json!([]),
        json!([1]),
        json!([1.0]),
        json!([3]),
        json!([1, 2, 0]),
        json!({}),
        json!({ "a": true }),
        json!({ "a": 1 }),
        json!({ "a": [1] }),
        json!({ "a": [] }),
        json!({ "b": 1 }),
        json!({ "b": "x" }),
    ];
    for schema in &schemas {
        let validator = compile_schema(schema).unwrap();
        for value in &values {
            let node = tree(value, &mut 0);
            let found = super::embedded::explain_default(schema, &node);
            assert_eq!(found.is_empty(), validator.is_valid(value), "{schema} {value} {found:#?}");
            assert!(super::embedded::is_plain(schema));
        }
    }
    let refused = [json!({ "pattern": "a" }), json!({ "items": { "$ref": "#" } })];
    assert!(!refused.iter().any(super::embedded::is_plain));
}
