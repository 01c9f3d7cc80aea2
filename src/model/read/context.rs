//! What reading needs beside the tree: the texts, for places inside scalars, and somewhere to put mistakes.

use std::collections::HashSet;
use std::ops::Range;

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Files, Span, Spanned};
use crate::expr::{Expression, Problem, Template, ValueTemplate};
use crate::model::read::scalar;
use crate::yaml::{Node, Yaml, place_in_scalar};

/// Texts and mistakes of one reading.
pub struct ReadContext<'a> {
    /// The texts that spans point into, by their paths within the project.
    pub files: &'a Files,
    /// What `schema` found may stand here already; a second word on the same place is left out.
    diagnostics: &'a mut Vec<Diagnostic>,
    /// The places that have a mistake.
    places: HashSet<Span>,
}

impl<'a> ReadContext<'a> {
    /// A context that adds to a list of mistakes.
    pub fn new(files: &'a Files, diagnostics: &'a mut Vec<Diagnostic>) -> Self {
        let places = diagnostics.iter().map(|diagnostic| diagnostic.span).collect();
        Self { files, diagnostics, places }
    }

    /// Adds a mistake, unless its very place has one already.
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        if self.places.insert(diagnostic.span) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// The folder, within the project, of the file that a span points into.
    pub(super) fn folder(&self, span: Span) -> Box<str> {
        let path = self.files.path(span.file);
        Box::from(path.rsplit_once('/').map_or("", |(folder, _)| folder))
    }

    /// Where a stretch of a scalar's value stands in its file.
    pub(super) fn place(&self, span: Span, range: Range<usize>) -> Span {
        place_in_scalar(self.files.text(span.file), span, range)
    }

    fn report_problems(&mut self, span: Span, problems: Vec<Problem>) {
        for problem in problems {
            let place = self.place(span, problem.range);
            self.report(Diagnostic::error(problem.code, place, problem.message).maybe_help(problem.help));
        }
    }

    /// A scalar as a template; numbers and booleans as their text. A faulty one is reported and stands as no text.
    pub(super) fn template(&mut self, node: &Node) -> Option<Spanned<Template>> {
        let text = scalar::text_of(node)?;
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(problems) => {
                self.report_problems(node.span, problems);
                Template::parse("").ok()?
            }
        };
        Some(Spanned::new(template, node.span))
    }

    /// A string as an expression; a faulty one is reported.
    pub(super) fn expression(&mut self, node: &Node) -> Option<Spanned<Expression>> {
        // An empty text has been reported as one.
        let text = node.as_str().filter(|text| !text.is_empty())?;
        match Expression::parse(text) {
            Ok(expression) => Some(Spanned::new(expression, node.span)),
            Err(problems) => {
                self.report_problems(node.span, problems);
                None
            }
        }
    }

    /// A tree in which every string is a template.
    pub(super) fn value_template(&mut self, node: &Node) -> ValueTemplate {
        match &node.value {
            Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => ValueTemplate::Constant(node.to_json()),
            Yaml::String(text) => match self.template(node) {
                Some(template) => match template.value.constant() {
                    Some(text) => ValueTemplate::Constant(Value::from(text)),
                    None => ValueTemplate::Text(Box::new(template)),
                },
                None => ValueTemplate::Constant(Value::from(&**text)),
            },
            Yaml::List(items) => {
                let items: Vec<ValueTemplate> = items.iter().map(|item| self.value_template(item)).collect();
                if items.iter().all(|item| matches!(item, ValueTemplate::Constant(_))) {
                    return ValueTemplate::Constant(Value::Array(items.into_iter().filter_map(constant).collect()));
                }
                ValueTemplate::List(items)
            }
            Yaml::Map(entries) => {
                let pairs: Vec<(String, ValueTemplate)> =
                    entries.iter().map(|entry| (entry.key.to_string(), self.value_template(&entry.node))).collect();
                if pairs.iter().all(|(_, value)| matches!(value, ValueTemplate::Constant(_))) {
                    let pairs = pairs.into_iter().filter_map(|(key, value)| Some((key, constant(value)?)));
                    return ValueTemplate::Constant(Value::Object(pairs.collect()));
                }
                ValueTemplate::Map(pairs)
            }
        }
    }
}

fn constant(value: ValueTemplate) -> Option<Value> {
    match value {
        ValueTemplate::Constant(value) => Some(value),
        ValueTemplate::Text(_) | ValueTemplate::List(_) | ValueTemplate::Map(_) => None,
    }
}
