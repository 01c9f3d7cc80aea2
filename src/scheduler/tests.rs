//! The rules of when steps run, are tried again, are stopped and end, one small pipeline each.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::compile::{CheckOptions, MemorySources, check as compile};
use crate::diagnostic::{Files, render_human};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::scheduler::{
    Accepted, Decision, Effect, Event, Input, Options, PreparedWork, Rejection, ReusedStep, Settlement, Stamped, State,
    StepStatus, UnitKey, admit, apply, prepare,
};
use crate::task::{ErrorClass, Failure, Outcome, Task, Usage};
use crate::time::Timestamp;

const START: u64 = 1_763_000_000_000;

const AGENTS: &str = "agents:\n  planner: { name: P, type: planner, system_prompt: Plan., max_tokens: 300, provider: command, command: [plan] }\n  writer: { name: W, type: reflexion, system_prompt: Write., max_tokens: 200, provider: command, command: [write] }\n";

/// A run in the hands of a test.
pub(super) struct Run {
    pub(super) state: State,
    now: u64,
    /// What was handed out or asked to stop, in order: `a`, `stop a`, `stop a at once`.
    pub(super) done: Vec<String>,
}

impl Run {
    pub(super) fn of(pipeline: &str) -> Self {
        Self::with(&[("main.yaml", pipeline)], Vec::new())
    }

    fn with(files: &[(&str, &str)], reused: Vec<ReusedStep>) -> Self {
        let mut sources = MemorySources::default();
        sources.0.insert("agents.yaml".to_owned(), Arc::from(AGENTS));
        for (path, text) in files {
            let name = path.trim_end_matches(".yaml");
            sources.0.insert((*path).to_owned(), Arc::from(format!("apiVersion: tol/v1\nname: {name}\n{text}")));
        }
        let (mut files, mut diagnostics) = (Files::default(), Vec::new());
        let program = compile("main.yaml", &sources, &mut files, &mut diagnostics, &CheckOptions { profile: None });
        let program = Arc::new(program.unwrap_or_else(|| panic!("{}", render_human(&files, &diagnostics, false))));
        let accepted = Accepted {
            run: RunId::new("r"),
            definition_hash: String::new(),
            params: serde_json::Map::new(),
            env: serde_json::Map::new(),
            options: Options::default(),
            parent: None,
            reused,
        };
        let state = State::new(program, Arc::new(accepted.clone()), Timestamp(START));
        let mut run = Self { state, now: START, done: Vec::new() };
        run.record(Event::Accepted(Box::new(accepted)));
        run
    }

    fn record(&mut self, event: Event) {
        let effects = apply(&mut self.state, &Stamped::new(Timestamp(self.now), event));
        for effect in effects {
            match effect {
                Effect::Note(_) | Effect::Finish => {}
                Effect::Stop { unit, now, .. } => {
                    self.done.push(format!("stop {}{}", self.state.path(unit), if now { " at once" } else { "" }));
                }
                Effect::RecordStart { unit, token } => {
                    let unit = self.state.path(unit);
                    self.take(Input::Start { unit, token }).unwrap();
                }
                Effect::Reclaim { unit, .. } => self.done.push(format!("reclaim {}", self.state.path(unit))),
                Effect::Dispatch { unit, token } => {
                    self.done.push(self.state.path(unit).to_string());
                    if let PreparedWork::Outcome(outcome) = prepare(&self.state, unit, token, "/p", "m").work {
                        let unit = self.state.path(unit);
                        self.take(Input::Report { unit, token, outcome, draw: 1.0 }).unwrap();
                    }
                }
            }
        }
    }

    pub(super) fn take(&mut self, input: Input) -> Result<(), Rejection> {
        let event = admit(&self.state, input, Timestamp(self.now))?;
        self.record(event);
        Ok(())
    }

    fn key(&self, path: &str) -> UnitKey {
        self.state.find(&UnitPath::new(path)).unwrap()
    }

    pub(super) fn report(&mut self, path: &str, outcome: Outcome) -> &mut Self {
        let token = LeaseToken(self.state.unit(self.key(path)).unwrap().token);
        self.take(Input::Report { unit: UnitPath::new(path), token, outcome, draw: 1.0 }).unwrap();
        self
    }

