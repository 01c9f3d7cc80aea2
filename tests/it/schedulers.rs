//! Several schedulers over one PostgreSQL, several workers over gRPC, and everything that can happen to them.
//!
//! Each step appends to a witness file when it begins and when it ends. Against that file and the journal the promises
//! are held: I1 every accepted run ends; I2 nothing begins after its success was recorded; I3 one success is recorded
//! for each step; I4 tokens only grow; I5 the journal can be replayed (`tol runs show` does so).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::cluster::{Cluster, Wire};
use crate::postgres;

const CHAOS: &str = "apiVersion: tol/v1
name: chaos
defaults: { env: { W: '{{ run.id }}' } }
steps:
  - { id: first, run: &witness 'echo \"$TOL_RUN_ID $TOL_STEP begin $(date +%s%3N)\" >> witness; sleep 0.4; echo \"$TOL_RUN_ID $TOL_STEP end $(date +%s%3N)\" >> witness' }
  - { id: left, depends: [first], run: *witness }
  - { id: right, depends: [first], run: *witness, retry: { limit: 2 } }
  - { id: many, depends: [left], foreach: [1, 2, 3], run: *witness }
  - { id: last, depends: [right, many], run: *witness }
";

const ONCE: &str = "apiVersion: tol/v1
name: once
steps:
  - { id: pay, retry: never, run: 'echo \"$TOL_RUN_ID $TOL_STEP begin $(date +%s%3N)\" >> witness; sleep 1; echo \"$TOL_RUN_ID $TOL_STEP end $(date +%s%3N)\" >> witness' }
  - { id: tell, depends: [pay], run: 'true' }
";

/// When each step of each run began, in milliseconds since 1970.
fn begun(cluster: &Cluster) -> BTreeMap<(String, String), Vec<u64>> {
    let text = std::fs::read_to_string(cluster.path().join("witness")).unwrap_or_default();
    let mut begun: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let [run, step, "begin", at] = words[..] {
            begun.entry((run.to_owned(), step.to_owned())).or_default().push(at.parse().unwrap_or(0));
        }
    }
    begun
}

/// Holds the promises against the witness file and the journal.
fn check(cluster: &Cluster, runs: &[String]) {
    let begun = begun(cluster);
    for run in runs {
        let mut succeeded: BTreeMap<String, u64> = BTreeMap::new();
        let mut tokens: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let history = cluster.history(run);
        assert!(history.len() > 3, "the history of {run} has {} events", history.len());
        for line in &history {
            let reported = &line["event"]["reported"];
            let Some(unit) = reported["unit"].as_str() else { continue };
            let token = reported["token"].as_u64().unwrap_or(0);
            let last = tokens.entry(unit.to_owned()).or_default();
            assert!(last.last().is_none_or(|last| *last < token), "I4: token {token} of {unit} in {run} is not new");
            last.insert(token);
            if reported["outcome"]["kind"] == "succeeded" {
                let at = line["at"].as_u64().unwrap_or(0);
                assert_eq!(succeeded.insert(unit.to_owned(), at), None, "I3: {unit} of {run} has succeeded twice");
            }
        }
        for (unit, at) in succeeded {
            for began in begun.get(&(run.clone(), unit.clone())).into_iter().flatten() {
                assert!(*began <= at + 50, "I2: {unit} of {run} began at {began}, {} ms after its success", began - at);
            }
        }
    }
}

fn all_succeeded(ended: &[String]) {
    assert!(ended.iter().all(|status| status == "succeeded"), "{ended:?}");
}

