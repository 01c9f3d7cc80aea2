//! The published protocol: bytes of version 1 that were stored are read for ever, the examples of docs/protocol.md are
//! messages, and docs/performance.md says how large they are.

mod corpus;
mod messages;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use messages::{Reading, messages, newer};
use serde_json::Value;
use tol::proto::v1::envelope::Payload;
use tol::proto::{EnvelopeError, Form, decode, encode, v1};
use tol::task::{Outcome, Task};

use crate::support::{files_below, read, root};

/// Files here are written once, by `the_missing_bytes_are_stored`, and never changed.
const FOLDER: &str = "tests/cases/wire/v1";
const FORMS: [(Form, &str); 2] = [(Form::Protobuf, "bin"), (Form::Json, "json")];

fn file(name: &str, ending: &str) -> PathBuf {
    root().join(FOLDER).join(format!("{name}.{ending}"))
}

fn stored(name: &str, ending: &str) -> Vec<u8> {
    let file = file(name, ending);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Reads a message as its receiver does: also what it says about work, unless that lies elsewhere.
fn take(bytes: &[u8], form: Form) -> Result<v1::Envelope, EnvelopeError> {
    let envelope = decode(bytes, form)?;
    if let Some(Payload::Task(task)) = &envelope.payload
        && !matches!(task.work, Some(v1::task::Work::WorkRef(_)))
    {
        assert_eq!(v1::Task::from(&Task::try_from(task.clone())?), *task);
    }
    if let Some(Payload::Outcome(outcome)) = &envelope.payload
        && !outputs_are_elsewhere(outcome)
    {
        assert_eq!(v1::Outcome::from(&Outcome::try_from(outcome.clone())?), *outcome);
    }
    Ok(envelope)
}

fn outputs_are_elsewhere(outcome: &v1::Outcome) -> bool {
    let Some(v1::outcome::Kind::Succeeded(done)) = &outcome.kind else { return false };
    matches!(done.outputs, Some(v1::succeeded::Outputs::OutputsRef(_)))
}

#[test]
fn stored_messages_are_read_for_ever() {
    for (name, message) in messages() {
        for (form, ending) in FORMS {
            let read = take(&stored(name, ending), form).unwrap_or_else(|error| panic!("{name}.{ending}: {error}"));
            assert_eq!(read, message, "{name}.{ending}");
        }
    }
}

#[test]
fn stored_messages_of_newer_writers_are_read_or_refused() {
    for message in newer() {
        for (index, (form, ending)) in FORMS.into_iter().enumerate() {
            let name = format!("{}.{ending}", message.name);
            match (take(&stored(message.name, ending), form), &message.reading) {
                (Ok(read), Reading::As(meant)) => assert_eq!(read, **meant, "{name}"),
                (Err(error), Reading::Refused(code, words)) => {
                    assert!(error.code() == *code && error.to_string().contains(words[index]), "{name}: {error}");
                }
                (result, meant) => panic!("{name}: {result:?}, and not {meant:?}"),
            }
        }
    }
}

#[test]
fn every_kind_of_message_is_stored() {
    let mut types = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (name, message) in messages() {
        types.insert(message.r#type);
        kinds.extend(message.payload.as_ref().map(kind_of));
        names.insert(name.to_owned());
    }
    assert_eq!(types, (1..=8).collect(), "each of the eight types");
    let all = "task/run task/http task/agent task/reference outcome/succeeded outcome/failed outcome/stopped \
        outcome/reference heartbeat stop error log receipt json";
    assert_eq!(kinds, all.split_whitespace().collect(), "each kind of payload");
    names.extend(newer().iter().map(|message| message.name.to_owned()));
    for (_, ending) in FORMS {
        let there: BTreeSet<String> = files_below(FOLDER, ending)
            .iter()
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        assert_eq!(there, names, "what is stored (left) and what is known (right), with the ending {ending}");
    }
}

/// A new kind of payload or work does not compile here: store one.
fn kind_of(payload: &Payload) -> &'static str {
    match payload {
        Payload::Task(task) => match task.work.as_ref().expect("work") {
            v1::task::Work::Run(_) => "task/run",
            v1::task::Work::Http(_) => "task/http",
            v1::task::Work::Agent(_) => "task/agent",
            v1::task::Work::WorkRef(_) => "task/reference",
        },
        Payload::Outcome(outcome) if outputs_are_elsewhere(outcome) => "outcome/reference",
        Payload::Outcome(outcome) => match outcome.kind.as_ref().expect("a kind") {
            v1::outcome::Kind::Succeeded(_) => "outcome/succeeded",
            v1::outcome::Kind::Failed(_) => "outcome/failed",
            v1::outcome::Kind::Stopped(_) => "outcome/stopped",
        },
        Payload::Heartbeat(_) => "heartbeat",
        Payload::Stop(_) => "stop",
        Payload::Error(_) => "error",
        Payload::Log(_) => "log",
        Payload::Receipt(_) => "receipt",
        Payload::Json(_) => "json",
    }
}

/// Writes what is not there yet. A file that is there stays as it is.
#[test]
#[ignore = "it writes files: run it after a message was added to messages.rs"]
fn the_missing_bytes_are_stored() {
    std::fs::create_dir_all(root().join(FOLDER)).expect("a folder");
    let write = |name: &str, ending: &str, bytes: &[u8]| {
        let file = file(name, ending);
        match OpenOptions::new().write(true).create_new(true).open(&file) {
            Ok(mut open) => open.write_all(bytes).expect("a file can be written"),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("{}: {error}", file.display()),
        }
    };
    for (name, message) in messages() {
        for (form, ending) in FORMS {
            write(name, ending, &encode(&message, form).expect("a message"));
        }
    }
    for message in newer() {
        for ((_, ending), bytes) in FORMS.iter().zip(&message.bytes) {
            write(message.name, ending, bytes);
        }
    }
}

/// The texts of the page's blocks of JSON.
fn examples(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for line in page.lines() {
        match &mut open {
            Some(_) if line == "```" => found.extend(open.take()),
            Some(text) => text.extend([line, "\n"]),
            None if line == "```json" => open = Some(String::new()),
            None => {}
        }
    }
    found
}

#[test]
fn the_examples_of_the_page_are_messages() {
    let mut types = BTreeSet::new();
    for text in examples(&read("docs/protocol.md")) {
        let message = take(text.as_bytes(), Form::Json).unwrap_or_else(|error| panic!("{error}\n{text}"));
        types.insert(message.r#type);
        // Nothing of the example was passed over.
        let again: Value = serde_json::from_slice(&encode(&message, Form::Json).expect("a message")).expect("JSON");
        let shown: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(without_nothing(&again), without_nothing(&shown));
        let bytes = encode(&message, Form::Protobuf).expect("a message");
        assert_eq!(decode(&bytes, Form::Protobuf).expect("a message"), message);
    }
    assert_eq!(types, (1..=8).collect(), "docs/protocol.md shows each of the eight types");
}

/// Without members that are `null`: a writer may leave them out.
fn without_nothing(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let some = map.iter().filter(|(_, value)| !value.is_null());
            some.map(|(key, value)| (key.clone(), without_nothing(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(without_nothing).collect::<Vec<_>>().into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[test]
fn the_page_names_every_field_of_an_envelope() {
    let page = read("docs/protocol.md");
    let envelope: Value = serde_json::from_slice(&stored("command-task-run-shell", "json")).expect("JSON");
    let mut fields: Vec<&str> = envelope.as_object().expect("an object").keys().map(String::as_str).collect();
    // A command answers nothing.
    fields.push("correlation_id");
    for field in fields {
        let row = format!("| `{field}` |");
        assert!(page.lines().any(|line| line.starts_with(&row)), "docs/protocol.md has no row of `{field}`");
    }
}
