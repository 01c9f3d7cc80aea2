//! What a run does where several rules of the language meet, seen through the built binary.

use serde_json::{Value, json};

use crate::support::{Project, Ran};

/// Runs the files' `p.yaml`, and holds the exit code and parts of the summary, by pointer, against what is expected.
fn check(files: &[(&str, &str)], code: i32, expected: &[(&str, Value)]) -> Project {
    let project = Project::new(files);
    check_ran(&project.tol(&["run", "p.yaml", "--format", "json"]), code, expected);
    project
}

fn check_ran(ran: &Ran, code: i32, expected: &[(&str, Value)]) {
    assert_eq!(ran.code, Some(code), "{}", ran.said());
    let summary = ran.summary();
    for (pointer, value) in expected {
        assert_eq!(summary.pointer(pointer), Some(value), "{pointer}\n{}", ran.said());
    }
}

#[test]
fn hooks_read_what_became_of_the_steps() {
    let pipeline = r#"apiVersion: tol/v1
steps:
  - { id: a, run: exit 3 }
  - { id: b, depends: [a], run: echo b }
finally:
  - { id: f, run: echo f }
hooks:
  failure: [{ run: 'echo "$S" > hook.txt', env: { S: "{{ a.status }} {{ a.exit_code }} {{ b.status }}" } }]
  exit: [{ run: 'echo "$S" >> hook.txt', env: { S: "{{ f.status }} {{ f.outputs.text }}" } }]
"#;
    let project = check(&[("p.yaml", pipeline)], 1, &[("/status", json!("failed"))]);
    let said = std::fs::read_to_string(project.path().join("hook.txt")).expect("the hooks have run");
    assert_eq!(said, "failed 3 skipped\nsucceeded f\n");
}

#[test]
fn a_child_is_cancelled_by_the_timeout_of_the_step_around_it() {
    let pipeline = "apiVersion: tol/v1
steps:
  - { id: outer, pipeline: child.yaml, timeout: 200ms, continue_on_error: true }
";
    let child = "apiVersion: tol/v1
steps:
  - { id: slow, run: sleep 20 }
finally:
  - { id: own, run: sleep 20, timeout: 100ms }
";
    let around = json!("the step around it took longer than its timeout");
    check(
        &[("p.yaml", pipeline), ("child.yaml", child)],
        0,
        &[
            ("/steps/outer/status", json!("timed_out")),
            ("/steps/outer~1slow/status", json!("cancelled")),
            ("/steps/outer~1slow/reason", around),
            ("/steps/outer~1own/error/message", json!("it took longer than its timeout of 100ms")),
        ],
    );
}

#[test]
fn cancelling_a_run_whose_process_died_starts_no_step_again() {
    let pipeline = "apiVersion: tol/v1
steps:
  - { id: a, run: 'echo started >> started; sleep 5' }
  - { id: b, depends: [a], run: echo b }
finally:
  - { id: f, run: echo $TOL_ATTEMPT }
";
    let project = Project::new(&[("p.yaml", pipeline)]);
    let ran = project.sh("tol run p.yaml --format json > events & process=$!
        for _ in $(seq 200); do [ ! -s started ] || break; sleep 0.05; done
        kill -9 $process; wait $process || true
        run=$(sed -n '1s/.*\"run_id\":\"\\([^\"]*\\).*/\\1/p' events)
        tol runs cancel $run > /dev/null
        test $(wc -l < started) = 1
        tol runs show $run --format json");
    check_ran(
        &ran,
        0,
        &[
            ("/status", json!("cancelled")),
            ("/steps/a/status", json!("cancelled")),
            ("/steps/a/attempts", json!(1)),
            ("/steps/b/status", json!("cancelled")),
            ("/steps/f/outputs/text", json!("1")),
        ],
    );
}

#[test]
fn a_number_without_a_fraction_counts_as_a_double() {
    let pipeline = "apiVersion: tol/v1
params: { rate: { type: number, default: 2 } }
steps:
  - { id: t, transform: { half: params.rate * 0.5, more: 1.5 + params.rate } }
outputs: { t: '{{ t.outputs }}' }
";
    check(&[("p.yaml", pipeline)], 0, &[("/outputs/t", json!({ "half": 1.0, "more": 3.5 }))]);
}

#[test]
fn the_file_of_variables_chooses_how_a_run_works() {
    let pipeline = r#"apiVersion: tol/v1
inherit_env: [REGION]
profiles:
  dev: { params: { word: small } }
params: { word: { type: string, default: large } }
steps:
  - { id: a, run: 'echo "$REGION $W"', env: { W: "{{ params.word }}" } }
outputs: { said: "{{ a.outputs.text }}" }
"#;
    let variables = "# how runs work here\nexport TOL_STATE_DIR=state\nTOL_ENV='dev'\nTOL_MAX_PARALLEL=2\nREGION=eu\n";
    let files = [("p.yaml", pipeline), (".env", variables)];
    let project = check(&files, 0, &[("/outputs/said", json!("eu small"))]);
    assert!(project.path().join("state/journal.db").is_file(), "the state folder is the one that .env names");
    assert!(!project.path().join(".tol").exists());
    project.write(".env", "TOL_MAX_PARALLEL=none\n");
    let refused = project.tol(&["run", "p.yaml"]);
    assert_eq!(refused.code, Some(2), "{}", refused.said());
    assert!(refused.stderr.contains("TOL_MAX_PARALLEL"), "{}", refused.said());
}

#[test]
fn a_command_left_with_a_process_that_dies_is_answered_by_the_next() {
    let pipeline = "apiVersion: tol/v1\nsteps:\n  - { id: ok, approve: { message: Go? } }\n";
    let project = Project::new(&[("p.yaml", pipeline)]);
    // The first driver is stopped, so that it cannot answer, and killed once the question has been answered to it.
    let said = project.sh(r#"tol run p.yaml --format json > first.jsonl & driver=$!
        until grep -q waiting first.jsonl; do sleep 0.02; done
        run=$(sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p' first.jsonl | head -n 1)
        kill -STOP $driver
        tol approve "$run" ok > answered.txt & answer=$!
        sleep 0.5
        kill -KILL $driver
        timeout 20 tol resume "$run" --format json
        wait $answer"#);
    check_ran(&said, 0, &[("/status", json!("succeeded"))]);
}
