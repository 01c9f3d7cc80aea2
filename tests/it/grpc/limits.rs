//! What there is too much of: connections, bytes, silence.

use std::time::{Duration, Instant};

use tokio_stream::iter;
use tol::dispatch::Dispatch;
use tol::gateway::GatewayConfig;
use tol::proto::v1::workers_client::WorkersClient;
use tol::proto::v1::{ArtifactPiece, ArtifactRef, Heartbeat, from_worker};
use tol::task::{ErrorClass, Outcome};
use tonic::{Code, Status};

use crate::grpc::access::{connect, message, register, session};
use crate::grpc::failure;
use crate::grpc::stage::{Stage, TERMS, script, task, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_101st_connection_is_told_that_there_are_100() {
    let stage = Stage::new().await;
    let mut open = Vec::new();
    for number in 0..100 {
        let channel = connect(&stage).await;
        open.push(session(channel, register(&format!("w{number}")), None).await.unwrap());
    }
    let status = session(connect(&stage).await, register("one-more"), None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("100 connections"), "{status:?}");
    open.pop();
    let began = Instant::now();
    while session(connect(&stage).await, register("one-more"), None).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "no place became free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A script that prints so many bytes.
fn prints(bytes: usize) -> String {
    format!("head -c {bytes} /dev/zero | tr '\\0' a")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_larger_than_a_message_is_refused_by_name() {
    let mut stage = Stage::new().await;
    let worker = stage.worker("w", &[]).await;
    let most = 10 * 1024 * 1024 - 128 * 1024;
    stage.hub.dispatch(task("fits", 1, script(&prints(most))));
    assert_eq!(stage.text().await.len(), most);
    stage.hub.dispatch(task("large", 2, script(&prints(11 * 1024 * 1024))));
    let (class, words) = failure(&stage.report().await.result);
    assert!(class == ErrorClass::Permanent && words.contains("MESSAGE_TOO_LARGE"), "{words}");
    let large_script = format!("# {}\necho ok", "x".repeat(11 * 1024 * 1024));
    stage.hub.dispatch(task("task", 3, script(&large_script)));
    let (class, words) = failure(&stage.report().await.result);
    assert!(class == ErrorClass::Permanent && words.contains("MESSAGE_TOO_LARGE"), "{words}");
    // And it goes on as if nothing had been.
    stage.hub.dispatch(task("after", 4, script("echo after")));
    assert_eq!(stage.text().await, "after");
    assert!(!worker.said().contains("no connection"), "{}", worker.said());
    let huge = Heartbeat { worker: "y".repeat(11 * 1024 * 1024), ..Heartbeat::default() };
    let messages = iter([
        message(from_worker::Message::Register(register("raw"))),
        message(from_worker::Message::Heartbeat(huge)),
    ]);
    let mut client = WorkersClient::new(connect(&stage).await);
    let mut answers = client.session(messages).await.unwrap().into_inner();
    let status = loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without words"),
            Err(status) => break status,
        }
    };
    check_too_large(&status);
    let piece = ArtifactPiece { data: vec![0; 11 * 1024 * 1024] };
    let status = client.put_artifact(iter([piece])).await.unwrap_err();
    // There is no store here; that is said first.
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
}

fn check_too_large(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().starts_with("MESSAGE_TOO_LARGE: "), "{status:?}");
    assert_eq!(status.metadata().get("tol-error").unwrap(), "MESSAGE_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_store_it_goes_as_an_artifact() {
    let mut stage = Stage::with_store(GatewayConfig::default(), true).await;
    let _worker = stage.worker("w", &[]).await;
    let bytes = 11 * 1024 * 1024;
    stage.hub.dispatch(task("large", 1, script(&prints(bytes))));
    assert_eq!(stage.text().await.len(), bytes);
    let large_script = format!("# {}\necho ok", "x".repeat(bytes));
    stage.hub.dispatch(task("task", 2, script(&large_script)));
    assert_eq!(stage.text().await, "ok");
    let mut client = WorkersClient::new(connect(&stage).await);
    let piece = ArtifactPiece { data: vec![0; bytes] };
    check_too_large(&client.put_artifact(iter([piece])).await.unwrap_err());
    let absent = ArtifactRef { hash: "0".repeat(64), bytes: 1 };
    assert_eq!(client.get_artifact(absent).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_says_nothing_is_sent_away() {
    let stage = Stage::new().await;
    let mut answers = session(connect(&stage).await, register("silent"), None).await.unwrap();
    assert!(answers.message().await.unwrap().is_some());
    let began = Instant::now();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(began.elapsed() >= TERMS.lease - Duration::from_millis(200));
    until("it is forgotten", || stage.hub.workers().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_workers_with_one_name_stays() {
    let mut stage = Stage::new().await;
    let mut older = session(connect(&stage).await, register("twin"), None).await.unwrap();
    assert!(older.message().await.unwrap().is_some());
    let _newer = stage.worker("twin", &[]).await;
    let status = older.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    stage.hub.dispatch(task("a", 1, script("echo newer")));
    let report = stage.report().await;
    assert!(matches!(report.result, Ok(Outcome::Succeeded { .. })), "{report:?}");
}
