//! `tol run --dry-run`: what would run, in order, with every template filled that can be.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::compile::Program;
use crate::scheduler::{Accepted, preview};

/// The steps of a pipeline and its children, in an order in which they can run.
pub fn text(program: &Arc<Program>, accepted: Accepted, as_json: bool) -> String {
    let steps = preview(program, accepted);
    if as_json {
        let order: Vec<&str> = steps.iter().map(|(path, _)| path.as_str()).collect();
        let all: Map<String, Value> = steps.iter().cloned().collect();
        return format!("{}\n", json!({ "order": order, "steps": all }));
    }
    let mut text = String::new();
    for (number, (path, step)) in steps.iter().enumerate() {
        let action = step.get("action").and_then(Value::as_str).unwrap_or_default();
        let _ = writeln!(text, "{:>3}. {path}  ({action})", number + 1);
        for (key, value) in step.as_object().into_iter().flatten().filter(|(key, _)| *key != "action") {
            match value {
                Value::String(words) if words.contains('\n') => {
                    let _ = writeln!(text, "     {key}:");
                    for line in words.lines() {
                        let _ = writeln!(text, "       {line}");
                    }
                }
                Value::String(words) => {
                    let _ = writeln!(text, "     {key}: {words}");
                }
                other => {
                    let _ = writeln!(text, "     {key}: {other}");
                }
            }
        }
    }
    text
}
