//! One message of each kind, and what a newer writer could send. Their bytes are stored in tests/cases/wire.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::{Value, json};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::proto::v1::envelope::Payload;
use tol::proto::{self, Form, Header, v1};
use tol::task::{
    AgentCall, AgentPhase, Body, Command, ErrorClass, Failure, HttpRequest, Outcome, Part, Phase, Placement, Provider,
    Script, Shell, Task, Text, ToolCard, Usage, Work,
};
use tol::time::Timestamp;

pub const SCHEDULER: &str = "scheduler-1";
pub const WORKER: &str = "worker-7";
const RUN: &str = "01938a2e-7c11-7d02-9a44-3b6f0c51e8aa";

/// The header of the message with that number.
pub fn header(number: u64, from: &str) -> Header {
    let id = format!("01938a2e-7d00-7000-8000-{number:012x}");
    Header { id, from: from.to_owned(), to: None, at: Timestamp(1_763_712_000_000 + number * 37) }
}

pub fn key(unit: &str, token: u64) -> v1::LeaseKey {
    v1::LeaseKey { run_id: RUN.to_owned(), unit: unit.to_owned(), token }
}

/// A task with this work.
pub fn task(unit: &str, token: u64, phase: Phase, work: Work) -> Task {
    Task {
        run: RunId::new(RUN),
        pipeline: "release".into(),
        unit: UnitPath::new(unit),
        attempt: 1,
        token: LeaseToken(token),
        idempotency_key: format!("{RUN}/{unit}"),
        deadline: Some(Timestamp(1_763_712_600_000)),
        place: Placement { phase, root: "/srv/project".into(), ..Placement::default() },
        work,
    }
}

/// A script with its usual surroundings.
pub fn script(text: &str) -> Script {
    Script {
        command: Command::Shell { shell: Shell::Sh, script: text.to_owned() },
        env: Vec::new(),
        inherit_env: vec!["CI".to_owned()],
        dir: "/srv/project".to_owned(),
        json: false,
        permanent_exit_codes: vec![2],
        max_output: 1_048_576,
    }
}

/// A request whose token is a secret.
pub fn request(body: Option<Body>) -> HttpRequest {
    let token = Text(vec![Part::Plain("Bearer ".to_owned()), Part::Secret("API_TOKEN".to_owned())]);
    HttpRequest {
        method: "POST".to_owned(),
        url: "https://api.example.com/v2/releases".to_owned(),
        headers: vec![("authorization".to_owned(), token), ("accept".to_owned(), Text::plain("application/json"))],
        query: vec![("dry".to_owned(), "false".to_owned()), ("tag".to_owned(), "v1 & später".to_owned())],
        body,
        follow_redirects: true,
        max_bytes: 1_048_576,
    }
}

/// A call of an agent that has one tool.
pub fn call(phase: AgentPhase, system_prompt: &str, prompt: &str, input: Value) -> AgentCall {
    let input_schema = json!({
        "type": "object",
        "properties": { "path": { "type": "string" }, "limit": { "type": "integer", "maximum": 9_007_199_254_740_993_u64 } },
        "required": ["path"],
    });
    AgentCall {
        agent: "reviewer".to_owned(),
        phase,
        system_prompt: system_prompt.to_owned(),
        prompt: prompt.to_owned(),
        input,
        schema: Some(json!({ "type": "object", "properties": { "verdict": { "enum": ["good", "bad"] } } })),
        tools: vec![ToolCard { name: "read".to_owned(), description: "Reads a file.".to_owned(), input_schema }],
        max_tokens: 4096,
        temperature: Some(0.2),
        model: Some("large-1".to_owned()),
        provider: Provider::Command { argv: vec!["ask".to_owned(), "--json".to_owned()], dir: "/srv".to_owned() },
        env: vec![("KEY".to_owned(), Text(vec![Part::Secret("MODEL_KEY".to_owned())]))],
    }
}

fn reference(bytes: u64) -> v1::ArtifactRef {
    v1::ArtifactRef { hash: "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85".to_owned(), bytes }
}

/// What is stored, by the names of its files.
pub fn messages() -> Vec<(&'static str, v1::Envelope)> {
    let mut all = commands();
    all.extend(responses());
    all.extend(others());
    all
}

