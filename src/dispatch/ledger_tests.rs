//! Leases in virtual time.

use super::*;
use crate::task::{Command, Placement, Script, Work};

const SECOND: Duration = Duration::from_secs(1);

fn task(unit: &str, token: u64, queue: &str, capabilities: &[&str]) -> Task {
    let script = Script {
        command: Command::Argv(Vec::new()),
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: String::new(),
        json: false,
        permanent_exit_codes: Vec::new(),
        max_output: 0,
    };
    Task {
        run: RunId::new("r"),
        pipeline: Arc::from("p"),
        unit: UnitPath::new(unit),
        attempt: 1,
        token: LeaseToken(token),
        idempotency_key: String::new(),
        deadline: None,
        place: Placement {
            queue: Arc::from(queue),
            capabilities: capabilities.iter().map(|&one| Box::from(one)).collect(),
            ..Placement::default()
        },
        work: Work::Run(script),
    }
}

fn key(unit: &str, token: u64) -> LeaseKey {
    LeaseKey { run: RunId::new("r"), unit: UnitPath::new(unit), token: LeaseToken(token) }
}

fn joining(worker: &str, queues: &[&str], concurrency: u32) -> Joining {
    Joining {
        worker: Arc::from(worker),
        queues: queues.iter().map(|&one| one.to_owned()).collect(),
        capabilities: BTreeSet::new(),
        concurrency,
        leases: Vec::new(),
        local: false,
    }
}

/// What was sent, in words.
fn words(sendings: &[Sending]) -> Vec<String> {
    let message = |message: &Message| match message {
        Message::Task(task) => format!("task {} {}", task.unit, task.token.0),
        Message::Stop { key, how } => format!("stop {} {} {how:?}", key.unit, key.token.0),
        Message::Answer { key, verdict } => format!("answer {} {} {verdict:?}", key.unit, key.token.0),
    };
    let word = |sending: &Sending| match sending {
        Sending::Session(id, what) => format!("{} <- {}", id.0, message(what)),
        Sending::Bus(BusMessage { to: None, message: what }) => format!("bus <- {}", message(what)),
        Sending::Bus(BusMessage { to: Some(to), message: what }) => format!("bus to {to} <- {}", message(what)),
        Sending::Report(report) => match &report.result {
            Ok(outcome) => {
                let stopped = matches!(outcome, Outcome::Stopped);
                format!("report {} {}{}", report.unit, report.token.0, if stopped { " stopped" } else { "" })
            }
            Err(lost) => format!("lost {} {}: {}", report.unit, report.token.0, lost.why),
        },
    };
    sendings.iter().map(word).collect()
}

/// A ledger that drives the run of these tests.
fn driving(has_bus: bool) -> Ledger {
    let mut ledger = Ledger::new(Terms::default(), has_bus);
    ledger.begin(&RunId::new("r"));
    ledger
}

fn success() -> Outcome {
    Outcome::success(1.into())
}

#[test]
fn a_task_goes_to_the_least_loaded_worker_of_its_queue() {
    let mut ledger = driving(false);
    assert!(words(&ledger.offer(task("early", 1, "gpu", &[]), SECOND)).is_empty());
    assert_eq!(ledger.unserved(), BTreeMap::from([(Arc::from("gpu"), 1)]));
    let (_, sent) = ledger.join(joining("small", &["default"], 2), SECOND);
    assert!(sent.is_empty());
    let (_, sent) = ledger.join(joining("large", &["default", "gpu"], 4), SECOND);
    assert_eq!(words(&sent), ["2 <- task early 1"]);
    let mut to = Vec::new();
    for token in 2..8 {
        to.extend(words(&ledger.offer(task(&format!("t{token}"), token, "default", &[]), SECOND)));
    }
    let of = |id: &str| to.iter().filter(|word| word.starts_with(id)).count();
    assert_eq!((to[0].as_str(), of("1 "), of("2 "), ledger.in_work()), ("1 <- task t2 2", 2, 3, 6));
    // The seventh waits until somebody is free.
    let worker: Arc<str> = Arc::from("small");
    assert_eq!(words(&ledger.report(&worker, key("t2", 2), success())), ["report t2 2"]);
    assert_eq!(
        words(&ledger.answered(&key("t2", 2), Verdict::Recorded, SECOND)),
        ["1 <- answer t2 2 Recorded", "1 <- task t7 7"]
    );
}

