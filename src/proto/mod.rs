//! The published protocol: its messages, made from `proto/`, and the words of [`crate::task`] in them and back.

mod error;
mod generated;
mod outcome_form;
mod task_form;

pub use error::Undecodable;
pub use generated::{DESCRIPTORS, MAX_MESSAGE_BYTES, VERSION, v1};
pub use task_form::{key_from_wire, key_to_wire};