fn commands() -> Vec<(&'static str, v1::Envelope)> {
    let mut work = script("echo \"$NAME\"\nexit 0\n");
    work.env = vec![("NAME".to_owned(), Text(vec![Part::Plain("é → ".to_owned()), Part::Secret("TOKEN".to_owned())]))];
    let mut shell = task("build", 1, Phase::Execute, Work::Run(work));
    shell.place.queue = "gpu".into();
    shell.place.capabilities = vec!["docker".into(), "arm64".into()];
    shell.place.once = true;
    let argv = Script {
        command: Command::Argv(vec!["git".to_owned(), "log".to_owned(), String::new()]),
        json: true,
        inherit_env: Vec::new(),
        ..script("")
    };
    let mut program = task("each[3]", u64::MAX, Phase::Execute, Work::Run(argv));
    program.deadline = None;
    program.attempt = 4;
    let bodies = [
        Some(Body::Json(json!({ "z": 1, "a": [null, true, 1.5, i64::MIN, u64::MAX], "text": "\u{1}\"\\" }))),
        Some(Body::Text(Text(vec![Part::Plain("password=".to_owned()), Part::Secret("PASSWORD".to_owned())]))),
    ];
    let [json_body, text_body] = bodies.map(|body| task("publish", 9, Phase::Execute, Work::Http(request(body))));
    let ask = call(AgentPhase::Plan, "You plan.", "Plan the release.", json!({ "version": "1.2.3" }));
    let bare = AgentCall {
        schema: None,
        tools: Vec::new(),
        temperature: None,
        model: None,
        env: Vec::new(),
        ..call(AgentPhase::Synthesize, "", "", Value::Null)
    };
    let plan = task("plan", 2, Phase::Plan, Work::Agent(ask));
    let answer = task("answer", 12, Phase::Synthesize, Work::Agent(bare));
    let by_reference = v1::Task { work: Some(v1::task::Work::WorkRef(reference(26_214_400))), ..(&shell).into() };
    let full = v1::Envelope {
        priority: v1::Priority::Critical.into(),
        ttl_ms: Some(30_000),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ..proto::command_task(Header { to: Some(WORKER.to_owned()), ..header(1, SCHEDULER) }, (&shell).into())
    };
    let of = |number, task: &Task| proto::command_task(header(number, SCHEDULER), task.into());
    vec![
        ("command-task-run-shell", full),
        ("command-task-run-argv", of(2, &program)),
        ("command-task-http-json", of(3, &json_body)),
        ("command-task-http-text", of(4, &text_body)),
        ("command-task-agent", of(5, &plan)),
        ("command-task-agent-bare", of(6, &answer)),
        ("command-task-reference", proto::command_task(header(7, SCHEDULER), by_reference)),
        ("command-stop", proto::command_stop(header(8, SCHEDULER), key("build", 1), true)),
        ("command-stop-gently", proto::command_stop(header(9, SCHEDULER), key("build", 1), false)),
    ]
}

fn responses() -> Vec<(&'static str, v1::Envelope)> {
    let command = || header(1, SCHEDULER).id;
    let of =
        |number, outcome: &Outcome| proto::outcome(header(number, WORKER), command(), key("build", 1), outcome.into());
    let succeeded = Outcome::Succeeded {
        outputs: json!({ "z": 1, "a": u64::MAX, "text": "done\n", "nested": { "list": [1.5, null, "é"] } }).into(),
        exit_code: Some(0),
        stderr: Some("a warning\n".to_owned()),
        usage: Some(Usage { input_tokens: 1200, output_tokens: 340 }),
        cached: true,
    };
    let failed = Outcome::Failed {
        failure: Failure {
            class: ErrorClass::Transient,
            message: "the server says 503".to_owned(),
            stderr: Some("last words".to_owned()),
            exit_code: Some(-1),
            retry_after_ms: Some(1500),
        },
        usage: Some(Usage::default()),
    };
    let outputs = Some(v1::succeeded::Outputs::OutputsRef(reference(12_000_000)));
    let done = v1::Succeeded { outputs, exit_code: Some(0), ..v1::Succeeded::default() };
    let by_reference = v1::Outcome { kind: Some(v1::outcome::Kind::Succeeded(done)) };
    let receipt = |number, verdict| proto::answer(header(number, SCHEDULER), command(), key("build", 1), verdict);
    vec![
        ("response-succeeded", of(20, &succeeded)),
        ("response-succeeded-bare", of(21, &Outcome::success(Value::Null))),
        ("response-failed", of(22, &failed)),
        ("response-failed-bare", of(23, &Outcome::failed(Failure::new(ErrorClass::Budget, "")))),
        ("response-stopped", of(24, &Outcome::Stopped)),
        ("response-reference", proto::outcome(header(25, WORKER), command(), key("build", 1), by_reference)),
        ("response-recorded", receipt(26, v1::Verdict::Recorded)),
        ("response-stale", receipt(27, v1::Verdict::Stale)),
        ("response-unknown", receipt(28, v1::Verdict::Unknown)),
        ("response-json", proto::answer_query(header(29, SCHEDULER), command(), &json!({ "free": 3 }))),
        ("response-empty", v1::Envelope { payload: None, ..receipt(30, v1::Verdict::Stale) }),
    ]
}

