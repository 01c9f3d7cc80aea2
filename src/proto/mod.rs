//! The published protocol: its messages, made from `proto/`, and the words of [`crate::task`] in them and back.

mod generated;
mod interim;

pub use generated::{DESCRIPTORS, MAX_MESSAGE_BYTES, VERSION, v1};
pub use interim::{outcome_from_v1, outcome_to_v1, task_from_v1, task_to_v1};
