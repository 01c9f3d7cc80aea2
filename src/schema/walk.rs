//! The evaluator: walks a schema and a tree together and reports each mistake once, at its span.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::documents::{DocumentKind, schema};
use super::keywords::Keywords;
use super::{codes, forms, types, values};
use crate::diagnostic::{Diagnostic, Span};
use crate::yaml::{Node, Yaml};

/// More findings than this in one document help nobody; a hostile file is cut off here.
const MAX_FINDINGS: usize = 1000;

/// Schemas that users write may refer to themselves; deeper than this nothing more is explained.
const MAX_DEPTH: usize = 200;

/// Checks a document against the published schema of its kind.
pub(super) fn check_document(kind: DocumentKind, node: &Node, out: &mut Vec<Diagnostic>) {
    let root = schema(kind);
    let mut walker = Walker::new(root, out);
    walker.check(root, node, At { subject: Subject::Document(kind.noun()), place: kind.noun() });
}

/// What a message calls the value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Subject<'a> {
    /// The whole document, by its noun.
    Document(&'a str),
    /// The value of a key.
    Key(&'a str),
    /// An item of the list under a key.
    Item(&'a str),
}

impl Subject<'_> {
    /// The words for it.
    pub(super) fn words(self) -> String {
        match self {
            Self::Document(noun) => format!("the {noun}"),
            Self::Key(key) => format!("`{key}`"),
            Self::Item(key) => format!("an item of `{key}`"),
        }
    }

    /// The key alone, or nothing for a document.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Document(_) => "",
            Self::Key(key) | Self::Item(key) => key,
        }
    }
}

/// Where the walk is: the name of the value, and the name of the definition that it was reached by.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) subject: Subject<'a>,
    pub(super) place: &'a str,
}

/// The state of one walk.
pub(super) struct Walker<'a, 'o> {
    root: &'a Value,
    out: &'o mut Vec<Diagnostic>,
    /// What was reported already: an anchored node is met once for each alias.
    seen: BTreeSet<(Span, &'static str)>,
    patterns: BTreeMap<&'a str, Option<jsonschema::Validator>>,
    depth: usize,
}

impl<'a, 'o> Walker<'a, 'o> {
    /// A walk under a schema whose local references start at `root`.
    pub(super) fn new(root: &'a Value, out: &'o mut Vec<Diagnostic>) -> Self {
        Self { root, out, seen: BTreeSet::new(), patterns: BTreeMap::new(), depth: 0 }
    }

    /// Reports a mistake, unless it has been reported or the list is full.
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        if self.full() || !self.seen.insert((diagnostic.span, diagnostic.code)) {
            return;
        }
        let span = diagnostic.span;
        self.out.push(diagnostic);
        if self.full() {
            let message = format!("there are more than {MAX_FINDINGS} mistakes; the others are not listed");
            self.out.push(Diagnostic::error(codes::TOO_MANY, span, message).help("mend these and check again"));
        }
    }

    /// True once no more is reported.
    pub(super) fn full(&self) -> bool {
        self.seen.len() >= MAX_FINDINGS
    }

    /// How many mistakes have been reported.
    pub(super) fn count(&self) -> usize {
        self.out.len()
    }

    /// True if a node satisfies a schema; nothing is reported.
    pub(super) fn accepts(&mut self, schema: &'a Value, node: &'a Node) -> bool {
        let mut found = Vec::new();
        let mut walker = Walker::new(self.root, &mut found);
        walker.depth = self.depth;
        // Compiled patterns go along and come back: to compile one costs more than all the rest.
        walker.patterns = std::mem::take(&mut self.patterns);
        walker.check(schema, node, At { subject: Subject::Key(""), place: "" });
        self.patterns = walker.patterns;
        found.is_empty()
    }

