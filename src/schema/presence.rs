//! Constructs that look only at which keys are there: exactly one action, keys that exclude or need each other.

use serde_json::Value;

use super::codes;
use super::keys::{place_words, start_of};
use super::keywords::Keywords;
use super::values;
use super::walk::{At, Walker};
use crate::diagnostic::Diagnostic;
use crate::yaml::{Entry, Node};

/// The keys that are actions.
const ACTIONS: [&str; 10] =
    ["run", "http", "transform", "pipeline", "wait", "approve", "agent", "plan", "execute", "synthesize"];

/// True for the keys that are actions of a step.
pub(super) fn is_action(key: &str) -> bool {
    ACTIONS.contains(&key)
}

/// True if no alternative looks at anything but the presence of keys.
pub(super) fn is_presence(branches: &[Value]) -> bool {
    !branches.is_empty() && branches.iter().all(looks_at_keys)
}

fn looks_at_keys(schema: &Value) -> bool {
    schema.as_object().is_some_and(|schema| {
        !schema.is_empty()
            && schema.iter().all(|(keyword, value)| match keyword.as_str() {
                "required" => true,
                "not" => looks_at_keys(value),
                "anyOf" => value.as_array().is_some_and(|branches| is_presence(branches)),
                _ => false,
            })
    })
}

/// The keys that `required` of a schema names.
fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// True if what a schema says of the presence of keys holds for a mapping; it looks at nothing else.
fn holds(schema: &Value, node: &Node) -> bool {
    let has_required = required(schema).all(|key| node.entry(key).is_some());
    let alternatives = |schema: &Value| -> Option<bool> {
        let branches = schema.get("anyOf")?.as_array()?;
        Some(branches.iter().any(|branch| holds(branch, node)))
    };
    has_required && alternatives(schema).unwrap_or(true) && !schema.get("not").is_some_and(|not| holds(not, node))
}

