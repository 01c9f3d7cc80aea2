//! What is said of each mistake, and where.

use std::sync::Arc;

use super::DocumentKind;
use crate::diagnostic::Files;
use crate::yaml::{Limits, load};

/// Checks a text; each expectation is `LINE:COLUMN CODE words`, in the order of the file, and nothing else is found.
fn check(kind: DocumentKind, text: &str, expect: &[&str]) {
    let mut files = Files::default();
    let file = files.add("a.yaml", Arc::from(text));
    let (tree, mut found) = load(file, text, &Limits::default());
    super::check(kind, &tree.unwrap(), &mut found);
    let lines: Vec<String> = found
        .iter()
        .map(|one| {
            let place = files.place(one.span);
            let help = one.help.as_deref().unwrap_or_default();
            format!("{}:{} {} {} | {help}", place.line, place.column, one.code, one.message)
        })
        .collect();
    assert_eq!(lines.len(), expect.len(), "{text}\n{lines:#?}");
    for (line, expected) in lines.iter().zip(expect) {
        let (start, words) = expected.split_at(expected.find("TOL").unwrap() + 7);
        assert!(line.starts_with(start) && line.contains(words.trim()), "expected: {expected}\nfound:    {line}");
    }
}

/// One step under a pipeline's head; its lines begin at 3.
fn step(lines: &str, expect: &[&str]) {
    let lines = lines.replace('\n', "\n    ");
    check(DocumentKind::Pipeline, &format!("apiVersion: tol/v1\nsteps:\n  - {lines}\n"), expect);
}

/// Keys of a pipeline with one good step; they begin at line 3.
fn pipeline(lines: &str, expect: &[&str]) {
    check(DocumentKind::Pipeline, &format!("apiVersion: tol/v1\nsteps: [{{ id: a, run: x }}]\n{lines}\n"), expect);
}

#[test]
fn unknown_keys_offer_the_nearest_or_the_right_one() {
    step("id: a\nrun: x\ncontinue_on_eror: true", &["5:5 TOL0101 did you mean `continue_on_error`?"]);
    step("id: a\nrun: x\nretry: { limt: 3 }", &["5:14 TOL0101 did you mean `limit`?"]);
    step("id: a\nhttp: { url: x, header: {} }", &["4:21 TOL0101 did you mean `headers`?"]);
    step("id: a\nrun: x\nenv: {}\nenvv: {}", &["6:5 TOL0101 `env` stands here already"]);
    step("id: a\nrun: x\nsomething: 1", &["5:5 TOL0101 `something` is not a key of a step"]);
    for (word, right) in [
        ("depends_on: [b]", "`depends`"),
        ("when: x", "`if`"),
        ("with_items: [1]", "`foreach`"),
        ("loop: [1]", "`foreach`"),
        ("for_each: [1]", "`foreach`"),
        ("timeout-minutes: 5", "`timeout`"),
        ("timeout_minutes: 5", "`timeout`"),
        ("retries: 3", "`retry`"),
        ("continue-on-error: true", "`continue_on_error`"),
        ("working-directory: x", "`dir`"),
        ("uses: x", "`pipeline`"),
        ("secrets: [A]", "`env`"),
        ("parallelism: 3", "`max_parallel`"),
    ] {
        step(&format!("id: a\nrun: x\n{word}"), &[&format!("5:5 TOL0101 {right}")]);
    }
    for (word, right) in [
        ("inputs: {}", "`params`"),
        ("tasks: []", "`steps`"),
        ("on: push", "`triggers`"),
        ("jobs: {}", "`steps`"),
        ("env: {}", "`defaults`"),
        ("secrets: []", "`env`"),
        ("max_parallel: 3", "`limits`"),
    ] {
        pipeline(word, &[&format!("3:1 TOL0101 {right}")]);
    }
}

#[test]
fn a_misspelt_key_is_not_missing_as_well() {
    step("idd: a\nrun: x", &["3:5 TOL0101 did you mean `id`?"]);
    step("id: a\nscript: x", &["4:5 TOL0101 write `run`"]);
    step("id: a\nrunn: x\nenv: {}", &["4:5 TOL0101 did you mean `run`?"]);
    step("id: a\nmcp: { server: x }", &["4:5 TOL0101 `mcp` is not part of this version"]);
    check(DocumentKind::Pipeline, "apiVersion: tol/v1\ntasks: [{ id: a, run: x }]\n", &["2:1 TOL0101 write `steps`"]);
}

