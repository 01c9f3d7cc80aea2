//! Mappings: their keys, which may be unknown, missing, or in another mapping's vocabulary.

use serde_json::Value;

use super::keywords::Keywords;
use super::vocabulary::{self, Other};
use super::walk::{At, Subject, Walker};
use super::{codes, forms, presence};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::yaml::{Entry, Node};

impl<'a> Walker<'a, '_> {
    /// Checks the keys of a mapping and what stands behind them.
    pub(super) fn check_mapping(&mut self, schema: &Keywords<'a>, node: &'a Node, at: At<'a>) {
        // Keys that the unknown ones stand for: these are not reported as missing as well.
        let mut meant: Vec<&str> = Vec::new();
        let properties = schema.properties;
        let names = schema.property_names;
        let additional = schema.additional_properties;
        let patterns = schema.pattern_properties;
        for entry in node.entries() {
            let below = At { subject: Subject::Key(&entry.key), place: "" };
            if let Some(names) = names {
                self.check_name(names, entry, at);
            }
            let mut known = false;
            if let Some(property) = properties.and_then(|properties| properties.get(&*entry.key)) {
                known = true;
                self.check(property, &entry.node, below);
            }
            for (pattern, property) in patterns.into_iter().flatten() {
                if self.matches(pattern, &entry.key) {
                    known = true;
                    self.check(property, &entry.node, below);
                }
            }
            match additional {
                Some(Value::Bool(false)) if !known => {
                    meant.extend(self.report_unknown(schema, entry, node, at));
                }
                Some(property) if !known => self.check(property, &entry.node, below),
                Some(_) | None => {}
            }
        }
        self.check_required(schema, node, &meant, at);
        self.check_counts(schema, node, at);
        let before = self.count();
        self.check_presence(schema, node, &meant, at);
        if self.count() == before && !meant.iter().any(|key| presence::is_action(key)) {
            self.check_dependent(schema, node, at);
        }
    }

    fn check_name(&mut self, names: &'a Value, entry: &Entry, at: At<'a>) {
        let Some(pattern) = names.get("pattern").and_then(Value::as_str) else { return };
        if self.matches(pattern, &entry.key) {
            return;
        }
        let within = at.subject.words();
        let message = match forms::shape_of(pattern) {
            Some(shape) => format!("`{}` is no name in {within}: it must be {shape}", entry.key),
            None => format!("`{}` is no name in {within}: it does not match `{pattern}`", entry.key),
        };
        let diagnostic = Diagnostic::error(codes::WRONG_FORM, entry.key_span, message);
        self.report(diagnostic.maybe_help(forms::offer(pattern, &entry.key)));
    }

    /// Reports a key that the mapping does not have; gives the keys that it may stand for.
    fn report_unknown(&mut self, schema: &Keywords<'a>, entry: &'a Entry, node: &Node, at: At<'a>) -> Vec<&'a str> {
        if self.full() {
            return Vec::new();
        }
        let properties = schema.properties;
        let known = || properties.into_iter().flatten().map(|(key, _)| key.as_str());
        let within = place_words(at);
        let message = format!("`{}` is not a key of {within}", entry.key);
        let (message, help, meant) = match vocabulary::other(at.place, &entry.key) {
            Some(Other::Key(right)) if properties.is_some_and(|properties| properties.contains_key(right)) => {
                (message, Some(vocabulary::advice(right, &entry.key)), Some(right))
            }
            Some(Other::Advice(advice)) => (message, Some(advice.to_owned()), None),
            Some(Other::NotBuilt) => {
                let message = format!("`{}` is not part of this version", entry.key);
                (message, Some("it is planned; use one of the other actions for now".to_owned()), Some("run"))
            }
            Some(Other::Key(_)) | None => match nearest(&entry.key, known()) {
                Some(right) if node.get(right).is_none() => {
                    (message, Some(format!("did you mean `{right}`?")), Some(right))
                }
                Some(right) => (message, Some(format!("`{right}` stands here already")), Some(right)),
                None => {
                    let keys: Vec<String> = known().map(|key| format!("`{key}`")).collect();
                    let help =
                        (!keys.is_empty() && keys.len() <= 12).then(|| format!("the keys are {}", keys.join(", ")));
                    (message, help, None)
                }
            },
        };
        self.report(Diagnostic::error(codes::UNKNOWN_KEY, entry.key_span, message).maybe_help(help));
        meant.into_iter().collect()
    }

    fn check_required(&mut self, schema: &Keywords<'a>, node: &Node, meant: &[&str], at: At<'a>) {
        for key in schema.required.into_iter().flatten().filter_map(Value::as_str) {
            if node.entry(key).is_none() && !meant.contains(&key) {
                self.report_missing(schema, key, node, at, "");
            }
        }
        for (key, others) in schema.dependent_required.into_iter().flatten() {
            for other in others.as_array().into_iter().flatten().filter_map(Value::as_str) {
                if node.entry(key).is_some() && node.entry(other).is_none() && !meant.contains(&other) {
                    self.report_missing(schema, other, node, at, &format!("; `{key}` needs it"));
                }
            }
        }
    }

    /// Reports a missing key at the mapping, with an example of it.
    pub(super) fn report_missing(&mut self, schema: &Keywords<'a>, key: &str, node: &Node, at: At<'a>, why: &str) {
        let message = format!("`{key}` is missing in {}{why}", place_words(at));
        let example = schema.properties.and_then(|properties| properties.get(key)).and_then(|property| {
            let (resolved, _) = self.resolve(property, "");
            let examples = property.get("examples").or_else(|| resolved.get("examples"))?;
            let text = super::values::plain(examples.get(0)?);
            (text.chars().count() <= 40).then_some(text)
        });
        let help = example.map(|example| format!("add `{key}: {example}`"));
        self.report(Diagnostic::error(codes::MISSING_KEY, start_of(node), message).maybe_help(help));
    }

    fn check_counts(&mut self, schema: &Keywords<'a>, node: &Node, at: At<'a>) {
        let count = node.entries().len() as f64;
        let least = schema.min_properties.is_some_and(|least| count < least);
        let most = schema.max_properties.is_some_and(|most| count > most);
        if least || most {
            let subject = at.subject.words();
            let message = if least && node.entries().is_empty() {
                format!("{subject} is empty, but must have at least one key")
            } else if least {
                format!("{subject} has too few keys")
            } else {
                format!("{subject} has too many keys")
            };
            self.report(Diagnostic::error(codes::OUT_OF_RANGE, node.span, message));
        }
    }
}

/// What a message calls the mapping.
pub(super) fn place_words(at: At<'_>) -> String {
    match at.place {
        "step" => "a step".to_owned(),
        "stepTemplate" => "a step template".to_owned(),
        "fallback" => "a `fallback`".to_owned(),
        "hook" => "a hook".to_owned(),
        "tool" => "a tool".to_owned(),
        "agentEntry" => "an agent".to_owned(),
        "blueprintStep" => "a step of a blueprint".to_owned(),
        "trigger" => "a trigger".to_owned(),
        "profile" => "a profile".to_owned(),
        "case" => "a case".to_owned(),
        _ => at.subject.words(),
    }
}

/// Where a missing key is reported: the first key of the mapping that stands in it rather than in an anchor.
pub(super) fn start_of(node: &Node) -> Span {
    node.entries()
        .iter()
        .map(|entry| entry.key_span)
        .find(|span| span.file == node.span.file && node.span.start <= span.start && span.end <= node.span.end)
        .unwrap_or(node.span)
}