fn others() -> Vec<(&'static str, v1::Envelope)> {
    let beat = |leases| v1::Heartbeat { worker: WORKER.to_owned(), leases, free: 2, sent_at_ms: 1_763_712_000_500 };
    let line = |key, stream: v1::Stream, text: &str| v1::LogLine {
        key,
        attempt: 1,
        stream: stream.into(),
        text: text.to_owned(),
        at_ms: 1_763_712_000_600,
    };
    let lines = vec![
        line(Some(key("build", 1)), v1::Stream::Out, "compiling é"),
        line(Some(key("build", 1)), v1::Stream::Err, "\u{1b}[31mred\u{1b}[0m"),
        line(Some(key("each[3]", 5)), v1::Stream::Note, ""),
        line(None, v1::Stream::Unspecified, "a line of nobody"),
    ];
    let report = v1::ErrorReport {
        code: "UNDECODABLE".to_owned(),
        message: "the message cannot be read: `key` is missing".to_owned(),
        source: "event-task.outcome/3/4711".to_owned(),
    };
    let what = json!({ "run": RUN, "status": "succeeded" });
    let low = v1::Envelope { priority: v1::Priority::Low.into(), ..proto::event(header(44, SCHEDULER), &what) };
    let none = v1::Envelope { priority: 0, ..proto::event(header(45, SCHEDULER), &Value::Null) };
    let high = v1::Envelope {
        priority: v1::Priority::High.into(),
        ..proto::notification(header(46, SCHEDULER), &json!("the release waits for you"))
    };
    vec![
        ("heartbeat", proto::heartbeat(header(40, WORKER), beat(vec![key("build", 1), key("each[3]", 5)]))),
        ("heartbeat-idle", proto::heartbeat(header(41, WORKER), beat(Vec::new()))),
        ("data-log", proto::data_log(header(42, WORKER), lines)),
        ("error", proto::error_report(header(43, SCHEDULER), report)),
        ("event", low),
        ("event-null", none),
        ("notification", high),
        ("query", proto::query(header(47, WORKER), &json!({ "which": ["queues"] }))),
    ]
}

/// What a reader of today makes of a newer writer's message.
#[derive(Debug)]
pub enum Reading {
    As(Box<v1::Envelope>),
    /// The code of the error and a part of its words, in protobuf and in JSON.
    Refused(&'static str, [&'static str; 2]),
}

/// A message that only a newer writer sends, in both forms, and what is to become of it.
pub struct Newer {
    pub name: &'static str,
    pub bytes: [Vec<u8>; 2],
    pub reading: Reading,
}

/// A field that there is not, after the fields of a message.
fn with_field(mut message: Vec<u8>, number: u32, content: &[u8]) -> Vec<u8> {
    encode_key(number, WireType::LengthDelimited, &mut message);
    encode_varint(content.len() as u64, &mut message);
    message.extend_from_slice(content);
    message
}

/// Both forms of a message, each changed as a newer writer would.
fn changed(
    envelope: &v1::Envelope,
    protobuf: impl FnOnce(&v1::Envelope) -> Vec<u8>,
    json: impl FnOnce(&mut Value),
) -> [Vec<u8>; 2] {
    let bytes = proto::encode(envelope, Form::Json).expect("a message");
    let mut value: Value = serde_json::from_slice(&bytes).expect("JSON");
    json(&mut value);
    [protobuf(envelope), value.to_string().into_bytes()]
}

/// What newer writers may send.
pub fn newer() -> Vec<Newer> {
    let task = task("build", 1, Phase::Execute, Work::Run(script("true")));
    let command = proto::command_task(header(60, SCHEDULER), (&task).into());
    let event = proto::event(header(61, SCHEDULER), &json!({ "a": 1 }));
    let receipt = proto::answer(header(62, SCHEDULER), "c".to_owned(), key("build", 1), v1::Verdict::Recorded);
    let minor = v1::Envelope { version: "1.7.0".to_owned(), ..event.clone() };
    let none = v1::Envelope { payload: None, ..receipt.clone() };
    let mut found = vec![
        newer_fields(&command),
        Newer {
            name: "newer-minor",
            bytes: changed(&event, |_| minor.encode_to_vec(), |json| json["version"] = json!("1.7.0")),
            reading: Reading::As(Box::new(minor.clone())),
        },
        Newer {
            name: "newer-payload-response",
            bytes: changed(
                &receipt,
                |_| with_field(none.encode_to_vec(), 90, b"later"),
                |json| {
                    json["payload"] = json!({ "later": { "x": 1 } });
                },
            ),
            reading: Reading::As(Box::new(none.clone())),
        },
        Newer {
            name: "newer-payload-event",
            bytes: changed(
                &event,
                |event| with_field(v1::Envelope { payload: None, ..event.clone() }.encode_to_vec(), 90, b"later"),
                |json| json["payload"] = json!({ "later": { "x": 1 } }),
            ),
            reading: Reading::Refused("UNDECODABLE", ["event needs a payload"; 2]),
        },
    ];
    found.extend(newer_names(&command, &event, &receipt));
    found
}

