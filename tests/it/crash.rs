//! Stored histories of runs: each still replays to what it came to, and from each of its prefixes, as if the process had
//! died there, the run comes to the same end.
//!
//! `tests/cases/histories/v1/*.jsonl` and `v2`, by the newest version of their events: the sources, the events, the
//! summary. A stored history is never edited; new ones are written for pipelines that have none with
//! `UPDATE_HISTORIES=1`.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tol::compile::{CheckOptions, MemorySources, Program, check};
use tol::diagnostic::{Files, render_human};
use tol::id::{LeaseToken, RunId, UnitPath};
use tol::report::summary;
use tol::runtime::replay;
use tol::scheduler::{
    Accepted, Decision, Effect, Event, Input, Options, PreparedWork, Settlement, Stamped, State, StepStatus, admit,
    apply, prepare,
};
use tol::task::{AgentPhase, Command, Failure, Outcome, Task, Work};
use tol::time::Timestamp;

const START: Timestamp = Timestamp(1_763_000_000_000);

const AGENTS: &str = "agents:\n  planner: { name: P, type: planner, system_prompt: Plan., max_tokens: 300, provider: command, command: [plan] }\n  writer: { name: W, type: reflexion, system_prompt: Write., max_tokens: 200, provider: command, command: [write] }\n";

/// What the scripts of these pipelines say is what becomes of them: `ok`, `fail`, `flaky` (once), `hang`, `list`, and
/// `cancel` (the run is cancelled while it runs).
const CASES: [(&str, &[(&str, &str)]); 9] = [
    (
        "retry",
        &[(
            "main.yaml",
            "steps:\n  - { id: a, run: flaky, retry: { limit: 2, jitter: none } }\n  - { id: b, depends: [a], run: fail, retry: { limit: 1, on: [permanent] }, continue_on_error: true }\n  - { id: c, depends: [b], run: ok }\n  - { id: d, run: hang, attempt_timeout: 2s, retry: { limit: 1 }, continue_on_error: true }\n",
        )],
    ),
    (
        "fan_out",
        &[(
            "main.yaml",
            "limits: { max_parallel: 2 }\nsteps:\n  - { id: list, run: list, outputs: json }\n  - { id: each, foreach: { items: list.outputs, max_items: 5 }, run: flaky, retry: { limit: 1 } }\n  - { id: grid, matrix: { a: [1, 2], b: [1, 2] }, transform: { n: matrix.a + matrix.b } }\n  - { id: bad, foreach: { items: [1, 2, 3], max_parallel: 1 }, run: fail }\n  - { id: after, depends: [each, grid], run: ok }\n",
        )],
    ),
    (
        "sub_pipeline",
        &[
            (
                "main.yaml",
                "steps:\n  - { id: child, pipeline: child.yaml, with: { n: 1 }, retry: { limit: 1, on: [permanent, transient] } }\n  - { id: after, run: ok, if: child.status == \"failed\" }\nfinally:\n  - { id: tidy, run: ok }\nhooks: { failure: [{ run: ok }], exit: [{ run: fail }] }\n",
            ),
            (
                "child.yaml",
                "params: { n: { type: integer } }\nsteps:\n  - { id: one, run: ok }\n  - { id: two, depends: [one], run: fail }\nfinally:\n  - { id: sweep, run: ok }\n",
            ),
        ],
    ),
    (
        "approval",
        &[(
            "main.yaml",
            "steps:\n  - { id: a, run: ok }\n  - { id: go, depends: [a], approve: { message: Go?, mode: blocking } }\n  - { id: late, approve: { on_timeout: reject }, timeout: 5s, continue_on_error: true }\n  - { id: ship, depends: [go], run: ok }\n  - { id: pause, depends: [ship], wait: 3s }\n",
        )],
    ),
    (
        "plan",
        &[(
            "main.yaml",
            "tools:\n  say: { description: S., input_schema: { type: object }, effect: read, run: ok }\n  break: { description: B., input_schema: { type: object }, effect: read, run: fail }\nsteps:\n  - { id: think, plan: { agent: planner, goal: Go., tools: [say, break], repair: 1 } }\n  - { id: act, execute: think }\n  - { id: fixed, plan: { tools: [say, break], blueprint: { steps: [{ id: E1, tool: break, input: {}, on_error: default, default: none }, { id: E2, tool: say, input: { a: \"#E1\" } }] } } }\n  - { id: static, execute: fixed }\n",
        )],
    ),
    (
        "synthesize",
        &[(
            "main.yaml",
            "steps:\n  - { id: facts, run: ok }\n  - { id: answer, synthesize: { agent: writer, from: [facts], accept: score >= 0.8, max_cycles: 3 } }\noutputs: { text: \"{{ answer.outputs.text }}\" }\n",
        )],
    ),
    (
        "never",
        &[(
            "main.yaml",
            "steps:\n  - { id: a, run: ok }\n  - { id: pay, depends: [a], run: ok, retry: never }\n  - { id: ship, depends: [pay], run: ok }\n  - { id: side, run: fail, fallback: { run: ok } }\n",
        )],
    ),
    (
        "cancel",
        &[(
            "main.yaml",
            "steps:\n  - { id: a, run: ok }\n  - { id: b, depends: [a], run: cancel }\n  - { id: c, depends: [b], run: ok }\nfinally:\n  - { id: tidy, run: ok }\nhooks: { cancel: [{ run: ok }] }\n",
        )],
    ),
    (
        "fail_fast",
        &[(
            "main.yaml",
            "fail_fast: true\nsteps:\n  - { id: slow, run: hang }\n  - { id: bad, run: fail }\n  - { id: later, depends: [slow], run: ok }\nfinally:\n  - { id: tidy, run: ok }\n",
        )],
    ),
];

