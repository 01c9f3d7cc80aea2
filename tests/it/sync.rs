//! A disk that fails to sync: the run stops at once and says which file it was, and what was recorded before stays.

use std::process::{Command, Output};

use crate::support::{Project, preloaded};

const PIPELINE: &str = "apiVersion: tol/v1\nname: syncs\nsteps:\n  - { id: a, run: echo a >> witness }\n  - { id: b, depends: [a], run: echo b >> witness }\n  - { id: c, depends: [b], run: echo c >> witness }\n";

/// Runs `tol` with a library before libc whose n-th sync fails.
fn tol(project: &Project, library: &str, failing: u32, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tol"))
        .args(arguments)
        .current_dir(project.path())
        .env("LD_PRELOAD", library)
        .env("FAIL_SYNC", failing.to_string())
        .output()
        .expect("tol starts")
}

#[test]
fn a_failing_sync_stops_the_run_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let library = preloaded("fail_sync.c", folder.path());
    for (failures, failing) in (1..40).enumerate() {
        let project = Project::new(&[("main.yaml", PIPELINE)]);
        let output = tol(&project, &library, failing, &["run", "main.yaml", "--format", "plain"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!words.contains("panicked"), "sync {failing}: {words}");
        if output.status.success() {
            assert!(failures >= 3, "only {failures} syncs failed before the run succeeded: the library does nothing");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "sync {failing}: {words}");
        assert!(words.contains(".tol"), "sync {failing} does not name a file: {words}");
        // With a sound disk the run is taken up, if it was accepted; what had succeeded is not done again.
        let list = tol(&project, &library, 0, &["runs", "list", "--format", "json"]);
        let runs: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap_or_default();
        let Some(run) = runs.pointer("/0/run_id").and_then(serde_json::Value::as_str) else { continue };
        let before = std::fs::read_to_string(project.path().join("witness")).unwrap_or_default();
        let resumed = tol(&project, &library, 0, &["resume", run, "--format", "json"]);
        let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
        assert_eq!(resumed.status.code(), Some(0), "sync {failing}: {said}");
        let after = std::fs::read_to_string(project.path().join("witness")).unwrap_or_default();
        assert!(after.starts_with(&before), "sync {failing}: {before:?} became {after:?}");
        for step in ["a", "b", "c"] {
            let times = after.lines().filter(|line| *line == step).count();
            // Only the step whose end could not be made durable may have run twice.
            assert!((1..=2).contains(&times), "sync {failing}: {step} ran {times} times: {after:?}");
        }
        assert!(after.lines().count() <= 4, "sync {failing}: more than one step ran again: {after:?}");
    }
    panic!("the run never succeeded");
}