/// Fields that there are not, on every level.
fn newer_fields(command: &v1::Envelope) -> Newer {
    let Some(Payload::Task(task)) = &command.payload else { unreachable!("it is a task") };
    let Some(v1::task::Work::Run(script)) = &task.work else { unreachable!("it is a script") };
    let key = task.key.as_ref().expect("a key");
    let protobuf = |command: &v1::Envelope| {
        let key = with_field(key.encode_to_vec(), 77, b"k");
        let script = with_field(script.encode_to_vec(), 2000, b"s");
        let mut task = v1::Task { key: None, work: None, ..task.clone() }.encode_to_vec();
        task = with_field(with_field(with_field(task, 1, &key), 20, &script), 500, b"t");
        let envelope = v1::Envelope { payload: None, ..command.clone() }.encode_to_vec();
        let mut bytes = with_field(with_field(envelope, 20, &task), 900, b"a text");
        encode_key(901, WireType::Varint, &mut bytes);
        encode_varint(u64::MAX, &mut bytes);
        encode_key(902, WireType::SixtyFourBit, &mut bytes);
        bytes.extend([7; 8]);
        encode_key(903, WireType::ThirtyTwoBit, &mut bytes);
        bytes.extend([7; 4]);
        bytes
    };
    let bytes = changed(command, protobuf, |json| {
        json["colour"] = json!({ "deep": ["x"] });
        json["key"]["shard"] = json!(7);
        json["payload"]["later"] = json!(null);
        json["payload"]["task"]["tenant"] = json!("t");
        json["payload"]["task"]["place"]["zone"] = json!("z");
        json["payload"]["task"]["work"]["nice"] = json!(5);
    });
    Newer { name: "newer-fields", bytes, reading: Reading::As(Box::new(command.clone())) }
}

/// Names and numbers that there are not: a priority, a stream, a type, a verdict, a work, a version.
fn newer_names(command: &v1::Envelope, event: &v1::Envelope, receipt: &v1::Envelope) -> Vec<Newer> {
    let line = |stream| v1::LogLine { text: "x".to_owned(), stream, ..v1::LogLine::default() };
    let log = |stream| proto::data_log(header(63, WORKER), vec![line(stream)]);
    let Some(Payload::Task(task)) = &command.payload else { unreachable!("it is a task") };
    let dream = with_field(v1::Task { work: None, ..task.clone() }.encode_to_vec(), 60, b"dream");
    let no_payload = v1::Envelope { payload: None, ..command.clone() };
    let as_number = |change: fn(&mut v1::Envelope)| {
        move |envelope: &v1::Envelope| {
            let mut newer = envelope.clone();
            change(&mut newer);
            newer.encode_to_vec()
        }
    };
    vec![
        Newer {
            name: "newer-priority",
            bytes: changed(event, as_number(|event| event.priority = 9), |json| json["priority"] = json!("utmost")),
            reading: Reading::As(Box::new(v1::Envelope { priority: 0, ..event.clone() })),
        },
        Newer {
            name: "newer-stream",
            bytes: changed(
                &log(1),
                |_| log(9).encode_to_vec(),
                |json| {
                    json["payload"]["log"][0]["stream"] = json!("trace");
                },
            ),
            reading: Reading::As(Box::new(log(0))),
        },
        Newer {
            name: "newer-type",
            bytes: changed(event, as_number(|event| event.r#type = 42), |json| json["type"] = json!("rumour")),
            reading: Reading::Refused("UNKNOWN_TYPE", ["no message type `42`", "no message type `rumour`"]),
        },
        Newer {
            name: "newer-verdict",
            bytes: changed(
                receipt,
                as_number(|envelope| envelope.payload = Some(Payload::Receipt(v1::Receipt { verdict: 9 }))),
                |json| json["payload"]["receipt"]["verdict"] = json!("perhaps"),
            ),
            reading: Reading::Refused("UNDECODABLE", ["no verdict 9", "no verdict `perhaps`"]),
        },
        Newer {
            name: "newer-work",
            bytes: changed(
                command,
                |_| with_field(no_payload.encode_to_vec(), 20, &dream),
                |json| {
                    json["payload"]["task"]["work"] = json!({ "action": "dream" });
                },
            ),
            reading: Reading::Refused("UNDECODABLE", ["`work` is missing", "unknown variant `dream`"]),
        },
        Newer {
            name: "newer-major",
            bytes: changed(event, as_number(|event| event.version = "2.0.0".to_owned()), |json| {
                json["version"] = json!("2.0.0");
            }),
            reading: Reading::Refused("UNDECODABLE", ["version `2.0.0` of the protocol, this program reads 1.x"; 2]),
        },
    ]
}
