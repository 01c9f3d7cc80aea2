//! Both stores in the same tests, and payloads too large for a message.

use std::time::Duration;

use serde_json::json;

use crate::artifact::{
    ARTIFACT_BYTES_MAX, ArtifactError, FolderStore, INLINE_LIMIT, PostgresStore, Store, load_outcome, load_task,
    offload_outcome, offload_task, reference_of,
};
use crate::database::{Database, DatabaseUrl};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::proto::v1;
use crate::proto::{Form, Header, command_task, encode, outcome_len, task_len};
use crate::task::{AgentCall, AgentPhase, Command, Failure, Outcome, Placement, Provider, Script, Shell, Task, Work};
use crate::test_postgres;
use crate::time::Timestamp;

fn keeps(store: &dyn Store) {
    for content in [Vec::new(), b"abc".to_vec(), vec![7; 1024 * 1024], vec![9; 2 * 1024 * 1024 + 1]] {
        let reference = store.put(&content).unwrap();
        assert_eq!(reference, reference_of(&content));
        assert_eq!(store.put(&content).unwrap(), reference);
        assert!(store.exists(&reference.hash).unwrap());
        assert!(store.get(&reference).unwrap() == content);
        let mut other = reference.clone();
        other.bytes += 1;
        assert!(matches!(store.get(&other), Err(ArtifactError::Damaged { .. })));
    }
    let never = reference_of(b"never put");
    assert!(!store.exists(&never.hash).unwrap() && !store.remove(&never.hash).unwrap());
    assert!(matches!(store.get(&never), Err(ArtifactError::Missing { .. })));
    // Neither memory nor the store is asked for what is too large.
    let vast = v1::ArtifactRef { bytes: ARTIFACT_BYTES_MAX as u64 + 1, ..never.clone() };
    assert!(matches!(store.get(&vast), Err(ArtifactError::Oversized { .. })));
    let error = store.put(&vec![0; ARTIFACT_BYTES_MAX + 1]).unwrap_err();
    assert!(error.to_string().contains("268435457 bytes is larger than the limit of 268435456"), "{error}");
    let outside = format!("../{}", &never.hash[3..]);
    assert!(matches!(store.exists(&outside), Err(ArtifactError::Name(_))));

    assert!(store.remove(&reference_of(b"abc").hash).unwrap());
    assert_eq!(store.sweep(Duration::from_secs(3600)).unwrap().artifacts, 0);
    std::thread::sleep(Duration::from_millis(20));
    let swept = store.sweep(Duration::ZERO).unwrap();
    assert_eq!((swept.artifacts, swept.bytes), (3, 3 * 1024 * 1024 + 1));
    assert!(!store.exists(&reference_of(b"").hash).unwrap());
}

fn takes_large(store: &dyn Store) {
    let outcome = Outcome::success(json!({ "text": "é".repeat(13 * 1024 * 1024), "n": 9_007_199_254_740_993_u64 }));
    let sent = offload_outcome(&outcome, Some(store), Form::Protobuf, INLINE_LIMIT).unwrap();
    assert!(prost::Message::encoded_len(&sent) < 200);
    assert!(matches!(load_outcome(sent.clone(), None), Err(ArtifactError::NoStore { .. })));
    assert!(load_outcome(sent, Some(store)).unwrap() == outcome);
    let task = task(25 * 1024 * 1024);
    let sent = offload_task(&task, Some(store), Form::Protobuf, INLINE_LIMIT).unwrap();
    assert!(prost::Message::encoded_len(&sent) < 400);
    assert!(load_task(sent, Some(store)).unwrap() == task);
    let failed = Outcome::failed(Failure::permanent("x".repeat(INLINE_LIMIT)));
    assert!(matches!(
        offload_outcome(&failed, Some(store), Form::Protobuf, INLINE_LIMIT),
        Err(ArtifactError::TooLarge { .. })
    ));
}

fn task(length: usize) -> Task {
    task_of("#".repeat(length))
}

fn task_of(script: String) -> Task {
    Task {
        run: RunId::new("r"),
        pipeline: "p".into(),
        unit: UnitPath::new("u"),
        attempt: 1,
        token: LeaseToken(1),
        idempotency_key: "k".to_owned(),
        deadline: None,
        place: Placement::default(),
        work: Work::Run(Script {
            command: Command::Shell { shell: Shell::Sh, script },
            env: Vec::new(),
            inherit_env: Vec::new(),
            dir: "/".to_owned(),
            json: false,
            permanent_exit_codes: Vec::new(),
            max_output: 1,
        }),
    }
}

#[test]
fn a_folder_keeps_artifacts() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(folder.path().join("new"));
    keeps(&store);
    takes_large(&store);
}