    pub(super) fn ok(&mut self, path: &str) -> &mut Self {
        self.report(path, Outcome::success(json!({ "text": path })))
    }

    pub(super) fn fail(&mut self, path: &str) -> &mut Self {
        self.report(path, Outcome::failed(Failure::transient("exit code 1")))
    }

    pub(super) fn stopped(&mut self, path: &str) -> &mut Self {
        self.report(path, Outcome::Stopped)
    }

    /// Lets time go by; its limits that are over then are seen.
    pub(super) fn pass(&mut self, milliseconds: u64) -> &mut Self {
        self.now += milliseconds;
        while self.take(Input::Time).is_ok() {}
        self
    }

    fn cancel(&mut self, now: bool) -> &mut Self {
        self.take(Input::Cancel { by: "ada".to_owned(), now }).unwrap();
        self
    }

    fn decide(&mut self, path: &str, decision: Decision, by: &str) -> Result<(), Rejection> {
        self.take(Input::Decide { unit: UnitPath::new(path), decision, by: by.to_owned(), comment: None })
    }

    /// How every step of the run stands, and the run: `a=succeeded b=skipped: failed`.
    fn stands(&self) -> String {
        let scope = &self.state.scopes[0];
        let steps = scope
            .steps
            .iter()
            .enumerate()
            .map(|(number, step)| format!("{}={}", scope.step_name(number as u32), step.unit.status.as_str()));
        format!("{}: {}", steps.collect::<Vec<_>>().join(" "), self.state.status().as_str())
    }

    pub(super) fn check(&self, expected: &str) {
        assert_eq!(self.stands(), expected);
    }

    /// What is out now, as a worker gets it.
    pub(super) fn tasks(&self) -> Vec<Task> {
        let out = self.state.handed_out().into_iter();
        out.filter_map(|unit| {
            let token = LeaseToken(self.state.unit(unit)?.token);
            match prepare(&self.state, unit, token, "/p", "m").work {
                PreparedWork::Task(task) => Some(*task),
                PreparedWork::Outcome(_) => None,
            }
        })
        .collect()
    }

    pub(super) fn check_done(&self, expected: &[&str]) {
        assert_eq!(self.done, expected);
    }

    pub(super) fn unit(&self, path: &str) -> &crate::scheduler::UnitState {
        self.state.unit(self.key(path)).unwrap()
    }

    fn outputs(&self, path: &str) -> Value {
        self.unit(path).outputs.as_deref().cloned().unwrap_or_default()
    }
}

#[test]
fn a_step_runs_when_what_it_depends_on_allows_it() {
    let check = |second: &str, end: fn(&mut Run), expected: &str| {
        let mut run = Run::of(&format!("steps:\n  - {{ id: a, run: x }}\n  - {{ id: b, run: x, {second} }}\n"));
        end(&mut run);
        if run.unit("b").status == StepStatus::Running {
            run.ok("b");
        }
        run.check(expected);
    };
    let ok: fn(&mut Run) = |run| {
        run.ok("a");
    };
    let fail: fn(&mut Run) = |run| {
        run.fail("a");
    };
    check("depends: [a]", ok, "a=succeeded b=succeeded: succeeded");
    check("depends: [a]", fail, "a=failed b=skipped: failed");
    check("env: { A: \"{{ a.outputs.text }}\" }", fail, "a=failed b=skipped: failed");
    check("if: a.status == \"failed\"", fail, "a=failed b=succeeded: failed");
    check("if: a.status == \"failed\"", ok, "a=succeeded b=skipped: succeeded");
    check("depends: [a], if: a.status == \"failed\"", fail, "a=failed b=succeeded: failed");
    check("if: a.outputs.text == \"a\"", ok, "a=succeeded b=succeeded: succeeded");
    check("if: a.outputs.text == \"a\"", fail, "a=failed b=skipped: failed");
    check("if: a.outputs.none == 1", ok, "a=succeeded b=failed: failed");
}

#[test]
fn a_tolerated_failure_lets_dependants_run_and_a_skip_does_not() {
    let mut run =
        Run::of("steps:\n  - { id: a, run: x, continue_on_error: true }\n  - { id: b, run: x, depends: [a] }\n");
    run.fail("a").ok("b").check("a=failed b=succeeded: degraded");
    let mut run = Run::of(
        "steps:\n  - { id: a, run: x, if: \"1 > 2\" }\n  - { id: b, run: x, depends: [a] }\n  - { id: c, run: x }\n",
    );
    run.ok("c").check("a=skipped b=skipped c=succeeded: succeeded");
    assert_eq!(run.unit("b").reason(), Some("dependency `a` was skipped"));
}

