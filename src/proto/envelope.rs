//! Makes envelopes: one function for each kind of message that `tol` sends.

use crate::proto::v1::envelope::Payload;
use crate::proto::{VERSION, v1};
use crate::time::Timestamp;

/// What every message says of itself. The id and the time come from outside: nothing here draws or reads a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// A UUID.
    pub id: String,
    pub from: String,
    /// Absent: for everybody who listens.
    pub to: Option<String>,
    pub at: Timestamp,
}

fn wrap(header: Header, kind: v1::MessageType, payload: Payload) -> v1::Envelope {
    v1::Envelope {
        version: VERSION.to_owned(),
        id: header.id,
        r#type: kind.into(),
        from: header.from,
        to: header.to,
        timestamp_ms: header.at.0,
        correlation_id: None,
        priority: v1::Priority::Medium.into(),
        ttl_ms: None,
        traceparent: None,
        key: None,
        payload: Some(payload),
    }
}

/// Asks for work to be done. The envelope bears the task's key, too.
pub fn command_task(header: Header, task: v1::Task) -> v1::Envelope {
    let key = task.key.clone();
    v1::Envelope { key, ..wrap(header, v1::MessageType::Command, Payload::Task(task)) }
}

/// Asks for the end of a hand-out.
pub fn command_stop(header: Header, key: v1::LeaseKey, now: bool) -> v1::Envelope {
    let payload = Payload::Stop(v1::StopWork { now });
    v1::Envelope { key: Some(key), ..wrap(header, v1::MessageType::Command, payload) }
}

/// Answers the command with that id: the work ended so.
pub fn outcome(header: Header, command: String, key: v1::LeaseKey, outcome: v1::Outcome) -> v1::Envelope {
    v1::Envelope {
        key: Some(key),
        correlation_id: Some(command),
        ..wrap(header, v1::MessageType::Response, Payload::Outcome(outcome))
    }
}

/// Answers the outcome with that id.
pub fn answer(header: Header, outcome: String, key: v1::LeaseKey, verdict: v1::Verdict) -> v1::Envelope {
    let payload = Payload::Receipt(v1::Receipt { verdict: verdict.into() });
    v1::Envelope { key: Some(key), correlation_id: Some(outcome), ..wrap(header, v1::MessageType::Response, payload) }
}

/// Says that the sender lives.
pub fn heartbeat(header: Header, heartbeat: v1::Heartbeat) -> v1::Envelope {
    wrap(header, v1::MessageType::Heartbeat, Payload::Heartbeat(heartbeat))
}

/// Says that something went wrong.
pub fn error_report(header: Header, report: v1::ErrorReport) -> v1::Envelope {
    wrap(header, v1::MessageType::Error, Payload::Error(report))
}

/// Lines that programs printed.
pub fn data_log(header: Header, lines: Vec<v1::LogLine>) -> v1::Envelope {
    wrap(header, v1::MessageType::Data, Payload::Log(v1::LogLines { lines }))
}

/// Asks for an answer.
pub fn query(header: Header, question: &serde_json::Value) -> v1::Envelope {
    wrap(header, v1::MessageType::Query, Payload::Json(question.to_string()))
}

/// Answers the query with that id.
pub fn answer_query(header: Header, query: String, answer: &serde_json::Value) -> v1::Envelope {
    let payload = Payload::Json(answer.to_string());
    v1::Envelope { correlation_id: Some(query), ..wrap(header, v1::MessageType::Response, payload) }
}

/// Something happened.
pub fn event(header: Header, what: &serde_json::Value) -> v1::Envelope {
    wrap(header, v1::MessageType::Event, Payload::Json(what.to_string()))
}

/// Words for people.
pub fn notification(header: Header, what: &serde_json::Value) -> v1::Envelope {
    wrap(header, v1::MessageType::Notification, Payload::Json(what.to_string()))
}

/// A type's name as the JSON form writes it.
pub(super) fn type_name(kind: v1::MessageType) -> &'static str {
    match kind {
        v1::MessageType::Unspecified => "unspecified",
        v1::MessageType::Command => "command",
        v1::MessageType::Query => "query",
        v1::MessageType::Response => "response",
        v1::MessageType::Event => "event",
        v1::MessageType::Heartbeat => "heartbeat",
        v1::MessageType::Error => "error",
        v1::MessageType::Data => "data",
        v1::MessageType::Notification => "notification",
    }
}