#[test]
fn a_worker_gets_only_what_it_is_able_to_do() {
    let mut ledger = driving(false);
    ledger.join(joining("plain", &["default"], 9), SECOND);
    assert!(ledger.offer(task("a", 1, "default", &["gpu"]), SECOND).is_empty());
    // What cannot be done now does not hold up what can.
    assert_eq!(words(&ledger.offer(task("b", 2, "default", &[]), SECOND)), ["1 <- task b 2"]);
    let able = Joining { capabilities: BTreeSet::from(["gpu".to_owned()]), ..joining("able", &["default"], 1) };
    assert_eq!(words(&ledger.join(able, SECOND).1), ["2 <- task a 1"]);
}

#[test]
fn a_lease_that_nobody_renews_is_lost_and_its_worker_is_stale() {
    let mut ledger = driving(false);
    let worker: Arc<str> = Arc::from("w");
    let (id, _) = ledger.join(joining("w", &["default"], 1), SECOND);
    ledger.offer(task("a", 1, "default", &[]), SECOND);
    ledger.heartbeat(&worker, &[key("a", 1)], SECOND * 10);
    assert!(ledger.tick(SECOND * 24).is_empty());
    ledger.leave(id);
    assert_eq!(words(&ledger.tick(SECOND * 25)), ["lost a 1: worker w was not heard of"]);
    // The scheduler hands it out anew; then the old worker comes back.
    ledger.offer(task("a", 2, "default", &[]), SECOND * 25);
    let back = Joining { leases: vec![key("a", 1)], ..joining("w", &["default"], 2) };
    assert_eq!(words(&ledger.join(back, SECOND * 30).1), ["2 <- stop a 1 Now", "2 <- task a 2"]);
    assert_eq!(words(&ledger.report(&worker, key("a", 1), success())), ["2 <- answer a 1 Stale"]);
    assert_eq!((ledger.counters().lost, ledger.counters().stale), (1, 1));
}

#[test]
fn a_worker_that_comes_back_keeps_what_it_has_and_loses_what_it_has_not() {
    let mut ledger = driving(false);
    let worker: Arc<str> = Arc::from("w");
    let (id, _) = ledger.join(joining("w", &["default"], 3), SECOND);
    for (unit, token) in [("a", 1), ("b", 2)] {
        ledger.offer(task(unit, token, "default", &[]), SECOND);
    }
    ledger.leave(id);
    assert!(ledger.stop(&key("b", 2), Stop::Graceful, SECOND).is_empty());
    let back = Joining { leases: vec![key("b", 2)], ..joining("w", &["default"], 3) };
    let sent = words(&ledger.join(back, SECOND * 2).1);
    assert_eq!(sent, ["2 <- stop b 2 Graceful", "lost a 1: worker w came back without it"]);
    assert_eq!(words(&ledger.report(&worker, key("b", 2), Outcome::Stopped)), ["report b 2 stopped"]);
    // It comes twice and is taken once.
    assert!(ledger.report(&worker, key("b", 2), Outcome::Stopped).is_empty());
}

#[test]
fn another_scheduler_reclaims_what_its_workers_still_have_or_have_done() {
    let mut ledger = Ledger::new(Terms::default(), false);
    let worker: Arc<str> = Arc::from("w");
    ledger.join(Joining { leases: vec![key("a", 1)], ..joining("w", &["default"], 4) }, SECOND);
    // It ended while nobody drove the run.
    assert_eq!(words(&ledger.report(&worker, key("b", 2), success())), ["1 <- answer b 2 Unknown"]);
    // While the hand-outs are being read, nobody is told to stop; what has not begun is not begun for this scheduler.
    assert_eq!(words(&ledger.heartbeat(&worker, &[key("a", 1)], SECOND)), ["1 <- answer a 1 Unknown"]);
    assert!(ledger.reclaim(task("a", 1, "default", &[]), SECOND).is_empty());
    assert_eq!(words(&ledger.reclaim(task("b", 2, "default", &[]), SECOND)), ["report b 2"]);
    assert_eq!(words(&ledger.answered(&key("b", 2), Verdict::Recorded, SECOND)), ["1 <- answer b 2 Recorded"]);
    assert!(ledger.heartbeat(&worker, &[key("a", 1)], SECOND).is_empty());
    assert!(ledger.reclaim(task("c", 3, "default", &[]), SECOND).is_empty());
    ledger.begin(&RunId::new("r"));
    ledger.heartbeat(&worker, &[key("a", 1)], SECOND * 15);
    assert_eq!(words(&ledger.tick(SECOND * 16)), ["lost c 3: no worker has said that it still has it"]);
    assert_eq!(words(&ledger.report(&worker, key("a", 1), success())), ["report a 1"]);
}

