//! Trees as they become values, and what is found on the way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::diagnostic::{Diagnostic, Files};
use crate::model::{
    Action, Fan, Jitter, MockOutcome, Mocked, PlanSource, ReadContext, ScriptSource, Step, Trigger, Wait,
    apply_templates, blueprint_from_json, merge_includes, read_agents, read_pipeline, read_settings, read_test,
};
use crate::task::{ErrorClass, Shell};
use crate::yaml::{Limits, Node, load};

struct Read<T> {
    value: T,
    files: Files,
    found: Vec<Diagnostic>,
}

fn tree(files: &mut Files, path: &str, text: &str) -> Node {
    let file = files.add(path, Arc::from(text));
    let (tree, found) = load(file, text, &Limits::default());
    assert_eq!(found, [], "{text}");
    tree.unwrap()
}

fn read(text: &str) -> Read<crate::model::Pipeline> {
    read_with(text, &[])
}

fn read_with(text: &str, includes: &[(&str, &str)]) -> Read<crate::model::Pipeline> {
    let mut files = Files::default();
    let mut found = Vec::new();
    let node = tree(&mut files, "flows/main.yaml", text);
    let file = node.span.file;
    let includes: Vec<Node> = includes.iter().map(|(path, text)| tree(&mut files, path, text)).collect();
    let node = apply_templates(merge_includes(node, &includes), &mut found);
    let mut context = ReadContext::new(&files, &mut found);
    let value = read_pipeline(&node, file, "flows/main.yaml", &mut context);
    Read { value, files, found }
}

/// Reads one step under defaults.
fn step(defaults: &str, lines: &str) -> Step {
    let read = read(&format!("defaults: {{ {defaults} }}\nsteps:\n  - id: a\n    {}\n", lines.replace('\n', "\n    ")));
    assert_eq!(read.found, []);
    read.value.steps.into_iter().next().unwrap()
}

/// Each expectation is `LINE:COLUMN CODE words`, in the order in which they are found.
fn check(text: &str, expect: &[&str]) {
    let read = read(text);
    compare(&read.files, &read.found, text, expect);
}