/// Histories with events of version 2. `lost` is ok, but the worker of its first attempt is lost; `kills` costs every
/// worker; while `handover` is out, another scheduler takes the run over.
const CASES_V2: [(&str, &[(&str, &str)]); 2] = [
    (
        "lost",
        &[(
            "main.yaml",
            "queue: small\nlimits: { queues: { gpu: 1 } }\nsteps:\n  - { id: a, run: lost, queue: gpu }\n  - { id: each, foreach: { items: [1, 2, 3], max_parallel: 2 }, run: lost }\n  - { id: pay, depends: [a], run: lost, retry: never }\n  - { id: bomb, run: kills, continue_on_error: true }\n  - { id: saved, run: kills, fallback: { run: ok } }\n  - { id: late, run: lost, attempt_timeout: 5s, retry: { limit: 1 } }\n  - { id: after, depends: [pay, bomb], run: ok, queue: gpu, capabilities: [cuda12] }\n",
        )],
    ),
    (
        "reclaimed",
        &[
            (
                "main.yaml",
                "steps:\n  - { id: a, run: handover }\n  - { id: b, run: flaky, retry: { limit: 1, jitter: none } }\n  - { id: pay, run: ok, retry: never }\n  - { id: slow, run: hang, attempt_timeout: 2s, continue_on_error: true }\n  - { id: child, pipeline: child.yaml }\n  - { id: go, depends: [a], approve: { message: Go? } }\n  - { id: ship, depends: [go, pay], run: lost }\n",
            ),
            ("child.yaml", "steps:\n  - { id: one, run: handover }\n  - { id: two, depends: [one], run: ok }\n"),
        ],
    ),
];

/// All cases with the version of their histories.
fn cases() -> impl Iterator<Item = (u32, &'static str, &'static [(&'static str, &'static str)])> {
    let first = CASES.into_iter().map(|(name, files)| (1, name, files));
    first.chain(CASES_V2.into_iter().map(|(name, files)| (2, name, files)))
}

fn compile(sources: &MemorySources) -> Arc<Program> {
    let (mut files, mut diagnostics) = (Files::default(), Vec::new());
    let program = check("main.yaml", sources, &mut files, &mut diagnostics, &CheckOptions { profile: None });
    Arc::new(program.unwrap_or_else(|| panic!("{}", render_human(&files, &diagnostics, false))))
}

/// Drives a run as a shell would, with workers that always do the same.
struct Driver {
    state: State,
    history: Vec<Stamped>,
    effects: VecDeque<Effect>,
    tasks: VecDeque<Task>,
    stopped: Vec<(UnitPath, LeaseToken)>,
    /// Hand-outs during which another scheduler has taken over.
    handed_over: Vec<LeaseToken>,
    now: Timestamp,
}

impl Driver {
    fn offer(&mut self, input: Input) {
        let event = admit(&self.state, input, self.now).unwrap();
        self.record(event);
    }

    fn record(&mut self, event: Event) {
        let stamped = Stamped::new(self.now, event);
        self.now = Timestamp(self.now.0 + 7);
        self.effects.extend(apply(&mut self.state, &stamped));
        self.history.push(stamped);
    }

    fn run(&mut self) {
        for _ in 0..1000 {
            while let Some(effect) = self.effects.pop_front() {
                self.perform(effect);
            }
            if self.state.verdict.is_some() {
                return;
            }
            self.step();
        }
        panic!("the run does not end");
    }

