//! Several schedulers over one PostgreSQL, several workers over gRPC, and everything that can happen to them.
//!
//! Each step appends to a witness file when it begins and when it ends. Against that file and the journal the promises
//! are held: I1 every accepted run ends; I2 nothing begins after its success was recorded; I3 one success is recorded
//! for each step; I4 tokens only grow; I5 the journal can be replayed (`tol runs show` does so).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::cluster::{Cluster, Wire, free_port};
use crate::postgres;

const CHAOS: &str = "apiVersion: tol/v1
name: chaos
steps:
  - id: first
    run: &witness |
      who=\"$TOL_RUN_ID $TOL_STEP${TOL_ITEM:+[$TOL_ITEM]}\"
      echo \"$who begin $(date +%s%3N)\" >> witness
      sleep 0.4
      echo \"$who end $(date +%s%3N)\" >> witness
  - { id: left, depends: [first], run: *witness }
  - { id: right, depends: [first], run: *witness, retry: { limit: 2 } }
  - { id: many, depends: [left], foreach: { items: [1, 2, 3] }, run: *witness }
  - { id: last, depends: [right, many], run: *witness }
";

/// A step that must not run twice.
const ONCE: &str = "apiVersion: tol/v1
name: once
steps:
  - id: pay
    retry: never
    run: |
      echo \"$TOL_RUN_ID $TOL_STEP begin $(date +%s%3N)\" >> witness
      sleep 2
      echo \"$TOL_RUN_ID $TOL_STEP end $(date +%s%3N)\" >> witness
  - { id: tell, depends: [pay], run: 'true' }
";

const LONG: &str = "apiVersion: tol/v1
name: long
steps:
  - id: work
    run: |
      echo \"$TOL_RUN_ID $TOL_STEP begin $(date +%s%3N)\" >> witness
      sleep 6
      echo \"$TOL_RUN_ID $TOL_STEP end $(date +%s%3N)\" >> witness
  - { id: tell, depends: [work], run: 'true' }
";

/// Its first attempt fails, and the second one comes when a timer is due.
const AGAIN: &str = "apiVersion: tol/v1
name: again
steps:
  - id: work
    retry: { limit: 3, backoff: { initial: 4s }, jitter: none }
    run: |
      echo \"$TOL_RUN_ID $TOL_STEP begin $(date +%s%3N)\" >> witness
      test \"$TOL_ATTEMPT\" -gt 1
  - { id: tell, depends: [work], run: 'true' }
";

/// The lease of a scheduler, and of work; and what may be added to it.
const SCHEDULER_LEASE: u64 = 10_000;
const WORK_LEASE: u64 = 15_000;
const GRACE: u64 = 5_000;
/// A program that was started before its time was up may come to write it down so much later on a loaded machine.
const SLACK: u64 = 500;

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a time")
}

/// When an event was recorded, in milliseconds since 1970.
fn at(line: &Value) -> u64 {
    let time = line["time"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
    u64::try_from(time.as_millisecond()).expect("a time after 1970")
}

fn count(history: &[Value], is: impl Fn(&Value) -> bool) -> usize {
    history.iter().filter(|line| is(&line["event"])).count()
}

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
        assert!(history.len() >= 3, "the history of {run} has {} events", history.len());
        for line in &history {
            let reported = &line["event"]["reported"];
            let Some(unit) = reported["unit"].as_str() else { continue };
            let token = reported["token"].as_u64().unwrap_or(0);
            let last = tokens.entry(unit.to_owned()).or_default();
            assert!(last.last().is_none_or(|last| *last < token), "I4: token {token} of {unit} in {run} is not new");
            last.insert(token);
            if reported["outcome"]["kind"] == "succeeded" {
                assert_eq!(
                    succeeded.insert(unit.to_owned(), at(line)),
                    None,
                    "I3: {unit} of {run} has succeeded twice"
                );
            }
        }
        for (unit, at) in succeeded {
            for began in begun.get(&(run.clone(), unit.clone())).into_iter().flatten() {
                assert!(
                    *began <= at + SLACK,
                    "I2: {unit} of {run} began at {began}, {} ms after its success",
                    began - at
                );
            }
        }
    }
}

fn all_succeeded(ended: &[String]) {
    assert!(ended.iter().all(|status| status == "succeeded"), "{ended:?}");
}

/// A wire to the server of a database, and the database's address through it.
fn through_a_wire(url: &str) -> (Wire, String) {
    let (user, rest) = url.rsplit_once('@').expect("a user");
    let (server, path) = rest.split_once('/').expect("a database");
    let wire = Wire::to(server.to_owned());
    let through = format!("{user}@127.0.0.1:{}/{path}", wire.port);
    (wire, through)
}

