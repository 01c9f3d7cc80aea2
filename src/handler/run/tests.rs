//! Scripts as real processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dispatch::{Stop, StopHandle, StopSignal, stop_channel};
use crate::handler::{LogLine, WorkerContext, folders, logs};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{Command, ErrorClass, Failure, Outcome, Part, Script, Shell, Task, Text, Work};

async fn perform(task: Task, context: Arc<WorkerContext>, mut stop: StopSignal) -> Outcome {
    match &task.work {
        Work::Run(script) => super::run(&task, script, &context, &mut stop).await,
        other => panic!("{other:?}"),
    }
}

/// A place for a run, and what its scripts are given.
struct Place {
    folder: tempfile::TempDir,
    context: Arc<WorkerContext>,
}

fn place() -> Place {
    place_with(&[], None)
}

fn place_with(env: &[(&str, &str)], live: Option<tokio::sync::mpsc::Sender<LogLine>>) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let mut caller: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    caller.entry("PATH".to_owned()).or_insert_with(|| std::env::var("PATH").unwrap());
    caller.insert("OF_THE_CALLER".to_owned(), "leaked".to_owned());
    let context = Arc::new(WorkerContext::new(&folder.path().join("state"), caller, live));
    Place { folder, context }
}

impl Place {
    fn script(&self, script: &str) -> Script {
        Script {
            command: Command::Shell { shell: Shell::Sh, script: script.to_owned() },
            env: Vec::new(),
            inherit_env: Vec::new(),
            dir: self.folder.path().to_str().unwrap().to_owned(),
            json: false,
            permanent_exit_codes: Vec::new(),
            max_output: 1024 * 1024,
        }
    }

    fn argv(&self, argv: &[&str]) -> Script {
        let argv = argv.iter().map(|&word| word.to_owned()).collect();
        Script { command: Command::Argv(argv), ..self.script("") }
    }

    fn task(&self, script: Script) -> Task {
        Task {
            run: RunId::new("run-1"),
            pipeline: Arc::from("pipe"),
            unit: UnitPath::new("child/grow[3]"),
            attempt: 2,
            token: LeaseToken(7),
            idempotency_key: "key-of-the-unit".to_owned(),
            deadline: None,
            place: Default::default(),
            work: Work::Run(script),
        }
    }

    async fn run(&self, script: Script) -> Outcome {
        perform(self.task(script), self.context.clone(), StopSignal::never()).await
    }

    async fn outputs(&self, script: Script) -> Value {
        match self.run(script).await {
            Outcome::Succeeded { outputs, .. } => (*outputs).clone(),
            other => panic!("{other:?}"),
        }
    }

    async fn failure(&self, script: Script) -> Failure {
        match self.run(script).await {
            Outcome::Failed { failure, .. } => failure,
            other => panic!("{other:?}"),
        }
    }

    async fn check(&self, script: &str, expect: Value) {
        assert_eq!(self.outputs(self.script(script)).await, expect, "{script}");
    }

    async fn check_json(&self, script: &str, expect: Value) {
        assert_eq!(self.outputs(Script { json: true, ..self.script(script) }).await, expect, "{script}");
    }

