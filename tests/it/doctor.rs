//! `tol doctor` on what lies elsewhere: the database, Kafka, a server; and on the variables that are set.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::postgres;
use crate::source::sources;
use crate::support::{Project, Ran, read};

const PIPELINE: &str = "apiVersion: tol/v1\nname: one\nsteps:\n  - id: a\n    run: echo a\n";

#[track_caller]
fn check(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}", ran.said());
    for words in words {
        assert!(ran.stdout.contains(words), "`{words}` is missing in {}", ran.said());
    }
}

#[test]
fn what_is_away_or_misspelt_is_told() {
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    let begun = Instant::now();
    let ran = project.sh(
        "DATABASE_URL=postgres://u:hush@127.0.0.1:1/tol KAFKA_BROKERS=127.0.0.1:1 TOL_SERVER=127.0.0.1:1 tol doctor",
    );
    check(
        &ran,
        1,
        &[
            "fail  database   postgres://u@127.0.0.1:1/tol: the database cannot be reached: ",
            "see that it runs and that the way to it is open",
            "fail  kafka      no Kafka broker answers at 127.0.0.1:1",
            "check KAFKA_BROKERS",
            "fail  server     127.0.0.1:1 cannot be reached",
            "is `tol serve` running there",
        ],
    );
    assert!(!ran.said().contains("hush"), "no password is shown: {}", ran.said());
    assert!(begun.elapsed() < Duration::from_secs(30), "it took {:?}", begun.elapsed());
    assert!(!project.path().join(".tol").exists(), "looking makes nothing");

    let ran = project.sh(
        "DATABASE_URL=mysql://u:hush@h/tol KAFKA_BROKERS=here TOL_SERVER=192.0.2.1:1 GRPC_PROT=1 KAFKA_HEAP_OPTS=x tol doctor",
    );
    check(
        &ran,
        1,
        &[
            "fail  database   DATABASE_URL cannot be used: it does not begin with postgres://",
            "fail  kafka      KAFKA_BROKERS: `here` is not of the form HOST:PORT",
            "the token would go to 192.0.2.1 in the clear",
            "GRPC_PROT is set, and nothing reads it",
            "did you mean GRPC_PORT?",
        ],
    );
    assert!(!ran.said().contains("hush") && !ran.stdout.contains("KAFKA_HEAP_OPTS"), "{}", ran.said());
}

#[test]
fn a_database_is_looked_at() {
    let Some(database) = postgres::database() else { return };
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    let tol = |command: &str| project.sh(&format!("DATABASE_URL='{}' tol {command}", database.url));
    check(&tol("doctor"), 0, &["ok    database", "answers: PostgreSQL ", "ok    tables     there are none yet"]);
    check(&tol("doctor"), 0, &["there are none yet"]);
    check(&tol("run p.yaml"), 0, &[]);
    check(
        &tol("doctor"),
        0,
        &["ok    tables     format 1, 16 partitions, 0 `tol serve`", "ok    runs       1 succeeded"],
    );

    let read_only = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', \
                     current_database()); END $$";
    database.run(read_only);
    check(&tol("doctor"), 1, &["fail  tables     nothing can be written: ", "read-only", "primary server"]);
    database.run(&format!("BEGIN READ WRITE; {}; COMMIT", read_only.replace("= on", "= off")));
    check(&tol("doctor"), 0, &["format 1"]);
    database.run("UPDATE tol.meta SET format = 99");
    check(&tol("doctor"), 1, &["fail  database", "newer tol (format 99"]);
}

#[test]
fn the_certificate_of_a_database_is_looked_at() {
    let Some(mut server) = postgres::own_server() else { return };
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    let database = server.database();
    let doctor = |options: &str| project.sh(&format!("DATABASE_URL='{}?{options}' tol doctor", database.url));
    let verified = format!("sslmode=verify-full&sslrootcert={}", server.authority().display());
    check(&doctor(&verified), 0, &["ok    database", ", TLSv1.3"]);
    check(&doctor("sslmode=disable"), 0, &["ok    database", ", on this machine"]);
    project.write("other.pem", &rcgen::generate_simple_self_signed(vec!["other".to_owned()]).expect("one").cert.pem());
    check(
        &doctor("sslmode=verify-full&sslrootcert=other.pem"),
        1,
        &["fail  database", "is not trusted: invalid peer certificate"],
    );
    check(&doctor("sslmode=verify-full&sslrootcert=none.pem"), 1, &["fail  database", "name a PEM file"]);
    check(&doctor("sslmode=verify-full"), 1, &["fail  database", "needs sslrootcert=FILE"]);
    server.crash();
    check(&doctor(&verified), 1, &["fail  database", "the database cannot be reached"]);
    server.restart();
    check(&doctor(&verified), 0, &["ok    database"]);
}

