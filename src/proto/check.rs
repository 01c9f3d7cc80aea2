//! What each of the eight types of message must hold, which versions are read, and when a message is too old.

use crate::proto::envelope::type_name;
use crate::proto::v1::envelope::Payload;
use crate::proto::{EnvelopeError, Undecodable, key_from_wire, v1};
use crate::time::Timestamp;

/// Holds an envelope to the rules of its type.
///
/// # Errors
/// Names the version, the type, or the first part that is missing.
pub fn check(envelope: &v1::Envelope) -> Result<(), EnvelopeError> {
    check_version(&envelope.version)?;
    let kind = match v1::MessageType::try_from(envelope.r#type) {
        Ok(v1::MessageType::Unspecified) => return Err(Undecodable::missing("type").into()),
        Ok(kind) => kind,
        Err(_) => return Err(EnvelopeError::UnknownType { name: envelope.r#type.to_string() }),
    };
    for (name, text) in [("id", &envelope.id), ("from", &envelope.from)] {
        if text.is_empty() {
            return Err(Undecodable::missing(name).into());
        }
    }
    if envelope.timestamp_ms == 0 {
        return Err(Undecodable::missing("timestamp").into());
    }
    let need = |holds: bool, part: &'static str| {
        if holds { Ok(()) } else { Err(EnvelopeError::Incomplete { kind: type_name(kind), part }) }
    };
    let payload = envelope.payload.as_ref();
    match kind {
        v1::MessageType::Unspecified => {}
        v1::MessageType::Command => {
            need(payload.is_some(), "a payload")?;
            let has_address = envelope.to.is_some() || envelope.key.is_some();
            need(has_address || matches!(payload, Some(Payload::Task(_))), "`to` or `key`")?;
        }
        v1::MessageType::Query => need(payload.is_some(), "a payload")?,
        v1::MessageType::Response => {
            need(envelope.correlation_id.as_ref().is_some_and(|id| !id.is_empty()), "`correlation_id`")?;
        }
        v1::MessageType::Event => need(payload.is_some(), "a payload")?,
        v1::MessageType::Heartbeat => need(matches!(payload, Some(Payload::Heartbeat(_))), "the payload `heartbeat`")?,
        v1::MessageType::Error => need(matches!(payload, Some(Payload::Error(_))), "the payload `error`")?,
        v1::MessageType::Data => need(payload.is_some(), "a payload")?,
        v1::MessageType::Notification => need(payload.is_some(), "a payload")?,
    }
    if matches!(payload, Some(Payload::Outcome(_) | Payload::Stop(_) | Payload::Receipt(_))) {
        key_from_wire(envelope.key.clone())?;
    }
    if let Some(Payload::Receipt(receipt)) = payload {
        verdict_of(receipt.verdict)?;
    }
    Ok(())
}

/// The verdict of a receipt. One that is not known here is refused: to guess could make a worker forget an outcome.
pub(super) fn verdict_of(verdict: i32) -> Result<v1::Verdict, Undecodable> {
    match v1::Verdict::try_from(verdict) {
        Ok(v1::Verdict::Unspecified) => Err(Undecodable::missing("receipt.verdict")),
        Ok(verdict) => Ok(verdict),
        Err(_) => Err(Undecodable::new(format!("there is no verdict {verdict}"))),
    }
}

/// Takes every `1.x` and `1.x.y`; refuses others.
///
/// # Errors
/// If the version is another.
pub fn check_version(version: &str) -> Result<(), EnvelopeError> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = version.split('.').collect();
    if matches!(parts.len(), 2 | 3) && parts[0] == "1" && parts[1..].iter().all(|part| is_number(part)) {
        return Ok(());
    }
    Err(EnvelopeError::Version { version: version.to_owned() })
}

/// Whether a message's time to live is over at a time.
pub fn expired(envelope: &v1::Envelope, now: Timestamp) -> bool {
    envelope.ttl_ms.is_some_and(|ttl| envelope.timestamp_ms.saturating_add(ttl) <= now.0)
}
