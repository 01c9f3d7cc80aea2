//! The differences between two pipelines as trees: comments, formatting and the order of steps do not count.

use serde_json::{Map, Value, json};

/// Keys of a step that are actions.
const ACTIONS: [&str; 10] =
    ["run", "http", "transform", "pipeline", "wait", "approve", "agent", "plan", "execute", "synthesize"];
/// Mappings of a pipeline whose entries are compared one by one, and what one entry is called.
const NAMED: [(&str, &str); 6] = [
    ("params", "param"),
    ("outputs", "output"),
    ("tools", "tool"),
    ("profiles", "profile"),
    ("templates", "template"),
    ("agents", "agent"),
];

/// One difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// `step`, `param`, `output`, …, or `pipeline` for a key of the file itself.
    pub kind: &'static str,
    pub name: String,
    pub how: How,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// With its action, for a step.
    Added(Option<String>),
    Removed(Option<String>),
    /// The same step under another id.
    Renamed {
        from: String,
    },
    Changed(Vec<KeyChange>),
}

/// One key that changed; `None` where it was, or is, not there.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyChange {
    pub key: String,
    pub old: Option<Value>,
    pub new: Option<Value>,
}

/// Every difference, steps first.
pub fn compare(old: &Value, new: &Value) -> Vec<Change> {
    let mut changes = steps(old, new);
    for (key, kind) in NAMED {
        changes.extend(named(kind, entries(old, key), entries(new, key)));
    }
    let skipped =
        |key: &str| matches!(key, "steps" | "finally" | "include") || NAMED.iter().any(|(named, _)| *named == key);
    let (old, new) = (whole(old), whole(new));
    for change in keys(&old, &new).into_iter().filter(|change| !skipped(&change.key)) {
        changes.push(Change { kind: "pipeline", name: change.key.clone(), how: How::Changed(vec![change]) });
    }
    changes
}