fn compare(files: &Files, found: &[Diagnostic], text: &str, expect: &[&str]) {
    let lines: Vec<String> = found
        .iter()
        .map(|one| {
            let place = files.place(one.span);
            format!(
                "{}:{} {} {} | {}",
                place.line,
                place.column,
                one.code,
                one.message,
                one.help.as_deref().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(lines.len(), expect.len(), "{text}\n{lines:#?}");
    for (line, expected) in lines.iter().zip(expect) {
        let (start, words) = expected.split_at(expected.find("TOL").unwrap() + 7);
        assert!(line.starts_with(start) && line.contains(words.trim()), "expected: {expected}\nfound:    {line}");
    }
}

#[test]
fn a_template_in_a_script_names_the_variable_to_add() {
    check(
        "steps:\n  - id: a\n    run: echo \"{{ params.q }}\"\n",
        &["3:16 TOL0390 add `env: { Q: \"{{ params.q }}\" }`"],
    );
    check(
        "steps:\n  - id: a\n    run: |\n      set -x\n      echo \"{{ b.outputs.text }}\" {{{ c }}}\n",
        &["5:13 TOL0390 `$B_TEXT`", "5:35 TOL0390 `$C`"],
    );
    let script = |text: &str| match step("", text).action {
        Action::Run(run) => match run.source {
            ScriptSource::Script(script) => script.value,
            ScriptSource::Argv(_) => panic!("{text}"),
        },
        _ => panic!("{text}"),
    };
    assert_eq!(&*script(r"run: echo \{{ x }} \{{{"), "echo {{ x }} {{{");
    assert_eq!(&*script("run: awk '{ print }' | sed 's/}}/)/'"), "awk '{ print }' | sed 's/}}/)/'");
}

#[test]
fn mistakes_in_templates_and_expressions_stand_at_their_place() {
    let read = read("steps:\n  - id: a\n    if: params.x = 3\n    run: x\n    env: { A: \"b {{ c\" }\n");
    let places: Vec<(u32, u32)> =
        read.found.iter().map(|one| read.files.place(one.span)).map(|place| (place.line, place.column)).collect();
    assert_eq!(places, [(5, 18), (3, 18)]);
    assert_eq!(read.value.steps.len(), 1, "the step stays");
}

#[test]
fn retry_lies_over_the_defaults_key_by_key() {
    let retry = |defaults: &str, own: &str| step(defaults, &format!("run: x\n{own}")).retry.map(|retry| *retry);
    assert_eq!(retry("", ""), None);
    let plain = retry("", "retry: {}").unwrap();
    assert_eq!((plain.limit, plain.jitter, plain.backoff.max), (3, Jitter::Full, Duration::from_secs(30)));
    let merged = retry(
        "retry: { limit: 7, jitter: none, backoff: { initial: 2s, max: 9s } }",
        "retry: { backoff: { max: 5s } }",
    )
    .unwrap();
    assert_eq!((merged.limit, merged.jitter), (7, Jitter::None));
    assert_eq!((merged.backoff.initial, merged.backoff.max), (Duration::from_secs(2), Duration::from_secs(5)));
    let never = retry("retry: { limit: 7 }", "retry: never").unwrap();
    assert!(never.never && never.limit == 0);
    let own = retry("retry: never", "retry: { limit: 2, on: [timeout] }").unwrap();
    assert!(!own.never && own.limit == 2 && own.on == [ErrorClass::Timeout]);
    assert_eq!(retry("", "retry: { backoff: { initial: 2m } }").unwrap().backoff.max, Duration::from_secs(120));
    check(
        "steps: [{ id: a, run: x, retry: { backoff: { initial: 30s, max: 10s } } }]\n",
        &["1:65 TOL0504 `max` (10s), is below the first, `initial` (30s)"],
    );
}

#[test]
fn times_are_read_over_their_defaults() {
    let times = |defaults: &str, own: &str| {
        let step = step(defaults, own);
        (step.timeout.map(|time| time.as_secs()), step.attempt_timeout.map(|time| time.as_secs()))
    };
    assert_eq!(times("timeout: 10m, attempt_timeout: 2m", "run: x"), (Some(600), Some(120)));
    assert_eq!(times("timeout: 10m, attempt_timeout: 2m", "run: x\ntimeout: 1m"), (Some(60), Some(60)));
    assert_eq!(times("timeout: 10m", "approve: {}"), (None, None));
    assert_eq!(times("", "wait: PT1H\ntimeout: 1.5h"), (Some(5400), None));
    let head = "steps:\n  - id: a\n    run: x\n";
    check(
        &format!("{head}    timeout: 10s\n    attempt_timeout: 30s\n"),
        &["5:22 TOL0503 (30s) is above `timeout` (10s)"],
    );
    check(&format!("{head}    timeout: 1m1h\n"), &["4:14 TOL0501 larger unit first"]);
    check(&format!("{head}    timeout: 0s\n"), &["4:14 TOL0502 must be positive"]);
    check(&format!("{head}    timeout: 9999999d\n"), &["4:14 TOL0502 too long"]);
    check(&format!("{head}    timeout: 5 minutes\n"), &[]);
}

#[test]
fn scripts_take_the_defaults_that_they_do_not_have() {
    let step = step(
        "env: { A: 1, B: 2 }, shell: bash, dir: web, inherit_env: [CI]",
        "run: x\nenv: { B: 3 }\ninherit_env: [X]",
    );
    let Action::Run(run) = step.action else { panic!() };
    let env: Vec<(&str, &str)> = run.env.iter().map(|(name, value)| (&*name.value, value.value.source())).collect();
    assert_eq!(env, [("A", "1"), ("B", "3")]);
    assert_eq!((run.shell, run.dir.unwrap().value.source()), (Shell::Bash, "web"));
    assert_eq!(run.inherit_env, ["X".into(), "CI".into()]);
}

#[test]
fn a_matrix_is_expanded_with_the_last_key_fastest() {
    let fan = step("", "run: x\nmatrix: { os: [a, b], size: [1, 2], exclude: [{ os: b, size: 2 }] }").fan.unwrap();
    let Fan::Matrix { combinations, .. } = *fan else { panic!() };
    assert_eq!(
        combinations,
        [json!({ "os": "a", "size": 1 }), json!({ "os": "a", "size": 2 }), json!({ "os": "b", "size": 1 })]
    );
    let head = "steps:\n  - id: a\n    run: x\n    matrix:\n";
    let many = format!("[{}]", vec!["1"; 101].join(","));
    check(&format!("{head}      a: {many}\n      b: {many}\n"), &["4:5 TOL0507 more than 10000 combinations"]);
    check(&format!("{head}      os: [a]\n      exclude: [{{ oss: a }}]\n"), &["6:19 TOL0508 did you mean `os`?"]);
    check(
        &format!("{head}      os: [linux]\n      exclude: [{{ os: linx }}]\n"),
        &["6:23 TOL0508 did you mean `linux`?"],
    );
    check(&format!("{head}      os: [a]\n      exclude: [{{ os: a }}]\n"), &["4:5 TOL0507 leaves no combination"]);
}

#[test]
fn a_foreach_is_data_or_an_expression() {
    let fan = step("", "run: x\nforeach: { items: [a, \"{{ params.x }}\"], as: n }").fan.unwrap();
    assert!(matches!(&*fan, Fan::Static { items, .. } if items.len() == 2));
    let fan = step("", "run: x\nforeach: { items: b.outputs, max_items: 5 }").fan.unwrap();
    assert!(matches!(&*fan, Fan::Dynamic { max_items: Some(5), .. }));
}

#[test]
fn waits_are_for_a_time_or_until_one() {
    let wait = |text: &str| match step("", text).action {
        Action::Wait(wait) => *wait,
        _ => panic!("{text}"),
    };
    assert!(matches!(wait("wait: 5s"), Wait::For(time) if time.as_secs() == 5));
    assert!(
        matches!(wait("wait: { until: \"2027-01-01T00:00:00Z\" }"), Wait::Until(time) if time.0 == 1_798_761_600_000)
    );
    assert!(matches!(wait("wait: { until: params.start }"), Wait::UntilTime(_)));
}

#[test]
fn includes_lie_under_the_pipeline() {
    let include = "defaults: { retry: { limit: 2, jitter: none }, env: { A: 1 } }\n\
        agents: { w: { name: W } }\ntools: { t: { description: d, input_schema: {}, effect: read, run: x } }\n\
        templates: { get: { http: { method: GET, url: one }, timeout: 5s, depends: [a] } }\n";
    let text = "defaults: { retry: { limit: 9 } }\nsteps:\n  - { id: a, run: x }\n\
        \x20 - { id: b, template: get, http: { url: two }, needs: [c] }\n  - { id: c, template: get, run: y }\n";
    let read = read_with(text, &[("shared/all.yaml", include)]);
    assert_eq!(read.found, []);
    let [a, b, c] = read.value.steps.as_slice() else { panic!() };
    let retry = a.retry.as_deref().unwrap();
    assert_eq!((retry.limit, retry.jitter), (9, Jitter::None));
    let Action::Http(http) = &b.action else { panic!() };
    assert_eq!((http.url.value.source(), http.method.value.source()), ("two", "GET"));
    assert_eq!(b.depends.iter().map(|id| &*id.value).collect::<Vec<_>>(), ["c"]);
    assert_eq!(b.timeout, Some(Duration::from_secs(5)));
    assert!(matches!(c.action, Action::Run(_)), "its own action takes the place of the template's");
    assert_eq!(&*read.value.agents.get("w").unwrap().base, "shared");
    assert_eq!(&*read.value.tools.get("t").unwrap().base, "shared");
}

#[test]
fn templates_that_do_not_fit_are_reported() {
    let text =
        |step: &str| format!("templates: {{ get: {{ timeout: 5s }}, ask: {{ agent: w }} }}\nsteps:\n  - {step}\n");
    check(&text("{ id: a, template: gte }"), &["3:24 TOL0116 did you mean `get`?"]);
    check(&text("{ id: a, template: get }"), &["3:24 TOL0106 exactly one action"]);
    check(&text("{ id: a, template: get, run: x, with: {} }"), &["3:37 TOL0107 `with` has no effect beside `run`"]);
    check(&text("{ id: a, template: ask }"), &["3:24 TOL0102 `prompt` is missing"]);
}

#[test]
fn triggers_are_checked() {
    let steps = "steps: [{ id: a, run: x }]\n";
    check(&format!("{steps}triggers: [{{ cron: \"0 6 * *\" }}]\n"), &["2:20 TOL0505 five fields"]);
    check(&format!("{steps}triggers: [{{ cron: \"99 6 * * *\" }}]\n"), &["2:20 TOL0505 no cron expression"]);
    check(
        &format!("{steps}triggers: [{{ cron: \"0 6 * * *\", timezone: Europe/Berln }}]\n"),
        &["2:43 TOL0506 did you mean `Europe/Berlin`?"],
    );
    let read =
        read(&format!("{steps}triggers: [{{ webhook: {{ path: /x, hmac: {{ secret: S, tolerance: 5m }} }} }}]\n"));
    assert!(
        matches!(&read.value.triggers[..], [Trigger::Webhook { signature: Some(signature), .. }] if &*signature.secret.value == "S")
    );
}

#[test]
fn settings_are_read_and_checked() {
    let check = |text: &str, expect: &[&str]| {
        let mut files = Files::default();
        let node = tree(&mut files, "duo-agent.config.yaml", text);
        let mut found = Vec::new();
        let settings = read_settings(&node, &mut ReadContext::new(&files, &mut found));
        compare(&files, &found, text, expect);
        settings
    };
    check("health: { healthy: 0.5, degraded: 0.5 }\n", &["1:35 TOL0510 must be below `healthy`"]);
    check("health: { weights: { a: 0.5, b: 0.4 } }\n", &["1:11 TOL0509 add up to 0.9"]);
    check("weights: { a: 0.3, b: 0.3, c: 0.39 }\n", &[]);
    let settings = check(
        "limits: { max_tokens_total: 9, max_runtime_hours: 0.5, max_improvement_cycles: 5 }\nretention: { days: 80 }\n",
        &[],
    );
    assert_eq!(settings.ceilings.max_tokens, Some(9));
    assert_eq!(settings.ceilings.max_runtime, Some(Duration::from_secs(1800)));
    assert_eq!((settings.max_improvement_cycles, settings.retention_days), (Some(5), Some(80)));
}

#[test]
fn agents_and_their_defaults_are_read() {
    let mut files = Files::default();
    let text = "agents: { w: { name: W, command: [x], provider: command }, v: { name: V, tools: [] } }\n";
    let node = tree(&mut files, "team/agents.yaml", text);
    let mut found = Vec::new();
    let file = node.span.file;
    let catalogue = read_agents(&node, file, "team/agents.yaml", &mut ReadContext::new(&files, &mut found));
    let (w, v) = (&catalogue.agents["w"], &catalogue.agents["v"]);
    assert_eq!((&*w.base, w.max_tokens, w.tools.is_none()), ("team", 4096, true));
    assert_eq!(v.tools.as_deref(), Some(&[][..]));
}

#[test]
fn blueprints_come_from_files_and_from_answers() {
    let step =
        step("", "plan:\n  blueprint:\n    steps: [{ id: E1, tool: t, input: { q: [\"#E2\"] }, on_error: skip }]");
    let Action::Plan(plan) = step.action else { panic!() };
    let PlanSource::Static(blueprint) = plan.source else { panic!() };
    assert_eq!(blueprint.steps[0].leaf_spans[0].0, "/q/0");
    assert!(blueprint_from_json(&json!({ "steps": [{ "id": "E1", "agent": "a" }] })).is_ok());
    let mistakes = |value: serde_json::Value| blueprint_from_json(&value).unwrap_err();
    assert_eq!(mistakes(json!([])).len(), 1);
    assert_eq!(
        mistakes(json!({ "steps": [{ "id": "1", "tool": "a", "agent": "b", "on_error": "default", "x": 1 }, 3] }))
            .len(),
        5
    );
}

#[test]
fn test_files_are_read() {
    let mut files = Files::default();
    let text = "apiVersion: tol/v1\npipeline: p.yaml\ncases:\n  - name: n\n    mocks:\n      a: [{ fail: { class: transient, exit_code: 3 } }, { outputs: { text: x } }]\n      b: [{ hang: true }, { decision: rejected, comment: no, takes: 90s }]\n    default: succeed\n    expect: { status: succeeded, steps: { a: { attempts: 2 } } }\n";
    let node = tree(&mut files, "p.test.yaml", text);
    let mut found = Vec::new();
    let file = node.span.file;
    let test = read_test(&node, file, "p.test.yaml", &mut ReadContext::new(&files, &mut found));
    let case = &test.cases[0];
    let [MockOutcome { what: Mocked::Fail { failure, .. }, .. }, MockOutcome { what: Mocked::Outputs { .. }, .. }] =
        &case.mocks[0].outcomes[..]
    else {
        panic!()
    };
    assert_eq!(
        (failure.class, failure.message.as_str(), failure.exit_code),
        (ErrorClass::Transient, "exit code 3", Some(3))
    );
    assert_eq!(case.expect.steps[0].1.attempts.as_ref().map(|attempts| attempts.value), Some(2));
    let [hang, decide] = &case.mocks[1].outcomes[..] else { panic!() };
    assert_eq!((&hang.what, hang.takes), (&Mocked::Hang, None));
    let decision = Mocked::Decide { approved: false, by: "test".into(), comment: Some("no".into()) };
    assert_eq!((&decide.what, decide.takes), (&decision, Some(Duration::from_secs(90))));
    assert!(case.default_succeeds && found.is_empty());
}
