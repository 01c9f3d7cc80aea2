//! Writes `docs/state-table.md` from the scheduler itself: what each input leads to in each state of a unit and of a run.
//! The test fails if the file says otherwise; `UPDATE=1` rewrites it.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::json;
use tol::compile::{CheckOptions, MemorySources, check};
use tol::diagnostic::{Files, render_human};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::scheduler::{
    Accepted, Decision, Effect, Event, Input, Options, Settlement, Stamped, State, UnitKey, admit, apply,
};
use tol::task::{Failure, Outcome};
use tol::time::Timestamp;

const START: u64 = 1_763_000_000_000;
const DAY: u64 = 86_400_000;

const INTRO: &str = "# What each input leads to in each state

This page is written by a test from the scheduler itself (`UPDATE=1 cargo test --test it state_table`); do not edit it.
Each section prepares a run in which the step `x` stands as its heading says, offers one input, and notes how `x` and the
run stand afterwards and what is then to be done. `refused` means that the input is not recorded and changes nothing.
";

struct Prepared {
    heading: &'static str,
    pipeline: &'static str,
    before: fn(&mut State),
}

fn unit(state: &State, path: &str) -> UnitKey {
    state.find(&UnitPath::new(path)).unwrap()
}

fn token(state: &State, path: &str) -> LeaseToken {
    LeaseToken(state.unit(unit(state, path)).map_or(0, |unit| unit.token))
}

fn take(state: &mut State, input: Input, at: Timestamp) -> Result<Vec<Effect>, String> {
    let event = admit(state, input, at).map_err(|refusal| refusal.to_string())?;
    Ok(apply(state, &Stamped::new(at, event)))
}

fn must(state: &mut State, input: Input) {
    must_at(state, input, 0);
}

fn must_at(state: &mut State, input: Input, later_ms: u64) {
    let at = Timestamp(state.now.0 + later_ms);
    take(state, input, at).unwrap();
}

fn report(state: &State, path: &str, outcome: Outcome) -> Input {
    Input::Report { unit: UnitPath::new(path), token: token(state, path), outcome, draw: 0.5 }
}

fn ok() -> Outcome {
    Outcome::success(json!({ "text": "said" }))
}

fn bad() -> Outcome {
    Outcome::failed(Failure::transient("exit code 1"))
}

fn by() -> String {
    "ada".to_owned()
}

fn start(state: &State, path: &str) -> Input {
    Input::Start { unit: UnitPath::new(path), token: token(state, path) }
}

const UNITS: [Prepared; 16] = [
    Prepared {
        heading: "pending: a dependency has not ended",
        pipeline: "steps:\n  - { id: before, run: ok }\n  - { id: x, depends: [before], run: ok }\n",
        before: |_| {},
    },
    Prepared {
        heading: "pending: waits for a slot",
        pipeline: "limits: { max_parallel: 1 }\nsteps:\n  - { id: before, run: ok, priority: high }\n  - { id: x, run: ok }\n",
        before: |_| {},
    },
    Prepared {
        heading: "running",
        pipeline: "steps:\n  - { id: x, run: ok, timeout: 1h, retry: { limit: 1, jitter: none } }\n",
        before: |_| {},
    },
    Prepared {
        heading: "running, its last attempt",
        pipeline: "steps:\n  - { id: x, run: ok, timeout: 1h }\n",
        before: |_| {},
    },
    Prepared {
        heading: "running: must not run twice, start not on record",
        pipeline: "steps:\n  - { id: x, run: ok, retry: never }\n",
        before: |_| {},
    },
    Prepared {
        heading: "running: must not run twice, start on record",
        pipeline: "steps:\n  - { id: x, run: ok, retry: never }\n",
        before: |state| must(state, start(state, "x")),
    },
    Prepared {
        heading: "running: asked to stop because its attempt took too long",
        pipeline: "steps:\n  - { id: x, run: ok, attempt_timeout: 1s, retry: { limit: 1, jitter: none } }\n",
        before: |state| must_at(state, Input::Time, 1000),
    },
    Prepared {
        heading: "running: a sub-pipeline",
        pipeline: "steps:\n  - { id: x, pipeline: child.yaml, timeout: 1h }\n",
        before: |_| {},
    },
    Prepared {
        heading: "waiting: for its next attempt",
        pipeline: "steps:\n  - { id: x, run: ok, retry: { limit: 1, jitter: none } }\n",
        before: |state| must(state, report(state, "x", bad())),
    },
    Prepared {
        heading: "waiting: for an approval",
        pipeline: "steps:\n  - { id: x, approve: { message: Go? }, timeout: 1h }\n",
        before: |_| {},
    },
    Prepared { heading: "waiting: for a time", pipeline: "steps:\n  - { id: x, wait: 1h }\n", before: |_| {} },
    Prepared {
        heading: "unknown",
        pipeline: "steps:\n  - { id: x, run: ok, retry: never }\n",
        before: |state| {
            must(state, start(state, "x"));
            must(state, Input::Recover);
        },
    },
    Prepared {
        heading: "succeeded",
        pipeline: "steps:\n  - { id: x, run: ok }\n  - { id: side, run: ok }\n",
        before: |state| must(state, report(state, "x", ok())),
    },
    Prepared {
        heading: "failed",
        pipeline: "steps:\n  - { id: x, run: ok }\n  - { id: side, run: ok }\n",
        before: |state| must(state, report(state, "x", bad())),
    },
    Prepared {
        heading: "skipped",
        pipeline: "steps:\n  - { id: x, if: \"false\", run: ok }\n  - { id: side, run: ok }\n",
        before: |_| {},
    },
    Prepared {
        heading: "cancelled",
        pipeline: "fail_fast: true\nsteps:\n  - { id: bad, run: ok }\n  - { id: side, run: ok }\n  - { id: x, depends: [side], run: ok }\n",
        before: |state| must(state, report(state, "bad", bad())),
    },
];

