//! Conditions in CEL.
use super::{EvaluationError, Names, Problem, Reference, Type, TypeNames};
use serde_json::Value;

/// A parsed CEL expression.
#[derive(Clone, Debug)]
pub struct Expression;
impl Expression {
    /// Parses; every mistake has its place in the text.
    pub fn parse(_source: &str) -> Result<Self, Vec<Problem>> {
        todo!()
    }
    /// The text.
    pub fn source(&self) -> &str {
        todo!()
    }
    /// Free names with their constant fields (not the variables of `map`, `filter`, …).
    pub fn references(&self) -> Vec<Reference> {
        todo!()
    }
    /// The type of the whole and all mistakes of names, fields and types.
    pub fn check(&self, _names: &dyn TypeNames) -> (Type, Vec<Problem>) {
        todo!()
    }
    /// The value, if the expression needs no names at all.
    pub fn constant(&self) -> Option<Value> {
        todo!()
    }
    /// The value.
    pub fn evaluate(&self, _names: &dyn Names) -> Result<Value, EvaluationError> {
        todo!()
    }
}
