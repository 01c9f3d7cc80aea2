//! The published protocol: its messages, made from `proto/`, and the words of [`crate::task`] in them and back.

mod generated;

pub use generated::{DESCRIPTORS, MAX_MESSAGE_BYTES, VERSION, v1};
