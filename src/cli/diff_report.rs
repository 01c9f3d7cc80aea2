//! What `tol diff` prints.

use std::fmt::Write;

use serde_json::{Value, json};

use super::diff::{InFlight, On};
use super::diff_trees::{Change, How, KeyChange};

/// Longer values are shown on lines of their own.
const ONE_LINE: usize = 60;

/// For people.
pub fn text(old: &str, new: &str, changes: &[Change], runs: &[InFlight]) -> String {
    let mut text = String::new();
    if changes.is_empty() {
        let _ = writeln!(text, "{old} and {new}: no step, parameter or output differs");
    } else {
        let _ = writeln!(text, "{old} -> {new}");
    }
    for change in changes {
        let name = format!("{} `{}`", change.kind, change.name);
        let action = |action: &Option<String>| action.as_ref().map_or(String::new(), |action| format!(" ({action})"));
        match &change.how {
            How::Added(kind) => drop(writeln!(text, "+ {name}{}", action(kind))),
            How::Removed(kind) => drop(writeln!(text, "- {name}{}", action(kind))),
            How::Renamed { from } => drop(writeln!(text, "~ {name}: was `{from}`, otherwise the same")),
            How::Changed(keys) => {
                let _ = writeln!(text, "~ {name}");
                keys.iter().for_each(|key| key_text(&mut text, key));
            }
        }
    }
    runs_text(&mut text, runs);
    text
}

fn key_text(text: &mut String, change: &KeyChange) {
    let (old, new) = (value_text(change.old.as_ref()), value_text(change.new.as_ref()));
    let is_short = |value: &str| !value.contains('\n') && value.chars().count() <= ONE_LINE;
    if is_short(&old) && is_short(&new) {
        let _ = writeln!(text, "    {}: {old} -> {new}", change.key);
        return;
    }
    let _ = writeln!(text, "    {}:", change.key);
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let ahead = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let behind = behind.min(old.len().min(new.len()) - ahead);
    // Lines that both share at the beginning and at the end say nothing.
    for (sign, lines) in [('-', &old), ('+', &new)] {
        for line in lines.iter().take(lines.len() - behind).skip(ahead) {
            let _ = writeln!(text, "      {sign} {line}");
        }
    }
}

fn value_text(value: Option<&Value>) -> String {
    match value {
        None => "(none)".to_owned(),
        Some(Value::String(words)) => words.trim_end().to_owned(),
        Some(value) => {
            let short = value.to_string();
            if short.chars().count() <= ONE_LINE { short } else { serde_json::to_string_pretty(value).unwrap_or(short) }
        }
    }
}

fn runs_text(text: &mut String, runs: &[InFlight]) {
    let apart: Vec<&InFlight> = runs.iter().filter(|run| run.on != On::New).collect();
    if runs.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nruns of this pipeline that have not ended: {}", runs.len());
    for run in runs {
        let on = match run.on {
            On::Old => "on the old definition",
            On::New => "on the new definition",
            On::Other => "on a definition that is neither",
        };
        let _ = writeln!(text, "  {}  {}, {on}", run.row.run, run.row.status);
    }
    if !apart.is_empty() {
        text.push_str("A run keeps the definition that it was started with, also when it is resumed: the change does not touch these.\n");
        text.push_str("`tol runs rerun RUN --latest` runs one again on the file as it is now.\n");
    }
}

/// For programs: one object.
pub fn json(old: &str, new: &str, changes: &[Change], runs: &[InFlight]) -> String {
    let changes: Vec<Value> = changes
        .iter()
        .map(|change| {
            let mut object = json!({ "kind": change.kind, "name": change.name });
            let more = match &change.how {
                How::Added(action) => json!({ "change": "added", "action": action }),
                How::Removed(action) => json!({ "change": "removed", "action": action }),
                How::Renamed { from } => json!({ "change": "renamed", "from": from }),
                How::Changed(keys) => {
                    let keys: Vec<Value> =
                        keys.iter().map(|key| json!({ "key": key.key, "old": key.old, "new": key.new })).collect();
                    json!({ "change": "changed", "keys": keys })
                }
            };
            if let (Value::Object(object), Value::Object(more)) = (&mut object, more) {
                object.extend(more);
            }
            object
        })
        .collect();
    let runs: Vec<Value> = runs
        .iter()
        .map(|run| {
            let on = match run.on {
                On::Old => "old",
                On::New => "new",
                On::Other => "other",
            };
            json!({ "run_id": run.row.run.as_str(), "status": run.row.status, "definition": run.row.definition_hash, "on": on })
        })
        .collect();
    format!("{}\n", json!({ "old": old, "new": new, "same": changes.is_empty(), "changes": changes, "runs": runs }))
}
