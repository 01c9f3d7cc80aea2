//! The published protocol: its messages, made from `proto/`, and the words of [`crate::task`] in them and back.

mod check;
mod codec;
mod envelope;
mod error;
mod generated;
mod json_form;
mod outcome_form;
mod task_form;

#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod tests;

pub use check::{check, check_version, expired};
pub use codec::{CONTENT_JSON, CONTENT_PROTOBUF, Form, decode, encode, outcome_len, task_len};
pub use envelope::{
    Header, answer, answer_query, command_stop, command_task, data_log, error_report, event, heartbeat, notification,
    outcome, query,
};
pub use error::{EnvelopeError, Undecodable};
pub use generated::{DESCRIPTORS, MAX_MESSAGE_BYTES, VERSION, v1};
pub use task_form::{key_from_wire, key_to_wire};