/// Waits until so many steps have begun.
fn until_begun(cluster: &Cluster, steps: usize) {
    let began = Instant::now();
    while begun(cluster).len() < steps {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?} have begun\n{}", begun(cluster), cluster.said());
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn until_said(cluster: &Cluster, scheduler: usize, words: &str) {
    let began = Instant::now();
    while !cluster.schedulers[scheduler].process.said().contains(words) {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not say `{words}`: {}", cluster.said());
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn schedulers_and_workers_die_freeze_and_are_cut_off() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url, &[("chaos.yaml", CHAOS)]);
    // The second scheduler's database is behind a wire that can be cut.
    let (wire, through) = through_a_wire(&database.url);
    cluster.serve("one", None, &[]);
    cluster.serve("two", Some(&through), &[]);
    cluster.serve("three", None, &[]);
    for name in ["w1", "w2", "w3"] {
        cluster.work(name, &[]);
    }
    let mut runs: Vec<String> = (0..12).map(|number| cluster.submit("chaos", number)).collect();
    until_begun(&cluster, 6);
    // A worker dies, another one freezes.
    cluster.workers[0].kill();
    cluster.workers[1].signal("STOP");
    // A scheduler is cut off from the database, another one freezes.
    wire.cut();
    cluster.schedulers[2].process.signal("STOP");
    cluster.schedulers[1].away = true;
    cluster.schedulers[2].away = true;
    std::thread::sleep(Duration::from_secs(16));
    // The zombies go on, and must write nothing.
    cluster.schedulers[2].process.signal("CONT");
    wire.mend();
    cluster.workers[1].signal("CONT");
    cluster.schedulers[1].away = false;
    cluster.schedulers[2].away = false;
    runs.extend((12..18).map(|number| cluster.submit("chaos", number)));
    std::thread::sleep(Duration::from_millis(500));
    cluster.schedulers[0].process.kill();
    cluster.schedulers[0].away = true;
    all_succeeded(&cluster.wait_for(&runs, Duration::from_secs(90)));
    check(&cluster, &runs);
}

#[test]
fn a_frozen_scheduler_that_goes_on_writes_nothing() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url, &[("long.yaml", LONG), ("again.yaml", AGAIN)]);
    cluster.serve("zombie", None, &[]);
    cluster.work("w", &["--concurrency", "8"]);
    let mut runs: Vec<String> = (0..3).map(|_| cluster.submit("long", 0)).collect();
    runs.extend((0..3).map(|_| cluster.submit("again", 0)));
    until_begun(&cluster, 6);
    std::thread::sleep(Duration::from_millis(500));
    cluster.schedulers[0].process.signal("STOP");
    cluster.schedulers[0].away = true;
    let frozen = now();
    cluster.serve("heir", None, &[]);
    let gateway = cluster.schedulers[1].address.clone();
    cluster.work_at("w2", &gateway, &[]);
    // Its worker does not know the heir: what the zombie handed out is lost to it, and done anew.
    all_succeeded(&cluster.wait_for(&runs, Duration::from_secs(60)));
    let before: Vec<Vec<Value>> = runs.iter().map(|run| cluster.history(run)).collect();
    for history in &before {
        let taken = history.iter().find(|line| line["event"] == "reclaimed").map(at).expect("it was taken over");
        let after = taken.saturating_sub(frozen);
        assert!(after <= SCHEDULER_LEASE + GRACE, "taken over after {after} ms");
    }
    cluster.schedulers[0].process.signal("CONT");
    // Its timers are due, and the worker's reports lie in its socket.
    until_said(&cluster, 0, "refused: another server has");
    let after: Vec<Vec<Value>> = runs.iter().map(|run| cluster.history(run)).collect();
    assert_eq!(before, after, "the zombie wrote");
    check(&cluster, &runs);
}

