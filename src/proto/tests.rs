//! Every form of a message comes back as it was, and both forms say the same.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::id::{LeaseToken, RunId, UnitPath};
use crate::proto::{EnvelopeError, Form, Header, MAX_MESSAGE_BYTES, check, decode, encode, expired, v1};
use crate::task::{
    AgentCall, AgentPhase, Body, Command, ErrorClass, Failure, HttpRequest, Outcome, Part, Phase, Placement, Provider,
    Script, Shell, Task, Text, ToolCard, Usage, Work,
};
use crate::time::Timestamp;

fn word() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "\\PC{1,12}", any::<String>()]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |number| serde_json::Number::from_f64(number).map(Value::Number)),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((word(), inner), 0..5).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn text() -> impl Strategy<Value = Text> {
    let part = prop_oneof![word().prop_map(Part::Plain), word().prop_map(Part::Secret)];
    prop::collection::vec(part, 0..4).prop_map(Text)
}

fn named() -> impl Strategy<Value = Vec<(String, Text)>> {
    prop::collection::vec((word(), text()), 0..3)
}

fn words() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(word(), 0..3)
}

fn script() -> impl Strategy<Value = Work> {
    let shell = prop_oneof![Just(Shell::Sh), Just(Shell::Bash)];
    let command = prop_oneof![
        (shell, word()).prop_map(|(shell, script)| Command::Shell { shell, script }),
        words().prop_map(Command::Argv),
    ];
    let codes = prop::collection::vec(any::<i32>(), 0..3);
    (command, named(), words(), word(), any::<bool>(), codes, any::<u64>()).prop_map(
        |(command, env, inherit_env, dir, json, permanent_exit_codes, max_output)| {
            Work::Run(Script { command, env, inherit_env, dir, json, permanent_exit_codes, max_output })
        },
    )
}

fn request() -> impl Strategy<Value = Work> {
    let body = prop_oneof![text().prop_map(Body::Text), value().prop_map(Body::Json)];
    let query = prop::collection::vec((word(), word()), 0..3);
    (word(), word(), named(), query, prop::option::of(body), any::<bool>(), any::<u64>()).prop_map(
        |(method, url, headers, query, body, follow_redirects, max_bytes)| {
            Work::Http(HttpRequest { method, url, headers, query, body, follow_redirects, max_bytes })
        },
    )
}

fn call() -> impl Strategy<Value = Work> {
    let phase =
        prop::sample::select(vec![AgentPhase::Plan, AgentPhase::Execute, AgentPhase::Synthesize, AgentPhase::Critique]);
    let tool = (word(), word(), value()).prop_map(|(name, description, input_schema)| ToolCard {
        name,
        description,
        input_schema,
    });
    let number = prop::option::of(any::<f64>().prop_filter("finite", |number| number.is_finite()));
    let first = (word(), phase, word(), word(), value());
    // A schema is an object or a boolean.
    let schema = value().prop_filter("a schema", |value| value.is_object() || value.is_boolean());
    let second = (prop::option::of(schema), prop::collection::vec(tool, 0..3), any::<u64>(), number);
    let third = (prop::option::of(word()), words(), word(), named());
    (first, second, third).prop_map(
        |((agent, phase, system_prompt, prompt, input), (schema, tools, max_tokens, temperature), rest)| {
            let (model, argv, dir, env) = rest;
            let provider = Provider::Command { argv, dir };
            Work::Agent(AgentCall {
                agent,
                phase,
                system_prompt,
                prompt,
                input,
                schema,
                tools,
                max_tokens,
                temperature,
                model,
                provider,
                env,
            })
        },
    )
}

fn key() -> impl Strategy<Value = v1::LeaseKey> {
    ("\\PC{1,9}", "\\PC{1,9}", 1..=u64::MAX).prop_map(|(run_id, unit, token)| v1::LeaseKey { run_id, unit, token })
}

