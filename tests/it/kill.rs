//! `kill -9` of the real process around every write to its journal, then `tol resume`: what each executed step has
//! written to a witness file must agree with what the run says of itself.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// More commits than any of the pipelines here needs.
const MOST_COMMITS: u32 = 60;

/// A step that leaves a line in the witness file.
const NOTE: &str = r#"run: 'echo "$TOL_STEP" >> "$WITNESS"'"#;

pub struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".git")).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text.replace("NOTE", NOTE)).unwrap();
        }
        Self { folder }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn tol(&self, arguments: &[&str], fault: Option<&str>) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
        command.args(arguments).current_dir(self.path()).env_remove("TOL_FAULT").env_remove("TOL_STATE_DIR");
        command.env("WITNESS", self.path().join("witness"));
        if let Some(fault) = fault {
            command.env("TOL_FAULT", fault);
        }
        command.output().unwrap()
    }

    fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.path().join(".tol"));
        let _ = std::fs::remove_file(self.path().join("witness"));
    }

    /// How often each step has left its line.
    fn witness(&self) -> BTreeMap<String, usize> {
        let text = std::fs::read_to_string(self.path().join("witness")).unwrap_or_default();
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            *counts.entry(line.to_owned()).or_default() += 1;
        }
        counts
    }

    pub fn run_id(&self) -> Option<String> {
        let output = self.tol(&["runs", "list", "--format", "json"], None);
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        list.get(0)?.get("run_id")?.as_str().map(str::to_owned)
    }

    /// Scripts of a killed process may live a moment longer than it; what they still write belongs to before.
    fn wait_for_orphans(&self) {
        let folder = std::fs::canonicalize(self.path()).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let alive = std::fs::read_dir("/proc").is_ok_and(|entries| {
                entries
                    .flatten()
                    .any(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder))
            });
            if !alive {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("a script outlives its process by 10 s");
    }
}

