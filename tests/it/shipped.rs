//! The pipelines, agents and settings of this repository are valid, and run as the README says, with nothing but a
//! shell, awk and the files of the checkout.

use serde_json::{Value, json};

use crate::support::{Project, root};

/// The files that a run of the shipped pipelines needs, in a folder of their own.
fn checkout() -> Project {
    let project = Project::new(&[]);
    for path in ["README.md", "agents.yaml", "duo-agent.config.yaml", "pipelines", "schemas"] {
        project.copy(path);
    }
    project
}

/// Runs a shipped pipeline and gives its summary.
fn run(project: &Project, arguments: &[&str]) -> Value {
    let ran = project.tol(&[&["run"], arguments, &["--format", "json"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.said());
    ran.summary()
}

#[test]
fn they_are_valid() {
    let project = checkout();
    let ran = project.tol(&["validate", "--strict", "pipelines", "agents.yaml", "duo-agent.config.yaml"]);
    assert_eq!(ran.code, Some(0), "{}", ran.said());
}

#[test]
fn their_tests_pass() {
    let project = checkout();
    let ran = project.tol(&["test", "pipelines"]);
    assert_eq!(ran.code, Some(0), "{}", ran.said());
}

#[test]
fn inspect_writes_a_report() {
    let project = checkout();
    let summary = run(&project, &["pipelines/inspect.yaml", "--param", "pace=0"]);
    assert_eq!(summary["status"], "succeeded", "{summary}");
    assert_eq!(summary["outputs"]["cycles"], 2, "the first draft leaves out the sources, and the critic says so");
    let report = std::fs::read_to_string(summary["outputs"]["report"].as_str().expect("a path")).expect("a report");
    for words in ["# Report", "## kinds", "| yaml |", "## evidence", "## Sources", "- checked: succeeded"] {
        assert!(report.contains(words), "no {words} in\n{report}");
    }
}

#[test]
fn release_publishes_three_archives() {
    let project = checkout();
    let plain = run(&project, &["pipelines/release.yaml", "--param", "version=1.2.3", "--param", "ask=false"]);
    assert_eq!(plain["status"], "succeeded", "{plain}");
    assert_eq!(plain["outputs"]["published"].as_array().map(Vec::len), Some(3), "{plain}");
    let down = run(
        &project,
        &["pipelines/release.yaml", "--param", "version=1.2.3", "--param", "ask=false", "--param", "mirror=down"],
    );
    assert_eq!(down["status"], "degraded", "{down}");
    assert_eq!(down["outputs"]["mirror"], "left for the nightly copy");
}

#[test]
fn release_waits_for_a_person() {
    let project = checkout();
    let waiting = project.tol(&[
        "run",
        "pipelines/release.yaml",
        "--param",
        "version=1.2.3",
        "--detach-on-wait",
        "--format",
        "json",
    ]);
    assert_eq!(waiting.code, Some(5), "{}", waiting.said());
    let run = waiting.summary()["run_id"].as_str().expect("an id").to_owned();
    let approved = project.tol(&["approve", &run, "ok"]);
    assert_eq!(approved.code, Some(0), "{}", approved.said());
    let resumed = project.tol(&["resume", &run, "--format", "json"]);
    assert_eq!(resumed.code, Some(0), "{}", resumed.said());
    assert_eq!(resumed.summary()["status"], "succeeded", "{}", resumed.said());
}

#[test]
fn brief_answers_from_the_pages() {
    let project = checkout();
    let summary = run(&project, &["pipelines/brief.yaml", "--param", "question=What is a durable pipeline?"]);
    assert_eq!(summary["status"], "succeeded", "{summary}");
    assert_eq!(summary["steps"]["blueprint"]["status"], "succeeded");
    let brief = summary["outputs"]["brief"].as_str().unwrap_or_default();
    assert!(brief.contains("README.md:"), "{brief}");
}

#[test]
fn brief_does_not_answer_from_nothing() {
    let project = checkout();
    let ran =
        project.tol(&["run", "pipelines/brief.yaml", "--param", "question=xylophone zeppelin", "--format", "json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.said());
    let summary = ran.summary();
    assert_eq!(
        json!([summary["steps"]["found"]["status"], summary["steps"]["answer"]["status"]]),
        json!(["failed", "skipped"])
    );
}

#[test]
fn nothing_of_a_run_is_kept_in_git() {
    let ignored = std::fs::read_to_string(root().join(".gitignore")).expect("a .gitignore");
    assert!(ignored.lines().any(|line| line == ".tol/"));
}