fn task() -> impl Strategy<Value = Task> {
    let phase = prop::sample::select(vec![Phase::Plan, Phase::Execute, Phase::Synthesize]);
    let place =
        ("\\PC{1,9}", words(), phase, any::<bool>(), word()).prop_map(|(queue, capabilities, phase, once, root)| {
            Placement {
                queue: queue.into(),
                capabilities: capabilities.into_iter().map(Box::from).collect(),
                phase,
                once,
                root: root.into(),
            }
        });
    let work = prop_oneof![script(), request(), call()];
    (key(), word(), any::<u32>(), word(), prop::option::of(any::<u64>()), place, work).prop_map(
        |(key, pipeline, attempt, idempotency_key, deadline, place, work)| Task {
            run: RunId::new(&key.run_id),
            pipeline: pipeline.into(),
            unit: UnitPath::new(&key.unit),
            attempt,
            token: LeaseToken(key.token),
            idempotency_key,
            deadline: deadline.map(Timestamp),
            place,
            work,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let usage = || {
        let both = (any::<u64>(), any::<u64>());
        prop::option::of(both.prop_map(|(input_tokens, output_tokens)| Usage { input_tokens, output_tokens }))
    };
    let code = || prop::option::of(any::<i32>());
    let class = prop::sample::select(vec![
        ErrorClass::Transient,
        ErrorClass::Permanent,
        ErrorClass::Timeout,
        ErrorClass::Cancelled,
        ErrorClass::Budget,
    ]);
    let failure = (class, word(), prop::option::of(word()), code(), prop::option::of(any::<u64>())).prop_map(
        |(class, message, stderr, exit_code, retry_after_ms)| Failure {
            class,
            message,
            stderr,
            exit_code,
            retry_after_ms,
        },
    );
    prop_oneof![
        (value(), code(), prop::option::of(word()), usage(), any::<bool>()).prop_map(
            |(outputs, exit_code, stderr, usage, cached)| Outcome::Succeeded {
                outputs: outputs.into(),
                exit_code,
                stderr,
                usage,
                cached
            }
        ),
        (failure, usage()).prop_map(|(failure, usage)| Outcome::Failed { failure, usage }),
        Just(Outcome::Stopped),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    ("\\PC{1,9}", "\\PC{1,9}", prop::option::of(word()), 1..=u64::MAX).prop_map(|(id, from, to, at)| Header {
        id,
        from,
        to,
        at: Timestamp(at),
    })
}

fn heartbeat() -> impl Strategy<Value = v1::Heartbeat> {
    (word(), prop::collection::vec(key(), 0..4), any::<u32>(), any::<u64>())
        .prop_map(|(worker, leases, free, sent_at_ms)| v1::Heartbeat { worker, leases, free, sent_at_ms })
}

fn line() -> impl Strategy<Value = v1::LogLine> {
    (prop::option::of(key()), any::<u32>(), 0..4, word(), any::<u64>())
        .prop_map(|(key, attempt, stream, text, at_ms)| v1::LogLine { key, attempt, stream, text, at_ms })
}

fn envelope() -> impl Strategy<Value = v1::Envelope> {
    let reference = || (word(), any::<u64>()).prop_map(|(hash, bytes)| v1::ArtifactRef { hash, bytes });
    let bare = prop_oneof![
        (header(), task()).prop_map(|(header, task)| crate::proto::command_task(header, (&task).into())),
        (header(), task(), reference()).prop_map(|(header, task, reference)| {
            let work = Some(v1::task::Work::WorkRef(reference));
            crate::proto::command_task(header, v1::Task { work, ..(&task).into() })
        }),
        (header(), key(), any::<bool>()).prop_map(|(header, key, now)| crate::proto::command_stop(header, key, now)),
        (header(), "\\PC{1,9}", key(), outcome()).prop_map(|(header, id, key, outcome)| crate::proto::outcome(
            header,
            id,
            key,
            (&outcome).into()
        )),
        (header(), key(), reference()).prop_map(|(header, key, reference)| {
            let outputs = Some(v1::succeeded::Outputs::OutputsRef(reference));
            let done = v1::Succeeded { outputs, ..v1::Succeeded::default() };
            let outcome = v1::Outcome { kind: Some(v1::outcome::Kind::Succeeded(done)) };
            crate::proto::outcome(header, "c".to_owned(), key, outcome)
        }),
        (header(), "\\PC{1,9}", key(), 1..4).prop_map(|(header, id, key, verdict)| {
            crate::proto::answer(header, id, key, v1::Verdict::try_from(verdict).unwrap())
        }),
        (header(), heartbeat()).prop_map(|(header, beat)| crate::proto::heartbeat(header, beat)),
        (header(), word(), word(), word()).prop_map(|(header, code, message, source)| {
            crate::proto::error_report(header, v1::ErrorReport { code, message, source })
        }),
        (header(), prop::collection::vec(line(), 0..4))
            .prop_map(|(header, lines)| crate::proto::data_log(header, lines)),
        (header(), value()).prop_map(|(header, value)| crate::proto::query(header, &value)),
        (header(), value()).prop_map(|(header, value)| crate::proto::answer_query(header, "q".to_owned(), &value)),
        (header(), value()).prop_map(|(header, value)| crate::proto::event(header, &value)),
        (header(), value()).prop_map(|(header, value)| crate::proto::notification(header, &value)),
    ];
    (bare, 0..5, prop::option::of(any::<u64>()), prop::option::of(word())).prop_map(
        |(envelope, priority, ttl_ms, traceparent)| v1::Envelope { priority, ttl_ms, traceparent, ..envelope },
    )
}

proptest! {
    #[test]
    fn a_task_comes_back(task in task()) {
        let message = v1::Task::from(&task);
        let bytes = prost::Message::encode_to_vec(&message);
        let read = <v1::Task as prost::Message>::decode(&bytes[..]).unwrap();
        let back = Task::try_from(read).unwrap();
        // Equality of maps does not look at the order of keys; their texts do.
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&task).unwrap());
        prop_assert_eq!(back, task);
    }

    #[test]
    fn an_outcome_comes_back(outcome in outcome()) {
        let bytes = prost::Message::encode_to_vec(&v1::Outcome::from(&outcome));
        let back = Outcome::try_from(<v1::Outcome as prost::Message>::decode(&bytes[..]).unwrap()).unwrap();
        prop_assert_eq!(serde_json::to_string(&back).unwrap(), serde_json::to_string(&outcome).unwrap());
        prop_assert_eq!(back, outcome);
    }

    #[test]
    fn both_forms_of_an_envelope_say_the_same(envelope in envelope()) {
        for form in [Form::Protobuf, Form::Json] {
            let bytes = encode(&envelope, form).unwrap();
            prop_assert_eq!(&decode(&bytes, form).unwrap(), &envelope);
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), json in value()) {
        let _ = decode(&bytes, Form::Protobuf);
        let _ = decode(&bytes, Form::Json);
        prop_assert!(decode(json.to_string().as_bytes(), Form::Json).is_err());
    }
}

fn some_header() -> Header {
    Header { id: "m1".to_owned(), from: "s1".to_owned(), to: None, at: Timestamp(1000) }
}

#[test]
fn each_type_needs_its_parts() {
    let key = v1::LeaseKey { run_id: "r".to_owned(), unit: "u".to_owned(), token: 1 };
    let good = crate::proto::answer(some_header(), "c".to_owned(), key.clone(), v1::Verdict::Stale);
    check(&good).unwrap();
    let without = |change: fn(&mut v1::Envelope), part: &str| {
        let mut bad = good.clone();
        change(&mut bad);
        let error = check(&bad).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    without(|envelope| envelope.id.clear(), "`id`");
    without(|envelope| envelope.from.clear(), "`from`");
    without(|envelope| envelope.timestamp_ms = 0, "`timestamp`");
    without(|envelope| envelope.key = None, "`key`");
    without(|envelope| envelope.correlation_id = None, "`correlation_id`");
    without(|envelope| envelope.r#type = 0, "`type`");
    for kind in [1, 2, 4, 5, 6, 7, 8] {
        let bad = v1::Envelope { r#type: kind, payload: None, ..good.clone() };
        assert!(matches!(check(&bad), Err(EnvelopeError::Incomplete { .. })), "{kind}");
    }
    let unknown = v1::Envelope { r#type: 99, ..good.clone() };
    assert_eq!(check(&unknown).unwrap_err().code(), "UNKNOWN_TYPE");
    for (version, good) in
        [("1.0.0", true), ("1.9", true), ("1.7.3", true), ("2.0.0", false), ("1", false), ("", false)]
    {
        assert_eq!(crate::proto::check_version(version).is_ok(), good, "{version}");
    }
}

#[test]
fn a_message_expires_when_its_time_is_over() {
    let mut event = crate::proto::event(some_header(), &json!(1));
    assert!(!expired(&event, Timestamp(u64::MAX)));
    event.ttl_ms = Some(50);
    assert!(!expired(&event, Timestamp(1049)) && expired(&event, Timestamp(1050)));
    event.ttl_ms = Some(u64::MAX);
    assert!(!expired(&event, Timestamp(5_000_000)));
}

#[test]
fn a_message_above_the_limit_is_refused_on_both_ways() {
    let event = crate::proto::event(some_header(), &json!("x".repeat(MAX_MESSAGE_BYTES)));
    for form in [Form::Protobuf, Form::Json] {
        let error = encode(&event, form).unwrap_err();
        assert!(error.code() == "MESSAGE_TOO_LARGE" && error.to_string().contains("10485760"), "{error}");
        let bytes = vec![b' '; MAX_MESSAGE_BYTES + 1];
        assert!(matches!(decode(&bytes, form), Err(EnvelopeError::TooLarge { .. })));
    }
}

#[test]
fn what_a_newer_writer_adds_is_passed_over() {
    let event = crate::proto::event(some_header(), &json!({ "a": 1 }));
    let mut bytes = encode(&event, Form::Protobuf).unwrap();
    // Field 900, a varint; then a priority that there is not.
    bytes.extend([0xa0, 0x38, 0x07, 0x40, 0x63]);
    let read = decode(&bytes, Form::Protobuf).unwrap();
    assert_eq!(read, v1::Envelope { priority: 0, ..event.clone() });
    let mut json: Value = serde_json::from_slice(&encode(&event, Form::Json).unwrap()).unwrap();
    json["colour"] = json!("red");
    json["priority"] = json!("utmost");
    json["payload"]["later"] = json!({ "x": 1 });
    assert_eq!(decode(json.to_string().as_bytes(), Form::Json).unwrap(), read);
    json["type"] = json!("rumour");
    let error = decode(json.to_string().as_bytes(), Form::Json).unwrap_err();
    assert_eq!(error, EnvelopeError::UnknownType { name: "rumour".to_owned() });
}