#[test]
fn schedulers_and_workers_die_freeze_and_are_cut_off() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url(), &[("chaos.yaml", CHAOS)]);
    // The second scheduler's database is behind a wire that can be cut.
    let (host, rest) = database.url().split_once('@').map(|(user, rest)| (user.to_owned(), rest.to_owned())).unwrap();
    let (at, path) = rest.split_once('/').unwrap();
    let wire = Wire::to(at.to_owned());
    let through = format!("{host}@127.0.0.1:{}/{path}", wire.port);
    cluster.serve("one", None, &[]);
    cluster.serve("two", Some(&through), &[]);
    cluster.serve("three", None, &[]);
    for name in ["w1", "w2", "w3"] {
        cluster.work(name, &[]);
    }
    let mut runs: Vec<String> = (0..12).map(|number| cluster.submit("chaos", number)).collect();
    std::thread::sleep(Duration::from_millis(700));
    // A worker dies, another one freezes.
    cluster.workers[0].signal("KILL");
    cluster.workers[1].signal("STOP");
    // A scheduler is cut off from the database, another one freezes.
    wire.cut();
    cluster.schedulers[2].process.signal("STOP");
    std::thread::sleep(Duration::from_secs(16));
    // The zombies go on, and must write nothing.
    cluster.schedulers[2].process.signal("CONT");
    wire.mend();
    cluster.workers[1].signal("CONT");
    runs.extend((12..18).map(|number| cluster.submit("chaos", number)));
    std::thread::sleep(Duration::from_millis(500));
    cluster.schedulers[0].process.signal("KILL");
    let ended = cluster.wait_for(&runs, Duration::from_secs(120));
    all_succeeded(&ended);
    check(&cluster, &runs);
}

#[test]
fn a_rolling_restart_begins_nothing_anew() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url(), &[("chaos.yaml", CHAOS)]);
    cluster.serve("one", None, &[]);
    cluster.serve("two", None, &[]);
    cluster.work("w1", &[]);
    cluster.work("w2", &[]);
    let mut runs: Vec<String> = (0..8).map(|number| cluster.submit("chaos", number)).collect();
    for (turn, name) in ["one", "two"].iter().enumerate() {
        std::thread::sleep(Duration::from_millis(400));
        cluster.schedulers[turn].process.signal("TERM");
        assert_eq!(cluster.schedulers[turn].process.wait(Duration::from_secs(40)), Some(0));
        let address = cluster.schedulers[turn].address.clone();
        cluster.schedulers[turn] = cluster.start_scheduler(name, &address, None, &[]);
        runs.push(cluster.submit("chaos", turn));
    }
    all_succeeded(&cluster.wait_for(&runs, Duration::from_secs(90)));
    check(&cluster, &runs);
    let again: Vec<_> = begun(&cluster).into_iter().filter(|(_, times)| times.len() > 1).collect();
    // The fan-out's three items share a name in the witness file only by their item, so nothing stands there twice.
    assert!(again.is_empty(), "begun twice although no worker had died: {again:?}");
}

#[test]
fn what_must_not_run_twice_is_unknown_when_its_worker_dies() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url(), &[("once.yaml", ONCE)]);
    cluster.serve("one", None, &[]);
    cluster.work("w1", &[]);
    cluster.work("w2", &[]);
    let runs: Vec<String> = (0..6).map(|number| cluster.submit("once", number)).collect();
    let began = std::time::Instant::now();
    while begun(&cluster).len() < 6 && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.workers[0].signal("KILL");
    let address = cluster.schedulers[0].address.clone();
    let mut settled = BTreeSet::new();
    while settled.len() + cluster.statuses().values().filter(|status| *status == "succeeded").count() < 6 {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}\n{}", cluster.statuses(), cluster.said());
        for run in &runs {
            let shown = cluster.try_tol(&["runs", "show", run, "--server", &address, "--format", "json"]);
            let shown: Value = shown.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            if shown["steps"]["pay"]["status"] == "unknown" && settled.insert(run.clone()) {
                cluster.try_tol(&["approve", run, "pay", "--as", "succeeded", "--server", &address]).unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(!settled.is_empty(), "the dead worker had nothing in work");
    all_succeeded(&cluster.wait_for(&runs, Duration::from_secs(30)));
    for ((run, step), times) in begun(&cluster) {
        assert_eq!(times.len(), 1, "{step} of {run} began {} times", times.len());
    }
}
