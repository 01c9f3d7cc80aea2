//! `tol serve` and the commands that reach its runs from elsewhere, with the real program.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::postgres;
use crate::serving::{PATIENCE, Serving, program, read_from};
use crate::support::{Project, Ran};

const GREET: &str = "\
apiVersion: tol/v1
name: greet
params:
  who: { type: string, default: world }
  times: { type: integer, default: 1 }
steps:
  - id: hello
    run: echo \"hello $WHO\"
    env: { WHO: \"{{ params.who }}\" }
outputs:
  text: \"{{ hello.outputs.text }}\"
";

const ASK: &str = "\
apiVersion: tol/v1
name: ask
steps:
  - id: before
    run: echo before >> \"$MARKS\"
    env: { MARKS: \"{{ env.MARKS }}\" }
  - id: ok
    depends: [before]
    approve: { message: go on? }
  - id: after
    depends: [ok]
    run: echo after >> \"$MARKS\"
    env: { MARKS: \"{{ env.MARKS }}\" }
inherit_env: [MARKS]
";

/// Runs until the file `go` is there.
const SLOW: &str = "\
apiVersion: tol/v1
name: slow
steps:
  - id: work
    run: |
      echo started >> \"$MARKS\"
      while ! test -e \"$MARKS.go\"; do sleep 0.05; done
      echo worked >> \"$MARKS\"
    env: { MARKS: \"{{ env.MARKS }}\" }
    timeout: 5m
  - id: last
    depends: [work]
    run: echo one >> \"$MARKS\"
    env: { MARKS: \"{{ env.MARKS }}\" }
inherit_env: [MARKS]
";

#[test]
fn a_run_looks_the_same_from_elsewhere() {
    let serving = Serving::new(&[("greet.yaml", GREET)]);
    let there = serving.tol(&["run", "greet", "--param", "who=you", "--param", "times=2", "--format", "json"]);
    let here =
        serving.project.tol(&["run", "greet.yaml", "--param", "who=you", "--param", "times=2", "--format", "json"]);
    assert_eq!((there.code, here.code), (Some(0), Some(0)), "{}{}", there.said(), here.said());
    let shape = |ran: &Ran| -> Vec<Value> {
        let lines = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines
            .map(|mut line| {
                // What differs between any two runs.
                for key in ["run_id", "time", "duration_ms"] {
                    line.as_object_mut().expect("an object").shift_remove(key);
                }
                if let Some(steps) = line.get_mut("steps").and_then(Value::as_object_mut) {
                    steps.values_mut().for_each(|step| drop(step["duration_ms"].take()));
                }
                line
            })
            .collect()
    };
    assert_eq!(shape(&there), shape(&here));
    assert_eq!(there.summary()["outputs"]["text"], "hello you");

    let plain = serving.tol(&["run", "./greet.yaml", "--format", "plain"]);
    assert!(
        plain.stdout.contains("hello: succeeded") && plain.stdout.contains("hello │ hello world"),
        "{}",
        plain.said()
    );
    assert!(plain.stdout.contains("greet: succeeded in "), "{}", plain.said());

    let run = there.summary()["run_id"].as_str().expect("an id").to_owned();
    for arguments in [
        &["runs", "list", "--format", "json"][..],
        &["runs", "list"],
        &["runs", "show", &run],
        &["runs", "show", &run, "--format", "json"],
        &["runs", "show", &run, "--history"],
        &["runs", "logs", &run],
        &["runs", "logs", &run, "hello"],
        &["runs", "logs", &run, "none"],
        &["runs", "show", "none"],
    ] {
        let (there, here) = (serving.tol(arguments), serving.project.tol(arguments));
        assert_eq!((there.code, &there.stdout), (here.code, &here.stdout), "{arguments:?} {}", there.said());
        assert_eq!(there.stderr, here.stderr, "{arguments:?}");
    }
    let watched = serving.tol(&["runs", "watch", &run, "--format", "json"]);
    assert_eq!((watched.code, watched.stdout), (Some(0), there.stdout.clone()));
    let from = serving.tol(&["runs", "watch", &run, "--format", "json", "--from", "3"]);
    let tail: Vec<&str> = there.stdout.lines().skip(2).collect();
    assert_eq!(from.stdout.lines().collect::<Vec<_>>(), tail);
    let here = serving.project.tol(&["runs", "watch", &run, "--format", "json"]);
    assert_eq!(here.stdout, there.stdout, "{}", here.said());
}

#[test]
fn what_is_wrong_with_a_submission_is_said() {
    let serving = Serving::new(&[("greet.yaml", GREET)]);
    let check = |arguments: &[&str], code: i32, words: &str| {
        let ran = serving.tol(arguments);
        assert!(ran.code == Some(code) && ran.stderr.contains(words), "{arguments:?} {}", ran.said());
    };
    check(&["run", "gret"], 2, "`gret` is not a pipeline that is served; did you mean `greet`?");
    check(&["run", "greet", "--param", "whom=x"], 2, "`whom` is not a parameter of this pipeline; did you mean `who`?");
    check(&["run", "greet", "--param", "times=x"], 2, "parameter `times`: `x` is no integer");
    check(&["run", "greet", "--env", "prod"], 2, "prod");
    check(&["runs", "cancel", "none"], 1, "there is no run `none`");
    check(&["run", "greet", "--dry-run"], 2, "--dry-run works on this machine only");
    let away = serving.project.tol(&["runs", "list", "--server", "127.0.0.1:1"]);
    assert!(away.code == Some(1) && away.stderr.contains("cannot be reached"), "{}", away.said());
    let clear = serving.project.tol(&["runs", "list", "--server", "203.0.113.1:50051"]);
    assert!(clear.code == Some(2) && clear.stderr.contains("in the clear"), "{}", clear.said());
    let keyed: Vec<String> = (0..3).map(|_| serving.submit(&["greet", "--idempotency-key", "k1"])).collect();
    assert!(keyed.iter().all(|run| *run == keyed[0]), "{keyed:?}");
    assert_ne!(serving.submit(&["greet", "--idempotency-key", "k2"]), keyed[0]);
}

#[test]
fn only_who_has_the_token_is_served() {
    let serving = Serving::new(&[("greet.yaml", GREET)]);
    let list = |token: Option<&str>, folder: &std::path::Path| {
        let mut command = program();
        command.args(["runs", "list", "--server", &serving.address]).current_dir(folder).env_remove("TOL_TOKEN");
        if let Some(token) = token {
            command.env("TOL_TOKEN", token);
        }
        let output = command.output().expect("tol starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let token = std::fs::read_to_string(serving.project.path().join(".tol/token")).expect("there is a token");
    let elsewhere = tempfile::tempdir().expect("a folder");
    assert_eq!(list(Some(&token), elsewhere.path()).0, Some(0));
    assert_eq!(list(None, serving.project.path()).0, Some(0), "the token is found in the project");
    let (code, words) = list(None, elsewhere.path());
    assert!(code == Some(1) && words.contains("wants a token"), "{words}");
    let (code, words) = list(Some("0123456789abcdef0123456789abcdef"), elsewhere.path());
    assert!(code == Some(1) && words.contains("token"), "{words}");
    assert!(serving.said().iter().all(|line| !line.contains(&token)), "the token is not printed");

    for listen in ["0.0.0.0:0", "[::]:0"] {
        let ran = serving.project.tol(&["serve", ".", "--listen", listen, "--state-dir", "other"]);
        assert!(ran.code == Some(2) && ran.stderr.contains("can be reached from other machines"), "{}", ran.said());
    }
}

#[test]
fn a_run_is_steered_from_elsewhere() {
    let serving = Serving::new(&[("ask.yaml", ASK), ("slow.yaml", SLOW)]);
    let run = serving.tol(&["run", "ask", "--detach-on-wait", "--format", "json"]);
    assert_eq!(run.code, Some(5), "{}", run.said());
    let run = serving.tol(&["runs", "list", "--format", "json"]).stdout;
    let run = serde_json::from_str::<Value>(&run).expect("JSON")[0]["run_id"].as_str().expect("an id").to_owned();
    let watcher = serving.begin(&["runs", "watch", &run, "--format", "plain"]);
    let refused = serving.tol(&["approve", &run, "before"]);
    assert_eq!(refused.code, Some(1), "{}", refused.said());
    // The same from a process on the server's machine, past the server.
    let approved = serving.project.tol(&["approve", &run, "ok", "--by", "ann"]);
    assert_eq!((approved.code, approved.stdout.as_str()), (Some(0), "ok: approved\n"), "{}", approved.said());
    let watched = watcher.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(watched.status.code() == Some(0) && text.contains("ask: succeeded"), "{text}");
    assert_eq!(serving.marks(), ["before", "after"]);

    let rejected = serving.submit(&["ask"]);
    serving.until_status(&rejected, "waiting");
    let ran = serving.tol(&["approve", &rejected, "ok", "--reject", "--by", "bob", "--comment", "no"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "ok: rejected\n"), "{}", ran.said());
    serving.until_status(&rejected, "failed");
    let history = serving.tol(&["runs", "show", &rejected, "--history"]).stdout;
    assert!(history.contains("\"bob\"") && history.contains("\"rejected\""), "{history}");

    let slow = serving.submit(&["slow"]);
    serving.until("the step has begun", || serving.marks().contains(&"started".to_owned()));
    let paused = serving.tol(&["runs", "pause", &slow]);
    assert_eq!(paused.code, Some(0), "{}", paused.said());
    assert!(serving.tol(&["runs", "list"]).stdout.contains("running paused"));
    assert_eq!(serving.tol(&["runs", "resume", &slow]).code, Some(0));
    let cancelled = serving.tol(&["runs", "cancel", &slow]);
    assert!(cancelled.code == Some(0) && cancelled.stdout.ends_with(": cancelling\n"), "{}", cancelled.said());
    serving.until_status(&slow, "cancelled");
    let again = serving.tol(&["runs", "cancel", &slow]);
    assert_eq!(again.code, Some(1), "{}", again.said());
}

#[test]
fn ctrl_c_leaves_the_run_alone() {
    let serving = Serving::new(&[("slow.yaml", SLOW)]);
    let watcher = serving.begin(&["run", "slow", "--format", "plain"]);
    serving.until("the step has begun", || serving.marks() == ["started"]);
    let sent = Command::new("kill").args(["-INT", &watcher.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let left = watcher.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&left.stderr).into_owned();
    assert!(
        left.status.code() == Some(130) && words.contains("goes on") && words.contains("tol runs cancel"),
        "{words}"
    );
    std::fs::write(serving.marks_file().with_extension("go"), "").expect("a file");
    serving.until("the run has ended", || serving.marks() == ["started", "worked", "one"]);
}

#[test]
fn files_are_reloaded_and_runs_keep_theirs() {
    let serving = Serving::new(&[("slow.yaml", SLOW)]);
    let run = serving.submit(&["slow"]);
    serving.until("the step has begun", || serving.marks() == ["started"]);
    serving.project.write("slow.yaml", &SLOW.replace("echo one", "echo two"));
    serving.until_said("reloaded: 1 pipeline");
    serving.project.write("slow.yaml", &SLOW.replace("depends: [work]", "depends: [wrok]"));
    serving.until_said("error[TOL0204]");
    serving.until_said("not reloaded");
    // What was live before is still there, and the run in flight is on its own version.
    let second = serving.submit(&["slow"]);
    std::fs::write(serving.marks_file().with_extension("go"), "").expect("a file");
    serving.until_status(&run, "succeeded");
    serving.until_status(&second, "succeeded");
    let marks = serving.marks();
    let count = |word: &str| marks.iter().filter(|mark| *mark == word).count();
    assert_eq!((count("one"), count("two")), (1, 1), "{marks:?}");
    let show = |run: &str| -> Value {
        let ran = serving.tol(&["runs", "show", run, "--format", "json"]);
        serde_json::from_str(&ran.stdout).expect("JSON")
    };
    assert_ne!(show(&run)["definition"]["hash"], show(&second)["definition"]["hash"]);
    serving.signal("-HUP");
    serving
        .until("it is read again", || serving.said().iter().filter(|line| line.contains("not reloaded")).count() == 2);
    serving.project.write("slow.yaml", SLOW);
    serving.until("it heals", || serving.said().iter().filter(|line| line.contains("reloaded: 1 ")).count() == 2);
    serving.signal("-HUP");
    serving.until_said("nothing has changed");
}

#[test]
fn a_killed_server_leaves_its_runs_to_the_next() {
    let mut serving = Serving::new(&[("slow.yaml", SLOW), ("ask.yaml", ASK)]);
    let waiting = serving.submit(&["ask"]);
    serving.until_status(&waiting, "waiting");
    let run = serving.submit(&["slow", "--idempotency-key", "once"]);
    serving.until("the step has begun", || serving.marks().contains(&"started".to_owned()));
    serving.child.kill().expect("it can be killed");
    serving.child.wait().expect("it ends");
    std::fs::write(serving.marks_file().with_extension("go"), "").expect("a file");
    let died = Instant::now();
    serving.again(&[]);
    serving.until_said("2 runs are taken up");
    let watched = serving.tol(&["runs", "watch", &run, "--format", "json"]);
    assert_eq!(
        (watched.code, watched.summary()["status"].as_str()),
        (Some(0), Some("succeeded")),
        "{}",
        watched.said()
    );
    // The worker was part of the process that is gone: its lease of 15 seconds is not waited for.
    assert!(died.elapsed() < Duration::from_secs(8), "{:?}", died.elapsed());
    let history = serving.tol(&["runs", "show", &run, "--history"]).stdout;
    assert!(history.contains("it ended with an earlier process of the scheduler"), "{history}");
    assert_eq!(serving.submit(&["slow", "--idempotency-key", "once"]), run, "the key is known after the crash");
    assert_eq!(serving.tol(&["approve", &waiting, "ok"]).code, Some(0));
    serving.until_status(&waiting, "succeeded");
    let marks = serving.marks();
    assert_eq!(marks.iter().filter(|mark| *mark == "one").count(), 1, "{marks:?}");
}

#[test]
fn a_server_that_is_told_to_end_lets_its_steps_end() {
    let mut serving = Serving::new(&[("slow.yaml", SLOW)]);
    let run = serving.submit(&["slow"]);
    serving.until("the step has begun", || serving.marks() == ["started"]);
    let watcher = serving.begin(&["runs", "watch", &run, "--format", "json"]);
    serving.signal("-TERM");
    serving.until_said("draining: 1 step");
    let refused = serving.tol(&["run", "slow", "--detach"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("draining"), "{}", refused.said());
    std::fs::write(serving.marks_file().with_extension("go"), "").expect("a file");
    assert_eq!(serving.ended(), Some(0), "{:#?}", serving.said());
    assert_eq!(serving.marks(), ["started", "worked"], "the step has ended, and the next was not begun");
    serving.until_said("1 run goes on");
    let port = serving.address.rsplit(':').next().expect("a port").to_owned();
    let ended = Instant::now();
    serving.again(&["--listen", &format!("127.0.0.1:{port}")]);
    serving.until_status(&run, "succeeded");
    assert!(ended.elapsed() < Duration::from_secs(8), "what nobody was given is not waited for: {:?}", ended.elapsed());
    assert_eq!(serving.marks(), ["started", "worked", "one"], "what had ended is not done again");
    let watched = watcher.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&watched.stdout).into_owned();
    let seqs: Vec<u64> =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["seq"].as_u64()).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "each change is told once: {seqs:?}");
    assert_eq!(watched.status.code(), Some(0), "{text}");
}

#[test]
fn steps_that_take_too_long_are_left_to_the_next_server() {
    let mut serving = Serving::over(Project::new(&[("slow.yaml", SLOW)]), &["--grace", "1"]);
    let run = serving.submit(&["slow"]);
    serving.until("the step has begun", || serving.marks() == ["started"]);
    serving.signal("-TERM");
    assert_eq!(serving.ended(), Some(0), "{:#?}", serving.said());
    serving.until_said("1 steps are stopped");
    std::fs::write(serving.marks_file().with_extension("go"), "").expect("a file");
    let ended = Instant::now();
    serving.again(&[]);
    serving.until_status(&run, "succeeded");
    assert!(ended.elapsed() < Duration::from_secs(8), "{:?}", ended.elapsed());
    assert_eq!(serving.marks(), ["started", "started", "worked", "one"]);
}

#[test]
fn a_server_without_valid_files_says_so_and_heals() {
    let serving = Serving::new(&[("greet.yaml", &GREET.replace("steps:", "stpes:"))]);
    serving.until_said("error[TOL0101]");
    let refused = serving.tol(&["run", "greet"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("TOL0101"), "{}", refused.said());
    serving.project.write("greet.yaml", GREET);
    serving.until("it heals", || serving.tol(&["run", "greet"]).code == Some(0));
}

#[test]
fn without_notices_of_the_system_files_are_polled() {
    let project = Project::new(&[("greet.yaml", GREET)]);
    let script = "echo 0 > /proc/sys/user/max_inotify_watches && exec tol serve . --listen 127.0.0.1:0";
    let mut child = match Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .current_dir(project.path())
        .env("PATH", path())
        .env_remove("DATABASE_URL")
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(child) => child,
        Err(error) => return skipped(&format!("unshare: {error}")),
    };
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let polls = lines
        .by_ref()
        .find(|line| line.contains("read at intervals") || line.contains("denied") || line.contains("unshare"));
    let reloads = match polls {
        Some(line) if line.contains("read at intervals") => {
            assert!(lines.any(|line| line.contains("serving 1 pipeline")));
            project.write("greet.yaml", &GREET.replace("hello $WHO", "bye $WHO"));
            lines.any(|line| line.contains("reloaded: 1 pipeline"))
        }
        other => {
            let _ = child.kill();
            let _ = child.wait();
            return skipped(&format!("a limit of watches cannot be set here: {other:?}"));
        }
    };
    let _ = child.kill();
    let _ = child.wait();
    assert!(reloads);
}

fn path() -> std::ffi::OsString {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_tol"));
    let mut path = binary.parent().expect("a file has a folder").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}

fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "nothing is skipped in CI: {why}");
}

#[test]
fn a_changed_file_is_run_again() {
    let project = Project::new(&[("greet.yaml", GREET)]);
    let mut child = program()
        .args(["run", "greet.yaml", "--watch", "--format", "plain"])
        .current_dir(project.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tol starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut err = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut waits = || assert!(err.any(|line| line.contains("waiting for a change")));
    assert!(out.any(|line| line == "text: hello world" || line.contains("hello │ hello world")));
    waits();
    project.write("greet.yaml", &GREET.replace("hello $WHO", "bye $WHO"));
    assert!(out.any(|line| line.contains("hello │ bye world")));
    waits();
    project.write("greet.yaml", "apiVersion: tol/v1\nname: x\n");
    waits();
    project.write("greet.yaml", &GREET.replace("hello $WHO", "again $WHO"));
    assert!(out.any(|line| line.contains("hello │ again world")));
    waits();
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn one_server_dies_and_the_other_goes_on_with_its_runs() {
    let Some(database) = postgres::database() else { return };
    let project = Project::new(&[("slow.yaml", SLOW), ("ask.yaml", ASK)]);
    let begin = |state: &str| {
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut command = program();
        command
            .args(["serve", "."])
            .env("DATABASE_URL", &database.url)
            .env("TOL_TOKEN", "a token for both servers".replace(' ', "-"));
        let child = read_from(&mut command, &project, &["--state-dir", state], &said);
        (child, said)
    };
    let until = |what: &str, is_so: &mut dyn FnMut() -> bool| {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let address = |said: &Arc<Mutex<Vec<String>>>| {
        let mut found = None;
        until("it listens", &mut || {
            let lines = said.lock().expect("no reader has failed").clone();
            found =
                lines.iter().find_map(|line| line.strip_prefix("listening on ")?.split(';').next().map(str::to_owned));
            found.is_some()
        });
        found.expect("it was found")
    };
    let tol = |address: &str, arguments: &[&str]| {
        let output = program()
            .args(arguments)
            .args(["--server", address])
            .env("TOL_TOKEN", "a-token-for-both-servers")
            .current_dir(project.path())
            .output()
            .expect("tol starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let marks = || std::fs::read_to_string(project.path().join("marks")).unwrap_or_default();
    let (mut first, first_said) = begin("one");
    let one = address(&first_said);
    let (mut second, second_said) = begin("two");
    let two = address(&second_said);
    until("they share", &mut || second_said.lock().expect("a reader").iter().any(|line| line.contains("2 servers")));

    let (code, run, words) = tol(&one, &["run", "slow", "--detach"]);
    assert_eq!(code, Some(0), "{words}");
    let run = run.trim().to_owned();
    let (code, asks, words) = tol(&one, &["run", "ask", "--detach"]);
    assert_eq!(code, Some(0), "{words}");
    let asks = asks.trim().to_owned();
    let status = |address: &str, run: &str| {
        let shown = tol(address, &["runs", "show", run, "--format", "json"]).1;
        serde_json::from_str::<Value>(&shown).unwrap_or_default()["status"].as_str().unwrap_or_default().to_owned()
    };
    until("both have begun", &mut || marks().contains("started") && status(&two, &asks) == "waiting");
    // The server that does not have a run passes on what it is told, and tells what it sees.
    let (code, out, words) = tol(&two, &["approve", &asks, "ok"]);
    assert_eq!((code, out.as_str()), (Some(0), "ok: approved\n"), "{words}");
    let (code, out, words) = tol(&two, &["runs", "watch", &asks, "--format", "json"]);
    assert!(code == Some(0) && out.contains("\"summary\""), "{out}{words}");

    first.kill().expect("it can be killed");
    first.wait().expect("it ends");
    std::fs::write(project.path().join("marks.go"), "").expect("a file");
    until("the other has taken over", &mut || status(&two, &run) == "succeeded");
    assert_eq!(marks().lines().filter(|line| *line == "one").count(), 1, "{}", marks());
    let ended = Command::new("kill").args(["-TERM", &second.id().to_string()]).status().expect("kill runs");
    assert!(ended.success());
    assert_eq!(second.wait().expect("it ends").code(), Some(0));
}
