//! `tol serve`: the long-running scheduler.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::args::StateArgs;
use super::artifacts::ArtifactArgs;
use super::context::Context;
use super::exit::{DONE, Failure};
use super::print::err;
use crate::gateway::{GatewayConfig, TlsFiles, Tokens};
use crate::journal::{Journal, StateFolder};
use crate::server::{LocalWorker, Server, ServerConfig, ServerError, Signalled, Token};
use crate::watch;

/// `tol serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The folder of pipelines
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Where to listen [default: GRPC_HOST and GRPC_PORT, else 127.0.0.1:50051]
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: Option<SocketAddr>,
    /// The server's certificate, in PEM [default: GRPC_TLS_CERT]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, in PEM [default: GRPC_TLS_KEY]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Callers need a certificate of this CA, in PEM [default: GRPC_TLS_CLIENT_CA]
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Which queues the worker with this certificate may serve; `*` is every name, or every queue
    #[arg(long, value_name = "NAME=QUEUE[,QUEUE…]")]
    pub worker_identity: Vec<String>,
    /// The server's name, the same after it has been started again [default: the host's name and the port]
    #[arg(long, env = "TOL_SERVER_NAME", value_name = "NAME")]
    pub name: Option<String>,
    /// Carry tasks over the Kafka that KAFKA_BROKERS and its kin name; workers that connect here get theirs here
    #[arg(long)]
    pub kafka: bool,
    /// Where to tell figures and readiness over HTTP: /metrics, /healthz and /readyz
    #[arg(long, env = "TOL_METRICS_LISTEN", value_name = "HOST:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Do no work here: leave it to workers on other machines
    #[arg(long)]
    pub no_local_worker: bool,
    /// How long the server's own steps may take to end when it is told to
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub grace: u64,
    #[command(flatten)]
    pub artifacts: ArtifactArgs,
    #[command(flatten)]
    pub state: StateArgs,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(arguments: &ServeArgs) -> Result<u8, Failure> {
    if !arguments.folder.is_dir() {
        let why = if arguments.folder.exists() { "is a file, not a folder" } else { "there is no such folder" };
        return Err(Failure::invalid(format!("{}: {why}", arguments.folder.display())));
    }
    // The project around any file in the folder is the project around the folder.
    let context = Context::around(Some(&arguments.folder.join("pipeline.yaml")), &arguments.state)?;
    let environment = context.environment()?;
    let folder = StateFolder::new(&context.state_dir);
    folder.create()?;
    let mut gateway = GatewayConfig::from_env(&environment).map_err(|error| Failure::invalid(error.to_string()))?;
    configure(&mut gateway, arguments)?;
    let token = match environment.get("TOL_TOKEN").filter(|token| !token.is_empty()) {
        Some(token) => Token::new(token, "TOL_TOKEN"),
        None => Token::read_or_make(&context.state_dir),
    };
    let token = token.map_err(|error| Failure::invalid(error.to_string()))?;
    gateway.tokens = Tokens::new(Some(token.secret()), environment.get("TOL_WORKER_TOKEN").map(String::as_str));
    let shared = context.shared_journal()?;
    gateway.scheduler = arguments.name.clone().unwrap_or_else(|| format!("{}-{}", super::worker::host(), gateway.port));
    // Two processes of one name are two servers all the same.
    let member = format!("{}, process {}", gateway.scheduler, std::process::id());
    let partitions = shared.as_ref().map(|journal| journal.join(&member)).transpose()?;
    let artifacts = arguments.artifacts.of_scheduler(&context)?;
    let kafka = arguments.kafka.then(|| super::worker_kafka::settings(&environment)).transpose()?;
    let journal: Arc<dyn Journal> = match shared {
        Some(journal) => Arc::new(journal),
        None => context.journal()?,
    };
    let config = ServerConfig {
        folder: arguments.folder.clone(),
        root: context.root.clone(),
        state_dir: context.state_dir.clone(),
        journal,
        partitions,
        environment,
        gateway,
        artifacts,
        kafka,
        metrics: arguments.metrics_listen,
        local_worker: if arguments.no_local_worker { LocalWorker::Off } else { LocalWorker::On },
        grace: Duration::from_secs(arguments.grace),
        watch: watch::Options { ignored: vec![context.state_dir.clone()], ..watch::Options::default() },
        say: Arc::new(|words: &str| err!("{}", words.trim_end())),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(config));
    // What still goes on belongs to nobody any more; its process groups end with it.
    runtime.shutdown_background();
    result
}

/// Lays the flags over what the environment says.
fn configure(gateway: &mut GatewayConfig, arguments: &ServeArgs) -> Result<(), Failure> {
    if let Some(address) = arguments.listen {
        gateway.host = address.ip().to_string();
        gateway.port = address.port();
    }
    if let (Some(certificate), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) {
        let client_ca = gateway.tls.take().and_then(|files| files.client_ca);
        gateway.tls = Some(TlsFiles { certificate: certificate.clone(), key: key.clone(), client_ca });
    }
    if let Some(ca) = &arguments.client_ca {
        let Some(files) = &mut gateway.tls else {
            return Err(Failure::invalid("--client-ca needs TLS: give --tls-cert and --tls-key, too"));
        };
        files.client_ca = Some(ca.clone());
    }
    for identity in &arguments.worker_identity {
        gateway.identities.add(identity).map_err(|why| Failure::invalid(format!("--worker-identity {why}")))?;
    }
    if !arguments.worker_identity.is_empty() && gateway.tls.as_ref().is_none_or(|files| files.client_ca.is_none()) {
        return Err(Failure::invalid("--worker-identity needs certificates of workers: give --client-ca, too"));
    }
    Ok(())
}

async fn serve(config: ServerConfig) -> Result<u8, Failure> {
    let signals = signals()?;
    let failed = |error: ServerError| match error {
        ServerError::Gateway(_) | ServerError::Kafka(_) => Failure::invalid(error.to_string()),
        ServerError::Artifacts(_)
        | ServerError::Journal(_)
        | ServerError::Runtime(_)
        | ServerError::Io { .. }
        | ServerError::Fault => Failure::failed(error.to_string()),
    };
    let (scheme, state) = (if config.gateway.tls.is_some() { "https" } else { "http" }, config.state_dir.clone());
    let server = Server::start(config).await.map_err(failed)?;
    err!(
        "listening on {scheme}://{}; the token is in TOL_TOKEN, or else in {}",
        server.address(),
        state.join("token").display()
    );
    server.run(signals).await.map_err(failed)?;
    Ok(DONE)
}

/// What the system tells this process.
fn signals() -> std::io::Result<mpsc::Receiver<Signalled>> {
    let (sender, receiver) = mpsc::channel(8);
    for (kind, meaning) in [
        (SignalKind::hangup(), Signalled::Reload),
        (SignalKind::terminate(), Signalled::End),
        (SignalKind::interrupt(), Signalled::End),
    ] {
        let mut listener = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move { while listener.recv().await.is_some() && sender.send(meaning).await.is_ok() {} });
    }
    Ok(receiver)
}
