//! Puts a gateway together and serves it: services, access, TLS, health, reflection, and how it ends.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn;
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::artifact::Store;
use crate::dispatch::{Hub, LogSink};
use crate::gateway::access::Access;
use crate::gateway::config::{GatewayConfig, GatewayError, TlsFiles};
use crate::gateway::incoming::{Limits, address_of, connections};
use crate::gateway::session::{Shared, Workers};
use crate::proto::v1::workers_server::WorkersServer;
use crate::proto::{DESCRIPTORS, MAX_MESSAGE_BYTES};

/// The services whose health is told, beside that of the whole.
const HEALTH_NAMES: [&str; 3] = ["", "tol.v1.Workers", "tol.v1.Runs"];
/// How much may be on its way to one side of a stream, and of a connection: a message goes without waiting in between.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// How many calls one connection may have open.
const STREAMS_MAX: u32 = 256;
/// How long a handshake may take.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// How long the last messages of sessions may take before connections are asked to end.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Says whether a gateway is ready, to whoever asks for its health.
#[derive(Clone)]
pub struct Readiness(HealthReporter);

impl Readiness {
    /// Says so.
    pub async fn set(&self, ready: bool) {
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in HEALTH_NAMES {
            self.0.set_service_status(name, status).await;
        }
    }
}

/// A gateway that is about to serve.
pub struct Gateway {
    config: GatewayConfig,
    shared: Arc<Shared>,
    routes: RoutesBuilder,
    readiness: Readiness,
    limits: Limits,
}

impl Gateway {
    /// A gateway to a hub. Log lines of workers go to `logs`; payloads too large for a message go by way of
    /// `artifacts`.
    pub fn new(
        config: GatewayConfig,
        hub: Arc<Hub>,
        logs: Arc<dyn LogSink>,
        artifacts: Option<Arc<dyn Store>>,
    ) -> Self {
        let (reporter, health) = tonic_health::server::health_reporter();
        let (identities, scheduler) = (config.identities.clone(), config.scheduler.clone());
        let shared = Arc::new(Shared::new(hub, logs, artifacts, identities, scheduler));
        let workers = WorkersServer::new(Workers(shared.clone()))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut routes = Routes::builder();
        routes.add_service(workers);
        routes.add_service(health);
        let limits = Limits::new(config.max_connections);
        // Nobody else has the reporter yet, so this is done at once.
        let _ = Readiness(reporter.clone()).set(false).now_or_never();
        Self { config, shared, routes, readiness: Readiness(reporter), limits }
    }

    /// Another service on the same port, behind the same access.
    pub fn with_service<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self
    }

    /// Says whether the gateway is ready. It says no until it is told to say yes.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// How many connections are served at this moment, whenever it is asked.
    pub fn connections(&self) -> impl Fn() -> usize + Send + Sync + 'static {
        let limits = self.limits.clone();
        move || limits.active()
    }

    /// Listens on the address of the settings.
    ///
    /// # Errors
    /// If the address is public without TLS and a token, or cannot be had.
    pub async fn listen(&self) -> Result<TcpListener, GatewayError> {
        let address = format!("{}:{}", self.config.host.trim_matches(['[', ']']), self.config.port);
        let listener = TcpListener::bind((self.config.host.trim_matches(['[', ']']), self.config.port))
            .await
            .map_err(|error| GatewayError::Listen { address: address.clone(), error })?;
        let at = address_of(&listener).map_err(|error| GatewayError::Listen { address, error })?;
        self.config.check_address(at)?;
        Ok(listener)
    }

    /// Serves until `shutdown` is done. Then workers are told to go elsewhere, and connections may end by themselves
    /// for a moment before they are closed.
    ///
    /// # Errors
    /// If the address is public without TLS and a token, or the TLS files cannot be used.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), GatewayError> {
        let address =
            address_of(&listener).map_err(|error| GatewayError::Listen { address: self.config.host.clone(), error })?;
        self.config.check_address(address)?;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| GatewayError::Serve(error.to_string()))?;
        self.routes.add_service(reflection);
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(self.config.keepalive))
            .http2_keepalive_timeout(Some(self.config.keepalive_timeout))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_MAX);
        if let Some(files) = &self.config.tls {
            server = server.tls_config(tls_of(files)?).map_err(|error| GatewayError::Tls(words_of(&error)))?;
        }
        let access = Arc::new(Access { tokens: self.config.tokens.clone() });
        let router = self.routes.routes().prepare().into_axum_router();
        let router = router.layer(from_fn(move |request, next| access.clone().pass(request, next)));
        let close = CancellationToken::new();
        let incoming = connections(listener, self.limits, close.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = server.serve_with_incoming_shutdown(Routes::from(router), Box::pin(incoming), async {
            let _ = stopped.await;
        });
        tokio::pin!(served);
        let ended =
            |result: Result<(), tonic::transport::Error>| result.map_err(|error| GatewayError::Serve(words_of(&error)));
        tokio::select! {
            result = &mut served => return ended(result),
            () = shutdown => {}
        }
        self.readiness.set(false).await;
        self.shared.close("this gateway is shutting down");
        tokio::select! {
            result = &mut served => return ended(result),
            () = tokio::time::sleep(LAST_WORDS) => {}
        }
        let _ = stop.send(());
        match tokio::time::timeout(self.config.grace, &mut served).await {
            Ok(result) => ended(result),
            Err(_) => {
                close.cancel();
                Ok(())
            }
        }
    }
}

fn tls_of(files: &TlsFiles) -> Result<ServerTlsConfig, GatewayError> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| GatewayError::File { path: path.to_owned(), error });
    let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
    let mut tls = ServerTlsConfig::new().identity(identity).timeout(HANDSHAKE_WAIT);
    if let Some(ca) = &files.client_ca {
        tls = tls.client_ca_root(Certificate::from_pem(read(ca)?));
    }
    Ok(tls)
}

/// An error with what caused it: the transport says the reason only there.
fn words_of(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        words = format!("{words}: {error}");
        next = error.source();
    }
    words
}
