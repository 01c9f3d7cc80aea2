//! Agents as real programs: what they are told, and every way in which they can answer or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dispatch::{Stop, StopSignal, stop_channel};
use crate::handler::{WorkerContext, logs};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::{
    AgentCall, AgentPhase, ErrorClass, Failure, Outcome, Part, Provider, Task, Text, ToolCard, Usage, Work,
};
use crate::time::Timestamp;

async fn perform(task: Task, context: Arc<WorkerContext>, mut stop: StopSignal) -> Outcome {
    match &task.work {
        Work::Agent(call) => super::call(&task, call, &context, &mut stop).await,
        other => panic!("{other:?}"),
    }
}

struct Place {
    folder: tempfile::TempDir,
    context: Arc<WorkerContext>,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let env = BTreeMap::from([
        ("PATH".to_owned(), std::env::var("PATH").unwrap()),
        ("OF_THE_CALLER".to_owned(), "leaked".to_owned()),
        ("TOL_SECRET_KEY".to_owned(), "hunter2secret".to_owned()),
    ]);
    let context = Arc::new(WorkerContext::new(&folder.path().join("state"), env, None));
    Place { folder, context }
}

impl Place {
    /// A call of a program that is a script: `$1` is an argument of two words.
    fn task(&self, script: &str) -> Task {
        let argv = ["sh", "-c", script, "agent", "two words"].map(str::to_owned).to_vec();
        let dir = self.folder.path().to_str().unwrap().to_owned();
        let card = ToolCard {
            name: "search".to_owned(),
            description: "Finds pages.".to_owned(),
            input_schema: json!({"type": "object"}),
        };
        let call = AgentCall {
            agent: "planner".to_owned(),
            phase: AgentPhase::Plan,
            system_prompt: "You plan \"quietly\".".to_owned(),
            prompt: "How high\nis the tide?".to_owned(),
            input: json!({"a": [1]}),
            schema: None,
            tools: vec![card],
            max_tokens: 1234,
            temperature: Some(0.3),
            model: None,
            provider: Provider::Command { argv, dir },
            env: vec![("KEY".to_owned(), Text(vec![Part::Secret("KEY".to_owned())]))],
        };
        Task {
            run: RunId::new("run-1"),
            pipeline: Arc::from("pipe"),
            unit: UnitPath::new("blueprint"),
            attempt: 1,
            token: LeaseToken(1),
            idempotency_key: "key-of-the-unit".to_owned(),
            deadline: Some(logs::now().plus(Duration::from_secs(25))),
            place: Default::default(),
            work: Work::Agent(call),
        }
    }

    async fn call(&self, script: &str) -> Outcome {
        perform(self.task(script), self.context.clone(), StopSignal::never()).await
    }

    async fn check(&self, script: &str, outputs: Value, usage: Option<Usage>) {
        match self.call(script).await {
            Outcome::Succeeded { outputs: got, usage: used, exit_code: Some(0), .. } => {
                assert_eq!((&*got, used), (&outputs, usage), "{script}");
            }
            other => panic!("{script}: {other:?}"),
        }
    }

