//! The published schemas are schemas, and say of every key what it means.

use serde_json::Value;

use crate::support::{check_none, files_below, read};

fn schemas() -> Vec<(String, Value)> {
    let found: Vec<(String, Value)> = files_below("schemas", "json")
        .into_iter()
        .map(|path| {
            let value =
                serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            (path.to_string_lossy().into_owned(), value)
        })
        .collect();
    assert!(!found.is_empty(), "there are no schemas");
    found
}

#[test]
fn they_are_schemas_of_draft_2020_12() {
    for (name, schema) in schemas() {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        if let Err(error) = jsonschema::draft202012::meta::validate(&schema) {
            panic!("{name}: {error} at {}", error.instance_path());
        }
    }
}

#[test]
fn every_key_is_described() {
    let mut findings = Vec::new();
    for (name, schema) in schemas() {
        undescribed(&schema, &schema, &name, &mut findings);
    }
    check_none(&findings, "every key has a description, its own or that of the definition it refers to");
}

fn undescribed(root: &Value, node: &Value, place: &str, findings: &mut Vec<String>) {
    // What stands under these keys is data, or a condition that names keys which are described elsewhere.
    const DATA: [&str; 7] = ["examples", "default", "const", "enum", "required", "if", "not"];
    match node {
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, _)| !DATA.contains(&key.as_str())) {
                let place = format!("{place}/{key}");
                let Some(properties) = value.as_object().filter(|_| key == "properties") else {
                    undescribed(root, value, &place, findings);
                    continue;
                };
                for (name, property) in properties {
                    if !is_described(root, property) {
                        findings.push(format!("{place}/{name}"));
                    }
                    undescribed(root, property, &format!("{place}/{name}"), findings);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| undescribed(root, item, place, findings)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn is_described(root: &Value, property: &Value) -> bool {
    // `key: true` says elsewhere what the key may hold, and `key: false` that it may not be there.
    if property.is_boolean() || property["description"].as_str().is_some_and(|text| !text.is_empty()) {
        return true;
    }
    let target = property["$ref"].as_str().and_then(|pointer| root.pointer(pointer.strip_prefix('#')?));
    target.is_some_and(|target| is_described(root, target))
}
