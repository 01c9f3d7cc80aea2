//! Where work goes, and how much of it may be out on a queue.

use serde_json::json;

use crate::scheduler::preview;
use crate::scheduler::tests::Run;
use crate::task::{Failure, Outcome};

const TOOLS: &str = "tools:\n  t: { description: d, input_schema: { type: object }, effect: read, run: x }\n";

/// The queue and the capabilities under which each unit goes out, in order.
fn check_places(pipeline: &str, expected: &[&str]) {
    let mut run = Run::of(pipeline);
    let mut seen = Vec::new();
    for turn in 0..20 {
        let Some(task) = run.tasks().into_iter().next() else { break };
        seen.push(
            format!("{} {} {}", task.unit, task.place.queue, task.place.capabilities.join(",")).trim().to_owned(),
        );
        let outcome = match &*task.unit.to_string() {
            "broken" if turn == 0 => Outcome::failed(Failure::permanent("no")),
            "plan" => Outcome::success(json!({ "output": { "steps": [{ "id": "E1", "tool": "t", "input": {} }] } })),
            _ => Outcome::success(json!({ "text": "x" })),
        };
        run.report(&task.unit.to_string(), outcome);
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_step_s_queue_goes_before_that_of_the_defaults_and_of_the_file() {
    let check = |head: &str, step: &str, expected: &str| {
        check_places(&format!("{head}steps:\n  - {{ id: a, run: x{step} }}\n"), &[expected]);
    };
    check("", "", "a default");
    check("queue: low\n", "", "a low");
    check("queue: low\ndefaults: { queue: mid }\n", "", "a mid");
    check("queue: low\ndefaults: { queue: mid }\n", ", queue: top", "a top");
    check("queue: low\n", ", capabilities: [gpu, cuda12]", "a low gpu,cuda12");
    check("", ", capabilities: [gpu]", "a default gpu");
    check("templates: { t: { run: y, queue: q, capabilities: [c] } }\n", ", template: t", "a q c");
}

#[test]
fn fallbacks_hooks_and_calls_of_a_plan_have_their_places() {
    let fallback = "queue: low\nsteps:\n  - { id: broken, run: x, queue: top, fallback: { run: y } }\n";
    check_places(fallback, &["broken top", "broken low"]);
    let own = "steps:\n  - { id: broken, run: x, queue: top, fallback: { run: y, queue: own, capabilities: [c] } }\n";
    check_places(own, &["broken top", "broken own c"]);
    let hooks = "queue: low\nsteps:\n  - { id: a, run: x }\nhooks: { exit: [{ run: y }, { run: z, queue: q }] }\n";
    check_places(hooks, &["a low", "hooks:exit_0 low", "hooks:exit_1 q"]);
    let plan = format!(
        "{TOOLS}queue: low\nsteps:\n  - {{ id: plan, plan: {{ agent: planner, goal: g }}, queue: minds }}\n  - {{ id: act, execute: plan, queue: hands, capabilities: [c] }}\n"
    );
    check_places(&plan, &["plan minds", "act/E1 hands c"]);
}

#[test]
fn a_bounded_queue_holds_up_nobody_else() {
    let pipeline = "limits: { max_parallel: 4, queues: { gpu: 1, default: 2 } }\nsteps:\n  - { id: a, run: x, queue: gpu, priority: critical, foreach: { items: [1, 2, 3] } }\n  - { id: b, run: x, queue: cpu }\n  - { id: c, run: x, foreach: { items: [1, 2, 3] } }\n";
    let mut run = Run::of(pipeline);
    // One for the bounded queue however urgent the others are, two for the other, and what has no bound.
    run.check_done(&["a[0]", "b", "c[0]", "c[1]"]);
    run.ok("c[0]");
    run.check_done(&["a[0]", "b", "c[0]", "c[1]", "c[2]"]);
    run.ok("b").ok("c[1]");
    assert_eq!(run.done.len(), 5, "there are slots, but no room in the queues");
    run.fail("a[0]");
    // A required item has failed: the others of its step end without having begun.
    run.ok("c[2]");
    run.check("a=failed b=succeeded c=succeeded: failed");
}

#[test]
fn room_is_given_back_however_a_unit_ends() {
    let pipeline = "limits: { queues: { gpu: 1 } }\ndefaults: { queue: gpu }\nsteps:\n  - { id: a, run: x, timeout: 1s, continue_on_error: true }\n  - { id: b, run: x, continue_on_error: true, fallback: { run: y, queue: cpu } }\n  - { id: c, run: x }\n";
    let mut run = Run::of(pipeline);
    run.check_done(&["a"]);
    run.pass(1000).check_done(&["a", "stop a"]);
    run.stopped("a").check_done(&["a", "stop a", "b"]);
    // The fallback leaves the queue.
    run.fail("b").check_done(&["a", "stop a", "b", "b", "c"]);
    run.ok("b").ok("c").check("a=timed_out b=succeeded c=succeeded: degraded");
}

#[test]
fn a_preview_shows_where_work_goes() {
    let pipeline = "queue: low\nsteps:\n  - { id: a, run: x }\n  - { id: b, run: x, queue: default, capabilities: [c] }\n  - { id: c, transform: { n: \"1\" } }\n";
    let run = Run::of(pipeline);
    let steps = preview(&run.state.program, (*run.state.accepted).clone());
    let shown: Vec<String> =
        steps.iter().map(|(path, step)| format!("{path} {} {}", step["queue"], step["capabilities"])).collect();
    assert_eq!(shown, ["a \"low\" null", "b null [\"c\"]", "c null null"]);
}
