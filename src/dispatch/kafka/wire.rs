//! Envelopes in records: bytes, and the header that says which form they have.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::dispatch::kafka::consumer::Received;
use crate::proto::{self, CONTENT_PROTOBUF, EnvelopeError, Form, Header, v1};
use crate::time::Timestamp;

/// The header of a record that names its form.
pub const CONTENT_TYPE: &str = "content-type";
/// The headers of a record that is written here.
pub const HEADERS: &[(&str, &str)] = &[(CONTENT_TYPE, CONTENT_PROTOBUF)];

/// What time it is.
pub fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// What a message says of itself: a name of its own, and the time.
pub fn header(from: &str, to: Option<String>) -> Header {
    Header { id: uuid::Uuid::now_v7().to_string(), from: from.to_owned(), to, at: now() }
}

/// An error report about a message.
pub fn error_report(from: &str, code: &str, message: &str, source: &str) -> v1::Envelope {
    let report = v1::ErrorReport { code: code.to_owned(), message: message.to_owned(), source: source.to_owned() };
    proto::error_report(header(from, None), report)
}

/// An envelope as the bytes of a record.
///
/// # Errors
/// If it breaks the rules of its type, or is larger than any hop takes.
pub fn encode(envelope: &v1::Envelope) -> Result<Vec<u8>, EnvelopeError> {
    proto::encode(envelope, Form::Protobuf)
}

/// The envelope of a record, in the form that its header names.
///
/// # Errors
/// If it cannot be read, or breaks the rules of its type.
pub fn decode(record: &Received) -> Result<v1::Envelope, EnvelopeError> {
    let form = record.content_type.as_deref().map_or(Ok(Form::Protobuf), Form::of_content_type)?;
    proto::decode(record.payload(), form)
}
