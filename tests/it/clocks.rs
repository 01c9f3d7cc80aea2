//! Clocks that are set forward and back while schedulers and workers run.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Cluster;
use crate::postgres;
use crate::schedulers::until_said;
use crate::support::preloaded;

/// One step that lasts, one whose second attempt comes with a timer, and one with a time limit.
const TIMED: &str = "apiVersion: tol/v1
name: timed
steps:
  - id: work
    timeout: 2h
    run: |
      echo \"$TOL_RUN_ID $TOL_STEP\" >> witness
      sleep 6
  - id: again
    timeout: 2h
    retry: { limit: 3, backoff: { initial: 4s }, jitter: none }
    run: |
      echo \"$TOL_RUN_ID $TOL_STEP $TOL_ATTEMPT\" >> witness
      test \"$TOL_ATTEMPT\" -gt 1
  - { id: last, timeout: 2h, depends: [work, again], run: 'echo \"$TOL_RUN_ID $TOL_STEP\" >> witness' }
";

#[test]
fn clocks_that_jump_cost_no_run_and_no_lease() {
    let Some(database) = postgres::database() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let library = preloaded("shift_clock.c", folder.path());
    let mut cluster = Cluster::new(&database.url, &[("timed.yaml", TIMED)]);
    let clock = |name: &str| folder.path().join(name).to_str().expect("a plain path").to_owned();
    let set = |name: &str, seconds: i64| std::fs::write(clock(name), seconds.to_string()).expect("a file");
    let names = ["one", "two", "w1", "w2"];
    for name in names {
        set(name, 0);
        cluster.env = vec![("LD_PRELOAD".to_owned(), library.clone()), ("SHIFT_CLOCK".to_owned(), clock(name))];
        if name.starts_with('w') {
            cluster.work(name, &["--concurrency", "8"]);
        } else {
            cluster.serve(name, None, &[]);
        }
    }
    for scheduler in [0, 1] {
        until_said(&cluster, scheduler, "8 of 16 partitions are here");
    }
    let began = Instant::now();
    let mut runs: Vec<String> = (0..4).map(|number| cluster.submit("timed", number)).collect();
    std::thread::sleep(Duration::from_millis(1500));
    // An hour ahead, an hour behind; each while steps are in work and timers are set.
    for (name, seconds) in names.into_iter().zip([3600, -3600, -3600, 3600]) {
        set(name, seconds);
    }
    runs.extend((0..4).map(|number| cluster.submit("timed", number)));
    std::thread::sleep(Duration::from_millis(1500));
    for (name, seconds) in names.into_iter().zip([-3600, 0, 3600, -3600]) {
        set(name, seconds);
    }
    runs.extend((0..2).map(|number| cluster.submit("timed", number)));
    let ended = cluster.wait_for(&runs, Duration::from_secs(60));
    assert!(ended.iter().all(|status| status == "succeeded"), "{ended:?}\n{}", cluster.said());
    let took = began.elapsed();
    let witness = std::fs::read_to_string(cluster.path().join("witness")).expect("a witness");
    for run in &runs {
        let times = |step: &str| witness.lines().filter(|line| line.starts_with(&format!("{run} {step}"))).count();
        assert_eq!((times("work"), times("again"), times("last")), (1, 2, 1), "{run} after {took:?}\n{witness}");
        let history = cluster.history(run);
        let lost = history.iter().filter(|line| line["event"]["lost"].is_object()).count();
        assert_eq!(lost, 0, "a lease ended because of a clock");
        let mut tokens: Vec<u64> =
            history.iter().filter_map(|line| line["event"]["reported"]["token"].as_u64()).collect();
        let reported = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), reported, "a token was used twice in {run}");
        let late: Vec<&Value> = history.iter().filter(|line| line["event"] == "reclaimed").collect();
        assert!(late.is_empty(), "{run} changed its scheduler because of a clock: {late:?}");
    }
}
