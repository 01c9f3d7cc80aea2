//! Submissions with an idempotency key to several schedulers over one PostgreSQL: one key is one run, whoever is asked.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::postgres;

const QUICK: &str = "apiVersion: tol/v1
name: quick
steps:
  - { id: work, run: 'echo \"$TOL_RUN_ID\" >> witness' }
";

const LONG: &str = "apiVersion: tol/v1
name: long
steps:
  - { id: work, run: 'echo \"$TOL_RUN_ID\" >> witness; sleep 4' }
";

/// The lease of a scheduler and five seconds, as `docs/scaling.md` promises.
const REPLACED: Duration = Duration::from_secs(15);

fn cluster(database: &str) -> Cluster {
    let mut cluster = Cluster::new(database, &[("quick.yaml", QUICK), ("long.yaml", LONG)]);
    cluster.serve("one", None, &[]);
    cluster.serve("two", None, &[]);
    // The later one has its half of the partitions when both know of each other.
    let began = Instant::now();
    while !cluster.schedulers.iter().all(|one| one.process.said().contains("8 of 16 partitions are here; 2 servers")) {
        assert!(began.elapsed() < Duration::from_secs(30), "they do not share: {}", cluster.said());
        std::thread::sleep(Duration::from_millis(50));
    }
    cluster.work("w1", &["--concurrency", "16"]);
    cluster
}

fn submit(cluster: &Cluster, scheduler: usize, pipeline: &str, key: &str) -> String {
    let address = &cluster.schedulers[scheduler].address;
    let arguments = ["run", pipeline, "--detach", "--idempotency-key", key, "--server", address];
    let id = cluster.try_tol(&arguments).unwrap_or_else(|said| panic!("{key}: {said}\n{}", cluster.said()));
    id.trim().to_owned()
}

/// How often each run's step was begun.
fn witness(cluster: &Cluster) -> Vec<String> {
    let text = std::fs::read_to_string(cluster.path().join("witness")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn one_key_is_one_run_whoever_is_asked() {
    let Some(database) = postgres::database() else { return };
    let cluster = cluster(&database.url);
    let keys: Vec<String> = (0..8).map(|number| format!("key-{number}")).collect();
    let mut runs = BTreeSet::new();
    for key in &keys {
        let both: Vec<String> = std::thread::scope(|scope| {
            let asked: Vec<_> = [0, 1, 0, 1]
                .map(|scheduler| {
                    let cluster = &cluster;
                    scope.spawn(move || submit(cluster, scheduler, "quick", key))
                })
                .into_iter()
                .collect();
            asked.into_iter().map(|one| one.join().expect("it was taken")).collect()
        });
        assert!(both.iter().all(|run| *run == both[0]), "{key}: {both:?}");
        runs.insert(both[0].clone());
    }
    assert_eq!(runs.len(), keys.len());
    let all: Vec<String> = runs.iter().cloned().collect();
    let ended = cluster.wait_for(&all, Duration::from_secs(30));
    assert!(ended.iter().all(|status| status == "succeeded"), "{ended:?}");
    let mut began = witness(&cluster);
    began.sort();
    let twice: Vec<&String> = all.iter().filter(|run| began.iter().filter(|one| one == run).count() != 1).collect();
    let histories: Vec<_> = twice.iter().map(|run| cluster.history(run)).collect();
    assert!(twice.is_empty(), "{twice:?} did not begin once: {histories:#?}\n{}", cluster.said());
    assert_eq!(cluster.statuses().len(), keys.len(), "no key has begun a second run");
    // Long after they have ended, too.
    for (number, key) in keys.iter().enumerate() {
        assert!(runs.contains(&submit(&cluster, number % 2, "quick", key)));
    }
}

#[test]
fn a_key_is_kept_when_the_server_that_took_it_dies() {
    let Some(database) = postgres::database() else { return };
    let mut cluster = cluster(&database.url);
    // Eight keys: partitions of both servers are among them, so that the first holds some of the runs by themselves.
    let keys: Vec<String> = (0..8).map(|number| format!("key-{number}")).collect();
    let mut runs: Vec<String> = keys.iter().map(|key| submit(&cluster, 0, "long", key)).collect();
    let began = Instant::now();
    while witness(&cluster).len() < runs.len() {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", cluster.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.schedulers[0].process.kill();
    cluster.schedulers[0].away = true;
    let died = Instant::now();
    let again: Vec<String> = keys.iter().map(|key| submit(&cluster, 1, "long", key)).collect();
    assert_eq!(again, runs, "the same runs, from the other server");
    // New keys are taken at once, also those of the partitions that the dead one still has for some seconds.
    let fresh: Vec<String> = (8..16).map(|number| submit(&cluster, 1, "quick", &format!("key-{number}"))).collect();
    assert!(died.elapsed() < Duration::from_secs(8), "{:?}", died.elapsed());
    runs.extend(fresh);
    let ended = cluster.wait_for(&runs, REPLACED + Duration::from_secs(5));
    assert!(ended.iter().all(|status| status == "succeeded"), "{ended:?}");
    let mut began = witness(&cluster);
    began.sort();
    runs.sort();
    assert_eq!(began, runs, "what the worker had in hand goes on");
}