#[test]
fn postgres_keeps_artifacts() {
    let Some(server) = test_postgres::database() else { return };
    let url = DatabaseUrl::parse(&server.url).unwrap();
    let open = || PostgresStore::open(Database::open(&url, "test", Duration::from_secs(20)).unwrap()).unwrap();
    let store = open();
    keeps(&store);
    takes_large(&store);
    // Several at once put the same.
    let content = vec![3_u8; 3 * 1024 * 1024];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| open().put(&content).unwrap());
        }
    });
    assert!(store.get(&reference_of(&content)).unwrap() == content);
}

#[test]
fn a_damaged_file_is_named_and_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(folder.path());
    let reference = store.put(b"abc").unwrap();
    let path = folder.path().join(&reference.hash[..2]).join(&reference.hash);
    for damage in [&b"abd"[..], b"ab", b"", b"abcd"] {
        std::fs::write(&path, damage).unwrap();
        let error = store.get(&reference).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        store.put(b"abc").unwrap();
        assert_eq!(store.get(&reference).unwrap(), b"abc");
    }
    // A file that has grown beyond all measure is not read.
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(store.get(&reference), Err(ArtifactError::Damaged { .. })));
}

#[test]
fn without_a_store_a_large_message_is_refused() {
    let outcome = Outcome::success(json!("x".repeat(INLINE_LIMIT)));
    let error = offload_outcome(&outcome, None, Form::Protobuf, INLINE_LIMIT).unwrap_err();
    assert!(error.to_string().starts_with("MESSAGE_TOO_LARGE"), "{error}");
    assert!(offload_task(&task(INLINE_LIMIT), None, Form::Protobuf, INLINE_LIMIT).is_err());
    assert!(offload_task(&task(1000), None, Form::Protobuf, INLINE_LIMIT).is_ok());
}

#[test]
fn what_goes_into_the_store_depends_on_the_form() {
    let folder = tempfile::tempdir().unwrap();
    let store: &dyn Store = &FolderStore::new(folder.path());
    let header = || Header { id: "m".to_owned(), from: "s".to_owned(), to: None, at: Timestamp(1) };
    // A quote takes one byte in protobuf and two in JSON; a control character six.
    for (script, goes) in [("\"".repeat(6 << 20), [false, true]), ("\u{1}".repeat(2 << 20), [false, true])] {
        let task = task_of(script);
        for (form, goes) in [Form::Protobuf, Form::Json].into_iter().zip(goes) {
            let sent = offload_task(&task, Some(store), form, INLINE_LIMIT).unwrap();
            assert_eq!(matches!(sent.work, Some(v1::task::Work::WorkRef(_))), goes, "{form:?}");
            assert!(task_len(&sent, form).unwrap() <= INLINE_LIMIT);
            assert_eq!(offload_task(&task, None, form, INLINE_LIMIT).is_err(), goes, "{form:?}");
            encode(&command_task(header(), sent.clone()), form).unwrap();
            assert!(load_task(sent, Some(store)).unwrap() == task);
        }
    }
    // Outputs are a text of JSON in protobuf, too; what a program said is not.
    let said = |stderr: &str| Outcome::Succeeded {
        outputs: json!({ "text": "x".repeat(3 << 20) }).into(),
        exit_code: Some(0),
        stderr: Some(stderr.repeat(4 << 20)),
        usage: None,
        cached: false,
    };
    for (outcome, form, goes) in [
        (said("\""), Form::Protobuf, false),
        (said("\""), Form::Json, true),
        (said("x"), Form::Protobuf, false),
        (said("x"), Form::Json, false),
    ] {
        let sent = offload_outcome(&outcome, Some(store), form, INLINE_LIMIT).unwrap();
        let Some(v1::outcome::Kind::Succeeded(done)) = &sent.kind else { panic!("{form:?}") };
        assert_eq!(matches!(done.outputs, Some(v1::succeeded::Outputs::OutputsRef(_))), goes, "{form:?}");
        assert!(outcome_len(&sent, form).unwrap() <= INLINE_LIMIT);
        assert!(load_outcome(sent, Some(store)).unwrap() == outcome);
    }
}

#[test]
fn a_schema_that_is_null_is_refused_rather_than_lost() {
    let folder = tempfile::tempdir().unwrap();
    let store: &dyn Store = &FolderStore::new(folder.path());
    let mut task = task(0);
    task.work = Work::Agent(AgentCall {
        agent: "a".to_owned(),
        phase: AgentPhase::Execute,
        system_prompt: String::new(),
        prompt: "p".repeat(1000),
        input: json!(null),
        schema: Some(json!(null)),
        tools: Vec::new(),
        max_tokens: 1,
        temperature: None,
        model: None,
        provider: Provider::Command { argv: Vec::new(), dir: "/".to_owned() },
        env: Vec::new(),
    });
    assert!(offload_task(&task, Some(store), Form::Protobuf, 100).is_err());
    assert!(offload_task(&task, Some(store), Form::Json, INLINE_LIMIT).is_err());
    let inline = offload_task(&task, None, Form::Protobuf, INLINE_LIMIT).unwrap();
    assert!(load_task(inline, None).is_err());
}