    fn step(&mut self) {
        let ready = self.tasks.iter().position(|task| !hangs(task) || self.is_stopped(task));
        if let Some(number) = ready {
            let task = self.tasks.remove(number).unwrap();
            match script(&task) {
                Some("kills") => return self.lose(task),
                Some("lost") if task.attempt == 1 => return self.lose(task),
                Some("handover") if !self.handed_over.contains(&task.token) => {
                    self.handed_over.push(task.token);
                    self.tasks.clear();
                    return self.offer(Input::Reclaim);
                }
                _ => {}
            }
            let outcome = if self.is_stopped(&task) { Outcome::Stopped } else { outcome(&task) };
            return self.offer(Input::Report { unit: task.unit, token: task.token, outcome, draw: 0.5 });
        }
        if let Some(task) =
            self.tasks.iter().find(|task| script(task) == Some("cancel")).filter(|_| self.state.stopping.is_none())
        {
            assert!(task.attempt > 0);
            return self.offer(Input::Cancel { by: "ada".to_owned(), now: false });
        }
        let asked = self.state.open_questions().find(|key| {
            // One question of the cases is there to go unanswered.
            self.state.path(*key).as_str() != "late"
        });
        if let Some(key) = asked {
            let unit = self.state.path(key);
            let unknown = self.state.unit(key).is_some_and(|unit| unit.status == StepStatus::Unknown);
            return self.offer(if unknown {
                Input::Settle { unit, settlement: Settlement::Succeeded, by: "ada".to_owned() }
            } else {
                Input::Decide { unit, decision: Decision::Approved, by: "ada".to_owned(), comment: None }
            });
        }
        let at = self.state.next_timer().unwrap();
        self.now = self.now.max(at);
        self.offer(Input::Time);
    }

    fn lose(&mut self, task: Task) {
        self.offer(Input::Lost { unit: task.unit, token: task.token, why: "its worker was not heard of".to_owned() });
    }

    fn is_stopped(&self, task: &Task) -> bool {
        self.stopped.iter().any(|(unit, token)| *unit == task.unit && *token == task.token)
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Note(_) | Effect::Finish => {}
            Effect::RecordStart { unit, token } => self.offer(Input::Start { unit: self.state.path(unit), token }),
            Effect::Stop { unit, token, .. } => self.stopped.push((self.state.path(unit), token)),
            Effect::Dispatch { unit, token } | Effect::Reclaim { unit, token } => {
                if self.state.unit(unit).is_none_or(|at| at.token != token.0) {
                    return;
                }
                match prepare(&self.state, unit, token, "/project", "mark").work {
                    PreparedWork::Task(task) => self.tasks.push_back(*task),
                    PreparedWork::Outcome(outcome) => {
                        self.offer(Input::Report { unit: self.state.path(unit), token, outcome, draw: 0.5 });
                    }
                }
            }
        }
    }
}

fn script(task: &Task) -> Option<&str> {
    match &task.work {
        Work::Run(script) => match &script.command {
            Command::Shell { script, .. } => Some(script.trim()),
            Command::Argv(_) => None,
        },
        Work::Http(_) | Work::Agent(_) => None,
    }
}

fn hangs(task: &Task) -> bool {
    matches!(script(task), Some("hang" | "cancel"))
}

fn outcome(task: &Task) -> Outcome {
    let Work::Agent(call) = &task.work else {
        return match script(task) {
            Some("fail") => Outcome::failed(Failure { exit_code: Some(3), ..Failure::permanent("exit code 3") }),
            Some("flaky") if task.attempt == 1 => Outcome::failed(Failure::transient("exit code 1")),
            Some("list") => Outcome::success(json!([1, 2, 3])),
            _ => Outcome::success(json!({ "text": "said" })),
        };
    };
    Outcome::success(match call.phase {
        AgentPhase::Plan if call.input.get("failed").is_some() => {
            json!({ "output": { "steps": [{ "id": "E1", "tool": "say", "input": {} }, { "id": "E3", "tool": "say", "input": { "b": "#E1" } }] } })
        }
        AgentPhase::Plan if call.input.get("refused").is_some() => {
            json!({ "output": { "steps": [{ "id": "E1", "tool": "say", "input": {} }, { "id": "E2", "tool": "break", "input": {}, "on_error": "replan" }] } })
        }
        AgentPhase::Plan => json!({ "text": "no plan" }),
        AgentPhase::Synthesize => json!({ "text": if call.input.get("draft").is_some() { "better" } else { "first" } }),
        AgentPhase::Critique => {
            let score = if call.input["draft"]["text"] == "better" { 0.9 } else { 0.4 };
            json!({ "output": { "score": score, "accepted": true, "critiques": [] } })
        }
        AgentPhase::Execute => json!({ "text": "said" }),
    })
}

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/cases/histories/v{version}"))
}

