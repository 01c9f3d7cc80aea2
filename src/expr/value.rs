//! JSON values whose string leaves are templates.

use serde_json::{Map, Value};

use super::{EvaluationError, Names, Template};
use crate::diagnostic::Spanned;

/// A value with templates in its strings. Templates are filled once; what they insert is never read again.
#[derive(Clone, Debug)]
pub enum ValueTemplate {
    Constant(Value),
    /// The template and the span of its scalar, for diagnostics.
    Text(Box<Spanned<Template>>),
    List(Vec<ValueTemplate>),
    Map(Vec<(String, ValueTemplate)>),
}

impl ValueTemplate {
    /// Fills every leaf; a leaf that is one whole template keeps the type of its value.
    pub fn render(&self, names: &dyn Names) -> Result<Value, EvaluationError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Text(template) => template.value.render(names),
            Self::List(items) => {
                let items: Result<Vec<Value>, _> = items.iter().map(|item| item.render(names)).collect();
                Ok(Value::Array(items?))
            }
            Self::Map(entries) => {
                let mut fields = Map::new();
                for (name, value) in entries {
                    fields.insert(name.clone(), value.render(names)?);
                }
                Ok(Value::Object(fields))
            }
        }
    }

    /// Calls for every template in it, in order.
    pub fn each_template<'a>(&'a self, visit: &mut dyn FnMut(&'a Spanned<Template>)) {
        match self {
            Self::Constant(_) => {}
            Self::Text(template) => visit(template),
            Self::List(items) => items.iter().for_each(|item| item.each_template(visit)),
            Self::Map(entries) => entries.iter().for_each(|(_, value)| value.each_template(visit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Span;
    use serde_json::json;

    /// Strings become templates, all else is constant.
    fn template(value: &Value) -> ValueTemplate {
        match value {
            Value::String(text) => {
                let parsed = Template::parse(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
                ValueTemplate::Text(Box::new(Spanned::new(parsed, Span::default())))
            }
            Value::Array(items) => ValueTemplate::List(items.iter().map(template).collect()),
            Value::Object(fields) => {
                ValueTemplate::Map(fields.iter().map(|(name, value)| (name.clone(), template(value))).collect())
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => ValueTemplate::Constant(other.clone()),
        }
    }

    #[test]
    fn leaves_are_filled_once_and_keep_their_types() {
        let mut names = Map::new();
        names.insert("a".to_owned(), json!({"n": 1, "t": "{{ a.n }}"}));
        let tree = template(&json!({"x": ["{{ a.n }}", "n {{ a.n }}", "{{ a.t }}"], "y": null, "z": "plain"}));
        let expect = json!({"x": [1, "n 1", "{{ a.n }}"], "y": null, "z": "plain"});
        assert_eq!(tree.render(&names), Ok(expect));
        let mut seen = Vec::new();
        tree.each_template(&mut |template| seen.push(template.value.source()));
        assert_eq!(seen, ["{{ a.n }}", "n {{ a.n }}", "{{ a.t }}", "plain"]);
    }
}