const RUNS: [Prepared; 8] = [
    Prepared {
        heading: "the run is running",
        pipeline: "steps:\n  - { id: x, run: ok }\n  - { id: next, depends: [x], run: ok }\n",
        before: |_| {},
    },
    Prepared {
        heading: "the run is paused",
        pipeline: "steps:\n  - { id: x, run: ok }\n  - { id: next, depends: [x], run: ok }\n",
        before: |state| must(state, Input::Pause { by: by() }),
    },
    Prepared {
        heading: "the run is driven by nobody",
        pipeline: "steps:\n  - { id: x, run: ok }\n  - { id: next, depends: [x], run: ok }\n",
        before: |state| must(state, Input::Idle),
    },
    Prepared {
        heading: "the run waits for a person",
        pipeline: "steps:\n  - { id: x, approve: { message: Go? } }\n",
        before: |_| {},
    },
    Prepared {
        heading: "the run stops: it was cancelled",
        pipeline: "steps:\n  - { id: x, run: ok }\nfinally:\n  - { id: tidy, run: ok }\n",
        before: |state| must(state, Input::Cancel { by: by(), now: false }),
    },
    Prepared {
        heading: "the run stops at once: it was cancelled twice",
        pipeline: "steps:\n  - { id: x, run: ok }\nfinally:\n  - { id: tidy, run: ok }\n",
        before: |state| {
            must(state, Input::Cancel { by: by(), now: false });
            must(state, Input::Cancel { by: by(), now: true });
        },
    },
    Prepared {
        heading: "the run is over its time limit",
        pipeline: "timeout: 1h\nsteps:\n  - { id: x, run: ok, timeout: 2h }\n",
        before: |state| must_at(state, Input::Time, 3_600_000),
    },
    Prepared {
        heading: "the run has ended",
        pipeline: "steps:\n  - { id: x, run: ok }\n",
        before: |state| must(state, report(state, "x", ok())),
    },
];

fn prepared(case: &Prepared) -> State {
    let text = format!("apiVersion: tol/v1\nname: table\n{}", case.pipeline);
    let child = "apiVersion: tol/v1\nname: child\nsteps:\n  - { id: inner, run: ok }\n";
    let files = [("main.yaml", text.as_str()), ("child.yaml", child)];
    let sources = MemorySources(files.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(*text))).collect());
    let (mut files, mut diagnostics) = (Files::default(), Vec::new());
    let program = check("main.yaml", &sources, &mut files, &mut diagnostics, &CheckOptions { profile: None });
    let program = Arc::new(program.unwrap_or_else(|| panic!("{}", render_human(&files, &diagnostics, false))));
    let accepted = Accepted {
        run: RunId::new("r"),
        definition_hash: String::new(),
        params: serde_json::Map::new(),
        env: serde_json::Map::new(),
        options: Options::default(),
        parent: None,
        reused: Vec::new(),
    };
    let at = Timestamp(START);
    let mut state = State::new(program, Arc::new(accepted.clone()), at);
    apply(&mut state, &Stamped::new(at, Event::Accepted(Box::new(accepted))));
    (case.before)(&mut state);
    state
}