    async fn check_failure(&self, script: Script, class: ErrorClass, words: &str) -> Failure {
        let failure = self.failure(script).await;
        assert_eq!(failure.class, class, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
        failure
    }

    fn pid(&self, name: &str) -> i32 {
        let path = self.folder.path().join(name);
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(text) = std::fs::read_to_string(&path)
                && let Ok(pid) = text.trim().parse()
            {
                return pid;
            }
            assert!(Instant::now() < until, "{name} was not written");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        let mut text = String::new();
        for log in logs::list(&self.context.state_folder, &RunId::new("run-1")).unwrap() {
            assert_eq!((log.unit.as_str(), log.attempt), ("child/grow[3]", 2));
            for piece in logs::read(&log).unwrap() {
                let piece = piece.unwrap();
                text.push_str(&format!("{:?}: {}", piece.source, piece.text));
            }
        }
        text
    }
}

/// The state of a process: `None` if there is none of this number.
fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

fn is_running(pid: i32) -> bool {
    state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

async fn eventually(what: &str, test: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !test() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_script_yields() {
    let place = place();
    place.check("printf 'one\\ntwo\\n'", json!({"text": "one\ntwo"})).await;
    place.check("printf bare", json!({"text": "bare"})).await;
    place.check("true", json!({"text": ""})).await;
    place.check("printf '\\377\\376 the end\\n'", json!({"text": "\u{FFFD}\u{FFFD} the end"})).await;
    place.check("echo hello; echo colour=green >> \"$TOL_OUTPUT\"", json!({"text": "hello", "colour": "green"})).await;
    place.check("echo '{\"count\": 3}' > \"$TOL_OUTPUT\"", json!({"text": "", "count": 3})).await;
    place.check("test ! -s \"$TOL_OUTPUT\"; cat \"$TOL_OUTPUT\"; rm \"$TOL_OUTPUT\"", json!({"text": ""})).await;
    place.check_json("echo working; echo '{\"ok\": true}'", json!({"ok": true})).await;
    place.check_json("echo '{\"a\": 1}'; echo b=2 > \"$TOL_OUTPUT\"", json!({"a": 1, "b": "2"})).await;
    assert_eq!(place.outputs(place.argv(&["printf", "%s|", "a b", "$HOME"])).await, json!({"text": "a b|$HOME|"}));
    let temporary = folders::temporary_folder(&place.context.state_folder, &RunId::new("run-1"));
    assert_eq!(std::fs::read_dir(temporary).unwrap().count(), 0, "an attempt leaves no files of its own");
}

#[tokio::test]
async fn success_carries_the_exit_code_and_stderr() {
    let place = place();
    let outcome = place.run(place.script("echo said >&2")).await;
    let Outcome::Succeeded { exit_code, stderr, usage, cached, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!((exit_code, stderr.as_deref(), usage, cached), (Some(0), Some("said\n"), None, false));
}

#[tokio::test]
async fn outputs_that_are_wrong_are_permanent_failures() {
    let place = place();
    let json = |script: &str| Script { json: true, ..place.script(script) };
    let permanent = ErrorClass::Permanent;
    place.check_failure(json("echo oak; echo elm"), permanent, "begins `oak elm`").await;
    place.check_failure(json("true"), permanent, "printed nothing").await;
    place.check_failure(json("echo '[1]'; echo a=1 > $TOL_OUTPUT"), permanent, "a list").await;
    place.check_failure(json("head -c 11000000 /dev/zero"), permanent, "more than 10 MB").await;
    place
        .check_failure(place.script("echo a=1 > $TOL_OUTPUT; echo oops >> $TOL_OUTPUT"), permanent, "line 2: `oops`")
        .await;
    place.check_failure(place.script("head -c 1048577 /dev/zero > $TOL_OUTPUT"), permanent, "1 MiB").await;
    place.check_failure(place.script("rm $TOL_OUTPUT; mkfifo $TOL_OUTPUT"), permanent, "no file").await;
}

#[tokio::test]
async fn exit_codes_and_signals_have_classes() {
    let place = place();
    let script = place.script("echo out; echo first >&2; echo the disk is full >&2; exit 3");
    let failure = place.check_failure(script.clone(), ErrorClass::Transient, "exit code 3").await;
    assert_eq!((failure.exit_code, failure.stderr.as_deref()), (Some(3), Some("first\nthe disk is full\n")));
    let listed = Script { permanent_exit_codes: vec![2, 3], ..script };
    place.check_failure(listed, ErrorClass::Permanent, "exit code 3").await;
    place.check_failure(place.script("kill -9 $$"), ErrorClass::Transient, "killed by signal 9 (SIGKILL)").await;
    place.check_failure(place.script("no-such-command"), ErrorClass::Transient, "exit code 127").await;
    place.check_failure(place.script("echo \"$NOWHERE\"; touch went-on"), ErrorClass::Transient, "exit code 2").await;
    place.check_failure(place.script("false; touch went-on"), ErrorClass::Transient, "exit code 1").await;
    assert!(!place.folder.path().join("went-on").exists());
}

#[tokio::test]
async fn the_end_of_stderr_is_whole_characters() {
    let place = place();
    let script = "i=0; while [ $i -lt 3000 ]; do printf 'ż' >&2; i=$((i+1)); done; printf x >&2; exit 1";
    let stderr = place.failure(place.script(script)).await.stderr.unwrap();
    assert_eq!(stderr.len(), 4095);
    assert!(stderr.starts_with('ż') && stderr.ends_with("żx"));
}

#[tokio::test]
async fn a_shell_is_chosen() {
    let place = place();
    let bash = |text: &str| Script {
        command: Command::Shell { shell: Shell::Bash, script: text.to_owned() },
        ..place.script("")
    };
    assert_eq!(place.outputs(bash("words=(oak elm); echo ${words[1]}")).await, json!({"text": "elm"}));
    place.check_failure(bash("false | true; touch went-on"), ErrorClass::Transient, "exit code 1").await;
    place.check("false | true", json!({"text": ""})).await;
}

#[tokio::test]
async fn the_environment_is_isolated() {
    let place = place_with(&[("WANTED", "wanted"), ("HOME", "/home/of/me"), ("TOL_STEP", "of an outer run")], None);
    let mut script = place.script(
        "echo ${OF_THE_CALLER-unset} ${WANTED-unset} {$GIVEN} $HOME; echo $TOL_RUN_ID $TOL_STEP $TOL_ITEM \
         $TOL_ATTEMPT $TOL_IDEMPOTENCY_KEY; test -d $TOL_ARTIFACTS; echo note > $TOL_ARTIFACTS/note; basename $TOL_ARTIFACTS",
    );
    script.inherit_env = vec!["WANTED".to_owned(), "ABSENT".to_owned()];
    script.env = vec![("GIVEN".to_owned(), Text::plain("a b")), ("TOL_ATTEMPT".to_owned(), Text::plain("9"))];
    let expect = "unset wanted {a b} /home/of/me\nrun-1 child/grow 3 2 key-of-the-unit\nchild.grow";
    assert_eq!(place.outputs(script).await, json!({"text": expect}));
    let text = place.outputs(place.argv(&["env"])).await["text"].as_str().unwrap().to_owned();
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    let expect = "HOME PATH TOL_ARTIFACTS TOL_ATTEMPT TOL_IDEMPOTENCY_KEY TOL_ITEM TOL_OUTPUT TOL_RUN_ID TOL_STEP";
    assert_eq!(names.join(" "), expect);
}

#[tokio::test]
async fn stdin_is_empty() {
    let place = place();
    place.check("echo \"read {$(cat)}\"", json!({"text": "read {}"})).await;
}

#[tokio::test]
async fn what_cannot_be_started_is_permanent_and_named() {
    let place = place();
    let file = |name: &str, mode: u32, content: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = place.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    file("plain", 0o644, "#!/bin/sh\n");
    file("lost", 0o755, "#!/no/such/shell\n");
    file("good", 0o755, "#!/bin/sh\necho \"$0 is good\"\n");
    let permanent = ErrorClass::Permanent;
    place.check_failure(place.argv(&["no-such-program-here", "-v"]), permanent, "`no-such-program-here`").await;
    place.check_failure(place.argv(&["./absent"]), permanent, "`./absent`: there is no such file").await;
    place.check_failure(place.argv(&["./plain"]), permanent, "`./plain`: it is not executable").await;
    place.check_failure(place.argv(&["./lost"]), permanent, "`./lost`").await;
    place.check_failure(place.argv(&["/tmp"]), permanent, "it is a folder").await;
    place.check_failure(place.argv(&[]), permanent, "empty").await;
    place.check_failure(place.argv(&["echo", "a\0b"]), permanent, "NUL").await;
    let text = place.outputs(place.argv(&["./good"])).await["text"].as_str().unwrap().to_owned();
    assert!(text.ends_with("./good is good"), "{text}");
    let gone = Script { dir: "/no/such/folder".to_owned(), ..place.script("true") };
    place.check_failure(gone, permanent, "`/no/such/folder` does not exist").await;
    let no_folder = Script { dir: "/etc/passwd".to_owned(), ..place.script("true") };
    place.check_failure(no_folder, permanent, "`/etc/passwd` is not a folder").await;
    let large = Script { env: vec![("BIG".to_owned(), Text::plain("x".repeat(200_000)))], ..place.script("true") };
    place.check_failure(large, permanent, "the value of `BIG` is too long").await;
    let odd = Script { env: vec![("A=B".to_owned(), Text::plain("x"))], ..place.script("true") };
    place.check_failure(odd, permanent, "`A=B`").await;
}

#[tokio::test]
async fn a_long_script_is_run_too() {
    let place = place();
    let script = format!("# {}\necho done", "x".repeat(300_000));
    place.check(&script, json!({"text": "done"})).await;
}

#[tokio::test]
async fn large_outputs_neither_hang_nor_fill_the_memory() {
    let place = place();
    let script =
        "awk 'BEGIN { for (i = 0; i < 100000; i++) print \"forty-nine characters and one newline: 50 bytes: \" }'";
    let outputs = place.outputs(place.script(&format!("{script}; {script} >&2; touch written"))).await;
    assert_eq!(outputs.get("text"), None);
    let kept = std::fs::read(outputs["stdout_file"].as_str().unwrap()).unwrap();
    assert_eq!(kept.len(), 5_000_000);
    assert!(place.folder.path().join("written").exists());
    assert_eq!(place.log().matches("50 bytes").count(), 200_000);
    let small = Script { max_output: 4, ..place.script("echo four; echo n=1 > $TOL_OUTPUT") };
    let outputs = place.outputs(small).await;
    assert_eq!((outputs.get("text"), outputs["n"].as_str()), (None, Some("1")));
    assert_eq!(place.outputs(Script { max_output: 5, ..place.script("echo four") }).await, json!({"text": "four"}));
}

#[tokio::test]
async fn what_is_printed_is_logged_and_shown() {
    let (sender, mut lines) = tokio::sync::mpsc::channel(100);
    let place = place_with(&[], Some(sender));
    place
        .check(
            "echo one; sleep 0.05; echo two >&2; sleep 0.05; printf 'a '; sleep 0.05; printf bare",
            json!({"text": "one\na bare"}),
        )
        .await;
    assert_eq!(place.log(), "Out: one\nErr: two\nOut: a bare");
    let mut shown = Vec::new();
    while let Ok(line) = lines.try_recv() {
        assert_eq!((line.unit.as_str(), line.attempt), ("child/grow[3]", 2));
        shown.push(line.text);
    }
    assert_eq!(shown, ["one", "two", "a bare"]);
}

#[tokio::test]
async fn a_silent_script_has_no_log() {
    let place = place();
    place.check("true", json!({"text": ""})).await;
    assert!(!folders::logs_folder(&place.context.state_folder, &RunId::new("run-1")).exists());
    assert_eq!(place.log(), "");
}

#[tokio::test]
async fn secrets_reach_the_script_and_nothing_else() {
    let place = place_with(&[("TOL_SECRET_KEY", "hunter2secret")], None);
    let with_key = |script: &str| Script {
        env: vec![("KEY".to_owned(), Text(vec![Part::Plain("k:".to_owned()), Part::Secret("KEY".to_owned())]))],
        ..place.script(script)
    };
    let script = "test ${#KEY} = 15; echo $KEY; printf hunter2; sleep 0.05; echo secret; echo k=$KEY > $TOL_OUTPUT; echo $KEY >&2";
    let outputs = place.outputs(with_key(script)).await;
    assert_eq!(outputs, json!({"text": "k:***\n***", "k": "k:***"}));
    let log = place.log();
    assert!(!log.contains("hunter2") && log.contains("Err: k:***"), "{log}");
    let failure = place.failure(with_key("echo no $KEY >&2; exit 1")).await;
    assert_eq!(failure.stderr.as_deref(), Some("no k:***\n"));
    let failure = place.failure(Script { json: true, ..with_key("echo $KEY") }).await;
    assert!(failure.message.contains("k:***") && !failure.message.contains("hunter2"), "{failure:?}");
    let absent =
        Script { env: vec![("K".to_owned(), Text(vec![Part::Secret("NOT_SET".to_owned())]))], ..place.script("true") };
    place.check_failure(absent, ErrorClass::Permanent, "secret `NOT_SET` is not set: set TOL_SECRET_NOT_SET").await;
}

#[tokio::test]
async fn a_step_ends_with_its_process() {
    let place = place();
    let began = Instant::now();
    place.check("sleep 30 & echo $! > child.pid; echo done", json!({"text": "done"})).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let child = place.pid("child.pid");
    assert!(is_running(child), "what a script leaves in the background lives on");
    rustix::process::kill_process(rustix::process::Pid::from_raw(child).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
}

/// Starts a script, waits for its file `ready`, and gives what is needed to stop it.
async fn started(place: &Place, script: &str) -> (StopHandle, tokio::task::JoinHandle<Outcome>) {
    let (handle, signal) = stop_channel();
    let work = tokio::spawn(perform(place.task(place.script(script)), place.context.clone(), signal));
    let ready = place.folder.path().join("ready");
    eventually("the script began", || ready.exists()).await;
    (handle, work)
}

#[tokio::test]
async fn a_stop_ends_the_whole_group() {
    for how in [Stop::Graceful, Stop::Now] {
        let place = place();
        let script = "sh -c 'sleep 50 & echo $! > grandchild.pid; wait' & echo $! > child.pid; echo $$ > main.pid; \
                      sleep 0.1; touch ready; sleep 50";
        let (handle, work) = started(&place, script).await;
        let pids = ["main.pid", "child.pid", "grandchild.pid"].map(|name| place.pid(name));
        let began = Instant::now();
        handle.stop(how);
        assert_eq!(work.await.unwrap(), Outcome::Stopped);
        assert!(began.elapsed() < Duration::from_secs(2), "{how:?} took {:?}", began.elapsed());
        for pid in pids {
            assert!(!is_running(pid), "{how:?}");
        }
        assert_eq!(state_of(pids[0]), None, "no zombie is left");
    }
}

#[tokio::test]
async fn a_script_may_clean_up_and_one_that_will_not_end_is_killed() {
    let place = place();
    let script = "trap 'echo cleaned up; touch cleaned; exit 0' TERM; touch ready; while :; do sleep 0.01; done";
    let (handle, work) = started(&place, script).await;
    handle.stop(Stop::Graceful);
    assert_eq!(work.await.unwrap(), Outcome::Stopped);
    assert!(place.folder.path().join("cleaned").exists());
    assert!(place.log().contains("cleaned up"));

    let place = self::place();
    let (handle, work) =
        started(&place, "trap '' TERM; echo $$ > main.pid; touch ready; while :; do sleep 0.01; done").await;
    handle.stop(Stop::Graceful);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(is_running(place.pid("main.pid")), "it has five seconds to end by itself");
    handle.stop(Stop::Now);
    assert_eq!(work.await.unwrap(), Outcome::Stopped);
    assert!(!is_running(place.pid("main.pid")));
}

#[tokio::test]
async fn a_child_that_outlives_its_parent_is_waited_for_and_killed() {
    let place = place();
    let script = "sh -c 'trap \"\" TERM; echo $$ > child.pid; touch ready; while :; do sleep 0.01; done' & wait";
    let (handle, work) = started(&place, script).await;
    handle.stop(Stop::Graceful);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!work.is_finished() && is_running(place.pid("child.pid")));
    handle.stop(Stop::Now);
    assert_eq!(work.await.unwrap(), Outcome::Stopped);
    assert!(!is_running(place.pid("child.pid")));
}

#[tokio::test]
async fn a_stop_before_the_start_starts_nothing() {
    let place = place();
    let (handle, signal) = stop_channel();
    handle.stop(Stop::Graceful);
    let outcome = perform(place.task(place.script("touch started")), place.context.clone(), signal).await;
    assert_eq!(outcome, Outcome::Stopped);
    assert!(!place.folder.path().join("started").exists());
}

#[tokio::test]
async fn a_dropped_future_ends_the_group_and_leaves_no_zombie() {
    let place = place();
    let (_handle, work) =
        started(&place, "sleep 50 & echo $! > child.pid; echo $$ > main.pid; touch ready; sleep 50").await;
    let (main, child) = (place.pid("main.pid"), place.pid("child.pid"));
    work.abort();
    eventually("the group is gone", || !is_running(main) && !is_running(child)).await;
    // The runtime asks after those that it was left with when another child ends.
    place.check("true", json!({"text": ""})).await;
    eventually("no zombie is left", || state_of(main).is_none()).await;
}

/// What a plain start of the same program costs, with pipes and an environment of the same size.
fn plain_start() {
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-eu", "-c", "true"]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, not a test: run it alone with --nocapture"]
async fn overhead_of_a_script() {
    let place = place();
    let rounds = 300_u32;
    for _ in 0..3 {
        let began = Instant::now();
        (0..rounds).for_each(|_| plain_start());
        let plain = began.elapsed() / rounds;
        let began = Instant::now();
        for _ in 0..rounds {
            let (task, context) = (place.task(place.script("true")), place.context.clone());
            let work = tokio::spawn(perform(task, context, StopSignal::never()));
            assert!(matches!(work.await.unwrap(), Outcome::Succeeded { .. }));
        }
        let ours = began.elapsed() / rounds;
        println!("one by one: plain {plain:?}, ours {ours:?}, overhead {:?}", ours.saturating_sub(plain));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..100).for_each(|_| plain_start()));
            }
        });
        let plain = began.elapsed() / 800;
        let began = Instant::now();
        let mut fan = tokio::task::JoinSet::new();
        let slots = Arc::new(tokio::sync::Semaphore::new(8));
        for _ in 0..800 {
            let (task, context, slots) = (place.task(place.script("true")), place.context.clone(), slots.clone());
            fan.spawn(async move {
                let _slot = slots.acquire_owned().await.unwrap();
                perform(task, context, StopSignal::never()).await
            });
        }
        while let Some(outcome) = fan.join_next().await {
            assert!(matches!(outcome.unwrap(), Outcome::Succeeded { .. }));
        }
        println!("eight at once: plain {plain:?}, ours {:?}", began.elapsed() / 800);
    }
}