impl<'a> Walker<'a, '_> {
    /// `oneOf` and `anyOf` over keys.
    pub(super) fn check_presence(&mut self, schema: &Keywords<'a>, node: &'a Node, meant: &[&str], at: At<'a>) {
        for (branches, exactly_one) in [(schema.one_of, true), (schema.any_of, false)] {
            let Some(branches) = branches.filter(|branches| is_presence(branches)) else { continue };
            let accepted = branches.iter().filter(|branch| holds(branch, node)).count();
            if accepted == 1 || (accepted > 1 && !exactly_one) {
                continue;
            }
            let names: Vec<&str> = branches.iter().flat_map(required).collect();
            let present: Vec<&Entry> = node.entries().iter().filter(|entry| names.contains(&&*entry.key)).collect();
            match present.as_slice() {
                [] if names.iter().any(|name| meant.contains(name)) => {}
                [] => self.report_none(&names, node, at),
                [first, second, ..] => self.report_two(first, second, at),
                [_] => {}
            }
        }
    }

    fn report_none(&mut self, names: &[&str], node: &Node, at: At<'a>) {
        let listed: Vec<String> =
            names.iter().filter(|name| **name != "template").map(|name| format!("`{name}`")).collect();
        let within = place_words(at);
        let span = start_of(node);
        let diagnostic = if names.contains(&"run") {
            let message = format!("{within} needs exactly one action, and here is none");
            Diagnostic::error(codes::ONE_ACTION, span, message).help(format!("add one of {}", listed.join(", ")))
        } else {
            let message = format!("{within} needs one of {}", listed.join(", "));
            Diagnostic::error(codes::MISSING_KEY, span, message)
        };
        self.report(diagnostic);
    }

    fn report_two(&mut self, first: &Entry, second: &Entry, at: At<'a>) {
        let within = place_words(at);
        let actions = is_action(&first.key) && is_action(&second.key) && !matches!(at.place, "plan" | "synthesize");
        let (code, message, help) = if actions {
            let message = format!("{within} has exactly one action, but here are `{}` and `{}`", first.key, second.key);
            (codes::ONE_ACTION, message, "make two steps of it, or leave one out")
        } else {
            let message = format!("only one of `{}` and `{}` may stand in {within}", first.key, second.key);
            (codes::EXCLUSIVE_KEYS, message, "leave one of them out")
        };
        let diagnostic = Diagnostic::error(code, second.key_span, message).help(help);
        self.report(diagnostic.related(first.key_span, "the first is here"));
    }

    /// `dependentSchemas`: keys that belong to another, need another, or exclude another.
    pub(super) fn check_dependent(&mut self, schema: &Keywords<'a>, node: &'a Node, at: At<'a>) {
        let Some(dependent) = schema.dependent_schemas else { return };
        for entry in node.entries() {
            let Some(rule) = dependent.get(&*entry.key) else { continue };
            let satisfied = if looks_at_keys(rule) { holds(rule, node) } else { self.accepts(rule, node) };
            if satisfied {
                continue;
            }
            let alternatives: Vec<&str> = match rule.get("anyOf").and_then(Value::as_array) {
                Some(branches) => branches.iter().flat_map(required).collect(),
                None => required(rule).collect(),
            };
            if let Some(excluded) = rule.get("not").and_then(|not| required(not).next()) {
                self.report_excluded(entry, excluded, node, at);
            } else if is_action(&entry.key)
                && let Some(needed) = alternatives.first()
            {
                self.report_missing(schema, needed, node, at, &format!("; `{}` needs it", entry.key));
            } else if !alternatives.is_empty() {
                self.report_foreign(entry, &alternatives, node, at);
            } else {
                self.check(rule, node, at);
            }
        }
    }

    fn report_excluded(&mut self, entry: &Entry, excluded: &str, node: &Node, at: At<'a>) {
        let Some(other) = node.entry(excluded) else { return };
        let (first, second) = if other.key_span < entry.key_span { (other, entry) } else { (entry, other) };
        let (message, help) = match (&*entry.key, excluded) {
            ("needs", "depends") => (
                "`needs` and `depends` are two names of one key, and both stand here".to_owned(),
                "put all ids into `depends`",
            ),
            _ => (
                format!("`{}` and `{}` cannot both stand in {}", first.key, second.key, place_words(at)),
                "leave one of them out",
            ),
        };
        let diagnostic = Diagnostic::error(codes::EXCLUSIVE_KEYS, second.key_span, message).help(help);
        self.report(diagnostic.related(first.key_span, "the first is here"));
    }

    fn report_foreign(&mut self, entry: &Entry, owners: &[&str], node: &Node, at: At<'a>) {
        let owners: Vec<String> =
            owners.iter().filter(|owner| **owner != "template").map(|owner| format!("`{owner}`")).collect();
        let action = node.entries().iter().find(|entry| is_action(&entry.key));
        let message = match action {
            Some(action) => {
                format!(
                    "`{}` belongs to {}, but {} here has `{}`",
                    entry.key,
                    owners.join(" or "),
                    place_words(at),
                    action.key
                )
            }
            None => format!("`{}` belongs to {}, which does not stand here", entry.key, owners.join(" or ")),
        };
        let help = match (&*entry.key, action.map(|action| &*action.key)) {
            ("queue" | "capabilities", Some("pipeline")) => {
                "put it into the file that `pipeline` names: each says its own"
            }
            _ => "leave it out: it would have no effect",
        };
        self.report(Diagnostic::error(codes::OTHER_ACTION, entry.key_span, message).help(help));
    }

    /// `not` over values and over keys.
    pub(super) fn check_not(&mut self, not: &'a Value, node: &'a Node, at: At<'a>) {
        let applies = match not.get("enum").and_then(Value::as_array) {
            // Asked of every id: no message is put together only to be thrown away.
            Some(options) if not.as_object().is_some_and(|not| not.len() == 1) => values::is_one_of(node, options),
            Some(_) | None => self.accepts(not, node),
        };
        if !applies {
            return;
        }
        let names: Vec<&str> = required(not).collect();
        let present: Vec<&Entry> = node.entries().iter().filter(|entry| names.contains(&&*entry.key)).collect();
        if let [first, second, ..] = present.as_slice() {
            self.report_two(first, second, at);
        } else if at.place == "id" {
            let said = node.as_str().unwrap_or_default();
            let message = format!("`{said}` cannot be an id: it is a word of the language");
            let diagnostic = Diagnostic::error(codes::RESERVED_ID, node.span, message);
            self.report(diagnostic.help(format!("write another name, such as `{said}_step`")));
        } else {
            let message = format!("{} is a value that is excluded", at.subject.words());
            self.report(Diagnostic::error(codes::NOT_ALLOWED, node.span, message));
        }
    }
}