/// Every kind of input: its name, and what it is in a state; the number is how much later it comes, in milliseconds.
fn inputs(state: &State) -> Vec<(&'static str, Input, u64)> {
    let x = || UnitPath::new("x");
    let decide = |decision| Input::Decide { unit: x(), decision, by: by(), comment: None };
    let settle = |settlement| Input::Settle { unit: x(), settlement, by: by() };
    let lost = Input::Lost { unit: x(), token: token(state, "x"), why: "no heartbeat".to_owned() };
    let stale = Input::Report { unit: x(), token: LeaseToken(999), outcome: ok(), draw: 0.5 };
    vec![
        ("start", start(state, "x"), 0),
        ("report: succeeded", report(state, "x", ok()), 0),
        ("report: failed, transient", report(state, "x", bad()), 0),
        ("report: failed, permanent", report(state, "x", Outcome::failed(Failure::permanent("no"))), 0),
        ("report: stopped", report(state, "x", Outcome::Stopped), 0),
        ("report of another attempt", stale, 0),
        ("time, nothing is due", Input::Time, 0),
        ("time, a day later", Input::Time, DAY),
        ("cancel", Input::Cancel { by: by(), now: false }, 0),
        ("cancel at once", Input::Cancel { by: by(), now: true }, 0),
        ("pause", Input::Pause { by: by() }, 0),
        ("unpause", Input::Unpause { by: by() }, 0),
        ("approve", decide(Decision::Approved), 0),
        ("reject", decide(Decision::Rejected), 0),
        ("settle as succeeded", settle(Settlement::Succeeded), 0),
        ("settle as failed", settle(Settlement::Failed), 0),
        ("settle: retry", settle(Settlement::Retry), 0),
        ("idle", Input::Idle, 0),
        ("recover", Input::Recover, 0),
        ("reclaim", Input::Reclaim, 0),
        ("lost", lost, 0),
    ]
}

fn to_do(state: &State, effects: &[Effect]) -> String {
    let mut words = Vec::new();
    for effect in effects {
        match effect {
            Effect::Note(_) => {}
            Effect::Reclaim { unit, .. } => words.push(format!("wait for the worker of `{}`", state.path(*unit))),
            Effect::Dispatch { unit, .. } => words.push(format!("hand out `{}`", state.path(*unit))),
            Effect::RecordStart { unit, .. } => words.push(format!("record the start of `{}`", state.path(*unit))),
            Effect::Stop { unit, now, .. } => {
                words.push(format!("stop `{}`{}", state.path(*unit), if *now { " at once" } else { "" }));
            }
            Effect::Finish => words.push("tell of the end".to_owned()),
        }
    }
    words.join(", ")
}

fn run_words(state: &State) -> String {
    let mut words = state.status().as_str().to_owned();
    for (is_so, word) in [
        (state.paused, "paused"),
        (state.idle, "idle"),
        (state.stopping.is_some() && state.verdict.is_none(), "stopping"),
    ] {
        if is_so {
            words.push_str(", ");
            words.push_str(word);
        }
    }
    words
}

fn section(text: &mut String, case: &Prepared) {
    let before = prepared(case);
    let _ = writeln!(text, "\n### {}\n\n| input | `x` | the run | to be done |\n|---|---|---|---|", case.heading);
    for (name, input, later) in inputs(&before) {
        let mut state = before.clone();
        let at = Timestamp(state.now.0 + later);
        match take(&mut state, input, at) {
            Err(refusal) => {
                let _ = writeln!(text, "| {name} | refused | {refusal} | |");
            }
            Ok(effects) => {
                let x = state.unit(unit(&state, "x")).unwrap();
                let _ = writeln!(
                    text,
                    "| {name} | {} | {} | {} |",
                    x.status.as_str(),
                    run_words(&state),
                    to_do(&state, &effects)
                );
            }
        }
    }
}

#[test]
fn the_state_table_is_what_the_scheduler_does() {
    let mut text = INTRO.to_owned();
    text.push_str("\n## States of a step\n");
    for case in &UNITS {
        section(&mut text, case);
    }
    text.push_str("\n## States of a run\n");
    for case in &RUNS {
        section(&mut text, case);
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/state-table.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = text.lines().zip(committed.lines()).find(|(now, before)| now != before);
    assert!(
        text == committed,
        "docs/state-table.md is not what the scheduler does; see the change with UPDATE=1: {differs:?}"
    );
}
