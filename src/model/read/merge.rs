//! Includes and step templates, merged into the tree before anything is read. Spans keep the file that they are in.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::model::read::codes;
use crate::yaml::{Entry, Node, Yaml};

/// How many templates a message lists at most.
const LISTED_TEMPLATES: usize = 20;

/// What an include brings.
const SHARED: [&str; 4] = ["defaults", "agents", "tools", "templates"];

/// The actions, and the keys that belong to some of them.
const ACTIONS: [&str; 10] =
    ["run", "http", "transform", "pipeline", "wait", "approve", "agent", "plan", "execute", "synthesize"];
const WORK: &[&str] = &["run", "http", "agent", "plan", "execute", "synthesize"];
const BELONGINGS: [(&str, &[&str]); 15] = [
    ("queue", WORK),
    ("capabilities", WORK),
    ("with", &["pipeline"]),
    ("prompt", &["agent"]),
    ("input", &["agent"]),
    ("tools", &["agent"]),
    ("schema", &["agent", "synthesize"]),
    ("env", &["run", "agent", "synthesize"]),
    ("inherit_env", &["run"]),
    ("dir", &["run"]),
    ("shell", &["run"]),
    ("outputs", &["run"]),
    ("permanent_exit_codes", &["run"]),
    ("max_output", &["run"]),
    ("cache", &["run", "http", "transform", "agent"]),
];

/// Lays a pipeline over the files that it includes. A key that the pipeline has itself wins; of two includes the later
/// one does. Scalars and lists replace, mappings merge.
pub fn merge_includes(pipeline: Node, includes: &[Node]) -> Node {
    let mut shared = Vec::new();
    for include in includes {
        let brought = include.entries().iter().filter(|entry| SHARED.contains(&&*entry.key)).cloned().collect();
        shared = merge_entries(shared, brought);
    }
    let value = match pipeline.value {
        Yaml::Map(own) if !shared.is_empty() => Yaml::Map(merge_entries(shared, own)),
        value => value,
    };
    Node { span: pipeline.span, value }
}

/// True if a step of a pipeline names a step template.
fn uses_templates(pipeline: &Node) -> bool {
    let lists = pipeline.entries().iter().filter(|entry| matches!(&*entry.key, "steps" | "finally"));
    lists.flat_map(|entry| entry.node.items()).any(|step| step.get("template").is_some())
}

/// Lays each step that names a `template` over that template, and checks that the outcome has one action and only
/// keys that belong to it. The step's own keys win; its own action takes the place of the template's.
pub fn apply_templates(mut pipeline: Node, diagnostics: &mut Vec<Diagnostic>) -> Node {
    if !uses_templates(&pipeline) {
        return pipeline;
    }
    let Yaml::Map(entries) = &mut pipeline.value else { return pipeline };
    let templates: BTreeMap<Box<str>, Node> = entries
        .iter()
        .find(|entry| &*entry.key == "templates")
        .map(|entry| entry.node.entries().iter().map(|entry| (entry.key.clone(), entry.node.clone())).collect())
        .unwrap_or_default();
    for list in entries.iter_mut().filter(|entry| matches!(&*entry.key, "steps" | "finally")) {
        let Yaml::List(steps) = &mut list.node.value else { continue };
        for step in steps {
            apply_template(step, &templates, diagnostics);
        }
    }
    pipeline
}

fn apply_template(step: &mut Node, templates: &BTreeMap<Box<str>, Node>, diagnostics: &mut Vec<Diagnostic>) {
    let Some((name, span)) = step.get("template").and_then(|node| Some((Box::<str>::from(node.as_str()?), node.span)))
    else {
        return;
    };
    let Some(template) = templates.get(&name) else {
        let names = || templates.keys().map(|name| &**name);
        let help = match nearest(&name, names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None if templates.is_empty() => "declare it under `templates`, here or in an included file".to_owned(),
            None => format!("the templates are {}", names().take(LISTED_TEMPLATES).collect::<Vec<_>>().join(", ")),
        };
        diagnostics.push(
            Diagnostic::error(codes::UNKNOWN_TEMPLATE, span, format!("there is no step template `{name}`")).help(help),
        );
        return;
    };
    let (Yaml::Map(base), Yaml::Map(own)) = (&template.value, &step.value) else { return };
    let merged = merge_entries(base.clone(), own.clone());
    step.value = Yaml::Map(merged);
    check_merged(step, &name, span, diagnostics);
}