#[test]
fn a_required_failure_lets_other_branches_finish_unless_fail_fast() {
    let steps = "steps:\n  - { id: a, run: x }\n  - { id: b, run: x }\n  - { id: c, run: x, depends: [b] }\n";
    let mut run = Run::of(steps);
    run.fail("a").ok("b").ok("c").check("a=failed b=succeeded c=succeeded: failed");
    let mut run = Run::of(&format!("fail_fast: true\n{steps}"));
    run.fail("a").stopped("b").check("a=failed b=cancelled c=cancelled: failed");
    run.check_done(&["b", "a", "stop b"]);
}

#[test]
fn attempts_pause_by_their_backoff() {
    let mut run = Run::of(
        "steps:\n  - { id: a, run: x, retry: { limit: 3, backoff: { initial: 1s, factor: 2, max: 3s }, jitter: none } }\n",
    );
    for pause in [1000, 2000, 3000] {
        run.fail("a").pass(pause - 1);
        assert_eq!(run.unit("a").status, StepStatus::Waiting, "{pause}");
        run.pass(1);
        assert_eq!(run.unit("a").status, StepStatus::Running, "{pause}");
    }
    run.fail("a").check("a=failed: failed");
    assert_eq!(run.unit("a").attempt, 4);
}

#[test]
fn only_the_named_classes_are_tried_again() {
    let check = |class: ErrorClass, expected: StepStatus| {
        let mut run = Run::of("steps:\n  - { id: a, run: x, retry: { limit: 1, on: [transient] } }\n");
        run.report("a", Outcome::failed(Failure::new(class, "no")));
        assert_eq!(run.unit("a").status, expected, "{class:?}");
    };
    check(ErrorClass::Transient, StepStatus::Waiting);
    check(ErrorClass::Permanent, StepStatus::Failed);
    check(ErrorClass::Timeout, StepStatus::TimedOut);
}

#[test]
fn the_other_side_may_name_the_pause() {
    let mut run = Run::of("steps:\n  - { id: a, run: x, retry: { limit: 1, jitter: none } }\n");
    run.report("a", Outcome::failed(Failure { retry_after_ms: Some(7000), ..Failure::transient("busy") }));
    run.pass(6999);
    assert_eq!(run.unit("a").status, StepStatus::Waiting);
    run.pass(1);
    assert_eq!(run.unit("a").status, StepStatus::Running);
}

#[test]
fn a_pause_that_cannot_fit_fails_at_once_with_the_last_error() {
    let mut run = Run::of(
        "steps:\n  - { id: a, run: x, timeout: 5s, retry: { limit: 1, backoff: { initial: 5s }, jitter: none } }\n",
    );
    run.fail("a").check("a=failed: failed");
    assert_eq!(run.unit("a").failure.as_deref().map(|failure| &*failure.message), Some("exit code 1"));
}

#[test]
fn time_limits_stop_the_attempt_or_the_step() {
    let mut run = Run::of(
        "steps:\n  - { id: a, run: x, timeout: 10s, attempt_timeout: 2s, retry: { limit: 1, backoff: { initial: 1s }, jitter: none } }\n",
    );
    run.pass(2000).stopped("a").pass(1000).pass(2000).stopped("a").check("a=timed_out: failed");
    run.check_done(&["a", "stop a", "a", "stop a"]);
    let mut run = Run::of("steps:\n  - { id: a, run: x, timeout: 3s, retry: { limit: 5 } }\n");
    run.pass(3000).stopped("a").check("a=timed_out: failed");
    assert_eq!(run.unit("a").attempt, 1);
}

#[test]
fn a_clock_that_jumps_over_pause_and_limit_ends_the_step_once() {
    let mut run = Run::of(
        "steps:\n  - { id: a, run: x, timeout: 10s, retry: { limit: 1, backoff: { initial: 1s }, jitter: none } }\n  - { id: b, run: x }\n",
    );
    run.fail("a").pass(60_000);
    assert_eq!(run.unit("a").status, StepStatus::TimedOut);
    run.check_done(&["a", "b"]);
}

