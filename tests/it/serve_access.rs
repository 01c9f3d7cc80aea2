//! How callers get to a `tol serve`: over TLS, with tokens, and for as long as they want to wait.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use prost::Message;
use tol::proto::v1;
use tonic::codegen::{Bytes, http};

use crate::grpc::certificates::Authority;
use crate::serving::Serving;
use crate::support::Project;

const GREET: &str = "\
apiVersion: tol/v1
name: greet
steps:
  - { id: hello, run: echo hello }
outputs:
  text: \"{{ hello.outputs.text }}\"
";

const SLEEP: &str = "\
apiVersion: tol/v1
name: sleep
steps:
  - { id: work, run: sleep 60 }
";

/// A process that ends with this.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_with_a_certificate_is_reached_by_whoever_knows_its_authority() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = Authority::new();
    let (files, ca) = (authority.server(folder.path()), authority.file(folder.path(), "ca.pem"));
    let other = Authority::new().file(folder.path(), "other.pem");
    let path = |path: &std::path::Path| path.to_str().expect("a plain path").to_owned();
    let (certificate, key, ca, other) = (path(&files.certificate), path(&files.key), path(&ca), path(&other));
    let project = Project::new(&[("greet.yaml", GREET)]);
    let serving = Serving::over(project, &["--tls-cert", &certificate, "--tls-key", &key]);
    assert!(serving.address.starts_with("https://127.0.0.1:"), "{}", serving.address);
    let ran = serving.tol(&["run", "greet", "--format", "json", "--tls-ca", &ca]);
    assert_eq!((ran.code, &ran.summary()["outputs"]["text"]), (Some(0), &"hello".into()), "{}", ran.said());
    let named = serving.address.replace("127.0.0.1", "localhost");
    let listed = serving.project.tol(&["runs", "list", "--server", &named, "--tls-ca", &ca]);
    assert!(listed.code == Some(0) && listed.stdout.contains("greet"), "{}", listed.said());

    let refused = |arguments: &[&str], words: &[&str]| {
        let ran = serving.project.tol(&[&["runs", "list"], arguments].concat());
        let is_said = words.iter().all(|word| ran.stderr.contains(word));
        assert!(ran.code == Some(1) && is_said, "{arguments:?} {}", ran.said());
    };
    let unknown = ["cannot be reached", "certificate", "--tls-ca, or TOL_TLS_CA"];
    refused(&["--server", &serving.address], &unknown);
    refused(&["--server", &serving.address, "--tls-ca", &other], &unknown);
    let clear = serving.address.replace("https://", "http://");
    refused(&["--server", &clear], &["cannot be reached"]);
}

#[test]
fn an_empty_worker_token_is_none() {
    let serving = Serving::over(Project::new(&[("greet.yaml", GREET)]), &["--no-local-worker"]);
    let token = std::fs::read_to_string(serving.project.path().join(".tol/token")).expect("there is a token");
    let gateway = serving.address.replace("http://", "");
    let log = std::fs::File::create(serving.project.path().join("worker.log")).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
    command.args(["worker", "--gateway", &gateway, "--name", "w"]).current_dir(serving.project.path());
    command.env("TOL_WORKER_TOKEN", "").env("TOL_TOKEN", token.trim()).env_remove("DATABASE_URL");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("tol starts");
    let _worker = Beside(child);
    let ran = serving.tol(&["run", "greet", "--format", "json"]);
    let said = std::fs::read_to_string(serving.project.path().join("worker.log")).unwrap_or_default();
    assert_eq!(ran.code, Some(0), "{}\n{said}", ran.said());
    assert!(said.contains("connected to"), "{said}");
}

/// Asks over a bare connection, which ends nothing by itself, and gives the status that the server answers.
async fn status_of(address: &str, token: &str, method: &str, message: &[u8], timeout: &str) -> Option<String> {
    let connection = tokio::net::TcpStream::connect(address.trim_start_matches("http://")).await.expect("a connection");
    let (mut client, connection) = h2::client::handshake(connection).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = http::Request::post(format!("{address}/tol.v1.Runs/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .header("grpc-timeout", timeout)
        .body(())
        .expect("a request");
    let (response, mut body) = client.send_request(request, false).expect("it is sent");
    let length = u32::try_from(message.len()).expect("a short message");
    let frame = [&[0], &length.to_be_bytes()[..], message].concat();
    body.send_data(Bytes::from(frame), true).expect("it is sent");
    let mut response = response.await.expect("an answer");
    let said = |headers: &http::HeaderMap| Some(headers.get("grpc-status")?.to_str().ok()?.to_owned());
    if let Some(status) = said(response.headers()) {
        return Some(status);
    }
    while let Some(data) = response.body_mut().data().await {
        data.expect("a whole body");
    }
    said(&response.body_mut().trailers().await.expect("whole trailers")?)
}

#[test]
fn a_call_ends_when_its_caller_no_longer_waits() {
    let project = Project::new(&[("sleep.yaml", SLEEP)]);
    let driver = Beside(project.begin(&["run", "sleep.yaml", "--format", "plain"]));
    let mut run = String::new();
    let began = Instant::now();
    while run.is_empty() {
        assert!(began.elapsed() < Duration::from_secs(20), "the run does not begin");
        let listed = project.tol(&["runs", "list", "--format", "json"]).stdout;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap_or_default();
        run = listed[0]["run_id"].as_str().unwrap_or_default().to_owned();
    }
    // Who drives the run does not answer, and a command to it is waited for half a minute.
    let frozen = Command::new("kill").args(["-STOP", &driver.0.id().to_string()]).status().expect("kill runs");
    assert!(frozen.success());
    let serving = Serving::over(project, &["--no-local-worker"]);
    let token = std::fs::read_to_string(serving.project.path().join(".tol/token")).expect("there is a token");
    let command = v1::steer_request::Command::Pause(v1::Pause {});
    let request = v1::SteerRequest { run: run.clone(), by: "ann".to_owned(), command: Some(command) };
    let list = v1::ListRequest::default().encode_to_vec();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (steered, took, listed) = runtime.block_on(async {
        let (address, token) = (serving.address.as_str(), token.trim());
        let asked = Instant::now();
        let steered = status_of(address, token, "Steer", &request.encode_to_vec(), "700m").await;
        let took = asked.elapsed();
        (steered, took, status_of(address, token, "List", &list, "20S").await)
    });
    assert_eq!(listed.as_deref(), Some("0"), "what is answered in time is answered");
    // CANCELLED by the server, or DEADLINE_EXCEEDED.
    assert!(matches!(steered.as_deref(), Some("1" | "4")), "{steered:?}");
    assert!(took >= Duration::from_millis(600) && took < Duration::from_secs(10), "{took:?}");
}
