//! What programs of a served run print reaches whoever watches, each line once, whenever he begins to watch.

use std::process::{Child, Stdio};

use crate::serving::{Serving, program};
use crate::support::{Project, Ran};

/// Speaks, waits for the file `go`, and speaks again.
const TALK: &str = "\
apiVersion: tol/v1
name: talk
steps:
  - id: first
    run: printf 'a1\\na2\\n'; sleep 0.2; echo a3 >&2
  - id: second
    depends: [first]
    run: |
      echo b1
      while ! test -e \"$MARKS.go\"; do sleep 0.02; done
      for n in 2 3 4 5 6 7 8 9; do echo b$n; done
    env: { MARKS: \"{{ env.MARKS }}\" }
  - id: third
    depends: [second]
    run: echo c1
inherit_env: [MARKS]
";

const ALL: [&str; 13] = ["a1", "a2", "a3", "b1", "b2", "b3", "b4", "b5", "b6", "b7", "b8", "b9", "c1"];

/// Speaks before and after a question.
const ASK: &str = "\
apiVersion: tol/v1
name: ask
steps:
  - id: before
    run: printf 'a1\\na2\\na3\\n'
  - id: ok
    depends: [before]
    approve: { message: go on? }
  - id: after
    depends: [ok]
    run: echo c1
";

/// The lines of programs in what `--format plain` printed.
fn printed(out: &str) -> Vec<&str> {
    out.lines().filter_map(|line| Some(line.split_once(" │ ").or_else(|| line.split_once(" ┆ "))?.1)).collect()
}

#[track_caller]
fn output(watcher: Child) -> String {
    let output = watcher.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn each_line_is_shown_once_to_whoever_comes_when() {
    let serving = Serving::new(&[("talk.yaml", TALK)]);
    let attached = serving.begin(&["run", "talk", "--format", "plain"]);
    let mut run = String::new();
    serving.until("it has begun to speak", || {
        let listed = serving.tol(&["runs", "list", "--format", "json"]).stdout;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
        run = listed[0]["run_id"].as_str().unwrap_or_default().to_owned();
        !run.is_empty() && serving.tol(&["runs", "logs", &run]).stdout.contains("b1")
    });
    let late = serving.begin(&["runs", "watch", &run, "--format", "plain"]);
    let here = serving.project.begin(&["runs", "watch", &run, "--format", "plain"]);
    // From its own change on, the second step is shown whole, and the first one not.
    let from = serving.begin(&["runs", "watch", &run, "--format", "plain", "--from", "5"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    std::fs::write(serving.marks_file().with_extension("go"), "").expect("a file");
    for watcher in [attached, late, here] {
        let text = output(watcher);
        assert_eq!(printed(&text), ALL, "{text}");
        let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("no `{words}` in {text}"));
        assert!(at("a3") < at("first: succeeded") && at("b9") < at("second: succeeded"), "{text}");
    }
    let text = output(from);
    assert_eq!(printed(&text), ALL[3..], "{text}");
    // When all is over, too; and a run may end before anybody could have come.
    for ran in [
        serving.tol(&["runs", "watch", &run, "--format", "plain"]),
        serving.project.tol(&["runs", "watch", &run, "--format", "plain"]),
        serving.tol(&["run", "talk", "--format", "plain"]),
    ] {
        assert_eq!((ran.code, printed(&ran.stdout)), (Some(0), ALL.to_vec()), "{}", ran.said());
    }
}

#[test]
fn lines_of_a_worker_elsewhere_are_shown_once_too() {
    let serving = Serving::over(Project::new(&[("talk.yaml", TALK)]), &["--no-local-worker"]);
    std::fs::write(serving.marks_file().with_extension("go"), "").expect("a file");
    let token = std::fs::read_to_string(serving.project.path().join(".tol/token")).expect("there is a token");
    let mut worker = program()
        .args(["worker", "--gateway", serving.address.trim_start_matches("http://"), "--name", "w"])
        .current_dir(serving.project.path())
        .env("TOL_TOKEN", token.trim())
        .env("MARKS", serving.marks_file())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tol starts");
    let ran: Vec<Ran> = (0..5).map(|_| serving.tol(&["run", "talk", "--format", "plain"])).collect();
    worker.kill().expect("it can be killed");
    worker.wait().expect("it ends");
    for ran in ran {
        assert_eq!((ran.code, printed(&ran.stdout)), (Some(0), ALL.to_vec()), "{}", ran.said());
    }
}

#[test]
fn who_watches_on_after_a_restart_is_told_nothing_twice() {
    let mut serving = Serving::over(Project::new(&[("ask.yaml", ASK)]), &[]);
    let run = serving.submit(&["ask"]);
    serving.until_status(&run, "waiting");
    let watcher = serving.begin(&["runs", "watch", &run, "--format", "plain"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    serving.signal("-TERM");
    assert_eq!(serving.ended(), Some(0), "{:#?}", serving.said());
    let port = serving.address.rsplit(':').next().expect("a port").to_owned();
    serving.again(&["--listen", &format!("127.0.0.1:{port}")]);
    let approved = serving.tol(&["approve", &run, "ok"]);
    assert_eq!(approved.code, Some(0), "{}", approved.said());
    let text = output(watcher);
    assert_eq!(printed(&text), ["a1", "a2", "a3", "c1"], "{text}");
}
