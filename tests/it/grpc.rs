//! Workers on the other side of a connection: the built `tol worker` against a gateway in this process.

mod access;
pub mod certificates;
mod limits;
mod proxy;
mod stage;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tol::dispatch::{Dispatch, Stop};
use tol::id::{LeaseToken, UnitPath};
use tol::task::{ErrorClass, HttpRequest, Outcome, Placement, Task, Work};

use proxy::{Mood, Proxy};
use stage::{Stage, Worker, agent, run_id, script, task, until};

fn failure(result: &Result<Outcome, tol::dispatch::Lost>) -> (ErrorClass, String) {
    match result {
        Ok(Outcome::Failed { failure, .. }) => (failure.class, failure.message.clone()),
        other => panic!("{other:?}"),
    }
}

/// True while a process lives that was started with this word.
fn lives(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_work_is_done() {
    let mut stage = Stage::new().await;
    let _worker = stage.worker("w", &[]).await;
    stage.hub.dispatch(task("script", 1, script("echo hello; echo oops >&2")));
    assert_eq!(stage.text().await, "hello");
    assert_eq!(stage.log("script"), "hello\noops\n");
    stage.hub.dispatch(task("agent", 2, agent(&["sh", "-c", "sed s,^,got:,; echo said >&2"])));
    let text = stage.text().await;
    assert!(text.contains("9007199254740993"), "{text}");
    assert_eq!(stage.log("agent"), "said\n");
    let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    });
    let request = HttpRequest {
        method: "GET".to_owned(),
        url,
        headers: Vec::new(),
        query: Vec::new(),
        body: None,
        follow_redirects: false,
        max_bytes: 100,
    };
    stage.hub.dispatch(task("http", 3, Work::Http(request)));
    let report = stage.report().await;
    let Ok(Outcome::Succeeded { outputs, .. }) = report.result else { panic!("{report:?}") };
    assert_eq!((&outputs["status"], &outputs["body"]), (&200.into(), &"hi".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_lines_arrive_in_order_before_the_outcome() {
    let mut stage = Stage::new().await;
    let worker = stage.worker("w", &["--state-dir", "kept"]).await;
    stage.hub.dispatch(task("many", 1, script("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")));
    let _ = stage.report_unanswered().await;
    let expect: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(stage.log("many"), expect);
    let kept = tol::handler::logs::list(&worker.folder.path().join("kept"), &run_id()).unwrap();
    let kept: String = tol::handler::logs::read(&kept[0]).unwrap().map(|piece| piece.unwrap().text).collect();
    assert_eq!(kept, expect);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_the_whole_process_group() {
    let mut stage = Stage::new().await;
    let _worker = stage.worker("w", &[]).await;
    stage.hub.dispatch(task("slow", 1, script("sleep 7771 & sleep 7771")));
    until("it is in work", || lives("7771")).await;
    stage.hub.stop(&run_id(), &UnitPath::new("slow"), LeaseToken(1), Stop::Graceful);
    assert_eq!(stage.report().await.result, Ok(Outcome::Stopped));
    assert!(!lives("7771"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_had_goes_to_another_under_a_new_token() {
    let mut stage = Stage::new().await;
    let first = stage.worker("first", &[]).await;
    stage.hub.dispatch(task("a", 1, script("sleep 20; echo done")));
    until("it is in work", || stage.hub.in_work() == 1).await;
    let second = stage.worker("second", &[]).await;
    first.signal(Signal::KILL);
    let lost = stage.report().await;
    assert_eq!(lost.token, LeaseToken(1));
    assert!(lost.result.unwrap_err().why.contains("worker first"));
    stage.hub.dispatch(task("a", 2, script("echo done")));
    assert_eq!(stage.text().await, "done");
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_through_its_lease_is_stale() {
    let mut stage = Stage::new().await;
    let worker = stage.worker("w", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("go");
    let waits = format!("while [ ! -e {} ]; do sleep 0.1; done; echo late", flag.display());
    stage.hub.dispatch(task("done", 1, script(&waits)));
    stage.hub.dispatch(task("goes_on", 2, script("sleep 7772")));
    until("both are in work", || lives("7772")).await;
    worker.signal(Signal::STOP);
    let lost: BTreeSet<LeaseToken> = [stage.report().await.token, stage.report().await.token].into();
    assert_eq!(lost, BTreeSet::from([LeaseToken(1), LeaseToken(2)]));
    std::fs::write(&flag, "").unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    worker.signal(Signal::CONT);
    until("the outcome is stale", || stage.hub.counters().stale >= 1).await;
    until("the work is stopped", || !lives("7772")).await;
    // It is as good as new.
    stage.hub.dispatch(task("again", 3, script("echo again")));
    assert_eq!(stage.text().await, "again");
    stage.quiet(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_through_a_cut_connection_and_is_reported_once() {
    for mood in [Mood::Cuts, Mood::Swallows] {
        let mut stage = Stage::new().await;
        let proxy = Arc::new(Proxy::new(stage.address).await);
        let worker = Worker::start(&proxy.address.to_string(), "w", &[], &[]);
        stage.joined("w").await;
        let folder = tempfile::tempdir().unwrap();
        let witness = folder.path().join("witness");
        let work = format!("echo begun >> {0}; sleep 1.6; echo over", witness.display());
        stage.hub.dispatch(task("a", 1, script(&work)));
        until("it is in work", || witness.exists()).await;
        proxy.set(mood);
        tokio::time::sleep(Duration::from_millis(800)).await;
        proxy.set(Mood::Passes);
        assert_eq!(stage.text().await, "over", "{mood:?}\n{}", worker.said());
        stage.quiet(Duration::from_millis(500)).await;
        assert_eq!(std::fs::read_to_string(&witness).unwrap(), "begun\n", "{mood:?}");
        assert_eq!(stage.hub.counters().lost, 0, "{mood:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_lay_in_a_stalled_connection_until_it_was_lost_is_not_begun() {
    // Only what goes to the worker stalls: its heartbeats arrive, so that the session lives on.
    let mut stage = Stage::new().await;
    let proxy = Arc::new(Proxy::new(stage.address).await);
    let stalled = Worker::start(&proxy.address.to_string(), "stalled", &[], &[]);
    stage.joined("stalled").await;
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("witness");
    let work = |word: &str| script(&format!("echo {word} >> {}; echo {word}", witness.display()));
    proxy.set(Mood::Stalls);
    tokio::time::sleep(Duration::from_millis(100)).await;
    stage.hub.dispatch(task("a", 1, work("first")));
    let lost = stage.report().await;
    assert!(lost.result.is_err(), "{lost:?}");
    let _other = stage.worker("other", &["--capability", "moves"]).await;
    let mut again = task("a", 2, work("second"));
    again.place.capabilities = vec!["moves".into()];
    stage.hub.dispatch(again);
    assert_eq!(stage.text().await, "second");
    proxy.set(Mood::Passes);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(std::fs::read_to_string(&witness).unwrap(), "second\n", "{}", stalled.said());
    until("the stalled worker is told to leave it", || stage.hub.counters().stale >= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_or_doubled_by_a_cut_connection() {
    let mut stage = Stage::new().await;
    let proxy = Arc::new(Proxy::new(stage.address).await);
    let worker = Worker::start(&proxy.address.to_string(), "w", &[], &[]);
    stage.joined("w").await;
    let prints = "i=0; while [ $i -lt 30000 ]; do echo line $i; i=$((i+1)); done";
    stage.hub.dispatch(task("many", 1, script(prints)));
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        proxy.set(Mood::Cuts);
        tokio::time::sleep(Duration::from_millis(30)).await;
        proxy.set(Mood::Passes);
        stage.joined("w").await;
    }
    let report = stage.report().await;
    assert!(matches!(report.result, Ok(Outcome::Succeeded { .. })), "{report:?}\n{}", worker.said());
    let expect: String = (0..30_000).map(|number| format!("line {number}\n")).collect();
    let log = stage.log("many");
    assert!(log == expect, "{} lines of 30000", log.lines().count());
    worker.says("no connection").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_while_the_gateway_was_away_is_reported_when_it_is_back() {
    let mut stage = Stage::new().await;
    let worker = stage.worker("w", &[]).await;
    stage.hub.dispatch(task("short", 1, script("sleep 0.3; echo short")));
    stage.hub.dispatch(task("long", 2, script("sleep 1.5; echo long")));
    until("both are in work", || stage.hub.in_work() == 2).await;
    stage.restart_gateway(Duration::from_millis(500)).await;
    assert_eq!(stage.text().await, "short");
    assert_eq!(stage.text().await, "long");
    assert_eq!(stage.hub.counters().lost, 0);
    worker.says("shutting down").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_drains_and_leaves() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker("w", &["--concurrency", "1"]).await;
    stage.hub.dispatch(task("a", 1, script("sleep 0.7; echo a")));
    until("it is in work", || stage.hub.in_work() == 1).await;
    worker.signal(Signal::TERM);
    worker.says("takes no more tasks").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.hub.dispatch(task("b", 2, script("echo b")));
    assert_eq!(stage.text().await, "a");
    assert_eq!(worker.ended().await, Some(0), "{}", worker.said());
    stage.quiet(Duration::from_millis(300)).await;
    let _other = stage.worker("other", &[]).await;
    assert_eq!(stage.text().await, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_while_draining_is_ended() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker("w", &["--drain-timeout", "300ms"]).await;
    stage.hub.dispatch(task("a", 1, script("sleep 7773")));
    until("it is in work", || lives("7773")).await;
    worker.signal(Signal::INT);
    assert_eq!(stage.report().await.result, Ok(Outcome::Stopped));
    assert_eq!(worker.ended().await, Some(0), "{}", worker.said());
    // And on a second signal at once, whatever it does against it.
    let mut worker = stage.worker("w2", &[]).await;
    stage.hub.dispatch(task("b", 2, script("trap '' TERM; while true; do sleep 0.7774; done")));
    until("it is in work", || lives("0.7774")).await;
    let began = Instant::now();
    worker.signal(Signal::TERM);
    worker.says("takes no more tasks").await;
    worker.signal(Signal::TERM);
    assert_eq!(stage.report().await.result, Ok(Outcome::Stopped));
    assert_eq!(worker.ended().await, Some(0), "{}", worker.said());
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_loaded_able_worker_gets_the_task() {
    let mut stage = Stage::new().await;
    let one = tempfile::tempdir().unwrap();
    let _small = stage.worker("small", &["--concurrency", "1"]).await;
    let _large = stage.worker("large", &["--concurrency", "4", "--capability", "gpu", "--queue", "default,q"]).await;
    let go = one.path().join("go");
    for number in 1..=4 {
        let wait = format!("while [ ! -e {} ]; do sleep 0.05; done; echo ok", go.display());
        stage.hub.dispatch(task(&format!("t{number}"), number, script(&wait)));
    }
    let load = |name: &str| stage.hub.workers().iter().find(|(one, _, _)| &**one == name).map(|(_, _, has)| *has);
    until("four are in work", || load("small") == Some(1) && load("large") == Some(3)).await;
    let only = Task {
        place: Placement { queue: Arc::from("q"), capabilities: vec!["gpu".into()], ..Placement::default() },
        ..task("t5", 5, script("echo ok"))
    };
    stage.hub.dispatch(only);
    assert_eq!(stage.report().await.unit.as_str(), "t5");
    std::fs::write(&go, "").unwrap();
    for _ in 1..=4 {
        assert_eq!(stage.text().await, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_lie_below_the_workers_root() {
    let mut stage = Stage::new().await;
    let checkout = tempfile::tempdir().unwrap();
    std::fs::create_dir(checkout.path().join("sub")).unwrap();
    let there = |token: u64, dir: &str| {
        let mut task = task("a", token, script("pwd"));
        task.place.root = Arc::from("/srv/project");
        if let Work::Run(script) = &mut task.work {
            script.dir = dir.to_owned();
        }
        task
    };
    let worker = stage.worker("w", &["--root", checkout.path().to_str().unwrap()]).await;
    stage.hub.dispatch(there(1, "/srv/project/sub"));
    assert_eq!(stage.text().await, checkout.path().join("sub").canonicalize().unwrap().to_str().unwrap());
    stage.hub.dispatch(there(2, "/srv/project/absent"));
    let (class, words) = failure(&stage.report().await.result);
    assert!(class == ErrorClass::Permanent && words.contains("absent is not there"), "{words}");
    drop(worker);
    let _plain = stage.worker("plain", &[]).await;
    stage.hub.dispatch(there(3, "/srv/project/sub"));
    let (_, words) = failure(&stage.report().await.result);
    assert!(words.contains("--root DIR"), "{words}");
}
