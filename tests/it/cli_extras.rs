//! The commands around a run: graph, diff, test, init, agents, doctor, schema, completions, man.

use serde_json::Value;

use crate::support::{Project, Ran};

const PIPELINE: &str = "apiVersion: tol/v1
name: p
params: { who: { type: string, default: you } }
steps:
  - { id: a, run: echo a }
  - id: b
    run: [echo, '{{ a.outputs.text }} {{ params.who }}']
  - { id: c, depends: [b], run: exit 3 }
";

const TEST: &str = "apiVersion: tol/v1
pipeline: p.yaml
cases:
  - name: it goes <well>
    mocks:
      a: { outputs: { text: A } }
      b: { outputs: {} }
      c: { outputs: {} }
    expect:
      status: succeeded
      steps: { b: { input: { argv: [echo, A you] } } }
";

/// Holds a command against its exit code and words that it must say, on either stream.
fn check(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}", ran.said());
    for word in words {
        assert!(ran.stdout.contains(word) || ran.stderr.contains(word), "`{word}` is not said\n{}", ran.said());
    }
}

fn object(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}\n{}", ran.said()))
}

#[test]
fn what_init_writes_is_valid_tested_and_runs() {
    let project = Project::new(&[]);
    std::fs::remove_file(project.path().join("duo-agent.config.yaml")).expect("it was there");
    check(&project.tol(&["init", "new"]), 0, &["wrote new/hello.yaml", "cd new", "tol test"]);
    let inside = |line: &str| project.sh(&format!("cd new && {line}"));
    check(&inside("tol validate --strict"), 0, &["nothing wrong"]);
    check(&inside("tol test"), 0, &["3 passed, 0 failed"]);
    check(&inside("tol run hello.yaml -p who=Ada --format plain"), 0, &["Hello, Ada!"]);
    check(&inside("tol agents"), 0, &["greeter", "agents.yaml:5"]);
    check(&inside("cat .gitignore"), 0, &[".tol/"]);
    check(&inside("echo mine > hello.yaml; tol init"), 1, &["hello.yaml", "nothing was written", "--force"]);
    check(&inside("cat hello.yaml"), 0, &["mine"]);
    check(&inside("tol init --force && tol validate && cat .gitignore"), 0, &["nothing wrong"]);
    assert_eq!(inside("cat .gitignore").stdout, ".tol/\n");
    check(&project.sh("touch file; tol init file"), 2, &["is a file"]);
}