fn check_merged(step: &Node, template: &str, span: Span, diagnostics: &mut Vec<Diagnostic>) {
    let Some(action) = step.entries().iter().find(|entry| ACTIONS.contains(&&*entry.key)) else {
        let message =
            format!("a step needs exactly one action, and neither this one nor its template `{template}` has one");
        let help = format!("add one of {}", ACTIONS.map(|action| format!("`{action}`")).join(", "));
        diagnostics.push(Diagnostic::error(codes::ONE_ACTION, span, message).help(help));
        return;
    };
    for entry in step.entries() {
        let owners = BELONGINGS.iter().find(|(key, _)| *key == &*entry.key).map(|(_, owners)| *owners);
        if owners.is_some_and(|owners| !owners.contains(&&*action.key)) {
            let message = format!("`{}` has no effect beside `{}`, the action of this step", entry.key, action.key);
            diagnostics.push(
                Diagnostic::error(codes::OTHER_ACTION, entry.key_span, message)
                    .help("leave it out")
                    .related(span, "the template is named here"),
            );
        }
    }
    if &*action.key == "agent" && step.get("prompt").is_none() {
        let message = "`prompt` is missing; `agent` needs it";
        diagnostics.push(
            Diagnostic::error(codes::MISSING_KEY, span, message).help("add `prompt` to the step or to its template"),
        );
    }
}

/// Lays one mapping over another.
fn merge_entries(mut base: Vec<Entry>, own: Vec<Entry>) -> Vec<Entry> {
    drop_replaced(&mut base, &own);
    let places: HashMap<Box<str>, usize> =
        base.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
    let mut added = Vec::new();
    for entry in own {
        match places.get(&entry.key).and_then(|index| base.get_mut(*index)) {
            Some(below) => lay_over(below, entry),
            None => added.push(entry),
        }
    }
    base.append(&mut added);
    base
}

fn lay_over(below: &mut Entry, entry: Entry) {
    let Entry { key, key_span, node } = entry;
    let old = std::mem::replace(&mut below.node, Node { span: node.span, value: Yaml::Null });
    // The keys of an action belong together: an `http` over an `http` changes some of them, as any mapping does.
    let value = match (old.value, node.value) {
        (Yaml::Map(old), Yaml::Map(own)) => Yaml::Map(merge_entries(old, own)),
        (_, own) => own,
    };
    *below = Entry { key, key_span, node: Node { span: node.span, value } };
}

/// Takes out of the lower mapping what the upper one replaces under another key: an action by another action (with the
/// keys that belonged to it), `needs` by `depends`, `matrix` by `foreach`.
fn drop_replaced(base: &mut Vec<Entry>, own: &[Entry]) {
    let has = |name: &str| own.iter().any(|entry| &*entry.key == name);
    let is_step = own.iter().chain(base.iter()).any(|entry| matches!(&*entry.key, "id" | "template" | "effect"))
        || base.iter().any(|entry| ACTIONS.contains(&&*entry.key));
    if !is_step {
        return;
    }
    let action = ACTIONS.iter().find(|action| has(action)).copied();
    base.retain(|entry| {
        let key = &*entry.key;
        if let Some(action) = action {
            if ACTIONS.contains(&key) {
                return key == action;
            }
            if let Some((_, owners)) = BELONGINGS.iter().find(|(name, _)| *name == key) {
                return owners.contains(&action);
            }
        }
        !matches!(
            (key, has("depends") || has("needs"), has("foreach") || has("matrix")),
            ("needs" | "depends", true, _) | ("foreach" | "matrix", _, true)
        ) || has(key)
    });
}