fn whole(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn entries(pipeline: &Value, key: &str) -> Map<String, Value> {
    pipeline.get(key).map(whole).unwrap_or_default()
}

/// Steps by id in the order of the file, in one form: `needs` is `depends`, whose order means nothing.
fn steps_of(pipeline: &Value) -> Vec<(String, Map<String, Value>)> {
    let mut all = Vec::new();
    for (list, is_finally) in [("steps", false), ("finally", true)] {
        for (number, step) in pipeline.get(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
            let mut step = whole(step);
            let id = step.shift_remove("id").and_then(|id| id.as_str().map(str::to_owned));
            if let Some(needs) = step.shift_remove("needs") {
                step.insert("depends".to_owned(), needs);
            }
            if let Some(Value::Array(names)) = step.get_mut("depends") {
                names.sort_by_key(Value::to_string);
            }
            if is_finally {
                step.insert("finally".to_owned(), json!(true));
            }
            all.push((id.unwrap_or_else(|| format!("{list}[{number}]")), step));
        }
    }
    all
}

fn action_of(step: &Map<String, Value>) -> Option<String> {
    ACTIONS.iter().find(|action| step.contains_key(**action)).map(|action| (*action).to_owned())
}

fn steps(old: &Value, new: &Value) -> Vec<Change> {
    let (old, new) = (steps_of(old), steps_of(new));
    let find = |list: &[(String, Map<String, Value>)], id: &str| list.iter().position(|(other, _)| other == id);
    let mut removed: Vec<&(String, Map<String, Value>)> =
        old.iter().filter(|(id, _)| find(&new, id).is_none()).collect();
    let mut changes = Vec::new();
    for (id, step) in &new {
        if let Some(before) = find(&old, id).and_then(|at| old.get(at)) {
            let found = step_keys(&before.1, step);
            if !found.is_empty() {
                changes.push(Change { kind: "step", name: id.clone(), how: How::Changed(found) });
            }
            continue;
        }
        let twin =
            removed.iter().position(|(_, before)| same(&Value::Object(before.clone()), &Value::Object(step.clone())));
        let how = match twin.map(|at| removed.remove(at)) {
            Some((from, _)) => How::Renamed { from: from.clone() },
            None => How::Added(action_of(step)),
        };
        changes.push(Change { kind: "step", name: id.clone(), how });
    }
    changes.extend(removed.into_iter().map(|(id, step)| Change {
        kind: "step",
        name: id.clone(),
        how: How::Removed(action_of(step)),
    }));
    changes
}

/// The keys of a step that changed; another action is told as one change.
fn step_keys(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<KeyChange> {
    let (before, after) = (action_of(old), action_of(new));
    let mut found = keys(old, new);
    if before != after {
        found.retain(|change| !ACTIONS.contains(&change.key.as_str()));
        let describe = |action: Option<String>, step: &Map<String, Value>| {
            action.map(|action| json!({ action.clone(): step.get(&action) }))
        };
        let change = KeyChange { key: "action".to_owned(), old: describe(before, old), new: describe(after, new) };
        found.insert(0, change);
    }
    found
}

fn named(kind: &'static str, old: Map<String, Value>, new: Map<String, Value>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, value) in &new {
        let how = match old.get(name) {
            None => How::Added(None),
            Some(before) if same(before, value) => continue,
            Some(Value::Object(before)) if value.is_object() => How::Changed(keys(before, &whole(value))),
            Some(before) => How::Changed(vec![KeyChange {
                key: "value".to_owned(),
                old: Some(before.clone()),
                new: Some(value.clone()),
            }]),
        };
        changes.push(Change { kind, name: name.clone(), how });
    }
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    changes.extend(gone.map(|name| Change { kind, name: name.clone(), how: How::Removed(None) }));
    changes
}

/// The keys whose values differ: those of the new mapping in its order, then those that are gone.
fn keys(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<KeyChange> {
    let changed = new.iter().filter(|(key, value)| old.get(*key).is_none_or(|before| !same(before, value)));
    let mut found: Vec<KeyChange> = changed
        .map(|(key, value)| KeyChange { key: key.clone(), old: old.get(key).cloned(), new: Some(value.clone()) })
        .collect();
    let gone = old.iter().filter(|(key, _)| !new.contains_key(*key));
    found.extend(gone.map(|(key, value)| KeyChange { key: key.clone(), old: Some(value.clone()), new: None }));
    found
}

/// Equal, whatever the order of keys.
fn same(old: &Value, new: &Value) -> bool {
    old == new
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{How, compare};

    /// Compares two lists of steps; `expect` holds `KIND NAME WHAT`.
    fn check(old: Value, new: Value, expect: &[&str]) {
        let got: Vec<String> = compare(&old, &new)
            .into_iter()
            .map(|change| {
                let what = match change.how {
                    How::Added(action) => format!("added {}", action.unwrap_or_default()),
                    How::Removed(action) => format!("removed {}", action.unwrap_or_default()),
                    How::Renamed { from } => format!("was {from}"),
                    How::Changed(keys) => keys.iter().map(|change| change.key.as_str()).collect::<Vec<_>>().join(","),
                };
                format!("{} {} {what}", change.kind, change.name).trim_end().to_owned()
            })
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn form_does_not_count() {
        let old = json!({"name": "p", "steps": [{"id": "a", "run": "x", "timeout": "5s"}, {"id": "b", "needs": ["c", "a"], "run": "y"}]});
        let new = json!({"steps": [{"depends": ["a", "c"], "id": "b", "run": "y"}, {"timeout": "5s", "run": "x", "id": "a"}], "name": "p"});
        check(old, new, &[]);
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let old = json!({
            "timeout": "1m", "params": {"a": {"type": "string"}, "b": {"type": "integer"}}, "outputs": {"x": "{{ a.outputs }}"},
            "steps": [{"id": "a", "run": "x", "env": {"A": 1}}, {"id": "b", "run": "y"}, {"id": "c", "wait": "1s"}, {"id": "d", "run": "z"}],
        });
        let new = json!({
            "timeout": "2m", "params": {"a": {"type": "string", "default": "v"}, "c": {}}, "outputs": {"x": "1"},
            "steps": [{"id": "a", "run": "x", "env": {"A": 2}, "retry": {}}, {"id": "b", "http": {}}, {"id": "e", "run": "z"}, {"id": "f", "run": "new"}],
        });
        let expect = [
            "step a env,retry",
            "step b action",
            "step e was d",
            "step f added run",
            "step c removed wait",
            "param a default",
            "param c added",
            "param b removed",
            "output x value",
            "pipeline timeout timeout",
        ];
        check(old, new, &expect);
    }

    #[test]
    fn a_step_that_moves_to_finally_has_changed() {
        let old = json!({"steps": [{"id": "a", "run": "x"}]});
        let new = json!({"steps": [], "finally": [{"id": "a", "run": "x"}]});
        check(old, new, &["step a finally"]);
    }
}
