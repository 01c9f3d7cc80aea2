//! Who gets in: tokens, certificates, versions.

use tokio_stream::iter;
use tol::dispatch::Dispatch;
use tol::gateway::{GatewayConfig, TlsFiles, Tokens};
use tol::proto::v1::workers_client::WorkersClient;
use tol::proto::v1::{FromWorker, Register, ToWorker, from_worker};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::grpc::certificates::{Authority, Files};
use crate::grpc::stage::{Stage, Worker, script, task};

pub async fn connect(stage: &Stage) -> Channel {
    Endpoint::from_shared(format!("http://{}", stage.address)).unwrap().connect().await.unwrap()
}

pub fn register(name: &str) -> Register {
    Register {
        worker: name.to_owned(),
        queues: vec!["default".to_owned()],
        capabilities: Vec::new(),
        concurrency: 1,
        leases: Vec::new(),
        version: "1.7.0".to_owned(),
    }
}

pub fn message(message: from_worker::Message) -> FromWorker {
    FromWorker { message: Some(message), number: 0 }
}

/// Registers and says nothing more, but stays.
pub async fn session(channel: Channel, register: Register, token: Option<&str>) -> Result<Streaming<ToWorker>, Status> {
    use tokio_stream::StreamExt as _;
    let first = message(from_worker::Message::Register(register));
    let stays = tokio_stream::pending();
    let mut request = Request::new(iter([first]).chain(stays));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    Ok(WorkersClient::new(channel).session(request).await?.into_inner())
}

/// Whether a service is well.
async fn health(stage: &Stage, service: &str) -> Result<i32, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(HealthClient::new(connect(stage).await).check(request).await?.into_inner().status)
}

