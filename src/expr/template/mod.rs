//! Handlebars templates: found, checked and typed here; those with blocks are filled by the `handlebars` crate.
//!
//! Inside a block, `this.field`, `@index`, names behind `as` and root names may be used; a bare name is always a
//! root name. Nothing is ever escaped for HTML, what is inserted is never read again, and a missing key is an error.

mod blocks;
mod build;
mod check;
mod helper;
mod lexer;
mod parser;
mod path;
mod resolve;
mod spaces;
mod tree;

use std::sync::Arc;

use serde_json::Value;

use self::blocks::Compiled;
use self::helper::{Helper, text_of};
use self::resolve::value_of;
use self::tree::{Argument, Item, Start};
use super::names::Names;
use super::problem::{EvaluationError, Problem};
use super::reference::Reference;
use super::types::{Type, TypeNames};

/// A value does not have the type that a helper or block needs.
const OPERANDS: &str = "TOL0305";
/// The form of a template is wrong.
const SYNTAX: &str = "TOL0310";
/// A block and its end do not fit together.
const PAIRING: &str = "TOL0311";
/// A part of Handlebars that is not used here.
const REFUSED: &str = "TOL0312";
/// A helper or block is unknown.
const HELPER: &str = "TOL0313";
/// A helper or block has too few or too many arguments.
const ARGUMENTS: &str = "TOL0314";
/// A template is too deep.
const TOO_LARGE: &str = "TOL0315";

/// The longest text that filling a template may give, in bytes.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// A parsed template. Cheap to copy where there is something to fill in.
#[derive(Clone, Debug)]
pub struct Template(Form);

#[derive(Clone, Debug)]
enum Form {
    Constant(Box<str>),
    Parsed(Arc<Parsed>),
}

#[derive(Debug)]
struct Parsed {
    source: Box<str>,
    items: Vec<Item>,
    /// Nothing stands around the one tag.
    is_one_tag: bool,
    /// Only where a block needs it.
    compiled: Option<Compiled>,
}

impl Parsed {
    /// The one tag that the whole text is; its value keeps its type.
    fn whole(&self) -> Option<&Argument> {
        match self.items.as_slice() {
            [Item::Value(argument)] if self.is_one_tag => Some(argument),
            _ => None,
        }
    }

    /// The literal text, if nothing is filled in.
    fn constant(&self) -> Option<&str> {
        match self.items.as_slice() {
            [] => Some(""),
            [Item::Text(text)] => Some(text),
            _ => None,
        }
    }
}

impl Template {
    /// Parses; every mistake has its place. A text without `{{` is a constant and costs nothing.
    pub fn parse(source: &str) -> Result<Self, Vec<Problem>> {
        if !source.contains("{{") {
            return Ok(Self(Form::Constant(source.into())));
        }
        let (items, is_one_tag) = parser::parse(source)?;
        let has_block = items.iter().any(|item| matches!(item, Item::Block(_)));
        let compiled = if has_block { Some(Compiled::new(&items, source)?) } else { None };
        Ok(Self(Form::Parsed(Arc::new(Parsed { source: source.into(), items, is_one_tag, compiled }))))
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        match &self.0 {
            Form::Constant(text) => text,
            Form::Parsed(parsed) => &parsed.source,
        }
    }

    /// The text itself, if there is nothing to fill in (with `\{{` already a literal `{{`).
    pub fn constant(&self) -> Option<&str> {
        match &self.0 {
            Form::Constant(text) => Some(text),
            Form::Parsed(parsed) => parsed.constant(),
        }
    }

    /// All references in the order of the text, block-local names left out. An index stands among the fields.
    pub fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        if let Form::Parsed(parsed) = &self.0 {
            tree::each_path(&parsed.items, &mut |path| {
                if path.start == Start::Root {
                    found.push(Reference { segments: path.segments.clone() });
                }
            });
        }
        found
    }

    /// The type that filling it gives, and all mistakes of names, fields and types.
    pub fn check(&self, names: &dyn TypeNames) -> (Type, Vec<Problem>) {
        match &self.0 {
            Form::Constant(_) => (Type::String, Vec::new()),
            Form::Parsed(parsed) => check::check(&parsed.items, parsed.whole(), names),
        }
    }

    /// The value: typed if the text is one whole template, else text.
    pub fn render(&self, names: &dyn Names) -> Result<Value, EvaluationError> {
        if let Form::Parsed(parsed) = &self.0
            && let Some(argument) = parsed.whole()
        {
            return value_of(names, argument).map(std::borrow::Cow::into_owned);
        }
        self.render_text(names).map(Value::String)
    }

    /// The filled text, whatever its type.
    pub fn render_text(&self, names: &dyn Names) -> Result<String, EvaluationError> {
        let parsed = match &self.0 {
            Form::Constant(text) => return Ok(text.to_string()),
            Form::Parsed(parsed) => parsed,
        };
        if let Some(compiled) = &parsed.compiled {
            return compiled.render(&parsed.items, names);
        }
        let mut text = String::with_capacity(parsed.source.len());
        for item in &parsed.items {
            match item {
                Item::Text(literal) => text.push_str(literal),
                Item::Value(argument) => append(&mut text, names, argument)?,
                // A template with blocks was compiled.
                Item::Block(_) => {}
            }
            if text.len() > MOST_BYTES {
                return Err(EvaluationError::new("this template makes too much text: more than 64 MiB"));
            }
        }
        Ok(text)
    }
}

/// Adds a value as text; JSON of a large value is written in place.
fn append(text: &mut String, names: &dyn Names, argument: &Argument) -> Result<(), EvaluationError> {
    if let Argument::Call(call) = argument
        && let (Helper::Json, [one]) = (call.helper, call.arguments.as_slice())
    {
        text.push_str(&value_of(names, one)?.to_string());
        return Ok(());
    }
    text.push_str(&text_of(&*value_of(names, argument)?));
    Ok(())
}

#[cfg(test)]
mod tests;
