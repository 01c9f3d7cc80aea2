//! What becomes of work when a broker is away, loses its disk, or one of three is killed.

use std::time::Duration;

use tol::dispatch::kafka::{Admin, Topics};
use tol::dispatch::{Dispatch, Terms};
use tol::id::RunId;
use tol::task::Phase;
use tol::worker::kafka::KafkaWorker;

use crate::kafka::support::{self, Kind};
use crate::kafka::{Begun, Player, Scheduler, all_done, broker, settings, task, until, wait, worker};

/// How long a broker is away: ten seconds, or as many as asked for.
fn outage() -> Duration {
    let asked = std::env::var("TOL_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(10))
}

#[test]
fn a_broker_that_is_away_for_a_while_loses_nothing() {
    let Some(mut cluster) = support::start(Kind::One) else { return };
    let settings = settings(&cluster);
    let begun = Begun::default();
    wait(async {
        let mut scheduler = Scheduler::start(&settings, "one", Terms::default()).await;
        scheduler.hub.begin(&RunId::new("run"));
        let player = Player::new("hans", Duration::from_millis(300), &begun);
        let worker = worker(&settings, &player, 4).await;
        for token in 1..=20 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        until("something is in work", 20, || worker.in_work() > 0).await;
        tokio::task::block_in_place(|| cluster.kill(0));
        // Work goes on meanwhile, and more is handed out.
        for token in 21..=30 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        tokio::time::sleep(outage()).await;
        tokio::task::block_in_place(|| cluster.restart(0));
        all_done(&mut scheduler, 30, 60).await;
        until("all are answered", 60, || worker.unanswered() == 0).await;
        assert!(worker.drain(Duration::from_secs(30)).await);
    });
}

#[test]
fn a_broker_that_loses_its_disk_loses_no_work() {
    loses_its_disk(false);
}

#[test]
fn a_broker_that_comes_back_as_another_cluster_loses_no_work() {
    loses_its_disk(true);
}

fn loses_its_disk(as_another: bool) {
    let Some(mut cluster) = support::start(Kind::One) else { return };
    let settings = settings(&cluster);
    let begun = Begun::default();
    wait(async {
        let mut scheduler = Scheduler::start(&settings, "one", Terms::default()).await;
        scheduler.hub.begin(&RunId::new("run"));
        let player = Player::new("otto", Duration::from_millis(1500), &begun);
        let worker = worker(&settings, &player, 2).await;
        // Some are done before, some are in work, and most wait on the bus that is about to be lost.
        for token in 1..=20 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        until("two are done", 20, || begun.lock().expect("whole").len() >= 4).await;
        tokio::task::block_in_place(|| {
            cluster.kill(0);
            cluster.wipe(0, as_another);
        });
        for token in 21..=24 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        tokio::task::block_in_place(|| cluster.restart(0));
        all_done(&mut scheduler, 24, 240).await;
        until("all are answered", 60, || worker.unanswered() == 0).await;
        let there =
            Admin::new(&settings).expect("settings").differences(&Topics::new(&settings).all(["default"])).await;
        assert_eq!(there.expect("an answer"), []);
        assert!(worker.drain(Duration::from_secs(30)).await);
    });
}

#[test]
fn three_brokers_go_on_when_one_is_killed() {
    let Some(mut cluster) = support::start(Kind::Three) else { return };
    let mut settings = settings(&cluster);
    settings.clamp = false;
    // Three replicas of which two must be in sync bear the loss of one.
    settings.replication = 3;
    let begun = Begun::default();
    let tasks = Topics::new(&settings).tasks("default", Phase::Execute);
    wait(async {
        let mut scheduler = Scheduler::start(&settings, "one", Terms::default()).await;
        scheduler.hub.begin(&RunId::new("run"));
        let player = Player::new("ida", Duration::from_millis(50), &begun);
        let worker = worker(&settings, &player, 4).await;
        for token in 1..=20 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        assert_eq!(scheduler.successes(20, 60).await.len(), 20);
        tokio::task::block_in_place(|| cluster.kill(2));
        for token in 21..=60 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        all_done(&mut scheduler, 40, 90).await;
        worker.drain(Duration::from_secs(30)).await;
    });
    let address = settings.brokers.split(',').next().expect("one").to_owned();
    let arguments = ["--bootstrap-server", &address, "--describe", "--topic", &tasks];
    let described = cluster.tool_text("org.apache.kafka.tools.TopicCommand", &arguments);
    assert!(described.contains("ReplicationFactor: 3") && described.contains("min.insync.replicas=2"), "{described}");
}

#[test]
fn a_copy_that_is_read_after_its_success_is_left() {
    let Some(cluster) = broker() else { return };
    let settings = settings(cluster);
    let begun = Begun::default();
    wait(async {
        let terms = Terms { resend: Duration::from_secs(3), ..Terms::default() };
        let mut scheduler = Scheduler::start(&settings, "one", terms).await;
        scheduler.hub.begin(&RunId::new("run"));
        let players = [("slow", 6000), ("quick", 10), ("swift", 10)]
            .map(|(name, millis)| Player::new(name, Duration::from_millis(millis), &begun));
        let slow = worker(&settings, &players[0], 1).await;
        let others = [worker(&settings, &players[1], 1).await, worker(&settings, &players[2], 1).await];
        let topic = Topics::new(&settings).tasks("default", Phase::Execute);
        let share = |worker: &KafkaWorker| worker.assigned().iter().filter(|(name, _)| *name == topic).count();
        until("others have a part too", 60, || share(&slow) > 0 && others.iter().map(share).sum::<usize>() > 0).await;
        // What waits behind the slow worker's first one is sent again, to another one.
        for token in 1..=9 {
            scheduler.hub.dispatch(task("run", &format!("u{token}"), token, false));
        }
        assert_eq!(scheduler.successes(9, 30).await.len(), 9);
        assert!(scheduler.hub.counters().resent > 0, "nothing was sent again");
        until("the slow worker has left its copies", 20, || slow.counters().left > 0 && slow.in_work() == 0).await;
        for worker in others.into_iter().chain([slow]) {
            assert!(worker.drain(Duration::from_secs(30)).await);
        }
    });
    let begun = begun.lock().expect("whole");
    let units: std::collections::BTreeSet<&String> = begun.iter().map(|(_, unit, _)| unit).collect();
    assert_eq!((begun.len(), units.len()), (9, 9), "{begun:?}");
}
