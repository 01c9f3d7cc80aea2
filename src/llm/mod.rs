//! Providers on the wire: what a call of an agent is on the way to each, and what an answer means on the way back.
//!
//! One file per provider; a new one adds a variant of [`crate::task::Provider`], a file here and an arm where the
//! `agent` handler chooses. All of them give an [`Answer`].

pub mod command;

use serde_json::{Value, json};

use crate::task::Usage;

/// What an agent answered, in the one form that all providers are brought to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub text: Option<String>,
    /// A structured answer.
    pub output: Option<Value>,
    pub usage: Option<Usage>,
}

impl Answer {
    /// The outputs of a call: `{"text": …|null, "output": …|null}`.
    pub fn to_outputs(&self) -> Value {
        json!({"text": self.text, "output": self.output})
    }
}
