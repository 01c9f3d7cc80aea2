//! Both stores in the same tests, and payloads too large for a message.

use std::time::Duration;

use serde_json::json;

use crate::artifact::{
    ArtifactError, FolderStore, INLINE_LIMIT, PostgresStore, Store, load_outcome, load_task, offload_outcome,
    offload_task, reference_of,
};
use crate::database::{Database, DatabaseUrl};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Command, Outcome, Placement, Script, Shell, Task, Work};
use crate::test_postgres;

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
    let sent = offload_outcome(&outcome, Some(store), INLINE_LIMIT).unwrap();
    assert!(prost::Message::encoded_len(&sent) < 200);
    assert!(matches!(load_outcome(sent.clone(), None), Err(ArtifactError::NoStore { .. })));
    assert!(load_outcome(sent, Some(store)).unwrap() == outcome);
    let task = task(25 * 1024 * 1024);
    let sent = offload_task(&task, Some(store), INLINE_LIMIT).unwrap();
    assert!(prost::Message::encoded_len(&sent) < 400);
    assert!(load_task(sent, Some(store)).unwrap() == task);
    let failed = Outcome::failed(crate::task::Failure::permanent("x".repeat(INLINE_LIMIT)));
    assert!(matches!(offload_outcome(&failed, Some(store), INLINE_LIMIT), Err(ArtifactError::TooLarge { .. })));
}

fn task(length: usize) -> Task {
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
            command: Command::Shell { shell: Shell::Sh, script: "#".repeat(length) },
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
    for damage in [&b"abd"[..], b"ab", b""] {
        std::fs::write(&path, damage).unwrap();
        let error = store.get(&reference).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        store.put(b"abc").unwrap();
        assert_eq!(store.get(&reference).unwrap(), b"abc");
    }
}

#[test]
fn without_a_store_a_large_message_is_refused() {
    let outcome = Outcome::success(json!("x".repeat(INLINE_LIMIT)));
    let error = offload_outcome(&outcome, None, INLINE_LIMIT).unwrap_err();
    assert!(error.to_string().starts_with("MESSAGE_TOO_LARGE"), "{error}");
    assert!(offload_task(&task(INLINE_LIMIT), None, INLINE_LIMIT).is_err());
    assert!(offload_task(&task(1000), None, INLINE_LIMIT).is_ok());
}