/// A server that ends with this.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(project: &Project) -> (Serving, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tol"))
        .args(["serve", ".", "--listen", "127.0.0.1:0"])
        .current_dir(project.path())
        .env_remove("DATABASE_URL")
        .env_remove("TOL_TOKEN")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tol starts");
    let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let serving = Serving(child);
    let line = lines.find(|line| line.contains("listening on ")).expect("it listens");
    let url = line.split_whitespace().find(|word| word.contains("://")).expect("an address");
    let address = url.trim_end_matches(';').to_owned();
    // What it says later must not stop it.
    std::thread::spawn(move || lines.for_each(drop));
    (serving, address)
}

#[test]
fn a_server_is_asked() {
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    let (_serving, address) = serve(&project);
    let until = |command: &str, words: &[&str]| {
        let begun = Instant::now();
        loop {
            let ran = project.sh(command);
            if words.iter().all(|words| ran.stdout.contains(words)) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "waited for {words:?}: {}", ran.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let doctor = format!("tol doctor --server {address}");
    until(&doctor, &["ok    server", "is ready, without TLS, on this machine", "the token is accepted; pipelines: 1"]);
    check(
        &project.sh(&format!("TOL_TOKEN=0123456789abcdef0123456789abcdef {doctor}")),
        1,
        &["ok    server", "fail  served"],
    );
    check(
        &project.sh(&format!("{doctor} --state-dir elsewhere")),
        1,
        &["fail  served", "wants a token: set TOL_TOKEN"],
    );
    project.write("p.yaml", &PIPELINE.replace("steps", "stepz"));
    until(&doctor, &["warn  served", "pipelines: 1, as they were before the last change", "stepz"]);
}

/// The variables that the page says `tol` reads.
fn documented() -> BTreeSet<String> {
    let page = read("docs/environment.md");
    let (read, _) = page.split_once("\n## Given to scripts").expect("the page has this section");
    let cells = read.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    names.collect()
}

#[test]
fn every_variable_that_is_read_is_documented() {
    let page = read("docs/environment.md");
    let mut missing = BTreeSet::new();
    for source in sources() {
        for (_, line) in source.code() {
            for name in line.split('"').skip(1).step_by(2) {
                let is_ours = ["TOL_", "GRPC_", "KAFKA_", "DATABASE_"].iter().any(|prefix| name.starts_with(prefix))
                    && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
                    && !name.ends_with('_');
                let is_of_tests = name.contains("_TEST_") || name.starts_with("TOL_SECRET_");
                if is_ours && !is_of_tests && !page.contains(&format!("`{name}`")) {
                    missing.insert(name.to_owned());
                }
            }
        }
    }
    assert!(missing.is_empty(), "docs/environment.md says nothing of {missing:?}");
}

#[test]
fn the_doctor_knows_every_documented_variable() {
    let variables = documented();
    assert!(variables.len() > 40, "the tables of the page are found: {variables:?}");
    let project = Project::new(&[("p.yaml", PIPELINE)]);
    let mut script = String::new();
    for name in variables.iter().filter(|name| name.contains('_') && *name != "TOL_FAULT") {
        let value = if name.starts_with("TOL_TLS") || name == "TOL_STATE_DIR" { "x" } else { "" };
        script.push_str(&format!("{name}={value} "));
    }
    let ran = project.sh(&format!("{script} tol doctor"));
    check(&ran, 0, &["set and read:", "TOL_TOKEN", "TOL_WORKER_TOKEN", "GRPC_PORT", "KAFKA_BROKERS"]);
    assert!(!ran.stdout.contains("nothing reads it"), "{}", ran.said());
}
