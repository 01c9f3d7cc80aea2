//! The same commands on the runs of a server: `--server ADDRESS`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::args::{
    ApproveArgs, ListArgs, LogsArgs, RemoteArgs, RunArgs, RunRef, Settle, ShowArgs, StateArgs, TextFormat,
};
use super::context::{Context, user};
use super::exit::{DONE, Failure};
use super::print::{out, out_text};
use super::{params, runs};
use crate::proto::v1::runs_client::RunsClient;
use crate::proto::v1::steer_request::Command;
use crate::proto::{MAX_MESSAGE_BYTES, v1};
use crate::server::Token;

/// The service whose health is asked for.
const RUNS: &str = "tol.v1.Runs";
/// How long a server may take to answer the first knock.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing comes for so long is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// How long the answer to a question may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a question is asked again, and the first pause before that; each further pause is twice as long.
const ASKED_AGAIN: u32 = 3;
const PAUSE: Duration = Duration::from_millis(100);

/// Shows the token with every call.
#[derive(Clone)]
pub struct Shows(Option<MetadataValue<Ascii>>);

impl Interceptor for Shows {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

/// A client of the runs service.
pub type Client = RunsClient<InterceptedService<Channel, Shows>>;

/// A server elsewhere.
pub struct Remote {
    pub runtime: tokio::runtime::Runtime,
    client: Client,
    channel: Channel,
    address: String,
    has_token: bool,
    has_tls: bool,
}

impl Remote {
    /// The server that the arguments name; none if the runs are here. Nothing is sent yet.
    pub fn of(arguments: &RemoteArgs, state: &StateArgs) -> Result<Option<Self>, Failure> {
        Self::named(arguments, || Ok(Context::around(None, state)?.state_dir))
    }

    /// The same, where the state folder around here is known.
    pub fn around(arguments: &RemoteArgs, state_dir: &Path) -> Result<Option<Self>, Failure> {
        Self::named(arguments, || Ok(state_dir.to_owned()))
    }

    fn named(
        arguments: &RemoteArgs,
        state_dir: impl FnOnce() -> Result<PathBuf, Failure>,
    ) -> Result<Option<Self>, Failure> {
        let Some(address) = arguments.server.as_deref().filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let token = token(state_dir)?;
        let endpoint = endpoint(address, arguments)?;
        let _inside = runtime.enter();
        let mut header: Option<MetadataValue<Ascii>> = token.as_ref().and_then(|token| token.header().parse().ok());
        if let Some(header) = &mut header {
            header.set_sensitive(true);
        }
        let has_token = header.is_some();
        let has_tls = endpoint.uri().scheme_str() == Some("https");
        let channel = endpoint.connect_lazy();
        let client = RunsClient::with_interceptor(channel.clone(), Shows(header))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        drop(_inside);
        Ok(Some(Self { runtime, client, channel, address: address.to_owned(), has_token, has_tls }))
    }

    /// Another handle to the same connection.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The address, as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether the connection is kept private.
    pub fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Whether the server takes runs. Nobody needs a token to ask that.
    pub async fn health(&self) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest { service: RUNS.to_owned() };
        Ok(HealthClient::new(self.channel.clone()).check(request).await?.into_inner().status())
    }

    /// Words and an exit code for what a server answered, or for its silence.
    pub fn failure(&self, status: &Status) -> Failure {
        let said = status.message();
        match status.code() {
            Code::InvalidArgument => Failure::invalid(said),
            Code::Unauthenticated if !self.has_token => Failure::failed(format!(
                "{} wants a token: set TOL_TOKEN to what stands in the file `token` of the server's state folder",
                self.address
            )),
            Code::Unauthenticated => Failure::failed(format!("{}: {said}", self.address)),
            Code::Unavailable | Code::Unknown | Code::Internal if is_transport(status) => {
                let cause = cause_of(status);
                let help = if cause.contains("certificate") {
                    "name the certificate that vouches for the server with --tls-ca, or TOL_TLS_CA"
                } else if status.code() != Code::Unavailable && !self.has_tls {
                    "if it has a certificate, write https:// before the address"
                } else {
                    "is `tol serve` running there, and is this its address?"
                };
                Failure::failed(format!("{} cannot be reached ({cause}); {help}", self.address))
            }
            Code::Unavailable => Failure::failed(format!("{}: {said}", self.address)),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Failure::failed(said),
        }
    }

    fn call<T>(&self, call: impl AsyncFnOnce(Client) -> Result<T, Status>) -> Result<T, Failure> {
        self.runtime.block_on(call(self.client())).map_err(|status| self.failure(&status))
    }

