//! Content hashes: of a whole plan, and of one call with all that it builds on.

use serde_json::{Map, Value, json};

use crate::model::{Blueprint, BlueprintStep, Callee, OnError};

/// Feeds a value into a hash so that the order of keys makes no difference.
fn feed(hasher: &mut blake3::Hasher, value: &Value) {
    match value {
        Value::Array(items) => {
            hasher.update(format!("[{}", items.len()).as_bytes());
            items.iter().for_each(|item| feed(hasher, item));
        }
        Value::Object(entries) => {
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            hasher.update(format!("{{{}", entries.len()).as_bytes());
            for (key, item) in entries {
                feed_text(hasher, key);
                feed(hasher, item);
            }
        }
        Value::String(text) => feed_text(hasher, text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            hasher.update(format!("={value};").as_bytes());
        }
    }
}

/// The length stands before the text, so that no two lists of texts read the same.
fn feed_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(format!("\"{}:", text.len()).as_bytes());
    hasher.update(text.as_bytes());
}

fn finish(hasher: &blake3::Hasher) -> Box<str> {
    hasher.finalize().to_hex().as_str().into()
}

/// The hash of a whole plan. Thoughts are left out: they change nothing.
pub fn of_plan(json: &Value) -> Box<str> {
    let mut hasher = blake3::Hasher::new();
    feed(&mut hasher, &without_thoughts(json));
    finish(&hasher)
}

fn without_thoughts(json: &Value) -> Value {
    let mut json = json.clone();
    let steps = json.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten();
    for step in steps {
        if let Some(step) = step.as_object_mut() {
            step.remove("thought");
        }
    }
    json
}

/// The hash of one call: what it calls, with what, and the hashes of the calls that it waits for.
pub fn of_call(step: &BlueprintStep, dependencies: &[(&str, &str)]) -> Box<str> {
    let mut hasher = blake3::Hasher::new();
    match &step.callee {
        Callee::Tool(name) => feed_text(&mut hasher, &format!("tool {}", name.value)),
        Callee::Agent(name) => feed_text(&mut hasher, &format!("agent {}", name.value)),
    }
    feed(&mut hasher, &step.input.value);
    for (id, content) in dependencies {
        feed_text(&mut hasher, id);
        feed_text(&mut hasher, content);
    }
    finish(&hasher)
}

/// A blueprint as the JSON that a plan step yields.
pub fn to_json(blueprint: &Blueprint) -> Value {
    let steps = blueprint.steps.iter().map(|step| {
        let mut map = Map::new();
        map.insert("id".to_owned(), json!(step.id.value));
        if let Some(thought) = &step.thought {
            map.insert("thought".to_owned(), json!(thought));
        }
        let (key, name) = match &step.callee {
            Callee::Tool(name) => ("tool", name),
            Callee::Agent(name) => ("agent", name),
        };
        map.insert(key.to_owned(), json!(name.value));
        map.insert("input".to_owned(), step.input.value.clone());
        if !step.depends.is_empty() {
            let depends: Vec<&str> = step.depends.iter().map(|id| &*id.value).collect();
            map.insert("depends".to_owned(), json!(depends));
        }
        let on_error = match step.on_error {
            OnError::Fail => "fail",
            OnError::Skip => "skip",
            OnError::Default => "default",
            OnError::Replan => "replan",
        };
        map.insert("on_error".to_owned(), json!(on_error));
        if let Some(default) = &step.default {
            map.insert("default".to_owned(), default.clone());
        }
        if step.writes {
            map.insert("effect".to_owned(), json!("write"));
        }
        Value::Object(map)
    });
    json!({ "steps": steps.collect::<Vec<_>>() })
}
