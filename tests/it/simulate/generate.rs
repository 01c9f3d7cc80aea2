//! Random pipelines with every construct of the language, as YAML.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use tol::compile::{CheckOptions, MemorySources, Program, check};
use tol::diagnostic::{Files, render_human};

use super::rng::Rng;

const AGENTS: &str = r#"agents:
  planner: { name: P, type: planner, system_prompt: Plan., max_tokens: 300, provider: command, command: [plan] }
  steady: { name: S, type: planner, system_prompt: Plan., max_tokens: 300, provider: command, command: [plan], retry: { limit: 1, backoff: { initial: 1s } } }
  writer: { name: W, type: reflexion, system_prompt: Write., max_tokens: 200, provider: command, command: [write] }
  critic: { name: C, type: reflexion, system_prompt: Judge., max_tokens: 100, provider: command, command: [judge] }
"#;

const TOOLS: &str = r#"tools:
  say: { description: Says., input_schema: { type: object, properties: { text: { type: string } }, required: [text] }, effect: read, run: [printf, "{{ input.text }}"] }
  shaky: { description: Fails., input_schema: { type: object }, effect: read, run: echo, retry: { limit: 1, backoff: { initial: 1s } } }
  once: { description: Once., input_schema: { type: object }, effect: read, run: echo, retry: never }
  sum: { description: Adds., input_schema: { type: object }, effect: read, transform: { n: "1 + 1" } }
  write: { description: Writes., input_schema: { type: object }, effect: write, run: echo }
"#;

/// The texts of a random project and its compiled form; `main.yaml` is what is run.
pub struct Project {
    pub sources: MemorySources,
    pub program: Arc<Program>,
}

/// Makes a project. It always compiles: a failure here is a fault of the generator, and the texts are shown.
pub fn project(rng: &mut Rng) -> Project {
    let mut generator = Generator { rng, files: BTreeMap::new(), children: 0 };
    generator.pipeline("main.yaml", 0);
    let mut files = generator.files;
    files.insert("agents.yaml".to_owned(), AGENTS.to_owned());
    let sources = MemorySources(files.into_iter().map(|(path, text)| (path, Arc::from(text))).collect());
    let program = compile(&sources).unwrap_or_else(|problems| panic!("{}\n{problems}", show(&sources)));
    Project { sources, program }
}

/// Compiles `main.yaml`.
pub fn compile(sources: &MemorySources) -> Result<Arc<Program>, String> {
    let (mut files, mut diagnostics) = (Files::default(), Vec::new());
    check("main.yaml", sources, &mut files, &mut diagnostics, &CheckOptions { profile: None })
        .map(Arc::new)
        .ok_or_else(|| render_human(&files, &diagnostics, false))
}

/// The pipelines' texts, for whoever looks at a failure.
pub fn show(sources: &MemorySources) -> String {
    sources
        .0
        .iter()
        .filter(|(path, _)| *path != "agents.yaml")
        .map(|(path, text)| format!("--- {path}\n{text}"))
        .collect()
}

struct Generator<'r> {
    rng: &'r mut Rng,
    files: BTreeMap<String, String>,
    children: u32,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    List,
    Fan,
    Plan { agent: bool },
    Execute,
    Other,
}

/// A step that others can refer to.
struct Known {
    id: String,
    kind: Kind,
    /// Its outputs may be read in any case.
    finally: bool,
}