    /// Follows local references.
    pub(super) fn resolve(&self, mut schema: &'a Value, mut place: &'a str) -> (&'a Value, &'a str) {
        for _ in 0..MAX_DEPTH {
            let Some(reference) = schema.get("$ref").and_then(Value::as_str) else { break };
            let target = match reference.strip_prefix("#/$defs/") {
                Some(name) if !name.contains(['/', '~', '%']) => {
                    place = name;
                    self.root.get("$defs").and_then(|definitions| definitions.get(name))
                }
                Some(_) | None => reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)),
            };
            let Some(target) = target else { break };
            schema = target;
        }
        (schema, place)
    }

    /// Checks one node; one mistake gives one report.
    pub(super) fn check(&mut self, schema: &'a Value, node: &'a Node, at: At<'a>) {
        if self.depth >= MAX_DEPTH || self.full() {
            return;
        }
        self.depth += 1;
        let (schema, place) = self.resolve(schema, at.place);
        let at = At { place, ..at };
        match schema {
            Value::Object(keywords) => self.check_keywords(keywords, node, at),
            Value::Bool(false) => {
                let message = format!("{} may not stand here", at.subject.words());
                self.report(Diagnostic::error(codes::NOT_ALLOWED, node.span, message));
            }
            _ => {}
        }
        self.depth -= 1;
    }

    fn check_keywords(&mut self, schema: &'a Map<String, Value>, node: &'a Node, at: At<'a>) {
        let schema = &Keywords::of(schema);
        if let Some(expected) = schema.types
            && !types::admits(expected, node)
        {
            let diagnostic = types::wrong_type(&types::names(expected), node, at);
            self.report(diagnostic);
            return;
        }
        let before = self.count();
        if let Some(diagnostic) = values::check_enum(schema, node, at) {
            self.report(diagnostic);
            return;
        }
        match &node.value {
            Yaml::Int(_) | Yaml::Float(_) => {
                if let Some(diagnostic) = values::check_number(schema, node, at) {
                    self.report(diagnostic);
                }
            }
            Yaml::String(text) => self.check_text(schema, text, node, at),
            Yaml::List(items) => self.check_list(schema, items, node, at),
            Yaml::Map(_) => self.check_mapping(schema, node, at),
            Yaml::Null | Yaml::Bool(_) => {}
        }
        if let Some(not) = schema.not
            && self.count() == before
        {
            self.check_not(not, node, at);
        }
        for (branches, exactly_one) in [(schema.one_of, true), (schema.any_of, false)] {
            if let Some(branches) = branches
                && !super::presence::is_presence(branches)
            {
                self.check_branches(branches, exactly_one, node, at);
            }
        }
        for part in schema.all_of.unwrap_or_default() {
            self.check(part, node, at);
        }
        if let Some(condition) = schema.condition {
            let branch = if self.accepts(condition, node) { schema.then } else { schema.otherwise };
            if let Some(branch) = branch {
                self.check(branch, node, at);
            }
        }
    }

    fn check_text(&mut self, schema: &Keywords<'a>, text: &str, node: &Node, at: At<'a>) {
        if let Some(diagnostic) = values::check_length(schema, text, node, at) {
            self.report(diagnostic);
            return;
        }
        if let Some(pattern) = schema.pattern
            && !self.matches(pattern, text)
        {
            self.report(forms::wrong_form(schema, pattern, text, node, at));
        }
    }

    /// True if a pattern is found in a text. The patterns of the published schemas are known by heart; those that
    /// users write are compiled once for each walk.
    pub(super) fn matches(&mut self, pattern: &'a str, text: &str) -> bool {
        if let Some(matcher) = forms::known(pattern) {
            return matcher(text);
        }
        let compiled = self
            .patterns
            .entry(pattern)
            .or_insert_with(|| super::compile_schema(&serde_json::json!({ "pattern": pattern })).ok());
        compiled.as_ref().is_none_or(|validator| validator.is_valid(&Value::from(text)))
    }

    fn check_list(&mut self, schema: &Keywords<'a>, items: &'a [Node], node: &Node, at: At<'a>) {
        if let Some(diagnostic) = values::check_count(schema, items, node, at) {
            self.report(diagnostic);
        }
        let prefix = schema.prefix_items.unwrap_or_default();
        let item_at = At { subject: Subject::Item(at.subject.key_of_whole()), ..at };
        for (index, item) in items.iter().enumerate() {
            if let Some(expected) = prefix.get(index).or(schema.items) {
                self.check(expected, item, item_at);
            }
        }
        if schema.unique_items {
            let mut seen = BTreeSet::new();
            for item in items {
                let text = item.to_json().to_string();
                if seen.contains(&text) {
                    let message = format!("`{}` stands twice in {}", text.trim_matches('"'), at.subject.words());
                    self.report(
                        Diagnostic::error(codes::NOT_ALLOWED, item.span, message).help("leave one of them out"),
                    );
                }
                seen.insert(text);
            }
        }
    }

    /// Alternatives: the one for the type of the value is held against it, so that its own mistakes are told.
    fn check_branches(&mut self, branches: &'a [Value], exactly_one: bool, node: &'a Node, at: At<'a>) {
        let mut expected = Vec::new();
        let mut fitting = Vec::new();
        for branch in branches {
            let (resolved, place) = self.resolve(branch, at.place);
            let names = resolved.get("type").map(types::names).unwrap_or_default();
            if names.is_empty() || resolved.get("type").is_some_and(|names| types::admits(names, node)) {
                fitting.push((branch, place));
            }
            expected.extend(names);
        }
        match fitting.as_slice() {
            [] => self.report(types::wrong_type(&expected, node, at)),
            [(branch, _)] => self.check(branch, node, at),
            several => {
                let accepted = several.iter().filter(|(branch, _)| self.accepts(branch, node)).count();
                if accepted == 0 || (exactly_one && accepted > 1) {
                    let message = format!("{} has none of the forms that it may have", at.subject.words());
                    let message =
                        if accepted == 0 { message } else { format!("{} fits more than one form", at.subject.words()) };
                    self.report(Diagnostic::error(codes::NOT_ALLOWED, node.span, message));
                }
            }
        }
    }
}

impl<'a> Subject<'a> {
    /// The name for items: a list in a list goes by the key of the outer one.
    fn key_of_whole(self) -> &'a str {
        match self {
            Self::Document(noun) => noun,
            Self::Key(key) | Self::Item(key) => key,
        }
    }
}