#[test]
fn nobody_waits_for_what_ended_with_an_earlier_process() {
    let mut ledger = Ledger::new(Terms::default(), false);
    ledger.join(Joining { leases: vec![key("a", 1)], ..joining("w", &["default"], 4) }, SECOND);
    ledger.are_gone(["a", "b", "z"].into_iter().zip([1, 2, 3]).map(|(unit, token)| key(unit, token)).collect());
    let lost = ["lost b 2: it ended with an earlier process of the scheduler"];
    assert!(ledger.reclaim(task("a", 1, "default", &[]), SECOND).is_empty(), "a worker has it, whatever was noted");
    assert_eq!(words(&ledger.reclaim(task("b", 2, "default", &[]), SECOND)), lost);
    assert!(ledger.reclaim(task("z", 4, "default", &[]), SECOND).is_empty(), "another hand-out of the same step");
}

#[test]
fn what_must_not_begin_twice_may_wait_on_a_bus_for_long() {
    let mut once = task("a", 1, "default", &[]);
    once.place.once = true;
    let mut ledger = driving(true);
    assert_eq!(words(&ledger.offer(once.clone(), SECOND)), ["bus <- task a 1"]);
    // Every worker is busy. The time is looked at as often as ever: a silence would move every bound.
    for second in 2..=600 {
        assert!(ledger.tick(SECOND * second).is_empty(), "{second}");
    }
    // Whoever comes to read it after all is to leave it.
    let unheard = ["bus <- stop a 1 Now", "lost a 1: no worker has said that it has it, and it must not be sent twice"];
    assert_eq!(words(&ledger.tick(SECOND * 601)), unheard);
    // Another scheduler does not know whether it still waits there.
    let mut ledger = driving(true);
    assert!(ledger.reclaim(once, SECOND).is_empty());
    for second in 2..=600 {
        assert!(ledger.tick(SECOND * second).is_empty(), "{second}");
    }
    let worker: Arc<str> = Arc::from("w");
    assert!(ledger.heartbeat(&worker, &[key("a", 1)], SECOND * 600).is_empty());
    assert_eq!(words(&ledger.tick(SECOND * 615)).len(), 0);
    assert_eq!(words(&ledger.report(&worker, key("a", 1), success())), ["report a 1"]);
}

#[test]
fn what_a_bus_carries_is_sent_again_until_somebody_has_it() {
    let mut ledger = driving(true);
    let worker: Arc<str> = Arc::from("w");
    assert_eq!(words(&ledger.offer(task("a", 1, "default", &[]), SECOND)), ["bus <- task a 1"]);
    assert!(ledger.tick(SECOND * 20).is_empty());
    assert_eq!(words(&ledger.tick(SECOND * 21)), ["bus <- task a 1"]);
    ledger.heartbeat(&worker, &[key("a", 1)], SECOND * 22);
    // A second worker got the second copy.
    let other: Arc<str> = Arc::from("other");
    assert_eq!(words(&ledger.heartbeat(&other, &[key("a", 1)], SECOND * 23)), ["bus to other <- stop a 1 Now"]);
    // It obeys; that is not how the hand-out ended.
    assert_eq!(words(&ledger.report(&other, key("a", 1), Outcome::Stopped)), ["bus to other <- answer a 1 Stale"]);
    assert_eq!(words(&ledger.stop(&key("a", 1), Stop::Now, SECOND * 23)), ["bus to w <- stop a 1 Now"]);
    assert_eq!(words(&ledger.report(&worker, key("a", 1), Outcome::Stopped)), ["report a 1 stopped"]);
    // There were two copies: a third worker is not to begin one that it comes to read.
    assert_eq!(
        words(&ledger.answered(&key("a", 1), Verdict::Recorded, SECOND * 24)),
        ["bus to w <- answer a 1 Recorded", "bus <- stop a 1 Now"]
    );
    // One that is stopped before anybody has it ends by itself.
    ledger.offer(task("b", 2, "default", &[]), SECOND * 30);
    assert_eq!(words(&ledger.stop(&key("b", 2), Stop::Graceful, SECOND * 31)), ["bus <- stop b 2 Graceful"]);
    assert!([26, 31, 35].into_iter().all(|second| ledger.tick(SECOND * second).is_empty()));
    assert_eq!(words(&ledger.tick(SECOND * 36)), ["report b 2 stopped"]);
    assert_eq!(words(&ledger.heartbeat(&worker, &[key("b", 2)], SECOND * 37)), ["bus to w <- stop b 2 Now"]);
}