impl Generator<'_> {
    fn pipeline(&mut self, path: &str, depth: u32) {
        let mut text = format!("apiVersion: tol/v1\nname: {}\n", path.trim_end_matches(".yaml"));
        if self.rng.percent(15) {
            text.push_str("fail_fast: true\n");
        }
        if self.rng.percent(15) {
            let _ = writeln!(text, "timeout: {}s", 5 + self.rng.below(60));
        }
        if depth == 0 {
            self.limits(&mut text);
            if self.rng.percent(15) {
                text.push_str("defaults: { retry: { limit: 1, backoff: { initial: 1s } } }\n");
            }
        }
        text.push_str("params: { n: { type: integer, default: 2 } }\n");
        text.push_str(TOOLS);
        text.push_str("steps:\n");
        let mut known = Vec::new();
        let count = 2 + self.rng.below(if depth == 0 { 7 } else { 3 });
        for number in 0..count {
            self.step(&mut text, &mut known, &format!("s{number}"), depth, false);
        }
        if self.rng.percent(40) {
            text.push_str("finally:\n");
            for number in 0..1 + self.rng.below(2) {
                self.step(&mut text, &mut known, &format!("f{number}"), depth, true);
            }
        }
        if self.rng.percent(40) {
            text.push_str("hooks:\n");
            for kind in ["success", "failure", "cancel", "exit"] {
                if kind == "exit" || self.rng.percent(60) {
                    let hook = self.rng.pick(&[
                        "{ run: echo }",
                        "{ run: echo, retry: { limit: 1, backoff: { initial: 1s } } }, { transform: { a: \"1\" } }",
                        "{ run: echo, retry: never }, { run: echo }",
                        "{ agent: writer, prompt: Say. }",
                    ]);
                    let _ = writeln!(text, "  {kind}: [{hook}]");
                }
            }
        }
        let readable: Vec<&Known> = known.iter().filter(|step| step.kind == Kind::Text && !step.finally).collect();
        if let Some(step) = readable.first().filter(|_| self.rng.percent(60)) {
            let _ = writeln!(text, "outputs: {{ out: \"{{{{ {}.outputs.text }}}}\" }}", step.id);
        }
        self.files.insert(path.to_owned(), text);
    }

    fn limits(&mut self, text: &mut String) {
        let mut limits = Vec::new();
        if self.rng.percent(60) {
            limits.push(format!("max_parallel: {}", 1 + self.rng.below(4)));
        }
        if self.rng.percent(25) {
            limits.push(format!("queues: {{ {}: {} }}", self.rng.pick(&["gpu", "default"]), 1 + self.rng.below(2)));
        }
        if self.rng.percent(15) {
            limits.push(format!("error_rate: 0.{}", 2 + self.rng.below(6)));
        }
        if self.rng.percent(25) {
            limits.push(format!("max_tokens: {}", 300 + self.rng.below(900)));
        }
        if self.rng.percent(10) {
            limits.push(format!("max_runtime: {}s", 10 + self.rng.below(100)));
        }
        if !limits.is_empty() {
            let _ = writeln!(text, "limits: {{ {} }}", limits.join(", "));
        }
    }

    fn step(&mut self, text: &mut String, known: &mut Vec<Known>, id: &str, depth: u32, finally: bool) {
        let _ = writeln!(text, "  - id: {id}");
        let kind = self.action(text, known, depth, finally);
        let plan = matches!(kind, Kind::Plan { .. } | Kind::Execute);
        let others: Vec<String> = known.iter().map(|step| step.id.clone()).collect();
        if !others.is_empty() && self.rng.percent(50) {
            let _ = writeln!(text, "    depends: [{}]", others[self.rng.below(others.len())]);
        }
        if self.rng.percent(25) {
            let other = others.get(self.rng.below(others.len().max(1)));
            let condition = match (self.rng.below(5), other) {
                (0, Some(other)) => format!("{other}.status == \"failed\""),
                (1, Some(other)) => format!("{other}.status != \"succeeded\""),
                (2, Some(other)) => format!("{other}.status in [\"skipped\", \"timed_out\", \"cancelled\"]"),
                (3, _) => "params.n > 5".to_owned(),
                _ => "params.n < 5".to_owned(),
            };
            let _ = writeln!(text, "    if: {condition}");
        }
        if self.rng.percent(20) {
            text.push_str("    continue_on_error: true\n");
        }
        if self.rng.percent(15) && !plan {
            let fallbacks =
                ["{ run: echo }", "{ transform: { text: \"'x'\" } }", "{ agent: writer, prompt: Say. }", ""];
            let mut fallback = fallbacks[self.rng.below(4)].to_owned();
            if fallback.is_empty() {
                fallback = if depth < 2 {
                    format!("{{ pipeline: {} }}", self.child_file(depth))
                } else {
                    "{ run: echo }".to_owned()
                };
            }
            let _ = writeln!(text, "    fallback: {fallback}");
        }
        if self.rng.percent(15) {
            let _ = writeln!(text, "    priority: {}", self.rng.pick(&["critical", "high", "low"]));
        }
        known.push(Known { id: id.to_owned(), kind, finally });
    }

    /// Retry and time limits of an action that a worker does.
    fn attempts(&mut self, text: &mut String) {
        match self.rng.below(6) {
            0 => text.push_str("    retry: never\n"),
            1 => text.push_str("    retry: { limit: 2, backoff: { initial: 1s, factor: 2, max: 3s }, jitter: none }\n"),
            2 => text.push_str("    retry: { limit: 1, backoff: { initial: 4s }, jitter: equal, on: [transient, permanent, timeout] }\n"),
            _ => {}
        }
        let timed = self.rng.percent(30);
        let seconds = 2 + self.rng.below(20);
        if timed {
            let _ = writeln!(text, "    timeout: {seconds}s");
        }
        if self.rng.percent(15) {
            text.push_str("    queue: gpu\n");
        }
        if self.rng.percent(20) {
            let attempt = 1 + self.rng.below(if timed { seconds } else { 8 });
            let _ = writeln!(text, "    attempt_timeout: {attempt}s");
        }
    }

    fn fan(&mut self, text: &mut String, known: &[Known]) -> bool {
        let lists: Vec<&str> = known.iter().filter(|step| step.kind == Kind::List).map(|step| &*step.id).collect();
        let most = if self.rng.percent(50) { ", max_parallel: 2" } else { "" };
        match self.rng.below(6) {
            0 => {
                let items = self.rng.pick(&["[]", "[1]", "[a, b, c]", "[1, 2, 3, 4, 5]"]);
                let _ = writeln!(text, "    foreach: {{ items: {items}, as: each{most} }}");
            }
            1 | 2 if !lists.is_empty() => {
                let list = self.rng.pick(&lists);
                let _ = writeln!(text, "    foreach: {{ items: {list}.outputs, max_items: 3{most} }}");
            }
            3 => text.push_str("    matrix: { a: [1, 2], b: [x, y], exclude: [{ a: 2, b: y }] }\n"),
            _ => return false,
        }
        true
    }

    fn action(&mut self, text: &mut String, known: &[Known], depth: u32, finally: bool) -> Kind {
        let plans: Vec<&Known> =
            known.iter().filter(|step| matches!(step.kind, Kind::Plan { .. }) && step.finally == finally).collect();
        match self.rng.below(20) {
            0..=4 => {
                text.push_str("    run: echo\n");
                self.attempts(text);
                let readable: Vec<&Known> = known.iter().filter(|step| step.kind == Kind::Text).collect();
                if !readable.is_empty() && self.rng.percent(40) {
                    let other = &readable[self.rng.below(readable.len())].id;
                    let _ = writeln!(text, "    env: {{ A: \"{{{{ {other}.outputs.text }}}}\" }}");
                }
                if self.rng.percent(15) {
                    text.push_str("    cache: { key: \"k{{ params.n }}\" }\n");
                }
                if self.fan(text, known) { Kind::Fan } else { Kind::Text }
            }
            5 | 6 => {
                text.push_str("    run: list\n    outputs: json\n");
                self.attempts(text);
                Kind::List
            }
            7 => {
                text.push_str("    transform: { text: \"string(params.n)\" }\n");
                if self.fan(text, known) { Kind::Fan } else { Kind::Text }
            }
            8 | 9 if depth < 2 => self.child(text, known, depth),
            10 | 11 => {
                let mode = self.rng.pick(&["blocking", "partial", "partial", "autonomous"]);
                let on_timeout = self.rng.pick(&["fail", "approve", "reject"]);
                let approvers = if self.rng.percent(20) { ", approvers: [ada]" } else { "" };
                let _ = writeln!(
                    text,
                    "    approve: {{ message: Go?, mode: {mode}, on_timeout: {on_timeout}{approvers} }}"
                );
                if self.rng.percent(50) {
                    let _ = writeln!(text, "    timeout: {}s", 1 + self.rng.below(20));
                }
                if self.fan(text, known) { Kind::Fan } else { Kind::Other }
            }
            12 => {
                let _ = writeln!(text, "    wait: {}s", 1 + self.rng.below(6));
                if self.fan(text, known) { Kind::Fan } else { Kind::Other }
            }
            13 | 14 => self.plan(text),
            15 | 16 if !plans.is_empty() => {
                let plan = plans[self.rng.below(plans.len())];
                let _ = writeln!(text, "    execute: {}", plan.id);
                if self.rng.percent(30) {
                    text.push_str("    retry: { limit: 1, backoff: { initial: 1s } }\n");
                }
                if self.rng.percent(40) {
                    let _ = writeln!(text, "    timeout: {}s", 3 + self.rng.below(30));
                }
                Kind::Execute
            }
            17 => {
                text.push_str("    agent: writer\n    prompt: Say.\n");
                if self.rng.percent(30) {
                    text.push_str(
                        "    schema: { type: object, properties: { a: { type: integer } }, required: [a] }\n",
                    );
                }
                self.attempts(text);
                if self.fan(text, known) { Kind::Fan } else { Kind::Other }
            }
            18 | 19 if !known.is_empty() => {
                let from = &known[self.rng.below(known.len())].id;
                let verify = &known[self.rng.below(known.len())].id;
                let verify = if self.rng.percent(30) { format!(", verify: {verify}") } else { String::new() };
                let critic = self.rng.pick(&["", ", critic: critic"]);
                let accept = self.rng.pick(&["", ", accept: score >= 0.5", ", accept: accepted"]);
                let keep = self.rng.pick(&["", ", on_unaccepted: keep"]);
                let _ = writeln!(
                    text,
                    "    synthesize: {{ agent: writer, from: [{from}], max_cycles: 2{verify}{critic}{accept}{keep} }}"
                );
                self.attempts(text);
                Kind::Other
            }
            _ => {
                text.push_str("    run: echo\n");
                self.attempts(text);
                Kind::Text
            }
        }
    }

    fn child_file(&mut self, depth: u32) -> String {
        self.children += 1;
        let path = format!("child{}.yaml", self.children);
        self.pipeline(&path, depth + 1);
        path
    }

    fn child(&mut self, text: &mut String, known: &[Known], depth: u32) -> Kind {
        let _ = writeln!(text, "    pipeline: {}", self.child_file(depth));
        if self.rng.percent(30) {
            text.push_str("    retry: { limit: 1, backoff: { initial: 2s }, on: [transient, permanent, timeout] }\n");
        }
        if self.rng.percent(30) {
            let _ = writeln!(text, "    timeout: {}s", 2 + self.rng.below(30));
        }
        if self.fan(text, known) { Kind::Fan } else { Kind::Other }
    }

    fn plan(&mut self, text: &mut String) -> Kind {
        let write = self.rng.pick(&["", ", write: ask", ", write: allow"]);
        let tools = "tools: [say, shaky, once, sum, write]";
        let agent = self.rng.percent(65);
        if agent {
            let agent = self.rng.pick(&["planner", "steady"]);
            let repair = self.rng.below(3);
            let _ = writeln!(
                text,
                "    plan: {{ agent: {agent}, goal: Go., {tools}, max_steps: 6, repair: {repair}{write} }}"
            );
            self.attempts(text);
        } else {
            let blueprint = blueprint(self.rng, !write.is_empty(), false);
            let _ = writeln!(text, "    plan: {{ {tools}, blueprint: {blueprint}{write} }}");
        }
        Kind::Plan { agent }
    }
}