#[test]
fn missing_keys_are_told_at_the_first_key_of_their_mapping() {
    step("run: x\ntimeout: 5m", &["3:5 TOL0102 `id` is missing in a step | add `id: build`"]);
    step("id: a\nhttp: { method: GET }", &["4:13 TOL0102 `url` is missing in `http`"]);
    step("id: a\nagent: b", &["3:5 TOL0102 `prompt` is missing in a step; `agent` needs it"]);
    step("id: a\nplan: { agent: b }", &["4:13 TOL0102 `goal` is missing in `plan`; `agent` needs it"]);
    step("id: a\nplan: { max_steps: 3 }", &["4:13 TOL0102 needs one of `agent`, `blueprint`, `file`"]);
    check(DocumentKind::Pipeline, "name: x\n", &["1:1 TOL0102 `apiVersion` is missing in the pipeline"]);
    check(DocumentKind::Agents, "agents: { a: { type: t } }\n", &["1:16 TOL0102 `name` is missing in an agent"]);
    check(
        DocumentKind::Blueprint,
        "steps: [{ id: E1, tool: t, on_error: default }]\n",
        &["1:11 TOL0102 `default` is missing in a step of a blueprint"],
    );
}

#[test]
fn a_step_has_exactly_one_action_and_only_its_keys() {
    step("id: a\ntimeout: 5m", &["3:5 TOL0106 exactly one action"]);
    step("id: a\nrun: x\ntimeout: 5m\nhttp: { url: x }", &["6:5 TOL0106 `run` and `http`"]);
    step("id: a\ntemplate: t", &[]);
    step("id: a\ntemplate: t\nenv: {}", &[]);
    step("id: a\nrun: x\nwith: {}", &["5:5 TOL0107 `with` belongs to `pipeline`, but a step here has `run`"]);
    step("id: a\nhttp: { url: x }\nshell: bash", &["5:5 TOL0107 `shell` belongs to `run`"]);
    step("id: a\nrun: x\nneeds: [b]\ndepends: [c]", &["6:5 TOL0112 two names of one key"]);
    step("id: a\nrun: x\nforeach: { items: [1] }\nmatrix: { os: [a] }", &["6:5 TOL0112 `foreach` and `matrix`"]);
    step("id: a\nhttp: { url: x, body: a, json: {} }", &["4:30 TOL0112 `body` and `json`"]);
    pipeline("triggers: [{ cron: x, file: y }]", &["3:23 TOL0112 `cron` and `file`"]);
    pipeline("triggers: [{ file: y, timezone: UTC }]", &["3:23 TOL0107 `timezone` belongs to `cron`"]);
    pipeline(
        "tools: { t: { description: d, input_schema: {}, effect: read } }",
        &["3:15 TOL0106 a tool needs exactly one"],
    );
}

#[test]
fn wrong_types_say_what_to_write() {
    pipeline(
        "limits: { max_parallel: \"8\" }",
        &["3:25 TOL0103 must be an integer, not a string | write `8` without quotes"],
    );
    step("id: a\nrun: x\ncontinue_on_error: yes", &["5:24 TOL0103 must be a boolean, not a string | write `true`"]);
    step(
        "id: a\nrun: x\ntimeout: 30",
        &["5:14 TOL0103 must be a duration, not an integer | say the unit: write `30s`"],
    );
    step("id: a\nrun: x\ndepends: b", &["5:14 TOL0103 must be a list, not a string | write `depends: [b]`"]);
    step("id: a\nrun: x\nenv: [A=b]", &["5:10 TOL0103 must be a mapping, not a list | write `A: b`"]);
    step(
        "id: a\nrun: [sleep, 5]",
        &["4:18 TOL0103 an item of `run` must be a string, not an integer | write it in quotes: `\"5\"`"],
    );
    step("id: a\nrun: x\nretry: 3", &["5:12 TOL0103 write `retry: { limit: 3 }`"]);
    step("id: a\nrun: x\nenv:", &["5:8 TOL0103 `env` is empty, but must be a mapping"]);
    step("id: a\nrun: { x: y }", &["4:10 TOL0103 `run` must be a string or a list, not a mapping"]);
    check(
        DocumentKind::Pipeline,
        "apiVersion: tol/v1\nsteps: { b: { run: x } }\n",
        &["2:8 TOL0103 must be a list, not a mapping | write a list"],
    );
    check(DocumentKind::Pipeline, "- a\n", &["1:1 TOL0103 the pipeline must be a mapping, not a list"]);
}

