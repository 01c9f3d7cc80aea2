//! JSON values whose string leaves are templates.
use super::{EvaluationError, Names, Template};
use serde_json::Value;

/// A value with templates in its strings. Templates are filled once; what they insert is never read again.
#[derive(Clone, Debug)]
pub enum ValueTemplate {
    Constant(Value),
    /// The template and the span of its scalar, for diagnostics.
    Text(Box<crate::diagnostic::Spanned<Template>>),
    List(Vec<ValueTemplate>),
    Map(Vec<(String, ValueTemplate)>),
}
impl ValueTemplate {
    /// Fills every leaf.
    pub fn render(&self, _names: &dyn Names) -> Result<Value, EvaluationError> {
        todo!()
    }
    /// Calls for every template in it, in order.
    pub fn each_template<'a>(&'a self, _visit: &mut dyn FnMut(&'a crate::diagnostic::Spanned<Template>)) {
        todo!()
    }
}
