//! Files checked as `tol validate` checks them: what is found, with which code and where.

use std::sync::Arc;

use super::{CheckOptions, Checker, MemorySources, Program, check, codes};
use crate::diagnostic::{Files, Severity};

fn sources(files: &[(&str, &str)]) -> MemorySources {
    MemorySources(files.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(*text))).collect())
}

/// All that is found in `a.yaml` and what it names, as `CODE path:line:column`, errors and warnings alike.
fn found(files: &[(&str, &str)]) -> (Option<Program>, Vec<String>) {
    let (mut texts, mut diagnostics) = (Files::default(), Vec::new());
    let program = check("a.yaml", &sources(files), &mut texts, &mut diagnostics, &CheckOptions::default());
    let lines = diagnostics.iter().map(|diagnostic| {
        let place = texts.place(diagnostic.span);
        format!("{} {}:{}:{}", diagnostic.code, texts.path(diagnostic.span.file), place.line, place.column)
    });
    (program, lines.collect())
}

/// Checks a pipeline of these lines behind its two first ones.
fn check_lines(lines: &str, expect: &[&str]) {
    let text = format!("apiVersion: tol/v1\nname: a\n{lines}");
    let (program, found) = found(&[("a.yaml", &text)]);
    assert_eq!(found, expect, "{lines}");
    let errors = expect.iter().any(|code| !code.starts_with("TOL06"));
    assert_eq!(program.is_none(), errors, "{lines}");
}

const AGENTS: &str =
    "agents:\n  writer: { name: W, type: writer, system_prompt: S, temperature: 0.1, max_tokens: 10 }\n";

