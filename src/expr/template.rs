//! Handlebars templates.
use super::{EvaluationError, Names, Problem, Reference, Type, TypeNames};
use serde_json::Value;

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template;
impl Template {
    /// Parses; a text without `{{` is a constant and costs nothing.
    pub fn parse(_source: &str) -> Result<Self, Vec<Problem>> {
        todo!()
    }
    /// The text as written.
    pub fn source(&self) -> &str {
        todo!()
    }
    /// The text itself, if there is nothing to fill in (with `\{{` already a literal `{{`).
    pub fn constant(&self) -> Option<&str> {
        todo!()
    }
    /// All references, block-local names left out.
    pub fn references(&self) -> Vec<Reference> {
        todo!()
    }
    /// The type that filling it gives, and all mistakes of names and fields.
    pub fn check(&self, _names: &dyn TypeNames) -> (Type, Vec<Problem>) {
        todo!()
    }
    /// The value: typed if the text is one whole template, else text.
    pub fn render(&self, _names: &dyn Names) -> Result<Value, EvaluationError> {
        todo!()
    }
    /// The filled text, whatever its type.
    pub fn render_text(&self, _names: &dyn Names) -> Result<String, EvaluationError> {
        todo!()
    }
}
