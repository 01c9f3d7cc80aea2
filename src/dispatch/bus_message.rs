//! A message for a bus, and whom it is for.

use std::sync::Arc;

use crate::dispatch::Message;

/// What a bus is to carry. Everybody hears it; a stop that is meant for one worker must not end another's work.
#[derive(Clone, Debug, PartialEq)]
pub struct BusMessage {
    /// Absent: whoever it concerns.
    pub to: Option<Arc<str>>,
    pub message: Message,
}

impl BusMessage {
    /// For whoever it concerns.
    pub fn to_all(message: Message) -> Self {
        Self { to: None, message }
    }
}