#[test]
fn a_dead_scheduler_is_replaced_within_its_lease_and_its_work_goes_on() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url, &[("long.yaml", LONG), ("chaos.yaml", CHAOS)]);
    cluster.serve("one", None, &[]);
    cluster.serve("two", None, &[]);
    // Only one of the workers outlives the first scheduler.
    cluster.work("w1", &[]);
    cluster.work("w2", &[]);
    let long: Vec<String> = (0..4).map(|_| cluster.submit("long", 0)).collect();
    until_begun(&cluster, 4);
    let short: Vec<String> = (0..6).map(|_| cluster.submit("chaos", 0)).collect();
    until_begun(&cluster, 6);
    cluster.schedulers[0].process.kill();
    cluster.schedulers[0].away = true;
    cluster.workers[0].kill();
    let killed = now();
    let runs = [long, short].concat();
    all_succeeded(&cluster.wait_for(&runs, Duration::from_secs(60)));
    check(&cluster, &runs);
    let mut taken = 0;
    let mut kept = 0;
    for run in &runs {
        let history = cluster.history(run);
        let Some(first) = history.iter().find(|line| line["event"] == "reclaimed") else { continue };
        taken += 1;
        let after = at(first).saturating_sub(killed);
        assert!(after <= SCHEDULER_LEASE + GRACE, "{run} was taken over after {after} ms");
        // What died with the worker is begun again within the lease of the work.
        let lost = history.iter().filter(|line| line["event"]["lost"].is_object()).map(at).max();
        if let Some(lost) = lost {
            let after = lost.saturating_sub(at(first));
            assert!(after <= WORK_LEASE + GRACE, "{run} noticed its dead worker after {after} ms");
        } else {
            kept += 1;
        }
    }
    assert!(taken > 0, "the dead scheduler drove nothing");
    assert!(kept > 0, "no run was taken over together with its work");
}

#[test]
fn a_worker_that_is_cut_off_goes_on_or_is_replaced() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url, &[("long.yaml", LONG)]);
    cluster.serve("one", None, &[]);
    let wire = Wire::to(cluster.schedulers[0].address.clone());
    cluster.work_at("far", &format!("127.0.0.1:{}", wire.port), &[]);
    // For a short time: the work goes on, and its outcome is reported once.
    let short = cluster.submit("long", 0);
    until_begun(&cluster, 1);
    wire.cut();
    std::thread::sleep(Duration::from_secs(8));
    wire.mend();
    all_succeeded(&cluster.wait_for(std::slice::from_ref(&short), Duration::from_secs(40)));
    let history = cluster.history(&short);
    assert_eq!(count(&history, |event| event["reported"].is_object()), 2, "{history:?}");
    assert_eq!(count(&history, |event| event["lost"].is_object()), 0, "{history:?}");
    // For longer than the lease: another one does it.
    let long = cluster.submit("long", 0);
    until_begun(&cluster, 2);
    wire.cut();
    let cut = now();
    cluster.work("near", &[]);
    all_succeeded(&cluster.wait_for(std::slice::from_ref(&long), Duration::from_secs(60)));
    let again = begun(&cluster)[&(long.clone(), "work".to_owned())].clone();
    assert_eq!(again.len(), 2, "{again:?}");
    let after = again[1].saturating_sub(cut);
    assert!(after <= WORK_LEASE + GRACE, "the lost work began again after {after} ms");
    // What it brings is stale; it ends as soon as it knows that.
    wire.mend();
    cluster.workers[0].signal("TERM");
    assert_eq!(cluster.workers[0].wait(Duration::from_secs(40)), Some(0));
    let said = cluster.workers[0].said();
    assert!(!said.contains("no scheduler has taken in"), "{said}");
    check(&cluster, &[short, long]);
}

#[test]
fn a_database_that_crashes_and_partitions_that_are_taken_away_cost_time_only() {
    let Some(mut server) = postgres::own_server() else { return };
    let database = server.database();
    let secured = format!("{}?sslmode=verify-full&sslrootcert={}", database.url, server.authority().display());
    let mut cluster = Cluster::new(&secured, &[("long.yaml", LONG)]);
    cluster.serve("one", None, &[]);
    cluster.work("w", &["--concurrency", "8"]);
    let runs: Vec<String> = (0..3).map(|_| cluster.submit("long", 0)).collect();
    until_begun(&cluster, 3);
    let before = server.pid();
    server.crash();
    std::thread::sleep(Duration::from_secs(1));
    server.restart();
    assert_ne!(server.pid(), before);
    // Somebody else has all that is held here, under the next epoch, and gives it up in a moment.
    let taken = "UPDATE tol.owners SET epoch = epoch + 1, holder = 'another', \
                 expires_at = clock_timestamp() + interval '12 s' WHERE key LIKE 'p/%'";
    database.run(taken);
    // A write that comes before that is noticed is refused; its outcome must find its way all the same.
    until_said(&cluster, 0, "0 of 16 partitions are here");
    all_succeeded(&cluster.wait_for(&runs, Duration::from_secs(60)));
    check(&cluster, &runs);
    for (step, times) in begun(&cluster) {
        assert_eq!(times.len(), 1, "{step:?} began again although its worker lived");
    }
    // The scheduler still writes when its database is dropped with the server.
    cluster.schedulers.clear();
}

