//! The input of a blueprint step: JSON whose strings may hold `#E1` and `{{ E1.outputs… }}`, filled in one pass.

use serde_json::Value;

use crate::expr::{EvaluationError, Names};

/// A parsed input.
#[derive(Clone, Debug)]
pub struct InputTemplate;

impl InputTemplate {
    /// Fills every reference once. `names` knows the blueprint's steps by id, each with `outputs` and `status`.
    /// Evidence that is only `{text}` is inserted as that text, other evidence as compact JSON; a string that is one
    /// whole `#E1` or template keeps the type.
    pub fn render(&self, _names: &dyn Names) -> Result<Value, EvaluationError> {
        todo!()
    }
}
