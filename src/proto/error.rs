//! Why a message cannot be read.

/// A message that does not say what its form demands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be read: {what}")]
pub struct Undecodable {
    pub what: String,
}

impl Undecodable {
    /// A message with a fault.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }

    /// A message without a part that it needs.
    pub fn missing(field: &str) -> Self {
        Self::new(format!("`{field}` is missing"))
    }
}