#[test]
fn words_and_numbers_out_of_bounds_are_told_with_their_bounds() {
    step("id: a\nrun: x\nretry: { jitter: ful }", &["5:22 TOL0104 did you mean `full`?"]);
    step("id: a\nrun: x\nretry: { on: [transiet] }", &["5:19 TOL0104 did you mean `transient`?"]);
    step("id: a\nrun: x\nretry: nevr", &["5:12 TOL0104 did you mean `never`?"]);
    step("id: a\nrun: x\nretry: { limit: -1 }", &["5:21 TOL0105 is -1, but must be at least 0"]);
    step("id: a\nrun: x\nretry: { backoff: { factor: 0.5 } }", &["5:33 TOL0105 is 0.5, but must be at least 1"]);
    step("id: a\nrun: x\nforeach: { items: [1], max_parallel: 0 }", &["5:42 TOL0105 must be at least 1"]);
    pipeline("limits: { error_rate: 1.5 }", &["3:23 TOL0105 must be at least 0 and at most 1"]);
    check(
        DocumentKind::Pipeline,
        "apiVersion: tol/v2\nsteps: [{ id: a, run: x }]\n",
        &["1:13 TOL0109 write `apiVersion: tol/v1`"],
    );
    check(
        DocumentKind::Pipeline,
        "apiVersion: tol/v1\nsteps: []\n",
        &["2:8 TOL0105 is empty, but must have at least one item"],
    );
    check(
        DocumentKind::Agents,
        "agents: { a: { name: A, provider: antropic } }\n",
        &["1:35 TOL0104 did you mean `anthropic`?"],
    );
    check(DocumentKind::Settings, "engine: { workers: 33 }\n", &["1:20 TOL0105 at least 1 and at most 32"]);
}

#[test]
fn texts_have_their_forms() {
    step("id: my-step\nrun: x", &["3:9 TOL0110 write `my_step`"]);
    step("id: Build\nrun: x", &["3:9 TOL0110 write `build`"]);
    step("id: 1st\nrun: x", &["3:9 TOL0110 must begin with a letter"]);
    step("id: two words\nrun: x", &["3:9 TOL0110 write `two_words`"]);
    step("id: params\nrun: x", &["3:9 TOL0111 a word of the language"]);
    step("id: a\nrun: x\ntimeout: 5 minutes", &["5:14 TOL0501 write `5m`"]);
    step("id: a\nrun: x\ntimeout: \"30\"", &["5:14 TOL0501 write `30s`"]);
    step("id: a\nrun: x\ntimeout: -3s", &["5:14 TOL0501 must be positive | write `3s`"]);
    step("id: a\nrun: x\ntimeout: soon", &["5:14 TOL0501 no duration"]);
    step("id: a\nhttp: { method: get, url: x }", &["4:21 TOL0108 write `GET`"]);
    pipeline("params: { my-param: {} }", &["3:11 TOL0108 write `my_param`"]);
}