    /// Asks, waits for an answer, and asks again if none comes: whatever is asked so changes nothing the second time.
    fn ask<Q: Clone, A>(
        &self,
        question: Q,
        ask: impl AsyncFn(Client, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Status> {
        self.runtime.block_on(async {
            let mut pause = PAUSE;
            for tries_left in (0..=ASKED_AGAIN).rev() {
                let mut request = Request::new(question.clone());
                request.set_timeout(ANSWER);
                let asked = tokio::time::timeout(ANSWER, ask(self.client(), request)).await;
                let asked = asked.unwrap_or_else(|_| Err(self.silence()));
                // Either end of the connection may have been the first to see that the time is over.
                let is_over = |status: Status| if status.code() == Code::Cancelled { self.silence() } else { status };
                match asked.map_err(is_over) {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) if tries_left > 0 && may_be_mended(&status) => tokio::time::sleep(pause).await,
                    Err(status) => return Err(status),
                }
                pause *= 2;
            }
            Err(self.silence())
        })
    }

    fn silence(&self) -> Status {
        let (tries, seconds) = (ASKED_AGAIN + 1, ANSWER.as_secs());
        Status::deadline_exceeded(format!(
            "{} was asked {tries} times and did not answer within {seconds} s",
            self.address
        ))
    }

    /// `tol run --server`: starts the run and gives its id.
    pub fn submit(&self, arguments: &RunArgs) -> Result<String, Failure> {
        let given = match &arguments.params_file {
            Some(file) => Value::Object(params::read_file(file)?).to_string(),
            None => String::new(),
        };
        let given = without(&given, &arguments.params);
        let request = v1::SubmitRequest {
            pipeline: arguments.file.to_string_lossy().into_owned(),
            params_json: given,
            param_texts: arguments.params.clone(),
            profile: arguments.env.clone(),
            max_parallel: arguments.max_parallel,
            idempotency_key: arguments.idempotency_key.clone().unwrap_or_default(),
        };
        // Without a key, a question whose answer is lost may not be asked again: it might start a second run.
        let asked = if request.idempotency_key.is_empty() {
            self.runtime.block_on(self.client().submit(request)).map(Response::into_inner)
        } else {
            self.ask(request, async |mut client, request| client.submit(request).await)
        };
        let answer = asked.map_err(|status| match status.code() {
            // As a file that is not there.
            Code::NotFound => Failure::invalid(status.message()),
            _ => self.failure(&status),
        })?;
        Ok(answer.run_id)
    }

    /// `tol runs list --server`.
    pub fn list(&self, arguments: &ListArgs) -> Result<u8, Failure> {
        let request = v1::ListRequest {
            status: arguments.status.clone().unwrap_or_default(),
            pipeline: arguments.pipeline.clone().unwrap_or_default(),
            limit: u32::try_from(arguments.limit).unwrap_or(u32::MAX),
        };
        let answer = self.ask(request, async |mut client, request| client.list(request).await);
        let answer = answer.map_err(|status| self.failure(&status))?;
        let rows: Vec<Value> = serde_json::from_str(&answer.runs_json)
            .map_err(|error| Failure::failed(format!("{} sent what cannot be read: {error}", self.address)))?;
        runs::print_list(&rows, arguments.format);
        Ok(DONE)
    }

    /// `tol runs show --server`.
    pub fn show(&self, arguments: &ShowArgs) -> Result<u8, Failure> {
        let request = v1::GetRequest { run: arguments.run.clone(), history: arguments.history };
        let run = self.ask(request, async |mut client, request| client.get(request).await);
        let run = run.map_err(|status| self.failure(&status))?;
        match arguments.format {
            _ if arguments.history => out_text!("{}", run.history),
            TextFormat::Json => out!("{}", run.run_json),
            TextFormat::Text => out_text!("{}", run.text),
        }
        Ok(DONE)
    }

    /// `tol runs logs --server`.
    pub fn logs(&self, arguments: &LogsArgs) -> Result<u8, Failure> {
        let request = v1::LogsRequest { run: arguments.run.clone(), step: arguments.step.clone().unwrap_or_default() };
        let is_empty = self.call(async |mut client| {
            let mut chunks = client.logs(request).await?.into_inner();
            let mut is_empty = true;
            while let Some(chunk) = chunks.message().await? {
                is_empty = false;
                out_text!("{}", chunk.text);
            }
            Ok(is_empty)
        })?;
        if let Some(step) = arguments.step.as_deref().filter(|_| is_empty) {
            super::print::err!("{step} printed nothing");
        }
        Ok(DONE)
    }

    /// `tol runs cancel --server`.
    pub fn cancel(&self, arguments: &RunRef) -> Result<u8, Failure> {
        let run = self.steer(&arguments.run, None, Command::Cancel(v1::Cancel {}))?.run_id;
        out!("{run}: cancelling");
        Ok(DONE)
    }

    /// `tol runs pause --server` and `tol runs resume --server`.
    pub fn pause(&self, arguments: &RunRef, on: bool) -> Result<u8, Failure> {
        let command = if on { Command::Pause(v1::Pause {}) } else { Command::Unpause(v1::Unpause {}) };
        let run = self.steer(&arguments.run, None, command)?.run_id;
        out!("{run}: {}", if on { "paused; `tol runs resume` lifts it" } else { "goes on" });
        Ok(DONE)
    }

    /// `tol approve --server`.
    pub fn approve(&self, arguments: &ApproveArgs) -> Result<u8, Failure> {
        let step = arguments.step.clone();
        let (command, done) = match arguments.settle {
            Some(settle) => {
                let outcome = match settle {
                    Settle::Succeeded => "succeeded",
                    Settle::Failed => "failed",
                    Settle::Retry => "retry",
                };
                (Command::Settle(v1::Settle { step, outcome: outcome.to_owned() }), "settled")
            }
            None => {
                let comment = arguments.comment.clone();
                let done = if arguments.reject { "rejected" } else { "approved" };
                (Command::Decide(v1::Decide { step, approve: !arguments.reject, comment }), done)
            }
        };
        let reply = self.steer(&arguments.run, arguments.by.as_deref(), command)?;
        let done = if reply.same { "that was decided already; nothing changes" } else { done };
        out!("{}: {done}", arguments.step);
        Ok(DONE)
    }

    fn steer(&self, run: &str, by: Option<&str>, command: Command) -> Result<v1::SteerResponse, Failure> {
        let request = v1::SteerRequest { run: run.to_owned(), by: user(by), command: Some(command) };
        let answer = self.ask(request, async |mut client, request| client.steer(request).await);
        answer.map_err(|status| self.failure(&status))
    }
}

/// True if asking again may help: nobody was reached, or the answer is lost.
fn may_be_mended(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded || (status.code() == Code::Unavailable && is_transport(status))
}

/// A JSON object without the parameters that texts name, too: those win, as they do without a server.
fn without(given: &str, texts: &[String]) -> String {
    let Ok(Value::Object(mut given)) = serde_json::from_str(given) else { return String::new() };
    given.retain(|name, _| texts.iter().all(|text| text.split_once('=').is_none_or(|(named, _)| named != name)));
    Value::Object(given).to_string()
}

/// The token of the environment, else that of the state folder around here: a server on this machine has put it there.
fn token(state_dir: impl FnOnce() -> Result<PathBuf, Failure>) -> Result<Option<Token>, Failure> {
    let invalid = |error: crate::server::TokenError| Failure::invalid(error.to_string());
    match std::env::var("TOL_TOKEN").ok().filter(|token| !token.is_empty()) {
        Some(token) => Token::new(&token, "TOL_TOKEN").map(Some).map_err(invalid),
        None => Token::read(&state_dir()?).map_err(invalid),
    }
}

fn endpoint(address: &str, arguments: &RemoteArgs) -> Result<Endpoint, Failure> {
    let wants_tls = arguments.tls_ca.is_some() || arguments.client_cert.is_some();
    let url = match address.split_once("://") {
        Some(_) => address.to_owned(),
        None => format!("{}://{address}", if wants_tls { "https" } else { "http" }),
    };
    let unfit =
        |why: String| Failure::invalid(format!("--server {address}: {why}; write HOST:PORT or https://HOST:PORT"));
    let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| unfit(error.to_string()))?;
    let host = endpoint.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    if host.is_empty() {
        return Err(unfit("it names no host".to_owned()));
    }
    let endpoint =
        endpoint.connect_timeout(CONNECT).http2_keep_alive_interval(KEEPALIVE).keep_alive_timeout(KEEPALIVE_ANSWER);
    if !url.starts_with("https://") {
        let is_here = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if wants_tls {
            return Err(unfit("certificates are for https".to_owned()));
        }
        return if is_here {
            Ok(endpoint)
        } else {
            Err(unfit(format!("the token would go to {host} in the clear; a server for other machines has TLS")))
        };
    }
    let mut tls = ClientTlsConfig::new();
    tls = match &arguments.tls_ca {
        Some(file) => tls.ca_certificate(Certificate::from_pem(read(file)?)),
        None => tls.with_native_roots(),
    };
    if let (Some(certificate), Some(key)) = (&arguments.client_cert, &arguments.client_key) {
        tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    endpoint.tls_config(tls).map_err(|error| unfit(format!("the certificates cannot be used: {error}")))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))
}

/// True if no server has spoken.
pub fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The innermost reason: the outer ones only say that something went wrong.
fn cause_of(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