async fn services(stage: &Stage, token: Option<&str>) -> Result<Vec<String>, Status> {
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut request = Request::new(iter([ask]));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut answers =
        ServerReflectionClient::new(connect(stage).await).server_reflection_info(request).await?.into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await?.unwrap().message_response else {
        panic!("no list of services");
    };
    Ok(list.service.into_iter().map(|service| service.name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_whether_the_gateway_is_ready() {
    let stage = Stage::new().await;
    for service in ["", "tol.v1.Workers", "tol.v1.Runs"] {
        assert_eq!(health(&stage, service).await.unwrap(), ServingStatus::Serving as i32, "{service}");
    }
    stage.readiness.set(false).await;
    assert_eq!(health(&stage, "tol.v1.Workers").await.unwrap(), ServingStatus::NotServing as i32);
    assert_eq!(health(&stage, "tol.v1.Absent").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_the_services() {
    let stage = Stage::new().await;
    let services = services(&stage, None).await.unwrap();
    for name in ["tol.v1.Workers", "tol.v1.Runs", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(services.iter().any(|service| service == name), "{name} is not among {services:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_and_each_opens_what_it_is_for() {
    let tokens = Tokens::new(Some("all-of-it"), Some("only-work"));
    let mut stage = Stage::with(GatewayConfig { tokens, ..GatewayConfig::default() }).await;
    let address = stage.address.to_string();
    for (env, words) in [(vec![], "wants a token"), (vec![("TOL_TOKEN", "wrong-one")], "not the gateway's token")] {
        let mut worker = Worker::start(&address, "refused", &[], &env);
        assert_eq!(worker.ended().await, Some(1), "{}", worker.said());
        assert!(worker.said().contains(words) && !worker.said().contains("wrong-one"), "{}", worker.said());
    }
    let _worker = Worker::start(&address, "w", &[], &[("TOL_WORKER_TOKEN", "only-work")]);
    stage.joined("w").await;
    stage.hub.dispatch(task("a", 1, script("echo \"${TOL_WORKER_TOKEN-}\"")));
    assert_eq!(stage.text().await, "");
    let _other = Worker::start(&address, "other", &[], &[("TOL_TOKEN", "all-of-it")]);
    stage.joined("other").await;
    assert_eq!(services(&stage, None).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(services(&stage, Some("only-work")).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(services(&stage, Some("all-of-it")).await.is_ok());
    assert!(health(&stage, "").await.is_ok());
    // What is no service at all is denied too, and not said to be absent.
    let mut anything = tonic::client::Grpc::new(connect(&stage).await);
    anything.ready().await.unwrap();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/tol.v1.Nothing/Here");
    let codec = tonic_prost::ProstCodec::<Register, Register>::default();
    let status = anything.unary(Request::new(register("w")), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_major_version_is_told_so() {
    let stage = Stage::new().await;
    let newer = Register { version: "2.0.0".to_owned(), ..register("w") };
    let status = session(connect(&stage).await, newer, None).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("not `2.0.0`"), "{status:?}");
    for wrong in [
        Register { worker: String::new(), ..register("w") },
        Register { queues: Vec::new(), ..register("w") },
        Register { concurrency: 0, ..register("w") },
        Register { concurrency: 5000, ..register("w") },
    ] {
        let status = session(connect(&stage).await, wrong, None).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    assert!(session(connect(&stage).await, register("w"), None).await.is_ok());
}

struct Secured {
    stage: Stage,
    folder: tempfile::TempDir,
    authority: Authority,
}

async fn secured(asks_for_certificates: bool) -> Secured {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let files = authority.server(folder.path());
    let ca = authority.file(folder.path(), "ca.pem");
    let client_ca = asks_for_certificates.then_some(ca);
    let tls = TlsFiles { certificate: files.certificate, key: files.key, client_ca };
    let mut config = GatewayConfig { tls: Some(tls), ..GatewayConfig::default() };
    config.identities.add("mapped=default").unwrap();
    Secured { stage: Stage::with(config).await, folder, authority }
}

impl Secured {
    fn worker(&self, name: &str, ca: &Authority, files: Option<&Files>) -> Worker {
        let ca = ca.file(self.folder.path(), &format!("{name}-ca.pem"));
        let mut arguments = vec!["--tls-ca".to_owned(), ca.to_str().unwrap().to_owned()];
        if let Some(files) = files {
            arguments.extend(["--tls-cert".to_owned(), files.certificate.to_str().unwrap().to_owned()]);
            arguments.extend(["--tls-key".to_owned(), files.key.to_str().unwrap().to_owned()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Worker::start(&self.stage.address.to_string(), name, &arguments, &[])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_keeps_the_connection_private() {
    let mut secured = secured(false).await;
    let _worker = secured.worker("w", &secured.authority, None);
    secured.stage.joined("w").await;
    secured.stage.hub.dispatch(task("a", 1, script("echo private")));
    assert_eq!(secured.stage.text().await, "private");
    // A worker that trusts another authority does not talk to this gateway, and one without TLS is not understood.
    let stranger = secured.worker("stranger", &Authority::new(), None);
    stranger.says("no connection to").await;
    assert!(stranger.said().to_lowercase().contains("certificate"), "{}", stranger.said());
    let plain = Worker::start(&secured.stage.address.to_string(), "plain", &[], &[]);
    plain.says("no connection to").await;
    assert_eq!(secured.stage.hub.workers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_bound_to_its_queues() {
    let secured = secured(true).await;
    let folder = secured.folder.path();
    let itself = secured.authority.worker(folder, "itself", &["default"]);
    let mapped = secured.authority.worker(folder, "mapped", &[]);
    let other = secured.authority.worker(folder, "other", &["gpu"]);
    let forged = Authority::new().worker(folder, "forged", &["default"]);
    let _itself = secured.worker("itself", &secured.authority, Some(&itself));
    secured.stage.joined("itself").await;
    let _mapped = secured.worker("mapped", &secured.authority, Some(&mapped));
    secured.stage.joined("mapped").await;
    let mut other = secured.worker("other", &secured.authority, Some(&other));
    assert_eq!(other.ended().await, Some(1), "{}", other.said());
    assert!(other.said().contains("does not allow queue `default`"), "{}", other.said());
    let forged = secured.worker("forged", &secured.authority, Some(&forged));
    forged.says("no connection to").await;
    let without = secured.worker("without", &secured.authority, None);
    without.says("no connection to").await;
    assert_eq!(secured.stage.hub.workers().len(), 2);
}