#[test]
fn a_parents_limit_stops_what_runs_below() {
    let child = "steps:\n  - { id: one, run: x }\n  - { id: two, run: x, depends: [one] }\nfinally:\n  - { id: sweep, run: x }\n";
    for key in ["timeout", "attempt_timeout"] {
        let main = format!("steps:\n  - {{ id: a, pipeline: child.yaml, {key}: 5s }}\n");
        let mut run = Run::with(&[("main.yaml", &main), ("child.yaml", child)], Vec::new());
        run.pass(5000).stopped("a/one").ok("a/sweep").check("a=timed_out: failed");
        run.check_done(&["a/one", "stop a/one", "a/sweep"]);
    }
}

#[test]
fn a_child_is_tried_again_as_a_whole_and_its_limit_holds() {
    let main = "steps:\n  - { id: a, pipeline: child.yaml, timeout: 10s, retry: { limit: 2, backoff: { initial: 1s }, jitter: none } }\n";
    let mut run = Run::with(&[("main.yaml", main), ("child.yaml", "steps:\n  - { id: one, run: x }\n")], Vec::new());
    run.fail("a/one").pass(1000).ok("a/one").check("a=succeeded: succeeded");
    assert_eq!(run.unit("a").attempt, 2);
    let mut run = Run::with(&[("main.yaml", main), ("child.yaml", "steps:\n  - { id: one, run: x }\n")], Vec::new());
    // The pause and the limit are over in the same moment: the limit wins, and no child is opened.
    run.fail("a/one").pass(60_000).check("a=timed_out: failed");
    run.check_done(&["a/one"]);
}

#[test]
fn a_fallback_saves_a_step_and_degrades_the_run() {
    let mut run = Run::of("steps:\n  - { id: a, run: x, fallback: { run: y } }\n  - { id: b, run: x, depends: [a] }\n");
    run.fail("a").ok("a").ok("b").check("a=succeeded b=succeeded: degraded");
    assert_eq!(run.unit("a").attempt, 1);
    let mut run = Run::of("steps:\n  - { id: a, run: x, fallback: { run: y } }\n");
    run.fail("a").fail("a").check("a=failed: failed");
    let mut run = Run::of(
        "steps:\n  - { id: a, run: x, if: nothing.status == \"failed\", fallback: { transform: { n: \"1\" } } }\n  - { id: nothing, run: x }\n",
    );
    run.fail("nothing").fail("a").check("a=succeeded nothing=failed: failed");
}

#[test]
fn finally_then_hooks_run_after_all_others() {
    let text = "steps:\n  - { id: a, run: x }\n  - { id: b, run: x, depends: [a] }\nfinally:\n  - { id: f, run: x, depends: [b] }\n  - { id: g, run: x, if: a.status == \"failed\" }\nhooks: { success: [{ run: x }], failure: [{ run: x }, { run: y }], cancel: [{ run: x }], exit: [{ run: x }] }\n";
    let mut run = Run::of(text);
    run.fail("a").ok("f").ok("g").fail("hooks:failure_0").ok("hooks:failure_1").ok("hooks:exit_0");
    run.check("a=failed b=skipped f=succeeded g=succeeded: failed");
    run.check_done(&["a", "f", "g", "hooks:failure_0", "hooks:failure_1", "hooks:exit_0"]);
    let mut run = Run::of(text);
    run.ok("a").ok("b").ok("f").fail("hooks:success_0").ok("hooks:exit_0");
    // A hook that failed is a warning and no more.
    run.check("a=succeeded b=succeeded f=succeeded g=skipped: succeeded");
    assert_eq!(run.state.warnings.len(), 1);
    let mut run = Run::of(text);
    run.cancel(false).stopped("a").ok("f").ok("hooks:cancel_0").ok("hooks:exit_0");
    run.check("a=cancelled b=cancelled f=succeeded g=skipped: cancelled");
}

#[test]
fn a_second_cancel_cuts_finally_and_hooks_off() {
    let text = "steps:\n  - { id: a, run: x }\nfinally:\n  - { id: f, run: x }\nhooks: { exit: [{ run: x }] }\n";
    let mut run = Run::of(text);
    run.cancel(false).cancel(true).stopped("a").check("a=cancelled f=cancelled: cancelled");
    run.check_done(&["a", "stop a", "stop a at once"]);
    let mut run = Run::of(text);
    run.cancel(false).stopped("a").cancel(true).stopped("f").check("a=cancelled f=cancelled: cancelled");
    assert_eq!(run.take(Input::Cancel { by: "ada".to_owned(), now: true }), Err(Rejection::Ended("cancelled")));
}

