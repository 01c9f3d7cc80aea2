//! Envelopes in records: bytes, and the header that says which form they have.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message as _;

use crate::dispatch::LeaseKey;
use crate::dispatch::kafka::consumer::Received;
use crate::proto::{MAX_MESSAGE_BYTES, Undecodable, VERSION, key_from_wire, key_to_wire, v1};

/// The header of a record that names its form.
pub const CONTENT_TYPE: &str = "content-type";
/// The value of that header for the form that is written here.
pub const PROTOBUF: &str = "application/x-protobuf; messageType=\"tol.v1.Envelope\"";

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// An envelope around a payload, with a name and a time of its own.
pub fn envelope(from: &str, kind: v1::MessageType, payload: v1::envelope::Payload) -> v1::Envelope {
    v1::Envelope {
        version: VERSION.to_owned(),
        id: uuid::Uuid::now_v7().to_string(),
        r#type: kind.into(),
        from: from.to_owned(),
        to: None,
        timestamp_ms: now_ms(),
        correlation_id: None,
        priority: v1::Priority::Medium.into(),
        ttl_ms: None,
        traceparent: None,
        key: None,
        payload: Some(payload),
    }
}

/// An error report about a message.
pub fn error_report(from: &str, code: &str, message: &str, source: &str) -> v1::Envelope {
    let report = v1::ErrorReport { code: code.to_owned(), message: message.to_owned(), source: source.to_owned() };
    envelope(from, v1::MessageType::Error, v1::envelope::Payload::Error(report))
}

/// The key of a hand-out as it travels.
pub fn wire_key(key: &LeaseKey) -> v1::LeaseKey {
    key_to_wire(&key.run, &key.unit, key.token)
}

/// The key of a hand-out as it came.
pub fn lease_key(key: Option<v1::LeaseKey>) -> Result<LeaseKey, Undecodable> {
    let (run, unit, token) = key_from_wire(key)?;
    Ok(LeaseKey { run, unit, token })
}

/// An envelope as the bytes of a record.
pub fn encode(envelope: &v1::Envelope) -> Vec<u8> {
    envelope.encode_to_vec()
}

/// The envelope of a record. A version that begins with another number than ours is refused.
pub fn decode(record: &Received) -> Result<v1::Envelope, Undecodable> {
    if record.payload.len() > MAX_MESSAGE_BYTES {
        return Err(Undecodable::new(format!("MESSAGE_TOO_LARGE: {} bytes", record.payload.len())));
    }
    let form = record.header(CONTENT_TYPE).unwrap_or(PROTOBUF);
    let kind = form.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-protobuf") {
        return Err(Undecodable::new(format!("a message of the form `{form}`")));
    }
    let envelope = v1::Envelope::decode(record.payload.as_slice())
        .map_err(|error| Undecodable::new(format!("no envelope: {error}")))?;
    match envelope.version.split('.').next() {
        Some("1") => Ok(envelope),
        _ => Err(Undecodable::new(format!("an envelope of version `{}`", envelope.version))),
    }
}

/// True if a message came too late to be of use.
pub fn is_expired(envelope: &v1::Envelope, now_ms: u64) -> bool {
    envelope.ttl_ms.is_some_and(|ttl| envelope.timestamp_ms.saturating_add(ttl) < now_ms)
}
