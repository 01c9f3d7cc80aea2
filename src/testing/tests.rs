//! Cases against the real scheduler.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check_case;
use crate::compile::{CheckOptions, MemorySources, check as compile};
use crate::diagnostic::{Files, render_human};
use crate::model::{ReadContext, read_test};
use crate::schema::{self, DocumentKind};
use crate::yaml;

/// Runs the only case of a test against a pipeline; `expect` holds the findings as `LINE: words`.
fn check(pipeline: &str, case: &str, expect: &[&str]) {
    let pipeline = format!("apiVersion: tol/v1\nname: p\n{pipeline}");
    let sources = MemorySources(BTreeMap::from([("p.yaml".to_owned(), Arc::from(pipeline))]));
    let (mut files, mut diagnostics) = (Files::default(), Vec::new());
    let program = compile("p.yaml", &sources, &mut files, &mut diagnostics, &CheckOptions::default());
    let Some(program) = program else { panic!("{}", render_human(&files, &diagnostics, false)) };
    let indented: String = case.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!("apiVersion: tol/v1\npipeline: p.yaml\ncases:\n  - name: it\n{indented}");
    let file = files.add("p.test.yaml", Arc::from(text.as_str()));
    let (tree, mut diagnostics) = yaml::load(file, &text, &yaml::Limits::default());
    let tree = tree.expect("YAML");
    schema::check(DocumentKind::Test, &tree, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{}", render_human(&files, &diagnostics, false));
    let read = read_test(&tree, file, "p.test.yaml", &mut ReadContext::new(&files, &mut diagnostics));
    let result = check_case(&Arc::new(program), &read.cases[0]);
    let got: Vec<String> = result
        .findings
        .iter()
        .map(|finding| format!("{}: {}", files.place(finding.span).line, finding.message))
        .collect();
    assert_eq!(got, expect, "{:?}", result.ended);
}

const TWO: &str = "steps:
  - id: fetch
    http: { method: GET, url: 'https://example.com/{{ params.page }}' }
    retry: { limit: 2, backoff: { initial: 1h } }
    timeout: 1d
  - id: show
    run: [echo, '{{ fetch.outputs.body.title }}']
params: { page: { type: string, default: a } }
outputs: { title: '{{ show.outputs.text }}' }";

#[test]
fn what_is_as_expected_passes() {
    let case = "params: { page: b }
mocks:
  fetch: [{ fail: { class: transient } }, { outputs: { body: { title: T } } }]
  show: { outputs: { text: shown } }
expect:
  status: succeeded
  steps:
    fetch: { attempts: 2, status: succeeded, input: { url: 'https://example.com/b', method: GET } }
    show: { input: { argv: [echo, T] }, outputs: { text: shown } }
  ran: [fetch, show]
  outputs: { title: shown }";
    check(TWO, case, &[]);
}

#[test]
fn every_difference_is_told_at_its_line() {
    let case = "mocks:
  fetch: { fail: { message: no route } }
  show: { outputs: { text: shown } }
expect:
  status: succeeded
  reason: nothing
  steps:
    fetch: { attempts: 2 }
    show: { status: succeeded, input: { argv: [x] } }
  ran: [show]
  not_ran: [fetch]
  outputs: { title: x, other: 1 }";
    let expect = [
        "9: the run's status: expected \"succeeded\", got \"failed\"",
        "10: the run's reason: expected it to hold \"nothing\", got \"step `fetch` failed\"",
        "12: step `fetch`, attempts: expected 2, got 1",
        "13: step `show`, status (dependency `fetch` failed): expected \"succeeded\", got \"skipped\"",
        "13: step `show`, input: it was never given any; it is skipped (dependency `fetch` failed)",
        "14: step `show` was expected to run and did not: it is skipped (dependency `fetch` failed)",
        "15: step `fetch` was expected not to run and did: it is failed (no route)",
        "16: output `title`: expected \"x\", got null",
        "16: the run has no output `other`; it has title",
    ];
    check(TWO, case, &expect);
}

#[test]
fn a_step_without_a_mock_is_never_run() {
    let expect = "4: step `fetch` (http) was started and has no mock; add `fetch: { outputs: … }` to `mocks`, or `default: succeed` to the case";
    check(TWO, "expect: { status: succeeded }", &[expect]);
    let steps = "steps:\n  - { id: a, run: 'exit 1' }\n  - { id: b, http: { method: GET, url: 'http://x' } }\n  - { id: c, run: x, outputs: json }";
    check(steps, "default: succeed\nexpect: { status: succeeded, ran: [a, b, c] }", &[]);
}

#[test]
fn names_that_no_step_has_are_told() {
    let case = "mocks:\n  fecth: { outputs: {} }\nexpect:\n  not_ran: [shw, show/x, 'fetch[0]', 'hooks:exit_0']";
    let expect = [
        "6: `fecth` is not a step of `p`; did you mean `fetch`?",
        "8: `shw` is not a step of `p`; did you mean `show`?",
        "8: `show/x`: `show` is no sub-pipeline and no blueprint: it has no steps of its own",
        "8: `fetch[0]`: `fetch` has no items: it has neither `foreach` nor `matrix`",
        "8: `hooks:exit_0` is not a hook of `p`; it has none",
    ];
    check(TWO, case, &expect);
}

#[test]
fn time_passes_without_taking_any() {
    let slow = "steps:\n  - { id: a, run: x, timeout: 2h, retry: { limit: 1, on: [timeout] }, attempt_timeout: 50m }\n  - { id: w, wait: 30d }";
    check(
        slow,
        "mocks: { a: { hang: true } }\nexpect: { status: failed, steps: { a: { status: timed_out, attempts: 2 }, w: { status: succeeded } } }",
        &[],
    );
    check(
        slow,
        "mocks: { a: [{ hang: true }, { outputs: {}, takes: 40m }] }\nexpect: { status: succeeded, steps: { a: { attempts: 2 } } }",
        &[],
    );
}

#[test]
fn approvals_are_answered_or_left_open() {
    let gate = "steps:\n  - { id: gate, approve: { message: sure?, on_timeout: approve }, timeout: 1d }\n  - { id: go, depends: [gate], run: x }";
    check(
        gate,
        "mocks: { gate: { decision: rejected, by: ann, comment: no } }\nexpect: { status: failed, not_ran: [go], steps: { gate: { reason: rejected by ann } } }",
        &[],
    );
    check(
        gate,
        "default: succeed\nmocks: { gate: { decision: approved } }\nexpect: { status: succeeded, steps: { gate: { outputs: { by: test } } } }",
        &[],
    );
    check(gate, "expect: { status: waiting, steps: { gate: { status: waiting } }, not_ran: [go] }", &[]);
    check(gate, "default: succeed\nexpect: { status: succeeded, ran: [go] }", &[]);
}

#[test]
fn items_share_a_mock_or_have_their_own() {
    let fan = "steps:\n  - { id: each, foreach: { items: [a, b, c] }, run: [echo, '{{ item.value }}'], continue_on_error: true }";
    let case = "mocks:
  each: { outputs: { text: fine } }
  'each[1]': { fail: { exit_code: 3 } }
expect:
  status: degraded
  steps:
    each: { status: succeeded, outputs: [{ text: fine }, null, { text: fine }] }
    'each[1]': { status: failed, reason: exit code 3 }
    'each[2]': { input: { argv: [echo, c] } }";
    check(fan, case, &[]);
}

#[test]
fn exit_codes_have_the_class_that_they_have_in_a_run() {
    let step = |codes: &str| {
        format!("steps:\n  - {{ id: a, run: x, permanent_exit_codes: [{codes}], retry: {{ limit: 1 }} }}")
    };
    check(&step("3"), "mocks: { a: { fail: { exit_code: 3 } } }\nexpect: { steps: { a: { attempts: 1 } } }", &[]);
    check(&step("4"), "mocks: { a: { fail: { exit_code: 3 } } }\nexpect: { steps: { a: { attempts: 2 } } }", &[]);
}

#[test]
fn secrets_stand_as_they_are_written() {
    let steps = "steps:\n  - { id: a, run: x, env: { T: 'Bearer {{ secrets.KEY }}', N: 5 } }";
    check(
        steps,
        "default: succeed\nexpect: { steps: { a: { input: { env: { T: 'Bearer {{ secrets.KEY }}', N: 5 } } } } }",
        &[],
    );
}

#[test]
fn hooks_succeed_unless_mocked() {
    let steps = "steps:\n  - { id: a, run: x }\nhooks:\n  failure: [{ run: y }]";
    check(steps, "mocks: { a: { fail: {} } }\nexpect: { status: failed, ran: ['hooks:failure_0'] }", &[]);
    check(steps, "mocks: { a: { outputs: {} } }\nexpect: { status: succeeded, not_ran: ['hooks:failure_0'] }", &[]);
}