#[test]
fn queues_and_capabilities_belong_to_what_a_worker_does() {
    pipeline("queue: gpu\ndefaults: { queue: eu-1.fast }\nlimits: { queues: { gpu: 2 } }", &[]);
    pipeline("queue: GPU", &["3:8 TOL0108 a letter or digit first, 63 at most | write `gpu`"]);
    pipeline("queue: \"{{ params.q }}\"", &["3:8 TOL0108 lower-case letters"]);
    pipeline("limits: { queues: { Fast: 1 } }", &["3:21 TOL0108 write `fast`"]);
    pipeline("limits: { queues: { fast: 0 } }", &["3:27 TOL0105 at least 1"]);
    pipeline("runs-on: gpu", &["3:1 TOL0101 write `queue`, as in `queue: gpu`"]);
    step("id: a\nrun: x\nqueue: gpu\ncapabilities: [cuda12, a_b]", &[]);
    step("id: a\nexecute: p\nqueue: gpu", &[]);
    step("id: a\nrun: x\ncapabilities: [A]", &["5:20 TOL0108 write `a`"]);
    step("id: a\nrun: x\ncapabilities: [a, a]", &["5:23 TOL0104 stands twice"]);
    step("id: a\nrun: x\nfallback: { transform: { a: \"1\" }, queue: q }", &["5:40 TOL0107 leave it out"]);
    step("id: a\ntransform: { a: \"1\" }\nqueue: q", &["5:5 TOL0107 belongs to `run` or `http`"]);
    step("id: a\nwait: 5s\ncapabilities: [q]", &["5:5 TOL0107 leave it out"]);
    step("id: a\npipeline: x.yaml\nqueue: q", &["5:5 TOL0107 put it into the file that `pipeline` names"]);
    step("id: a\nrun: x\npool: q", &["5:5 TOL0101 write `queue`, as in `queue: gpu`"]);
    let tool = "tools: { t: { description: d, input_schema: {}, effect: read, run: x, queue: q } }";
    pipeline(tool, &["3:71 TOL0101 put it on the `execute` step"]);
}

#[test]
fn parameters_are_json_schemas() {
    pipeline("params: { a: { type: strin } }", &["3:22 TOL0104 did you mean `string`?"]);
    pipeline("params: { a: { type: string, required: true } }", &["3:40 TOL0103 leave it out"]);
    pipeline("params: { a: { type: integer, maximum: 8, default: 9 } }", &["3:52 TOL0114 must be at most 8"]);
    pipeline(
        "params: { a: { type: array, items: { type: string }, default: [x, 1] } }",
        &["3:67 TOL0114 must be a string"],
    );
    pipeline("params: { a: { type: string, pattern: \"(?=a)b\" } }", &["3:39 TOL0115 looks around"]);
    pipeline("params: { a: { type: string, pattern: \"(a\" } }", &["3:39 TOL0115 no regular expression"]);
    pipeline("params: { a: { $ref: \"https://example.com/x\" } }", &["3:22 TOL0113 leads nowhere"]);
    pipeline("params: { a: { type: integer, min: 3 } }", &["3:31 TOL0601 write `minimum`"]);
    pipeline("params: { a: integer }", &["3:14 TOL0103 write `{ type: integer }`"]);
    pipeline("params: { a: { default: [1, 2], uniqueItems: true, $ref: \"#\" } }", &[]);
    pipeline(
        "params: { a: { pattern: \"^(a+)+$\", default: \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!\" } }",
        &["3:45 TOL0114 pattern"],
    );
    step("id: a\nagent: b\nprompt: p\nschema: { pattern: \"(?!a)\" }", &["6:24 TOL0115 looks around"]);
}

#[test]
fn a_mistake_in_an_anchor_is_told_once_and_a_flood_is_cut_off() {
    let text =
        "apiVersion: tol/v1\nsteps:\n  - { id: a, run: x, retry: &r { limt: 1 } }\n  - { id: b, run: x, retry: *r }\n";
    check(DocumentKind::Pipeline, text, &["3:34 TOL0101 did you mean `limit`?"]);
    let text = "apiVersion: tol/v1\nsteps:\n  - &s { id: a }\n  - *s\n";
    check(DocumentKind::Pipeline, text, &["3:10 TOL0106 exactly one action"]);
    let mut text = "apiVersion: tol/v1\nsteps: [{ id: a, run: x }]\n".to_owned();
    (0..3000).for_each(|number| text.push_str(&format!("key_{number}: 1\n")));
    let (tree, mut found) = load(crate::diagnostic::FileId(0), &text, &Limits::default());
    super::check(DocumentKind::Pipeline, &tree.unwrap(), &mut found);
    assert_eq!(found.len(), 1001);
    assert_eq!(found.iter().filter(|one| one.code == "TOL0100").count(), 1);
}

#[test]
fn what_loading_has_reported_is_not_said_again() {
    step("id: a\nrun: x\nretry: *nobody", &["5:12 TOL0006 "]);
}