#[test]
fn a_success_that_crosses_a_stop_is_kept() {
    let mut run = Run::of("steps:\n  - { id: a, run: x, retry: never }\n  - { id: b, run: x, depends: [a] }\n");
    run.cancel(false).ok("a").check("a=succeeded b=cancelled: cancelled");
}

#[test]
fn a_fan_out_keeps_its_order_and_its_limit() {
    let mut run = Run::of("steps:\n  - { id: a, foreach: { items: [x, y, z], max_parallel: 2 }, run: x }\n");
    run.ok("a[1]").ok("a[2]").ok("a[0]").check("a=succeeded: succeeded");
    run.check_done(&["a[0]", "a[1]", "a[2]"]);
    assert_eq!(run.outputs("a"), json!([{ "text": "a[0]" }, { "text": "a[1]" }, { "text": "a[2]" }]));
}

#[test]
fn a_failed_item_lets_running_ones_finish_and_starts_none() {
    let mut run =
        Run::of("limits: { max_parallel: 2 }\nsteps:\n  - { id: a, foreach: { items: [1, 2, 3, 4] }, run: x }\n");
    run.fail("a[0]").ok("a[1]").check("a=failed: failed");
    run.check_done(&["a[0]", "a[1]"]);
    assert_eq!(run.unit("a[3]").status, StepStatus::Cancelled);
    let mut run = Run::of("steps:\n  - { id: a, foreach: { items: [1, 2] }, run: x, continue_on_error: true }\n");
    run.fail("a[0]").ok("a[1]").check("a=succeeded: degraded");
    assert_eq!(run.outputs("a"), json!([null, { "text": "a[1]" }]));
}

#[test]
fn approvals_take_the_first_answer() {
    let text = "steps:\n  - { id: a, approve: { approvers: [ada, eve] } }\n  - { id: b, run: x }\n";
    let mut run = Run::of(text);
    assert!(matches!(run.decide("a", Decision::Approved, "bob"), Err(Rejection::NotApprover { .. })));
    assert_eq!(run.decide("a", Decision::Approved, "ada"), Ok(()));
    assert_eq!(run.decide("a", Decision::Approved, "eve"), Err(Rejection::Same));
    assert!(matches!(run.decide("a", Decision::Rejected, "eve"), Err(Rejection::Contrary { before: "approved", .. })));
    assert!(matches!(run.decide("b", Decision::Approved, "ada"), Err(Rejection::NotWaiting { .. })));
    assert!(matches!(run.decide("c", Decision::Approved, "ada"), Err(Rejection::UnknownStep(_))));
    let mut run = Run::of(text);
    assert_eq!(run.decide("a", Decision::Rejected, "ada"), Ok(()));
    assert_eq!(run.decide("a", Decision::Rejected, "ada"), Err(Rejection::Same));
    run.ok("b").check("a=failed b=succeeded: failed");
}

#[test]
fn an_approval_that_nobody_gives_becomes_what_the_file_says() {
    let check = |on_timeout: &str, expected: &str| {
        let mut run =
            Run::of(&format!("steps:\n  - {{ id: a, approve: {{ on_timeout: {on_timeout} }}, timeout: 5s }}\n"));
        run.pass(5000).check(expected);
    };
    check("fail", "a=timed_out: failed");
    check("approve", "a=succeeded: succeeded");
    check("reject", "a=failed: failed");
}

#[test]
fn open_blocking_approvals_keep_everything_from_starting() {
    let mut run = Run::of(
        "limits: { max_parallel: 1 }\nsteps:\n  - { id: a, approve: { mode: blocking } }\n  - { id: b, approve: { mode: blocking } }\n  - { id: c, run: x }\n  - { id: d, transform: { n: \"1\" } }\n",
    );
    run.check_done(&[]);
    run.check("a=waiting b=pending c=pending d=pending: waiting");
    run.decide("a", Decision::Approved, "ada").unwrap();
    run.check_done(&[]);
    assert_eq!(run.state.status().as_str(), "waiting");
    run.decide("b", Decision::Approved, "ada").unwrap();
    run.check_done(&["c"]);
}