#[test]
fn a_stop_ends_what_waits_and_a_lost_run_ends_what_is_done_here() {
    let mut ledger = driving(false);
    ledger.offer(task("a", 1, "default", &[]), SECOND);
    assert_eq!(words(&ledger.stop(&key("a", 1), Stop::Graceful, SECOND)), ["report a 1 stopped"]);
    assert!(ledger.is_empty() && ledger.unserved().is_empty());
    ledger.join(Joining { local: true, ..joining("here", &["default"], 1) }, SECOND);
    ledger.offer(task("b", 2, "default", &[]), SECOND);
    assert_eq!(words(&ledger.forget(&RunId::new("r"), false)), ["1 <- stop b 2 Now"]);
    assert!(ledger.is_empty());
}

#[test]
fn a_scheduler_that_stood_still_loses_nothing_that_it_has_not_heard_of() {
    let mut ledger = driving(false);
    let worker: Arc<str> = Arc::from("w");
    ledger.join(joining("w", &["default"], 2), SECOND);
    ledger.offer(task("a", 1, "default", &[]), SECOND);
    ledger.offer(task("b", 2, "default", &[]), SECOND);
    assert!(ledger.tick(SECOND * 2).is_empty());
    // Its heartbeats lie in the socket.
    assert!(ledger.tick(SECOND * 60).is_empty());
    ledger.heartbeat(&worker, &[key("a", 1)], SECOND * 60);
    (61..72).for_each(|second| assert!(ledger.tick(SECOND * second).is_empty(), "{second}"));
    (72..75).for_each(|second| drop(ledger.tick(SECOND * second)));
    assert_eq!(ledger.len(), 1, "what nobody names is lost, later");
}

#[test]
fn outcomes_of_runs_that_ended_elsewhere_are_stale_once_that_is_known() {
    let mut ledger = Ledger::new(Terms::default(), false);
    let worker: Arc<str> = Arc::from("w");
    ledger.join(joining("w", &["default"], 1), SECOND);
    assert_eq!(words(&ledger.report(&worker, key("a", 1), success())), ["1 <- answer a 1 Unknown"]);
    assert_eq!(ledger.strangers(), BTreeSet::from([RunId::new("r")]));
    assert!(ledger.strangers().is_empty(), "it was told");
    ledger.forget(&RunId::new("r"), true);
    assert_eq!(words(&ledger.report(&worker, key("a", 1), success())), ["1 <- answer a 1 Stale"]);
    assert!(ledger.strangers().is_empty());
}

#[test]
fn an_outcome_that_was_not_recorded_before_the_run_was_lost_is_sent_to_others() {
    let mut ledger = driving(false);
    let worker: Arc<str> = Arc::from("w");
    ledger.join(joining("w", &["default"], 1), SECOND);
    ledger.offer(task("a", 1, "default", &[]), SECOND);
    assert_eq!(words(&ledger.report(&worker, key("a", 1), success())), ["report a 1"]);
    assert_eq!(words(&ledger.forget(&RunId::new("r"), false)), ["1 <- answer a 1 Unknown"]);
    assert!(ledger.answered(&key("a", 1), Verdict::Stale, SECOND).is_empty(), "it was answered");
}
