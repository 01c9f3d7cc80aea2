//! What a reader refuses: one row for each fault, with the words that name it.

use serde_json::{Value, json};

use crate::proto::v1::{self, envelope::Payload};
use crate::proto::{Form, Header, check, decode, encode};
use crate::task::{Outcome, Task};
use crate::time::Timestamp;

/// The words of the refusal, and what spoils a good message.
type Row<T> = (&'static str, fn(&mut T));

fn key() -> v1::LeaseKey {
    v1::LeaseKey { run_id: "r".to_owned(), unit: "u".to_owned(), token: 1 }
}

fn header() -> Header {
    Header { id: "m".to_owned(), from: "s".to_owned(), to: None, at: Timestamp(1) }
}

/// A task that is taken; each test spoils one part of it.
fn task(work: v1::task::Work) -> v1::Task {
    v1::Task {
        key: Some(key()),
        attempt: 1,
        queue: "default".to_owned(),
        phase: v1::Phase::Execute.into(),
        work: Some(work),
        ..v1::Task::default()
    }
}

fn script() -> v1::Script {
    let command = v1::script::Command::Argv(v1::Argv { words: vec!["true".to_owned()] });
    v1::Script { command: Some(command), ..v1::Script::default() }
}

fn call() -> v1::AgentCall {
    v1::AgentCall {
        phase: "execute".to_owned(),
        input_json: "null".to_owned(),
        provider: Some(v1::agent_call::Provider::Command(v1::CommandProvider::default())),
        ..v1::AgentCall::default()
    }
}

fn reference() -> v1::ArtifactRef {
    v1::ArtifactRef { hash: "0".repeat(64), bytes: 1 }
}

#[test]
fn tasks() {
    let good = task(v1::task::Work::Run(script()));
    Task::try_from(good.clone()).unwrap();
    let rows: [Row<v1::Task>; 9] = [
        ("`key` is missing", |task| task.key = None),
        ("`key` needs a run_id", |task| task.key = Some(v1::LeaseKey { run_id: String::new(), ..key() })),
        ("`key` needs a run_id, a unit", |task| task.key = Some(v1::LeaseKey { unit: String::new(), ..key() })),
        ("a token from 1 on", |task| task.key = Some(v1::LeaseKey { token: 0, ..key() })),
        ("`phase` is missing", |task| task.phase = 0),
        ("`phase` 99 is not known here", |task| task.phase = 99),
        ("`queue` is missing", |task| task.queue.clear()),
        ("`work` is missing", |task| task.work = None),
        ("`work_ref` must be fetched", |task| task.work = Some(v1::task::Work::WorkRef(reference()))),
    ];
    for (words, spoil) in rows {
        let mut bad = good.clone();
        spoil(&mut bad);
        let error = Task::try_from(bad).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn scripts() {
    let unset = v1::NamedText { name: "A".to_owned(), value: Some(v1::Text { parts: vec![v1::Part { part: None }] }) };
    let shell = |shell: &str| {
        let script = v1::ShellScript { shell: shell.to_owned(), script: "true".to_owned() };
        v1::Script { command: Some(v1::script::Command::Shell(script)), ..v1::Script::default() }
    };
    let takes = |script: v1::Script| Task::try_from(task(v1::task::Work::Run(script)));
    takes(shell("bash")).unwrap();
    for (words, bad) in [
        ("there is no shell `zsh`", shell("zsh")),
        ("there is no shell ``", shell("")),
        ("`run.command` is missing", v1::Script::default()),
        ("neither plain nor a secret", v1::Script { env: vec![unset], ..script() }),
    ] {
        let error = takes(bad).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn requests() {
    let part = v1::Text { parts: vec![v1::Part { part: None }] };
    for (words, body) in [
        ("`http.body_json` is not JSON", v1::http_request::Body::BodyJson("{".to_owned())),
        ("neither plain nor a secret", v1::http_request::Body::Text(part)),
    ] {
        let request = v1::HttpRequest { body: Some(body), ..v1::HttpRequest::default() };
        let error = Task::try_from(task(v1::task::Work::Http(request))).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn calls() {
    let takes = |call: v1::AgentCall| Task::try_from(task(v1::task::Work::Agent(call)));
    for good in [None, Some("{}"), Some("true")] {
        takes(v1::AgentCall { schema_json: good.map(str::to_owned), ..call() }).unwrap();
    }
    let rows: [Row<v1::AgentCall>; 10] = [
        ("an agent has no phase `dream`", |call| call.phase = "dream".to_owned()),
        ("an agent has no phase ``", |call| call.phase.clear()),
        ("`agent.input_json` is not JSON", |call| call.input_json.clear()),
        ("`agent.schema_json` is not JSON", |call| call.schema_json = Some("{,}".to_owned())),
        ("neither an object nor a boolean", |call| call.schema_json = Some("null".to_owned())),
        ("neither an object nor a boolean", |call| call.schema_json = Some("[]".to_owned())),
        ("`agent.tools.input_schema_json` is not JSON", |call| call.tools = vec![v1::ToolCard::default()]),
        ("`agent.temperature` is NaN", |call| call.temperature = Some(f64::NAN)),
        ("`agent.temperature` is inf", |call| call.temperature = Some(f64::INFINITY)),
        ("`agent.provider` is missing", |call| call.provider = None),
    ];
    for (words, spoil) in rows {
        let mut bad = call();
        spoil(&mut bad);
        let error = takes(bad).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn outcomes() {
    use v1::outcome::Kind;
    use v1::succeeded::Outputs;
    let succeeded = |outputs| Some(Kind::Succeeded(v1::Succeeded { outputs, ..v1::Succeeded::default() }));
    let failed = |class: &str| Some(Kind::Failed(v1::Failed { class: class.to_owned(), ..v1::Failed::default() }));
    Outcome::try_from(v1::Outcome { kind: succeeded(Some(Outputs::OutputsJson("{}".to_owned()))) }).unwrap();
    Outcome::try_from(v1::Outcome { kind: failed("budget") }).unwrap();
    for (words, kind) in [
        ("`outcome.kind` is missing", None),
        ("`succeeded.outputs` is missing", succeeded(None)),
        ("`succeeded.outputs_json` is not JSON", succeeded(Some(Outputs::OutputsJson(String::new())))),
        ("`outputs_ref` must be fetched", succeeded(Some(Outputs::OutputsRef(reference())))),
        ("there is no error class `bad_luck`", failed("bad_luck")),
        ("there is no error class ``", failed("")),
    ] {
        let error = Outcome::try_from(v1::Outcome { kind }).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn envelopes() {
    let rows: [Row<v1::Envelope>; 12] = [
        ("version `2.0.0`", |envelope| envelope.version = "2.0.0".to_owned()),
        ("version ``", |envelope| envelope.version.clear()),
        ("`type` is missing", |envelope| envelope.r#type = 0),
        ("type `99`", |envelope| envelope.r#type = 99),
        ("`id` is missing", |envelope| envelope.id.clear()),
        ("`from` is missing", |envelope| envelope.from.clear()),
        ("`timestamp` is missing", |envelope| envelope.timestamp_ms = 0),
        ("`correlation_id`", |envelope| envelope.correlation_id = Some(String::new())),
        ("`key` is missing", |envelope| envelope.key = None),
        ("a token from 1 on", |envelope| envelope.key = Some(v1::LeaseKey { token: 0, ..key() })),
        ("`receipt.verdict` is missing", |envelope| {
            envelope.payload = Some(Payload::Receipt(v1::Receipt { verdict: 0 }));
        }),
        ("no verdict 99", |envelope| {
            envelope.payload = Some(Payload::Receipt(v1::Receipt { verdict: 99 }));
        }),
    ];
    let good = crate::proto::answer(header(), "o".to_owned(), key(), v1::Verdict::Recorded);
    check(&good).unwrap();
    for (words, spoil) in rows {
        let mut bad = good.clone();
        spoil(&mut bad);
        // A writer refuses it, and so does the reader of one who did not.
        let refused = encode(&bad, Form::Protobuf).unwrap_err();
        let bytes = prost::Message::encode_to_vec(&bad);
        for error in [refused, decode(&bytes, Form::Protobuf).unwrap_err()] {
            assert!(error.to_string().contains(words), "{words}: {error}");
            let code = if words == "type `99`" { "UNKNOWN_TYPE" } else { "UNDECODABLE" };
            assert_eq!(error.code(), code, "{words}");
        }
    }
}

#[test]
fn types_without_what_they_need() {
    use v1::MessageType::{Command, Data, Error, Event, Heartbeat, Notification, Query, Response};
    let some = || Some(Payload::Json("1".to_owned()));
    let rows = [
        (Command, None, "command needs a payload"),
        (Command, some(), "command needs `to` or `key`"),
        (Query, None, "query needs a payload"),
        (Response, some(), "response needs `correlation_id`"),
        (Event, None, "event needs a payload"),
        (Heartbeat, some(), "heartbeat needs the payload `heartbeat`"),
        (Error, some(), "error needs the payload `error`"),
        (Data, None, "data needs a payload"),
        (Notification, None, "notification needs a payload"),
    ];
    for (kind, payload, words) in rows {
        let bad = v1::Envelope { r#type: kind.into(), payload, ..crate::proto::event(header(), &json!(1)) };
        let error = check(&bad).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn the_json_form() {
    let good =
        |envelope: &v1::Envelope| -> Value { serde_json::from_slice(&encode(envelope, Form::Json).unwrap()).unwrap() };
    let receipt = good(&crate::proto::answer(header(), "o".to_owned(), key(), v1::Verdict::Recorded));
    let task = good(&crate::proto::command_task(header(), task(v1::task::Work::Run(script()))));
    let stopped = v1::Outcome { kind: Some(v1::outcome::Kind::Stopped(v1::Stopped {})) };
    let outcome = good(&crate::proto::outcome(header(), "c".to_owned(), key(), stopped));
    let reference = json!({ "hash": "0", "bytes": 1 });
    let rows = [
        (&receipt, "/version", json!("2.0.0"), "version `2.0.0`"),
        (&receipt, "/type", json!("rumour"), "no message type `rumour`"),
        (&receipt, "/type", json!(3), "no envelope in JSON"),
        (&receipt, "/timestamp", json!("today"), "no envelope in JSON"),
        (&receipt, "/key/token", json!(0), "a token from 1 on"),
        (&receipt, "/key/token", json!(-1), "no envelope in JSON"),
        (&receipt, "/payload/receipt/verdict", json!("perhaps"), "no verdict `perhaps`"),
        (&receipt, "/payload/stop", json!({ "now": true }), "`payload` holds more than one"),
        (&task, "/payload/task/work/action", json!("dream"), "`task`: unknown variant `dream`"),
        (&task, "/payload/task/work", json!(null), "`task`"),
        (&task, "/payload/task/work/command/later", json!(1), "`task`: "),
        (&task, "/payload/task/place/phase", json!("later"), "`task`: unknown variant `later`"),
        (&task, "/payload/task/work_ref", json!({ "hash": "0" }), "`work_ref`: missing field `bytes`"),
        (&outcome, "/payload/outcome/kind", json!("lost"), "`outcome`: unknown variant `lost`"),
        (&outcome, "/payload/outcome/outputs_ref", reference, "only a success has `outputs_ref`"),
    ];
    for (message, place, value, words) in rows {
        decode(message.to_string().as_bytes(), Form::Json).unwrap();
        let mut bad = message.clone();
        let (parent, name) = place.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[name] = value;
        let error = decode(bad.to_string().as_bytes(), Form::Json).unwrap_err().to_string();
        assert!(error.contains(words), "{place}: {words}: {error}");
    }
    for bytes in [&b""[..], b"[]", b"{}", b"{\"version\": \"1.0.0\"", b"\xff"] {
        assert!(decode(bytes, Form::Json).unwrap_err().to_string().contains("no envelope in JSON"));
    }
}

#[test]
fn content_types() {
    for (text, form) in [
        ("application/json", Some(Form::Json)),
        ("application/JSON; charset=utf-8", Some(Form::Json)),
        ("application/x-protobuf", Some(Form::Protobuf)),
        (Form::Protobuf.content_type(), Some(Form::Protobuf)),
        (Form::Json.content_type(), Some(Form::Json)),
        ("text/plain", None),
        ("", None),
    ] {
        assert_eq!(Form::of_content_type(text).ok(), form, "{text}");
    }
    assert!(decode(&[0xff; 3], Form::Protobuf).unwrap_err().to_string().contains("no envelope in protobuf"));
}
