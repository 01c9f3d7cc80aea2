//! The JSON form of an envelope. The values of tasks and outcomes stand in it as JSON, not as texts of JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::proto::check::verdict_of;
use crate::proto::envelope::type_name;
use crate::proto::v1::envelope::Payload;
use crate::proto::{EnvelopeError, Undecodable, check_version, v1};
use crate::task::{Outcome, Task};

const TYPES: [v1::MessageType; 8] = [
    v1::MessageType::Command,
    v1::MessageType::Query,
    v1::MessageType::Response,
    v1::MessageType::Event,
    v1::MessageType::Heartbeat,
    v1::MessageType::Error,
    v1::MessageType::Data,
    v1::MessageType::Notification,
];

#[derive(Serialize, Deserialize)]
struct EnvelopeForm {
    version: String,
    id: String,
    r#type: String,
    from: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    timestamp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyForm>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    payload: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
struct KeyForm {
    run: String,
    unit: String,
    token: u64,
}

#[derive(Serialize, Deserialize)]
struct RefForm {
    hash: String,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct HeartbeatForm {
    worker: String,
    leases: Vec<KeyForm>,
    free: u32,
    sent_at: u64,
}

#[derive(Serialize, Deserialize)]
struct StopForm {
    now: bool,
}

#[derive(Serialize, Deserialize)]
struct ErrorForm {
    code: String,
    message: String,
    source: String,
}

#[derive(Serialize, Deserialize)]
struct LineForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<KeyForm>,
    attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    text: String,
    at: u64,
}

#[derive(Serialize, Deserialize)]
struct ReceiptForm {
    verdict: String,
}

/// The bytes of an envelope's JSON form.
pub(super) fn write(envelope: &v1::Envelope) -> Result<Vec<u8>, EnvelopeError> {
    let mut payload = Map::new();
    if let Some((name, value)) = envelope.payload.as_ref().map(payload_to_json).transpose()? {
        payload.insert(name.to_owned(), value);
    }
    let form = EnvelopeForm {
        version: envelope.version.clone(),
        id: envelope.id.clone(),
        r#type: type_name(envelope.r#type()).to_owned(),
        from: envelope.from.clone(),
        to: envelope.to.clone(),
        timestamp: envelope.timestamp_ms,
        correlation_id: envelope.correlation_id.clone(),
        priority: priority_name(envelope.priority()).map(str::to_owned),
        ttl: envelope.ttl_ms,
        traceparent: envelope.traceparent.clone(),
        key: envelope.key.as_ref().map(key_form),
        payload,
    };
    serde_json::to_vec(&form).map_err(|error| Undecodable::new(error.to_string()).into())
}

/// The envelope in the bytes of a JSON form. A kind of payload that is not known here is passed over.
pub(super) fn read(bytes: &[u8]) -> Result<v1::Envelope, EnvelopeError> {
    let form: EnvelopeForm = serde_json::from_slice(bytes)
        .map_err(|error| Undecodable::new(format!("it is no envelope in JSON: {error}")))?;
    check_version(&form.version)?;
    let kind = TYPES
        .into_iter()
        .find(|kind| type_name(*kind) == form.r#type)
        .ok_or(EnvelopeError::UnknownType { name: form.r#type })?;
    let mut payload = None;
    for (name, value) in form.payload {
        let Some(found) = payload_from_json(&name, value)? else { continue };
        if payload.replace(found).is_some() {
            return Err(Undecodable::new("`payload` holds more than one").into());
        }
    }
    Ok(v1::Envelope {
        version: form.version,
        id: form.id,
        r#type: kind.into(),
        from: form.from,
        to: form.to,
        timestamp_ms: form.timestamp,
        correlation_id: form.correlation_id,
        priority: priority_of(form.priority.as_deref()).into(),
        ttl_ms: form.ttl,
        traceparent: form.traceparent,
        key: form.key.map(key_of),
        payload,
    })
}

/// How many bytes a task takes in the JSON form.
pub(super) fn task_len(task: &v1::Task) -> Result<usize, Undecodable> {
    length_of(&task_to_json(task)?)
}

/// How many bytes an outcome takes in the JSON form.
pub(super) fn outcome_len(outcome: &v1::Outcome) -> Result<usize, Undecodable> {
    length_of(&outcome_to_json(outcome)?)
}

fn length_of(value: &Value) -> Result<usize, Undecodable> {
    serde_json::to_vec(value).map(|bytes| bytes.len()).map_err(|error| Undecodable::new(error.to_string()))
}

fn payload_to_json(payload: &Payload) -> Result<(&'static str, Value), Undecodable> {
    Ok(match payload {
        Payload::Task(task) => ("task", task_to_json(task)?),
        Payload::Outcome(outcome) => ("outcome", outcome_to_json(outcome)?),
        Payload::Heartbeat(beat) => {
            let leases = beat.leases.iter().map(key_form).collect();
            let form = HeartbeatForm { worker: beat.worker.clone(), leases, free: beat.free, sent_at: beat.sent_at_ms };
            ("heartbeat", value_of(form)?)
        }
        Payload::Stop(stop) => ("stop", value_of(StopForm { now: stop.now })?),
        Payload::Error(error) => {
            let v1::ErrorReport { code, message, source } = error.clone();
            ("error", value_of(ErrorForm { code, message, source })?)
        }
        Payload::Log(log) => ("log", value_of(log.lines.iter().map(line_form).collect::<Vec<_>>())?),
        Payload::Receipt(receipt) => {
            let verdict = verdict_name(receipt.verdict)?.to_owned();
            ("receipt", value_of(ReceiptForm { verdict })?)
        }
        Payload::Json(text) => ("json", parsed(text)?),
    })
}

fn payload_from_json(name: &str, value: Value) -> Result<Option<Payload>, Undecodable> {
    Ok(Some(match name {
        "task" => Payload::Task(task_from_json(value)?),
        "outcome" => Payload::Outcome(outcome_from_json(value)?),
        "heartbeat" => {
            let form: HeartbeatForm = form_of(name, value)?;
            let leases = form.leases.into_iter().map(key_of).collect();
            Payload::Heartbeat(v1::Heartbeat { worker: form.worker, leases, free: form.free, sent_at_ms: form.sent_at })
        }
        "stop" => Payload::Stop(v1::StopWork { now: form_of::<StopForm>(name, value)?.now }),
        "error" => {
            let ErrorForm { code, message, source } = form_of(name, value)?;
            Payload::Error(v1::ErrorReport { code, message, source })
        }
        "log" => {
            let lines: Vec<LineForm> = form_of(name, value)?;
            Payload::Log(v1::LogLines { lines: lines.into_iter().map(line_of).collect() })
        }
        "receipt" => {
            let form: ReceiptForm = form_of(name, value)?;
            let verdict = match form.verdict.as_str() {
                "recorded" => v1::Verdict::Recorded,
                "stale" => v1::Verdict::Stale,
                "unknown" => v1::Verdict::Unknown,
                other => return Err(Undecodable::new(format!("there is no verdict `{other}`"))),
            };
            Payload::Receipt(v1::Receipt { verdict: verdict.into() })
        }
        "json" => Payload::Json(value.to_string()),
        _ => return Ok(None),
    }))
}

/// A task as [`Task`] writes it, with `work_ref` in place of `work` if the work lies in the artifact store.
fn task_to_json(task: &v1::Task) -> Result<Value, Undecodable> {
    let Some(v1::task::Work::WorkRef(reference)) = &task.work else {
        return value_of(Task::try_from(task.clone())?);
    };
    let mut head = task.clone();
    head.work = Some(v1::task::Work::Run(stand_in()));
    let mut value = value_of(Task::try_from(head)?)?;
    by_reference(&mut value, "work", "work_ref", reference)?;
    Ok(value)
}

fn task_from_json(mut value: Value) -> Result<v1::Task, Undecodable> {
    let Some(reference) = value.as_object_mut().and_then(|map| map.shift_remove("work_ref")) else {
        return Ok(v1::Task::from(&form_of::<Task>("task", value)?));
    };
    let RefForm { hash, bytes } = form_of("work_ref", reference)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("work".to_owned(), stand_in_json());
    }
    let mut task = v1::Task::from(&form_of::<Task>("task", value)?);
    task.work = Some(v1::task::Work::WorkRef(v1::ArtifactRef { hash, bytes }));
    Ok(task)
}

/// An outcome as [`Outcome`] writes it, with `outputs_ref` in place of `outputs` if they lie in the artifact store.
fn outcome_to_json(outcome: &v1::Outcome) -> Result<Value, Undecodable> {
    let mut head = outcome.clone();
    let reference = match &mut head.kind {
        Some(v1::outcome::Kind::Succeeded(v1::Succeeded { outputs: Some(outputs), .. })) => match outputs {
            v1::succeeded::Outputs::OutputsJson(_) => None,
            v1::succeeded::Outputs::OutputsRef(reference) => {
                let reference = reference.clone();
                *outputs = v1::succeeded::Outputs::OutputsJson("null".to_owned());
                Some(reference)
            }
        },
        _ => None,
    };
    let mut value = value_of(Outcome::try_from(head)?)?;
    if let Some(reference) = reference {
        by_reference(&mut value, "outputs", "outputs_ref", &reference)?;
    }
    Ok(value)
}

fn outcome_from_json(mut value: Value) -> Result<v1::Outcome, Undecodable> {
    let Some(reference) = value.as_object_mut().and_then(|map| map.shift_remove("outputs_ref")) else {
        return Ok(v1::Outcome::from(&form_of::<Outcome>("outcome", value)?));
    };
    let RefForm { hash, bytes } = form_of("outputs_ref", reference)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("outputs".to_owned(), Value::Null);
    }
    let mut outcome = v1::Outcome::from(&form_of::<Outcome>("outcome", value)?);
    if let Some(v1::outcome::Kind::Succeeded(done)) = &mut outcome.kind {
        done.outputs = Some(v1::succeeded::Outputs::OutputsRef(v1::ArtifactRef { hash, bytes }));
        return Ok(outcome);
    }
    Err(Undecodable::new("only a success has `outputs_ref`"))
}

/// What stands for work that lies elsewhere while the rest of its task is converted; no message ever holds it.
fn stand_in() -> v1::Script {
    let nothing = v1::script::Command::Argv(v1::Argv { words: Vec::new() });
    v1::Script { command: Some(nothing), ..v1::Script::default() }
}

fn stand_in_json() -> Value {
    serde_json::json!({
        "action": "run", "command": { "argv": [] }, "env": [], "inherit_env": [], "dir": "", "json": false,
        "permanent_exit_codes": [], "max_output": 0,
    })
}

fn by_reference(value: &mut Value, from: &str, to: &str, reference: &v1::ArtifactRef) -> Result<(), Undecodable> {
    let form = value_of(RefForm { hash: reference.hash.clone(), bytes: reference.bytes })?;
    if let Some(map) = value.as_object_mut() {
        map.shift_remove(from);
        map.insert(to.to_owned(), form);
    }
    Ok(())
}

fn key_form(key: &v1::LeaseKey) -> KeyForm {
    KeyForm { run: key.run_id.clone(), unit: key.unit.clone(), token: key.token }
}

fn key_of(form: KeyForm) -> v1::LeaseKey {
    v1::LeaseKey { run_id: form.run, unit: form.unit, token: form.token }
}

fn line_form(line: &v1::LogLine) -> LineForm {
    let stream = match line.stream() {
        v1::Stream::Unspecified => None,
        v1::Stream::Out => Some("out"),
        v1::Stream::Err => Some("err"),
        v1::Stream::Note => Some("note"),
    };
    LineForm {
        key: line.key.as_ref().map(key_form),
        attempt: line.attempt,
        stream: stream.map(str::to_owned),
        text: line.text.clone(),
        at: line.at_ms,
    }
}

/// A stream that is not known here is no reason to lose the line.
fn line_of(form: LineForm) -> v1::LogLine {
    let stream = match form.stream.as_deref() {
        Some("out") => v1::Stream::Out,
        Some("err") => v1::Stream::Err,
        Some("note") => v1::Stream::Note,
        Some(_) | None => v1::Stream::Unspecified,
    };
    v1::LogLine {
        key: form.key.map(key_of),
        attempt: form.attempt,
        stream: stream.into(),
        text: form.text,
        at_ms: form.at,
    }
}

fn verdict_name(verdict: i32) -> Result<&'static str, Undecodable> {
    match verdict_of(verdict)? {
        v1::Verdict::Recorded => Ok("recorded"),
        v1::Verdict::Stale => Ok("stale"),
        v1::Verdict::Unknown => Ok("unknown"),
        v1::Verdict::Unspecified => Err(Undecodable::missing("receipt.verdict")),
    }
}

fn priority_name(priority: v1::Priority) -> Option<&'static str> {
    match priority {
        v1::Priority::Unspecified => None,
        v1::Priority::Low => Some("low"),
        v1::Priority::Medium => Some("medium"),
        v1::Priority::High => Some("high"),
        v1::Priority::Critical => Some("critical"),
    }
}

/// A priority that is not known here is as good as none.
fn priority_of(name: Option<&str>) -> v1::Priority {
    match name {
        Some("low") => v1::Priority::Low,
        Some("medium") => v1::Priority::Medium,
        Some("high") => v1::Priority::High,
        Some("critical") => v1::Priority::Critical,
        Some(_) | None => v1::Priority::Unspecified,
    }
}

fn value_of(form: impl Serialize) -> Result<Value, Undecodable> {
    serde_json::to_value(form).map_err(|error| Undecodable::new(error.to_string()))
}

fn form_of<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, Undecodable> {
    serde_json::from_value(value).map_err(|error| Undecodable::new(format!("`{name}`: {error}")))
}

fn parsed(text: &str) -> Result<Value, Undecodable> {
    serde_json::from_str(text).map_err(|error| Undecodable::new(format!("`json` is not JSON: {error}")))
}
