//! Outputs that are too large for a message of Kafka, with the real `tol serve --kafka` and `tol worker --kafka`.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::serving::Serving;
use crate::support::Project;
use crate::{kafka, postgres};

/// 12 MiB, above the 10 MiB of a message.
const BYTES: usize = 12 * 1024 * 1024;

fn large() -> String {
    format!(
        "apiVersion: tol/v1
name: large
steps:
  - id: big
    run: head -c {BYTES} /dev/zero | tr '\\0' x
    max_output: 16000000
outputs:
  size: \"{{{{ len big.outputs.text }}}}\"
"
    )
}

/// A project whose `.env` names a broker, with topics of its own, and a database if there is one.
fn project(database: Option<&str>) -> Option<Project> {
    let settings = kafka::settings(kafka::broker()?);
    let project = Project::new(&[("large.yaml", &large())]);
    let mut variables = format!(
        "KAFKA_BROKERS={}\nKAFKA_TOPIC_PREFIX={}\nKAFKA_CLAMP_REPLICATION=true\n",
        settings.brokers, settings.prefix
    );
    if let Some(database) = database {
        variables.push_str(&format!("DATABASE_URL='{database}'\n"));
    }
    project.write(".env", &variables);
    Some(project)
}

/// A worker that ends with this.
struct Worker(Child);

impl Worker {
    fn start(project: &Project, name: &str, flags: &[&str]) -> Self {
        let log = std::fs::File::create(project.path().join("worker.log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
        command.args(["worker", "--kafka", "--name", name]).args(flags).current_dir(project.path());
        command.env_remove("DATABASE_URL").env_remove("TOL_ARTIFACT_DIR").env_remove("KAFKA_BROKERS");
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("tol starts"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the pipeline, and gives its summary and what the worker said.
fn ran(project: Project, serve: &[&str], work: &[&str]) -> (Value, String) {
    let serving = Serving::over(project, &[&["--kafka", "--no-local-worker"], serve].concat());
    // The group of a queue is one for all prefixes, and no two workers of a group have one name.
    let name = serving.address.replace("http://", "w-");
    let _worker = Worker::start(&serving.project, &name, work);
    let mut run = String::new();
    serving.until("it takes the run", || {
        let ran = serving.tol(&["run", "large", "--detach"]);
        run = ran.stdout.trim().to_owned();
        ran.code == Some(0)
    });
    serving.until("the run has ended", || {
        let listed = serving.tol(&["runs", "list", "--format", "json"]).stdout;
        let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
        matches!(listed[0]["status"].as_str(), Some("succeeded" | "failed"))
    });
    // All outputs are more than one message to a caller elsewhere, too: they are read from the journal.
    let shown = serving.project.tol(&["runs", "show", &run, "--format", "json"]);
    let summary = serde_json::from_str(&shown.stdout).unwrap_or_default();
    let said = std::fs::read_to_string(serving.project.path().join("worker.log")).unwrap_or_default();
    (summary, said)
}

#[track_caller]
fn succeeded((summary, said): (Value, String)) {
    assert_eq!((&summary["status"], &summary["outputs"]["size"]), (&"succeeded".into(), &BYTES.into()), "{said}");
    assert!(said.contains("takes tasks from") && !said.contains("no artifact store"), "{said}");
}

#[track_caller]
fn failed((summary, said): (Value, String), words: &[&str]) -> String {
    let why = summary["steps"]["big"]["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(summary["status"] == "failed" && words.iter().all(|word| why.contains(word)), "{why}\n{summary}\n{said}");
    said
}

#[test]
fn a_large_output_goes_by_way_of_a_shared_folder() {
    let Some(project) = project(None) else { return };
    // The one of a scheduler that nobody named one, by its place.
    succeeded(ran(project, &[], &["--artifact-dir", ".tol/artifacts"]));
}

#[test]
fn a_large_output_goes_by_way_of_the_database() {
    let Some(database) = postgres::database() else { return };
    let Some(project) = project(Some(&database.url)) else { return };
    succeeded(ran(project, &[], &[]));
}

#[test]
fn what_is_wrong_with_the_store_is_said() {
    let Some(without) = project(None) else { return };
    let said = failed(ran(without, &[], &[]), &["MESSAGE_TOO_LARGE", "DATABASE_URL or --artifact-dir"]);
    assert!(said.contains("has no artifact store"), "{said}");

    let Some(other) = project(None) else { return };
    std::fs::create_dir(other.path().join("another")).expect("a folder");
    let flags = (&["--artifact-dir", "shared"], &["--artifact-dir", "another"]);
    failed(ran(other, flags.0, flags.1), &["shared", "another store was used to keep it"]);

    let Some(none) = project(None) else { return };
    let refused = none.tol(&["worker", "--kafka", "--artifact-dir", "missing"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("there is no such folder"), "{}", refused.said());
}