#[test]
fn schedulers_come_and_go_every_second() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url, &[("chaos.yaml", CHAOS)]);
    cluster.serve("stays", None, &[]);
    let addresses: Vec<String> = (0..2).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let gateways = [&[cluster.schedulers[0].address.clone()], &addresses[..]].concat().join(",");
    cluster.work_at("w1", &gateways, &[]);
    cluster.work_at("w2", &gateways, &[]);
    let mut runs = Vec::new();
    for turn in 0..10 {
        let address = &addresses[turn % 2];
        let mut guest = cluster.start_scheduler(&format!("guest-{}", turn % 2), address, None, &[]);
        runs.push(cluster.submit("chaos", 0));
        std::thread::sleep(Duration::from_millis(700));
        if turn == 4 {
            guest.process.kill();
        } else {
            guest.process.signal("TERM");
            assert_eq!(guest.process.wait(Duration::from_secs(40)), Some(0), "{}", guest.process.said());
        }
    }
    all_succeeded(&cluster.wait_for(&runs, Duration::from_secs(60)));
    check(&cluster, &runs);
    let again: Vec<_> = begun(&cluster).into_iter().filter(|(_, times)| times.len() > 1).collect();
    assert!(again.is_empty(), "begun twice although no worker had died: {again:?}");
}

#[test]
fn work_outlives_a_lone_scheduler() {
    let mut cluster = Cluster::new("", &[("long.yaml", LONG)]);
    cluster.serve("alone", None, &[]);
    cluster.work("w", &[]);
    let run = cluster.submit("long", 0);
    until_begun(&cluster, 1);
    cluster.schedulers[0].process.kill();
    let address = cluster.schedulers[0].address.clone();
    cluster.schedulers[0] = cluster.start_scheduler("alone", &address, None, &[]);
    all_succeeded(&cluster.wait_for(std::slice::from_ref(&run), Duration::from_secs(30)));
    let history = cluster.history(&run);
    assert_eq!(count(&history, |event| *event == "reclaimed"), 1, "{history:?}");
    assert_eq!(count(&history, |event| event["lost"].is_object()), 0, "{history:?}");
    assert_eq!(count(&history, |event| event["reported"]["unit"] == "work"), 1, "{history:?}");
    assert_eq!(begun(&cluster)[&(run.clone(), "work".to_owned())].len(), 1);
    check(&cluster, &[run]);
}

#[test]
fn what_comes_after_the_end_of_its_run_is_stale_even_to_a_new_scheduler() {
    let mut cluster = Cluster::new("", &[("long.yaml", LONG)]);
    cluster.serve("alone", None, &[]);
    cluster.work("frozen", &[]);
    let run = cluster.submit("long", 0);
    until_begun(&cluster, 1);
    cluster.workers[0].signal("STOP");
    cluster.work("other", &[]);
    all_succeeded(&cluster.wait_for(std::slice::from_ref(&run), Duration::from_secs(60)));
    cluster.schedulers[0].process.kill();
    let address = cluster.schedulers[0].address.clone();
    cluster.schedulers[0] = cluster.start_scheduler("alone", &address, None, &[]);
    cluster.workers[0].signal("CONT");
    cluster.workers[0].signal("TERM");
    // It has an outcome of a run that the new scheduler has never driven, and does not leave before it is answered.
    assert_eq!(cluster.workers[0].wait(Duration::from_secs(25)), Some(0), "{}", cluster.said());
    let said = cluster.workers[0].said();
    assert!(!said.contains("no scheduler has taken in"), "{said}");
    check(&cluster, &[run]);
}

#[test]
fn a_rolling_restart_begins_nothing_anew() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url, &[("chaos.yaml", CHAOS)]);
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
    assert!(again.is_empty(), "begun twice although no worker had died: {again:?}");
}

#[test]
fn what_must_not_run_twice_is_unknown_when_its_worker_dies() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = Cluster::new(&database.url, &[("once.yaml", ONCE)]);
    cluster.serve("one", None, &[]);
    cluster.work("w1", &[]);
    cluster.work("w2", &[]);
    let runs: Vec<String> = (0..6).map(|number| cluster.submit("once", number)).collect();
    until_begun(&cluster, 6);
    let began = Instant::now();
    cluster.workers[0].kill();
    let address = cluster.schedulers[0].address.clone();
    let mut settled = BTreeSet::new();
    loop {
        let all = cluster.statuses();
        let is_done = |run| settled.contains(run) || all.get(run).is_some_and(|status| status == "succeeded");
        if runs.iter().all(is_done) {
            break;
        }
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