/// A random blueprint that passes its checks.
pub fn blueprint(rng: &mut Rng, writes: bool, replans: bool) -> serde_json::Value {
    let count = 1 + rng.below(4);
    let mut steps = Vec::new();
    for number in 1..=count {
        let id = format!("E{number}");
        let before = number > 1 && rng.percent(50);
        let text = if before { format!("after #E{}", 1 + rng.below(number - 1)) } else { format!("t{}", rng.below(3)) };
        let mut step = match rng.below(if writes { 6 } else { 5 }) {
            0 | 1 => serde_json::json!({ "id": id, "tool": "say", "input": { "text": text } }),
            2 => serde_json::json!({ "id": id, "tool": "shaky", "input": {} }),
            3 => serde_json::json!({ "id": id, "tool": "once", "input": {} }),
            4 => serde_json::json!({ "id": id, "tool": "sum", "input": {} }),
            _ => serde_json::json!({ "id": id, "tool": "write", "input": {}, "effect": "write" }),
        };
        match rng.below(6) {
            0 => step["on_error"] = "skip".into(),
            1 => {
                step["on_error"] = "default".into();
                step["default"] = "none".into();
            }
            2 | 3 if replans => step["on_error"] = "replan".into(),
            _ => {}
        }
        steps.push(step);
    }
    serde_json::json!({ "steps": steps })
}