    async fn check_failure(&self, script: &str, class: ErrorClass, words: &str) -> (Failure, Option<Usage>) {
        match self.call(script).await {
            Outcome::Failed { failure, usage } => {
                assert_eq!(failure.class, class, "{failure:?}");
                assert!(failure.message.contains(words), "{failure:?}");
                (failure, usage)
            }
            other => panic!("{script}: {other:?}"),
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap()
    }
}

#[tokio::test]
async fn the_request_is_one_object_of_version_1() {
    let place = place();
    let script = "cat > asked; printf '%s|%s|%s|%s' \"$1\" \"${OF_THE_CALLER-unset}\" \"$TOL_STEP\" \"${#KEY}\" > seen; echo yes";
    place.check(script, json!({"text": "yes", "output": null}), None).await;
    assert_eq!(place.read("seen"), "two words|unset|blueprint|13");
    let mut asked: Value = serde_json::from_str(&place.read("asked")).unwrap();
    let deadline_ms = asked["deadline_ms"].take().as_u64().unwrap();
    assert!((1..=25_000).contains(&deadline_ms), "{deadline_ms}");
    let expect = json!({
        "version": 1, "agent": "planner", "phase": "plan", "system_prompt": "You plan \"quietly\".",
        "prompt": "How high\nis the tide?", "input": {"a": [1]}, "schema": null,
        "tools": [{"name": "search", "description": "Finds pages.", "input_schema": {"type": "object"}}],
        "limits": {"max_tokens": 1234}, "deadline_ms": null, "idempotency_key": "key-of-the-unit"
    });
    assert_eq!(asked, expect);
}

#[tokio::test]
async fn a_past_deadline_leaves_a_moment() {
    let place = place();
    let task = Task { deadline: Some(Timestamp(1)), ..place.task("cat > asked") };
    perform(task, place.context.clone(), StopSignal::never()).await;
    let asked: Value = serde_json::from_str(&place.read("asked")).unwrap();
    assert_eq!(asked["deadline_ms"], 1);
}

#[tokio::test]
async fn answers_have_two_forms() {
    let place = place();
    place.check("printf 'plain\\n\\n'", json!({"text": "plain\n", "output": null}), None).await;
    place.check("printf 'ye\\377s'", json!({"text": "ye\u{FFFD}s", "output": null}), None).await;
    let parts = r#"echo '{"version":1,"text":"t","output":{"a":1},"usage":{"input_tokens":10,"output_tokens":5}}'"#;
    let usage = Some(Usage { input_tokens: 10, output_tokens: 5 });
    place.check(parts, json!({"text": "t", "output": {"a": 1}}), usage).await;
    place.check("echo $KEY", json!({"text": "***", "output": null}), None).await;
}

#[tokio::test]
async fn exit_codes_have_classes() {
    let place = place();
    let (permanent, transient) = (ErrorClass::Permanent, ErrorClass::Transient);
    let (failure, _) =
        place.check_failure("echo the licence has run out $KEY >&2; exit 1", permanent, "exit code 1").await;
    assert_eq!((failure.stderr.as_deref(), failure.exit_code), (Some("the licence has run out ***\n"), Some(1)));
    place.check_failure("exit 75", transient, "exit code 75").await;
    place.check_failure("kill -9 $$", transient, "SIGKILL").await;
    let usage = r#"echo '{"usage":{"input_tokens":3}}'; exit 2"#;
    let (_, usage) = place.check_failure(usage, permanent, "exit code 2").await;
    assert_eq!(usage, Some(Usage { input_tokens: 3, output_tokens: 0 }));
    place.check_failure("echo '{\"output\":1,\"text\":2}'", permanent, "`text` is not a string").await;
    place.check_failure("head -c 11000000 /dev/zero; sleep 50", permanent, "larger than 10 MB").await;
    let mut task = place.task("");
    if let Work::Agent(call) = &mut task.work {
        call.provider = Provider::Command { argv: vec!["no-such-agent".to_owned()], dir: "/".to_owned() };
    }
    let outcome = perform(task, place.context.clone(), StopSignal::never()).await;
    let Outcome::Failed { failure, .. } = outcome else { panic!("{outcome:?}") };
    assert!(failure.class == permanent && failure.message.contains("`no-such-agent`"), "{failure:?}");
}

#[tokio::test]
async fn a_request_need_not_be_read() {
    let place = place();
    let ask = |script: &str| {
        let mut task = place.task(script);
        if let Work::Agent(call) = &mut task.work {
            call.prompt = "a long question ".repeat(8192);
        }
        perform(task, place.context.clone(), StopSignal::never())
    };
    for script in ["exec 0<&-; sleep 0.2; echo yes", "echo yes"] {
        let outcome = ask(script).await;
        let Outcome::Succeeded { outputs, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(outputs["text"], "yes");
    }
    let outcome = ask("wc -c").await;
    let Outcome::Succeeded { outputs, .. } = outcome else { panic!("{outcome:?}") };
    assert!(outputs["text"].as_str().unwrap().trim().parse::<usize>().unwrap() > 128 * 1024);
    let outcome = ask("cat").await;
    let Outcome::Succeeded { outputs, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(outputs["text"], Value::Null, "the request itself has the key `version`");
}

#[tokio::test]
async fn an_agent_that_hangs_is_stopped() {
    let place = place();
    let (handle, signal) = stop_channel();
    let work = tokio::spawn(perform(place.task("echo $$ > pid; sleep 50"), place.context.clone(), signal));
    let began = Instant::now();
    let pid = loop {
        if let Ok(pid) = std::fs::read_to_string(place.folder.path().join("pid"))
            && pid.ends_with('\n')
        {
            break pid;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    handle.stop(Stop::Graceful);
    assert_eq!(work.await.unwrap(), Outcome::Stopped);
    assert!(began.elapsed() < Duration::from_secs(4));
    assert!(!std::path::Path::new(&format!("/proc/{}", pid.trim())).exists());
}

#[tokio::test]
async fn what_is_said_beside_the_answer_is_logged() {
    let place = place();
    place.check("echo thinking >&2; echo yes", json!({"text": "yes", "output": null}), None).await;
    let logs = logs::list(&place.context.state_folder, &RunId::new("run-1")).unwrap();
    let text: String = logs::read(&logs[0]).unwrap().map(|piece| piece.unwrap().text).collect();
    assert_eq!((logs.len(), text.as_str()), (1, "thinking\n"));
}