#[test]
fn names_are_known_where_they_are_and_nowhere_else() {
    let step = |text: &str| format!("steps:\n  - {{ id: s, {text} }}\n");
    let check = |text: &str, expect: &[&str]| check_lines(&step(text), expect);
    check(r#"run: [echo, "{{ run.id }}"]"#, &[]);
    check(r#"run: [echo, "{{ run.nmae }}"]"#, &["TOL0304 a.yaml:4:34"]);
    check(r#"run: [echo, "{{ item.index }}"]"#, &["TOL0364 a.yaml:4:30"]);
    check(r#"run: [echo, "{{ matrix.os }}"]"#, &["TOL0364 a.yaml:4:30"]);
    check(r#"run: [echo, "{{ input.x }}"]"#, &["TOL0364 a.yaml:4:30"]);
    check(r#"run: [echo, "{{ secrets.X }}"]"#, &["TOL0362 a.yaml:4:30"]);
    check(r#"run: "true", env: { A: "{{ secrets.X }}" }"#, &[]);
    check(r#"run: [echo, "{{ env.CI }}"]"#, &["TOL0363 a.yaml:4:34"]);
    check(r#"matrix: { os: [a] }, if: matrix.os == "a", run: "true""#, &["TOL0364 a.yaml:4:39"]);
    check(r#"matrix: { os: [a] }, run: [echo, "{{ matrix.so }}"]"#, &["TOL0304 a.yaml:4:58"]);
    check(r#"foreach: { items: [1], as: n }, if: n > 0, run: "true""#, &["TOL0303 a.yaml:4:50"]);
    check(r#"foreach: { items: [1], as: run }, run: "true""#, &["TOL0111 a.yaml:4:41"]);
    check(r#"foreach: { items: "1 + 1", max_items: 3 }, run: "true""#, &["TOL0361 a.yaml:4:32"]);
    check(r#"run: "true", if: "1 + 1""#, &["TOL0360 a.yaml:4:31"]);
    check(r#"run: "true", cache: { key: "{{ secrets.X }}" }"#, &["TOL0362 a.yaml:4:45"]);
    check(r#"http: { method: GET, url: "https://x/{{ secrets.X }}" }"#, &["TOL0362 a.yaml:4:54"]);
    check(r#"http: { method: GET, url: "https://x", headers: { A: "{{ secrets.X }}" } }"#, &[]);
    check_lines(&format!("inherit_env: [CI]\n{}", step(r#"run: [echo, "{{ env.CI }}"]"#)), &[]);
}

#[test]
fn finally_steps_read_all_and_are_read_by_none() {
    let finally = "finally:\n  - { id: f, run: [echo, \"{{ s.status }}\"], depends: [s] }\n  - { id: g, run: \"true\", depends: [f] }\n";
    check_lines(&format!("steps:\n  - {{ id: s, run: \"true\" }}\n{finally}"), &[]);
    check_lines(&format!("steps:\n  - {{ id: s, run: \"true\", depends: [g] }}\n{finally}"), &["TOL0205 a.yaml:4:37"]);
    check_lines(
        &format!("steps:\n  - {{ id: s, run: \"true\", if: f.status == \"failed\" }}\n{finally}"),
        &["TOL0205 a.yaml:4:31"],
    );
    check_lines(
        &format!("steps:\n  - {{ id: f, run: \"true\" }}\n{finally}"),
        &["TOL0201 a.yaml:6:11", "TOL0303 a.yaml:6:30", "TOL0204 a.yaml:6:55"],
    );
}

#[test]
fn a_broken_step_is_not_called_unknown() {
    check_lines(
        "steps:\n  - { id: a, timeout: 5m }\n  - { id: b, run: \"true\", depends: [a], if: a.status == \"failed\" }\n",
        &["TOL0106 a.yaml:4:7"],
    );
    check_lines(
        "steps:\n  - { id: My-a, run: \"true\" }\n  - { id: b, run: \"true\", depends: [My-a] }\n",
        &["TOL0110 a.yaml:4:11"],
    );
}

#[test]
fn warnings_are_given_where_nothing_is_wrong() {
    check_lines("params: { p: { type: string } }\nsteps:\n  - { id: a, run: \"true\" }\n", &["TOL0616 a.yaml:3:11"]);
    check_lines("steps:\n  - { id: a, transform: { x: \"1\" } }\n", &["TOL0617 a.yaml:4:11"]);
    check_lines(
        "steps:\n  - { id: a, if: false, run: \"true\" }\n  - { id: b, run: \"true\", depends: [a] }\n  - { id: c, run: \"true\", if: a.status == \"skipped\" }\n",
        &["TOL0611 a.yaml:4:18", "TOL0612 a.yaml:5:11"],
    );
    check_lines(
        "timeout: 1m\nsteps:\n  - { id: a, wait: 40s }\n  - { id: b, wait: 40s, depends: [a] }\n",
        &["TOL0613 a.yaml:6:11"],
    );
    check_lines("steps:\n  - { id: a, wait: 40s, timeout: 5s }\n", &["TOL0613 a.yaml:4:34"]);
}

#[test]
fn sub_pipelines_are_checked_once_and_under_their_own_path() {
    let parent = |with: &str| {
        format!(
            "apiVersion: tol/v1\nname: a\nsteps:\n  - id: c\n    pipeline: sub/c.yaml\n    with: {{ {with} }}\n  - {{ id: d, run: [echo, \"{{{{ c.outputs.n }}}}\"] }}\n"
        )
    };
    let child = "apiVersion: tol/v1\nname: c\nparams:\n  n: { type: integer }\nsteps:\n  - { id: s, transform: { n: \"params.n + 1\" } }\noutputs:\n  n: \"{{ s.outputs.n }}\"\n";
    let check = |with: &str, child: &str, expect: &[&str]| {
        let (program, found) = found(&[("a.yaml", &parent(with)), ("sub/c.yaml", child)]);
        assert_eq!(found, expect, "{with}");
        assert_eq!(program.is_some_and(|program| program.pipelines.len() == 2), expect.is_empty(), "{with}");
    };
    check("n: 1", child, &[]);
    check("n: \"{{ run.attempt }}\"", child, &[]);
    check("n: one", child, &["TOL0216 a.yaml:6:16"]);
    check("m: 1", child, &["TOL0214 a.yaml:5:15", "TOL0215 a.yaml:6:13"]);
    check("n: 1", &child.replace("s.outputs.n ", "s.outputs.m "), &["TOL0304 sub/c.yaml:8:20"]);
    check("n: 1", &child.replace("  n: \"{{", "  m: \"{{"), &["TOL0304 a.yaml:7:40"]);
    check(
        "n: 1",
        &format!("{child}include: [../../x.yaml, y.yaml]\n"),
        &["TOL0210 sub/c.yaml:9:11", "TOL0211 sub/c.yaml:9:25"],
    );
}

#[test]
fn a_circle_of_pipelines_is_told_once_at_one_place() {
    let pipeline = |child: &str| format!("apiVersion: tol/v1\nname: x\nsteps:\n  - {{ id: c, pipeline: {child} }}\n");
    let files = [("a.yaml", pipeline("b.yaml")), ("b.yaml", pipeline("c.yaml")), ("c.yaml", pipeline("a.yaml"))];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let memory = sources(&files);
    for start in ["a.yaml", "b.yaml", "c.yaml"] {
        let mut checker = Checker::new(&memory);
        assert!(!checker.check_pipeline(start));
        let (texts, diagnostics) = checker.finish();
        let places: Vec<_> =
            diagnostics.iter().map(|diagnostic| (diagnostic.code, texts.path(diagnostic.span.file))).collect();
        assert_eq!(places, [(codes::RECURSIVE_PIPELINE, "c.yaml")], "{start}");
    }
    let many: Vec<(String, String)> =
        (0..200).map(|n| (format!("p{n}.yaml"), pipeline(&format!("p{}.yaml", n + 1)))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let memory = sources(&many);
    let mut checker = Checker::new(&memory);
    assert!(!checker.check_pipeline("p0.yaml"));
    assert!(checker.finish().1.iter().any(|diagnostic| diagnostic.code == codes::DEEP_PIPELINES));
}

#[test]
fn a_mistake_is_told_once_and_without_what_follows_from_it() {
    let text = "include: [b.yaml]\nparams: { p: { type: string } }\nsteps:\n  - { id: s, run: make }\n";
    let text = format!("apiVersion: tol/v1\nname: a\n{text}");
    let check = |files: &[(&str, &str)], expect: &[&str]| assert_eq!(found(files).1, expect, "{files:?}");
    check(&[("a.yaml", &text), ("b.yaml", "defaults: { retri: {} }\n")], &["TOL0101 b.yaml:1:13"]);
    check(&[("a.yaml", &text), ("b.yaml", &text)], &["TOL0218 a.yaml:3:11"]);
    let shared = "apiVersion: tol/v1\ndefaults: { timeout: 5s }\n";
    check(&[("a.yaml", &text), ("b.yaml", shared)], &["TOL0616 a.yaml:4:11"]);
    let step = |text: &str| format!("steps:\n  - {{ id: s, {text} }}\n");
    check_lines(&step(r#"foreach: { itmes: [1], as: u }, run: [x, "{{ u }}"]"#), &["TOL0101 a.yaml:4:25"]);
    check_lines(&step(r#"foreach: { items: 3, as: u }, run: [x, "{{ u }}"]"#), &["TOL0103 a.yaml:4:32"]);
    check_lines(&step("wait: 5s, cache: { key: k }"), &["TOL0107 a.yaml:4:24"]);
    check_lines(
        "parms: { q: { type: string } }\nsteps:\n  - { id: s, run: [x, \"{{ params.q }}\"] }\n",
        &["TOL0101 a.yaml:3:1"],
    );
    check_lines("params: [q]\nsteps:\n  - { id: s, run: [x, \"{{ params.q }}\"] }\n", &["TOL0103 a.yaml:3:9"]);
    check_lines("stepz: []\noutputs: { o: \"{{ a.outputs }}\" }\n", &["TOL0101 a.yaml:3:1"]);
    check_lines(
        "steps:\n  - { id: My-Step, run: x }\n  - { id: b, run: x, depends: [my_step], if: my_step.exit_code == 1 }\n",
        &["TOL0110 a.yaml:4:11"],
    );
    check_lines(&step(r#"matrix: { os: a }, run: [x, "{{ matrix.os }}"]"#), &["TOL0103 a.yaml:4:28"]);
    check_lines(&step("plan: { blueprint: { steps: [] } }"), &["TOL0105 a.yaml:4:42"]);
    let promise = "{ steps: [{ id: E1, tool: t, input: {}, on_error: default }] }";
    let tool = "tools: { t: { description: D, input_schema: {}, effect: read, run: x } }\n";
    check_lines(&format!("{tool}{}", step(&format!("plan: {{ blueprint: {promise} }}"))), &["TOL0102 a.yaml:5:45"]);
    let many = format!("{}p{}", "{{ params.no }}".repeat(60), "{{ secrets.X }}".repeat(60));
    let (_, found) = found(&[("a.yaml", &format!("apiVersion: tol/v1\n{}", step(&format!("run: [x, '{many}']"))))]);
    assert_eq!(found.len(), 100, "of each kind fifty");
}

#[test]
fn agents_come_from_the_nearest_catalogue() {
    let text = "apiVersion: tol/v1\nname: a\nsteps:\n  - { id: s, agent: wrter, prompt: P }\n";
    let check = |files: &[(&str, &str)], path: &str, expect: &[&str]| {
        let memory = sources(files);
        let mut checker = Checker::new(&memory);
        checker.check_pipeline(path);
        let (_, diagnostics) = checker.finish();
        assert_eq!(diagnostics.iter().map(|diagnostic| diagnostic.code).collect::<Vec<_>>(), expect, "{files:?}");
    };
    check(&[("x/a.yaml", text)], "x/a.yaml", &["TOL0402"]);
    check(&[("x/a.yaml", text), ("agents.yaml", AGENTS)], "x/a.yaml", &["TOL0401"]);
    check(&[("x/a.yaml", &text.replace("wrter", "writer")), ("agents.yaml", AGENTS)], "x/a.yaml", &["TOL0619"]);
    let called = AGENTS.replace("name: W", "name: W, provider: command, command: [w]");
    check(&[("x/a.yaml", &text.replace("wrter", "writer")), ("agents.yaml", &called)], "x/a.yaml", &[]);
    let settings = ("duo-agent.config.yaml", "provider: openai\n");
    let named = text.replace("wrter", "writer");
    check(&[("x/a.yaml", &named), ("agents.yaml", AGENTS), settings], "x/a.yaml", &["TOL0619"]);
    check(&[("x/a.yaml", &text.replace("wrter", "writer")), ("y/agents.yaml", AGENTS)], "x/a.yaml", &["TOL0402"]);
    let twin = format!("{AGENTS}  other: {{ name: W, type: t, system_prompt: S, temperature: 0.1, max_tokens: 10 }}\n");
    check(
        &[("x/a.yaml", &text.replace("wrter", "writer")), ("agents.yaml", &twin)],
        "x/a.yaml",
        &["TOL0619", "TOL0614"],
    );
}

#[test]
fn the_program_holds_all_that_it_was_made_from_and_compiles_again_from_it() {
    let files = [
        ("a.yaml", "apiVersion: tol/v1\nname: a\ninclude: [d.yaml]\nsteps:\n  - { id: s, pipeline: b.yaml }\n"),
        ("b.yaml", "apiVersion: tol/v1\nname: b\nsteps:\n  - { id: s, run: \"true\" }\n"),
        ("d.yaml", "defaults: { retry: { limit: 1 } }\n"),
        ("agents.yaml", AGENTS),
        ("other.yaml", "apiVersion: tol/v1\nname: other\nsteps:\n  - { id: s, run: \"true\" }\n"),
    ];
    let (program, lines) = found(&files);
    let program = program.unwrap_or_else(|| panic!("{lines:?}"));
    let read: Vec<&str> = program.sources.0.keys().map(String::as_str).collect();
    assert_eq!(read, ["a.yaml", "agents.yaml", "b.yaml", "d.yaml"]);
    let again = check("a.yaml", &program.sources, &mut Files::default(), &mut Vec::new(), &CheckOptions::default());
    assert_eq!(again.map(|again| again.hash), Some(program.hash));
}

#[test]
fn profiles_are_laid_over_and_unknown_ones_refused() {
    let text = "apiVersion: tol/v1\nname: a\nparams:\n  p: { type: integer, default: 1 }\nprofiles:\n  dev: { params: { p: 2 }, timeout: 9s }\nsteps:\n  - { id: s, run: [echo, \"{{ params.p }}\"] }\n";
    let memory = sources(&[("a.yaml", text)]);
    let run = |profile: &str| {
        let mut diagnostics = Vec::new();
        let options = CheckOptions { profile: Some(profile.to_owned()) };
        let program = check("a.yaml", &memory, &mut Files::default(), &mut diagnostics, &options);
        (program, diagnostics)
    };
    let (program, _) = run("dev");
    let pipeline = program.expect("a program").root.pipeline.clone();
    assert_eq!(pipeline.params["p"].default.as_ref().map(|default| default.value.clone()), Some(2.into()));
    assert_eq!(pipeline.timeout, Some(std::time::Duration::from_secs(9)));
    let (program, diagnostics) = run("dve");
    assert!(program.is_none());
    assert_eq!(
        diagnostics.iter().map(|found| (found.code, found.severity)).collect::<Vec<_>>(),
        [(codes::UNKNOWN_PROFILE, Severity::Error)]
    );
}

#[test]
fn edges_say_where_they_come_from_and_whether_the_status_is_read() {
    let text = "apiVersion: tol/v1\nname: a\nsteps:\n  - { id: x, run: \"true\" }\n  - { id: y, run: [echo, \"{{ x.outputs.text }}\"] }\n  - { id: z, run: \"true\", depends: [x], if: x.status == \"failed\" }\n";
    let (program, _) = found(&[("a.yaml", text)]);
    let graph = &program.expect("a program").root.graph;
    let edges = |step| {
        graph
            .dependencies(step)
            .map(|(from, edge)| (from, format!("{:?}", edge.source), edge.reads_status))
            .collect::<Vec<_>>()
    };
    assert_eq!(edges(1), [(0, "Referenced".to_owned(), false)]);
    assert_eq!(edges(2), [(0, "Declared".to_owned(), true)]);
}

#[test]
fn a_bound_on_a_queue_that_nothing_goes_to_is_told() {
    let check = |limits: &str, rest: &str, expect: &[&str]| {
        check_lines(&format!("limits: {{ queues: {{ {limits} }} }}\n{rest}"), expect);
    };
    let steps = "steps:\n  - { id: s, run: \"true\", fallback: { run: \"true\", queue: gpu } }\n";
    check("gpu: 1, default: 2", steps, &[]);
    check("gpus: 1", steps, &["TOL0620 a.yaml:3:21"]);
    check("other: 1", steps, &["TOL0620 a.yaml:3:21"]);
    check("default: 1", "defaults: { queue: gpu }\nsteps:\n  - { id: s, run: \"true\" }\n", &["TOL0620 a.yaml:3:21"]);
}

#[test]
fn a_step_s_queue_must_fit_the_action_that_its_template_gives() {
    let check = |template: &str, step: &str, expect: &[&str]| {
        let text = format!("templates: {{ t: {{ {template} }} }}\nsteps:\n  - {{ id: s, template: t, {step} }}\n");
        check_lines(&text, expect);
    };
    check("run: \"true\"", "queue: gpu", &[]);
    check("wait: 1s", "queue: gpu", &["TOL0107 a.yaml:5:27"]);
    check("plan: { file: p.json }", "capabilities: [c]", &["TOL0211 a.yaml:3:33", "TOL0107 a.yaml:5:27"]);
    // What belonged to the template's action goes with it.
    check("run: \"true\", queue: gpu", "wait: 1s", &[]);
}