#[test]
fn what_must_not_run_twice_is_unknown_after_a_crash() {
    let mut run =
        Run::of("steps:\n  - { id: a, run: x, retry: never, timeout: 1h }\n  - { id: b, run: x, depends: [a] }\n");
    run.take(Input::Recover).unwrap();
    run.check("a=unknown b=pending: waiting");
    let settle = |settlement| Input::Settle { unit: UnitPath::new("a"), settlement, by: "ada".to_owned() };
    run.pass(7_200_000).take(settle(Settlement::Retry)).unwrap();
    assert_eq!(run.unit("a").status, StepStatus::Running);
    assert!(run.unit("a").deadline.is_some_and(|at| at.0 > run.now), "it has its own time again");
    run.take(Input::Recover).unwrap();
    run.take(settle(Settlement::Succeeded)).unwrap();
    run.ok("b").check("a=succeeded b=succeeded: succeeded");
    run.check_done(&["a", "a", "b"]);
}

#[test]
fn priority_goes_first_and_then_the_longest_way() {
    let mut run = Run::of(
        "limits: { max_parallel: 1 }\nsteps:\n  - { id: first, run: x, priority: critical }\n  - { id: lone, run: x }\n  - { id: head, run: x }\n  - { id: tail, run: x, depends: [head] }\n  - { id: urgent, run: x, priority: high }\n  - { id: late, run: x, priority: low }\n",
    );
    for step in ["first", "urgent", "head", "lone", "tail", "late"] {
        run.ok(step);
    }
    run.check_done(&["first", "urgent", "head", "lone", "tail", "late"]);
}

#[test]
fn tokens_are_set_aside_before_a_call_and_settled_after_it() {
    let text = "limits: { max_tokens: 250 }\nsteps:\n  - { id: a, agent: writer, prompt: x }\n  - { id: b, agent: writer, prompt: x }\n  - { id: c, agent: writer, prompt: x }\n";
    let mut run = Run::of(text);
    // 200 and the 50 that are left are set aside: nothing is left for the third.
    run.check_done(&["a", "b"]);
    let answer = |tokens| Outcome::Succeeded {
        outputs: Arc::new(json!({ "text": "t" })),
        exit_code: None,
        stderr: None,
        usage: Some(Usage { input_tokens: tokens, output_tokens: 0 }),
        cached: false,
    };
    run.report("a", answer(10));
    run.check_done(&["a", "b", "c"]);
    run.report("b", answer(10)).report("c", answer(10)).check("a=succeeded b=succeeded c=succeeded: succeeded");
    let mut run = Run::of(text);
    run.report("a", answer(200)).report("b", answer(50)).check("a=succeeded b=succeeded c=cancelled: budget_exhausted");
}

#[test]
fn a_hook_without_tokens_fails_and_the_run_ends() {
    let mut run = Run::of(
        "limits: { max_tokens: 100 }\nsteps:\n  - { id: a, agent: writer, prompt: x }\nhooks: { exit: [{ agent: writer, prompt: y }] }\n",
    );
    let usage = Some(Usage { input_tokens: 100, output_tokens: 0 });
    let outputs = Arc::new(json!({ "text": "t" }));
    run.report("a", Outcome::Succeeded { outputs, exit_code: None, stderr: None, usage, cached: false });
    run.check("a=succeeded: succeeded");
    assert_eq!(run.state.warnings.len(), 1);
}