#[test]
fn graphs_are_drawn_of_files_and_runs() {
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    check(&project.tol(&["graph", "p.yaml"]), 0, &["a (run) *", "after a (reference)", "after b (depends)"]);
    check(&project.tol(&["graph", "p.yaml", "--format", "mermaid"]), 0, &["flowchart TD"]);
    check(&project.tol(&["graph", "p.yaml", "--format", "dot"]), 0, &["digraph"]);
    check(&project.tol(&["graph", "p.yaml", "--format", "svg", "--output", "out/p.svg"]), 0, &[]);
    check(&project.sh("head -c 4 out/p.svg"), 0, &["<svg"]);
    check(&project.tol(&["run", "p.yaml"]), 1, &[]);
    check(
        &project.sh(r#"tol graph "$(tol runs list | tail -1 | cut -d' ' -f1)""#),
        0,
        &["(failed)", "c (run, failed)"],
    );
    for (what, words) in [("q.yaml", "no such file"), ("nothing", "neither a file nor a run"), (".", "is a folder")] {
        check(&project.tol(&["graph", what]), 2, &[words]);
    }
    project.write("bad.yaml", "apiVersion: tol/v1\nname: x\nsteps: [{ id: a, run: x, depends: [b] }]\n");
    check(&project.tol(&["graph", "bad.yaml"]), 2, &["bad.yaml:3:"]);
}

#[test]
fn versions_are_compared_step_by_step() {
    let changed = PIPELINE.replace("exit 3", "exit 4").replace("id: a, run", "id: a, timeout: 5m, run");
    let formed = format!(
        "# a comment\n{}",
        PIPELINE.replace("{ id: c, depends: [b], run: exit 3 }", "{ run: 'exit 3', needs: [b], id: c }")
    );
    let project = Project::new(&[("p.yaml", PIPELINE), ("changed.yaml", &changed), ("formed.yaml", &formed)]);
    check(&project.tol(&["diff", "p.yaml", "formed.yaml"]), 0, &["no step, parameter or output differs"]);
    let ran = project.tol(&["diff", "p.yaml", "changed.yaml"]);
    check(&ran, 1, &["~ step `a`", "timeout: (none) -> 5m", "~ step `c`", "run: exit 3 -> exit 4"]);
    let json = object(&project.tol(&["diff", "p.yaml", "changed.yaml", "--format", "json"]));
    assert_eq!(json.pointer("/changes/0/keys/0/key"), Some(&Value::from("timeout")), "{json}");
    check(&project.tol(&["diff", "p.yaml", "none.yaml"]), 2, &["no such file"]);
    check(&project.tol(&["diff", "p.yaml"]), 2, &[]);
    check(&project.tol(&["diff", "p.yaml", "duo-agent.config.yaml"]), 2, &["no `steps`"]);
    let git = "git init -q . && git add -A && git -c user.name=x -c user.email=x@example.com commit -qm one && cp changed.yaml p.yaml";
    check(&project.sh(git), 0, &[]);
    check(&project.tol(&["diff", "HEAD:p.yaml", "p.yaml"]), 1, &["HEAD:p.yaml -> p.yaml", "~ step `c`"]);
    check(&project.tol(&["diff", "--git", "HEAD", "HEAD", "p.yaml"]), 0, &[]);
    check(&project.tol(&["diff", "--git", "nowhere", "HEAD", "p.yaml"]), 2, &["nowhere:p.yaml"]);
    check(&project.tol(&["diff", "--git", "HEAD", "p.yaml"]), 2, &["two revisions and a file"]);
}

#[test]
fn runs_in_flight_are_named_with_their_definition() {
    let waits = "apiVersion: tol/v1\nname: w\nsteps: [{ id: gate, approve: { message: go? } }]\n";
    let project = Project::new(&[("w.yaml", waits), ("old.yaml", waits)]);
    check(&project.tol(&["run", "w.yaml", "--detach-on-wait"]), 5, &[]);
    project.write("w.yaml", &waits.replace("go?", "sure?"));
    let ran = project.tol(&["diff", "old.yaml", "w.yaml"]);
    check(&ran, 1, &["that have not ended: 1", "waiting", "keeps the definition"]);
    project.write("w.yaml", waits);
    check(&project.tol(&["diff", "old.yaml", "w.yaml"]), 0, &["on the new definition"]);
}

#[test]
fn tests_pass_fail_and_are_reported() {
    let wrong = TEST.replace("A you", "B you");
    let project = Project::new(&[("p.yaml", PIPELINE), ("p.test.yaml", TEST)]);
    check(&project.tol(&["test"]), 0, &["ok   it goes <well>", "1 passed, 0 failed"]);
    assert!(!project.path().join(".tol").exists(), "a test leaves no journal");
    project.write("p.test.yaml", &wrong);
    check(&project.tol(&["test", "p.test.yaml"]), 1, &["p.test.yaml:11:", "expected \"B you\", got \"A you\""]);
    let json = object(&project.tol(&["test", "--format", "json"]));
    assert_eq!(json.pointer("/files/0/cases/0/findings/0/line"), Some(&Value::from(11)), "{json}");
    let ran = project.tol(&["test", "--format", "junit", "--output", "out.xml"]);
    check(&ran, 1, &["FAIL it goes <well>"]);
    check(&project.sh("cat out.xml"), 0, &["name=\"it goes &lt;well&gt;\"", "failures=\"1\"", "</testsuites>"]);
    project.write("p.test.yaml", &TEST.replace("p.yaml", "q.yaml"));
    check(&project.tol(&["test"]), 1, &["p.test.yaml:2:11", "there is no pipeline `q.yaml`"]);
    project.write("p.test.yaml", &TEST.replace("mocks:", "mock:"));
    check(&project.tol(&["test"]), 1, &["TOL0101", "did you mean `mocks`?"]);
    project.write("p.test.yaml", TEST);
    project.write("p.yaml", &PIPELINE.replace("a.outputs", "aa.outputs"));
    check(&project.tol(&["test"]), 1, &["p.yaml:7:", "`aa` is not"]);
    std::fs::remove_file(project.path().join("p.test.yaml")).expect("it was there");
    check(&project.tol(&["test"]), 2, &["nothing to test"]);
    check(&project.tol(&["test", "nowhere"]), 2, &["no such file"]);
}

#[test]
fn agents_are_listed_and_shown() {
    let catalogue = "apiVersion: tol/v1\nagents:\n  critic:\n    name: Critic\n    provider: command\n    command: [cat]\n    max_tokens: 77\n";
    let project = Project::new(&[("agents.yaml", catalogue), ("sub/x.txt", "")]);
    check(&project.sh("cd sub && tol agents list"), 0, &["critic", "command", "agents.yaml:3"]);
    check(&project.tol(&["agents", "show", "critic"]), 0, &["max_tokens", "77"]);
    let json = object(&project.tol(&["agents", "--format", "json"]));
    assert_eq!(json.pointer("/0/max_tokens"), Some(&Value::from(77)), "{json}");
    check(&project.tol(&["agents", "show", "critc"]), 1, &["did you mean `critic`?"]);
    project.write("agents.yaml", &catalogue.replace("max_tokens", "max_token"));
    check(&project.tol(&["agents"]), 2, &["agents.yaml:7:", "max_tokens"]);
    std::fs::remove_file(project.path().join("agents.yaml")).expect("it was there");
    check(&project.tol(&["agents"]), 2, &["there is no agents.yaml"]);
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    let ok = project.sh("LC_ALL=C.UTF-8 tol doctor --format json");
    check(&ok, 0, &[]);
    assert_eq!(object(&ok).get("failures"), Some(&Value::from(0)), "{}", ok.said());
    check(&project.sh("ls -A"), 0, &["p.yaml"]);
    assert!(!project.path().join(".tol").exists(), "looking makes no journal");
    let ran = project.sh("TOL_STAT_DIR=x LC_ALL=C tol doctor");
    check(&ran, 0, &["warn  locale", "did you mean TOL_STATE_DIR?"]);
    check(&project.sh("TOL_SECRETS_DIR=/nowhere/at/all tol doctor"), 1, &["fail  secrets", "cannot be listed"]);
    project.write(".env", "no assignment\n");
    check(&project.tol(&["doctor"]), 1, &["fail  .env", ".env:1"]);
    std::fs::remove_file(project.path().join(".env")).expect("it was there");
    project.write("state", "");
    check(&project.tol(&["doctor", "--state-dir", "state"]), 1, &["is no folder"]);
}

#[test]
fn a_loss_is_told_and_can_be_accepted() {
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    check(&project.tol(&["doctor", "--accept-loss"]), 1, &["there is no journal"]);
    check(&project.tol(&["run", "p.yaml"]), 1, &[]);
    check(&project.tol(&["doctor"]), 0, &["ok    journal", "1 failed"]);
    check(&project.tol(&["doctor", "--accept-loss"]), 0, &["nothing is lost"]);
    // An older copy of the database, as a careless restore leaves it.
    check(&project.sh("mkdir old && cp .tol/journal.db* old/ && tol run p.yaml || true"), 0, &[]);
    check(&project.sh("rm .tol/journal.db* && cp old/journal.db* .tol/"), 0, &[]);
    check(&project.tol(&["doctor"]), 1, &["fail  journal", "recorded events are lost"]);
    check(
        &project.tol(&["doctor", "--accept-loss"]),
        0,
        &["recorded events are lost", "accepting the loss", "ok    journal"],
    );
    check(&project.tol(&["run", "p.yaml"]), 1, &["p: failed"]);
}

#[test]
fn schemas_completions_and_manuals_are_printed() {
    let project = Project::new(&[]);
    for kind in ["pipeline", "agents", "settings", "blueprint", "test", "include"] {
        let schema = object(&project.tol(&["schema", kind]));
        assert!(
            schema.get("$id").and_then(Value::as_str).is_some_and(|id| id.ends_with(&format!("{kind}.schema.json"))),
            "{kind}"
        );
    }
    check(&project.tol(&["schema", "--output", "s"]), 0, &["s/include.schema.json"]);
    check(&project.tol(&["schema", "nothing"]), 2, &["pipeline"]);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        check(&project.tol(&["completions", shell]), 0, &["doctor"]);
    }
    check(&project.sh("tol completions bash | bash -n"), 0, &[]);
    check(&project.tol(&["completions"]), 2, &["SHELL"]);
    check(&project.tol(&["man"]), 0, &[".TH tol 1"]);
    check(&project.sh("tol man --output m && ls m"), 0, &["tol-runs-rerun.1", "tol.1"]);
    // A reader that leaves early is no reason to complain.
    assert_eq!(project.sh("tol completions zsh | head -1; tol schema | head -1").stderr, "");
}