fn write_history(version: u32, name: &str, files: &[(&str, &str)]) {
    let mut sources = MemorySources::default();
    sources.0.insert("agents.yaml".to_owned(), Arc::from(AGENTS));
    for (path, text) in files {
        let stem = path.trim_end_matches(".yaml");
        sources.0.insert((*path).to_owned(), Arc::from(format!("apiVersion: tol/v1\nname: {stem}\n{text}")));
    }
    let program = compile(&sources);
    let accepted = Accepted {
        run: RunId::new("019a7000-0000-7000-8000-000000000000"),
        definition_hash: program.hash.to_string(),
        params: serde_json::Map::new(),
        env: serde_json::Map::new(),
        options: Options::default(),
        parent: None,
        reused: Vec::new(),
    };
    let state = State::new(program, Arc::new(accepted.clone()), START);
    let mut driver = Driver {
        state,
        history: Vec::new(),
        effects: VecDeque::new(),
        tasks: VecDeque::new(),
        stopped: Vec::new(),
        handed_over: Vec::new(),
        now: START,
    };
    driver.record(Event::Accepted(Box::new(accepted)));
    driver.run();
    let mut text = format!("{}\n", json!({ "version": version, "sources": sources }));
    for stamped in &driver.history {
        text.push_str(&serde_json::to_string(stamped).unwrap());
        text.push('\n');
    }
    text.push_str(&format!("{}\n", summary(&driver.state)));
    std::fs::create_dir_all(folder(version)).unwrap();
    std::fs::write(folder(version).join(format!("{name}.jsonl")), text).unwrap();
}

struct Stored {
    program: Arc<Program>,
    history: Vec<Stamped>,
    summary: Value,
}

fn stored(version: u32, name: &str) -> Stored {
    let path = folder(version).join(format!("{name}.jsonl"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines: Vec<&str> = text.lines().collect();
    let [first, events @ .., last] = lines.as_slice() else { panic!("{name} has no lines") };
    let head: Value = serde_json::from_str(first).unwrap();
    let sources: MemorySources = serde_json::from_value(head["sources"].clone()).unwrap();
    Stored {
        program: compile(&sources),
        history: events.iter().map(|line| serde_json::from_str(line).unwrap()).collect(),
        summary: serde_json::from_str(last).unwrap(),
    }
}

fn begin(stored: &Stored, length: usize) -> State {
    let Event::Accepted(accepted) = &stored.history[0].event else { panic!("the first event accepts the run") };
    replay(stored.program.clone(), Arc::new((**accepted).clone()), stored.history[0].at, &stored.history[..length])
        .unwrap_or_else(|(seq, problem)| panic!("event {seq} {problem}"))
}

fn statuses(summary: &Value) -> BTreeMap<String, Value> {
    let steps = summary["steps"].as_object().unwrap();
    let mut all: BTreeMap<String, Value> =
        steps.iter().map(|(step, entry)| (step.clone(), entry["status"].clone())).collect();
    all.insert("the run".to_owned(), summary["status"].clone());
    all
}

#[test]
fn a_stored_history_replays_to_what_it_came_to() {
    for (version, name, files) in cases() {
        let missing = !folder(version).join(format!("{name}.jsonl")).exists();
        if std::env::var_os("UPDATE_HISTORIES").is_some() && missing {
            write_history(version, name, files);
        }
        let stored = stored(version, name);
        assert_eq!(stored.history.iter().map(|stamped| stamped.v).max(), Some(version), "{name}");
        let state = begin(&stored, stored.history.len());
        assert_eq!(summary(&state), stored.summary, "{name}");
    }
}

#[test]
fn from_every_prefix_the_run_comes_to_the_same_end() {
    for (version, name, _) in cases() {
        let stored = stored(version, name);
        // Whether the work has died with the process or not.
        for taken_up in [Input::Recover, Input::Reclaim] {
            for length in 1..stored.history.len() {
                let state = begin(&stored, length);
                let now = state.now;
                let history = stored.history[..length].to_vec();
                let mut driver = Driver {
                    state,
                    history,
                    effects: VecDeque::new(),
                    tasks: VecDeque::new(),
                    stopped: Vec::new(),
                    handed_over: Vec::new(),
                    now,
                };
                driver.offer(taken_up.clone());
                driver.run();
                let end = summary(&driver.state);
                let (before, after) = (statuses(&stored.summary), statuses(&end));
                assert_eq!(after, before, "{name}: {taken_up:?} after event {length}\n{end}");
                let again = Stored { program: stored.program.clone(), history: driver.history, summary: Value::Null };
                let replayed = summary(&begin(&again, again.history.len()));
                assert_eq!(replayed, end, "{name}: the replay differs, {taken_up:?} after event {length}");
            }
        }
    }
}