/// The last line of a run's JSON lines.
pub fn summary(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .unwrap_or_else(|_| panic!("no summary: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

pub fn statuses(summary: &Value) -> BTreeMap<String, String> {
    let steps = summary["steps"].as_object().cloned().unwrap_or_default();
    steps.into_iter().map(|(step, entry)| (step, entry["status"].as_str().unwrap_or_default().to_owned())).collect()
}

/// Steps and items that a summary calls succeeded, by the name under which they leave their line.
fn succeeded(summary: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for (step, entry) in summary["steps"].as_object().into_iter().flatten() {
        match entry["items"].as_array() {
            Some(items) => {
                let good = items.iter().enumerate().filter(|(_, item)| item["status"] == "succeeded");
                names.extend(good.map(|(number, _)| format!("{step}[{number}]")));
            }
            None if entry["status"] == "succeeded" => names.push(step.clone()),
            None => {}
        }
    }
    names
}

struct Case {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    /// Steps that never run twice, whatever happens.
    never: &'static [&'static str],
}

/// Kills the run around each of its commits and holds what comes of it against the undisturbed run.
fn check(case: &Case) {
    let project = Project::new(case.files);
    let undisturbed = project.tol(&["run", "main.yaml", "--format", "json"], None);
    let expected = summary(&undisturbed);
    let code = undisturbed.status.code();
    let lines = project.witness();
    let mut kills = 0;
    for point in ["kill-before-commit", "kill-after-commit"] {
        for commit in 1..MOST_COMMITS {
            project.forget();
            let at = format!("{}: {point}:{commit}", case.name);
            let killed = project.tol(&["run", "main.yaml", "--format", "json"], Some(&format!("{point}:{commit}")));
            project.wait_for_orphans();
            if killed.status.signal().is_none() {
                assert_eq!(killed.status.code(), code, "{at}");
                break;
            }
            assert_eq!(killed.status.signal(), Some(9), "{at}");
            kills += 1;
            recover(&project, case, &at, &killed, &expected, &lines, code);
        }
    }
    assert!(kills >= 4, "{}: only {kills} kills", case.name);
}

fn recover(
    project: &Project,
    case: &Case,
    at: &str,
    killed: &Output,
    expected: &Value,
    lines: &BTreeMap<String, usize>,
    code: Option<i32>,
) {
    let Some(run) = project.run_id() else {
        assert_eq!(project.witness(), BTreeMap::new(), "{at}: something ran in a run that was never accepted");
        assert!(killed.stdout.is_empty(), "{at}: the run was told of before it was durable");
        return;
    };
    let shown = summary(&project.tol(&["runs", "show", &run, "--format", "json"], None));
    let acknowledged = succeeded(&shown);
    let before = project.witness();
    let mut resumed = project.tol(&["resume", &run, "--format", "json"], None);
    if resumed.status.code() == Some(5) {
        resumed = settle(project, case, at, &run, &resumed);
    }
    let end = summary(&resumed);
    assert_eq!(resumed.status.code(), code, "{at}: {end}\n{}", String::from_utf8_lossy(&resumed.stderr));
    assert_eq!(end["status"], expected["status"], "{at}: {end}");
    assert_eq!(statuses(&end), statuses(expected), "{at}");
    let after = project.witness();
    for name in acknowledged {
        let (before, after) = (before.get(&name), after.get(&name));
        assert_eq!(before, after, "{at}: I2: `{name}` ran after its success was on record");
    }
    for (name, once) in lines {
        let times = after.get(name).copied().unwrap_or(0);
        let most = if case.never.contains(&name.as_str()) { *once } else { once + 1 };
        assert!((*once..=most).contains(&times), "{at}: `{name}` ran {times} times, {once} undisturbed");
    }
    assert!(after.keys().all(|name| lines.contains_key(name)), "{at}: {after:?}");
    let again = project.tol(&["resume", &run, "--format", "json"], None);
    assert_eq!(summary(&again), end, "{at}: I5: the run reads back otherwise");
    assert_eq!(project.witness(), after, "{at}: resuming a run that has ended runs something");
}

/// An operator looks at the witness file and says what became of each unknown step.
fn settle(project: &Project, case: &Case, at: &str, run: &str, resumed: &Output) -> Output {
    let waiting = summary(resumed);
    let unknown: Vec<String> =
        statuses(&waiting).into_iter().filter(|(_, status)| status == "unknown").map(|(step, _)| step).collect();
    assert!(!unknown.is_empty(), "{at}: {waiting}");
    for step in unknown {
        assert!(case.never.contains(&step.as_str()), "{at}: `{step}` may run twice and is unknown");
        let word = if project.witness().contains_key(&step) { "succeeded" } else { "retry" };
        let answer = project.tol(&["approve", run, &step, "--as", word], None);
        assert!(answer.status.success(), "{at}: {}", String::from_utf8_lossy(&answer.stderr));
    }
    project.tol(&["resume", run, "--format", "json"], None)
}

#[test]
fn a_chain() {
    check(&Case {
        name: "chain",
        files: &[(
            "main.yaml",
            "apiVersion: tol/v1\nname: chain\ninherit_env: [WITNESS]\nsteps:\n  - id: a\n    NOTE\n  - id: b\n    depends: [a]\n    NOTE\n  - id: c\n    depends: [b]\n    NOTE\noutputs: { last: \"{{ c.status }}\" }\n",
        )],
        never: &[],
    });
}

#[test]
fn a_fan_out() {
    check(&Case {
        name: "fan-out",
        files: &[(
            "main.yaml",
            "apiVersion: tol/v1\nname: fan\ninherit_env: [WITNESS]\nlimits: { max_parallel: 2 }\nsteps:\n  - id: each\n    foreach: { items: [x, y, z] }\n    run: 'echo \"each[$ITEM]\" >> \"$WITNESS\"'\n    env: { ITEM: \"{{ item.index }}\" }\n  - id: after\n    depends: [each]\n    NOTE\n",
        )],
        never: &[],
    });
}

#[test]
fn a_sub_pipeline_with_finally_and_hooks() {
    check(&Case {
        name: "child",
        files: &[
            (
                "main.yaml",
                "apiVersion: tol/v1\nname: parent\ninherit_env: [WITNESS]\nsteps:\n  - id: child\n    pipeline: child.yaml\n  - id: bad\n    depends: [child]\n    run: exit 3\nfinally:\n  - id: tidy\n    NOTE\nhooks:\n  success: [{ run: 'echo success >> \"$WITNESS\"' }]\n  failure: [{ run: 'echo failure >> \"$WITNESS\"' }]\n  exit: [{ run: 'echo exit >> \"$WITNESS\"' }]\n",
            ),
            (
                "child.yaml",
                "apiVersion: tol/v1\nname: child\ninherit_env: [WITNESS]\nsteps:\n  - id: one\n    NOTE\n  - id: two\n    depends: [one]\n    NOTE\nfinally:\n  - id: sweep\n    NOTE\n",
            ),
        ],
        never: &[],
    });
}

#[test]
fn a_step_that_must_not_run_twice() {
    check(&Case {
        name: "never",
        files: &[(
            "main.yaml",
            "apiVersion: tol/v1\nname: never\ninherit_env: [WITNESS]\nsteps:\n  - id: a\n    NOTE\n  - id: pay\n    depends: [a]\n    retry: never\n    NOTE\n  - id: ship\n    depends: [pay]\n    NOTE\n",
        )],
        never: &["pay"],
    });
}

#[test]
fn a_retry_and_a_tolerated_failure() {
    check(&Case {
        name: "retry",
        files: &[(
            "main.yaml",
            "apiVersion: tol/v1\nname: retry\ninherit_env: [WITNESS]\nsteps:\n  - id: shaky\n    retry: { limit: 1, backoff: { initial: 10ms }, jitter: none }\n    continue_on_error: true\n    run: |\n      echo shaky >> \"$WITNESS\"\n      exit 3\n  - id: after\n    depends: [shaky]\n    NOTE\n",
        )],
        never: &[],
    });
}

#[test]
fn an_approval_that_was_given_before() {
    let project = Project::new(&[(
        "main.yaml",
        "apiVersion: tol/v1\nname: asks\ninherit_env: [WITNESS]\nsteps:\n  - id: a\n    NOTE\n  - id: ok\n    depends: [a]\n    approve: { message: Go? }\n  - id: ship\n    depends: [ok]\n    NOTE\n",
    )]);
    let mut kills = 0;
    for point in ["kill-before-commit", "kill-after-commit"] {
        for commit in 1..MOST_COMMITS {
            project.forget();
            let at = format!("{point}:{commit}");
            let left = project.tol(&["run", "main.yaml", "--detach-on-wait"], None);
            assert_eq!(left.status.code(), Some(5), "{}", String::from_utf8_lossy(&left.stderr));
            let run = project.run_id().unwrap();
            assert!(project.tol(&["approve", &run, "ok", "--by", "ada"], None).status.success());
            let killed = project.tol(&["resume", &run, "--format", "json"], Some(&format!("{point}:{commit}")));
            project.wait_for_orphans();
            if killed.status.signal().is_none() {
                assert_eq!(killed.status.code(), Some(0), "{at}");
                break;
            }
            kills += 1;
            let end = summary(&project.tol(&["resume", &run, "--format", "json"], None));
            assert_eq!(
                (&end["status"], &end["steps"]["ok"]["outputs"]["by"]),
                (&"succeeded".into(), &"ada".into()),
                "{at}: {end}"
            );
            assert_eq!(project.witness().get("a"), Some(&1), "{at}: it ran after its success was on record");
        }
    }
    assert!(kills >= 2, "only {kills} kills");
}