#[test]
fn drafts_that_get_no_better_end_the_synthesis() {
    let critique = |score: f64| Outcome::success(json!({ "output": { "score": score, "accepted": true } }));
    let draft = |text: &str| Outcome::success(json!({ "text": text }));
    let text = "steps:\n  - { id: a, synthesize: { agent: writer, prompt: x, accept: score >= 0.8, max_cycles: 3 } }\n";
    let mut run = Run::of(text);
    run.report("a", draft("1"))
        .report("a", critique(0.5))
        .report("a", draft("2"))
        .report("a", critique(0.9))
        .check("a=succeeded: succeeded");
    assert_eq!((run.outputs("a")["cycles"].clone(), run.unit("a").attempt), (json!(2), 1));
    let mut run = Run::of(text);
    run.report("a", draft("1"))
        .report("a", critique(0.5))
        .report("a", draft("2"))
        .report("a", critique(0.5))
        .check("a=failed: failed");
    assert_eq!(run.unit("a").reason(), Some("no_progress"));
    // A score that rises is progress, whatever the words of the draft.
    let mut run = Run::of(text);
    for score in [0.5, 0.6, 0.9] {
        run.report("a", draft("1")).report("a", critique(score));
    }
    run.check("a=succeeded: succeeded");
    let mut run = Run::of(text);
    for (number, score) in [0.1, 0.2, 0.3].into_iter().enumerate() {
        run.report("a", draft(&number.to_string())).report("a", critique(score));
    }
    run.check("a=failed: failed");
    assert_eq!((run.unit("a").reason(), run.outputs("a")["text"].clone()), (Some("not_accepted"), json!("2")));
}

#[test]
fn a_failed_call_of_a_replan_asks_its_planner_again() {
    let tools = "tools:\n  say: { description: S., input_schema: { type: object }, effect: read, run: x }\n";
    let mut run = Run::of(&format!(
        "{tools}steps:\n  - {{ id: p, plan: {{ agent: planner, goal: Go., tools: [say] }} }}\n  - {{ id: e, execute: p, retry: {{ limit: 1, backoff: {{ initial: 1s }}, jitter: none }} }}\n"
    ));
    let plan = |id: &str| {
        Outcome::success(
            json!({ "output": { "steps": [{ "id": "E1", "tool": "say", "input": {} }, { "id": id, "tool": "say", "input": { "a": "#E1", "b": id }, "on_error": "replan" }] } }),
        )
    };
    run.report("p", plan("E2")).ok("e/E1").fail("e/E2").fail("e").pass(1000).report("e", plan("E3")).ok("e/E3");
    run.check("p=succeeded e=succeeded: degraded");
    run.check_done(&["p", "e/E1", "e/E2", "e", "e", "e/E3"]);
}

#[test]
fn a_plan_that_writes_waits_longer_than_its_planner_may_take() {
    let tools = "tools:\n  put: { description: S., input_schema: { type: object }, effect: write, run: x }\n";
    let mut run = Run::of(&format!(
        "{tools}steps:\n  - {{ id: p, plan: {{ agent: planner, goal: Go., tools: [put], write: ask }} }}\n  - {{ id: e, execute: p }}\n"
    ));
    run.report("p", Outcome::success(json!({ "output": { "steps": [{ "id": "E1", "tool": "put", "input": {} }] } })));
    run.pass(3_600_000).check("p=waiting e=pending: waiting");
    run.decide("p", Decision::Approved, "ada").unwrap();
    run.ok("e/E1").check("p=succeeded e=succeeded: succeeded");
}

#[test]
fn a_rerun_takes_over_what_need_not_run() {
    let reused = ReusedStep {
        step: "a".to_owned(),
        status: StepStatus::Succeeded,
        outputs: Some(Arc::new(json!({ "text": "before" }))),
        failure: None,
        reason: None,
        attempts: 2,
        fallback: false,
    };
    let main = "steps:\n  - { id: a, run: x }\n  - { id: b, run: [echo, \"{{ a.outputs.text }}\"] }\n";
    let mut run = Run::with(&[("main.yaml", main)], vec![reused.clone()]);
    run.check_done(&["b"]);
    run.ok("b").check("a=succeeded b=succeeded: succeeded");
    assert_eq!(run.outputs("a"), json!({ "text": "before" }));
    // What a fallback had saved makes no plain success of the new run either.
    let mut run = Run::with(&[("main.yaml", main)], vec![ReusedStep { fallback: true, ..reused }]);
    run.ok("b").check("a=succeeded b=succeeded: degraded");
}

#[test]
fn a_start_is_recorded_only_where_one_is_due() {
    let mut run = Run::of("steps:\n  - { id: a, run: x }\n  - { id: b, run: x, depends: [a] }\n");
    for (path, token) in [("a", 1), ("a", 0), ("b", 0)] {
        let unit = UnitPath::new(path);
        let refusal = run.take(Input::Start { unit: unit.clone(), token: LeaseToken(token) });
        assert_eq!(refusal, Err(Rejection::Stale(unit)), "{path} {token}");
    }
}
