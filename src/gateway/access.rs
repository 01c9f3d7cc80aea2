//! Who may call what: one layer over every service, which denies what nothing allows.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tonic::Status;
use tonic::transport::server::TlsConnectInfo;

use crate::gateway::config::Tokens;
use crate::gateway::identity::Holder;
use crate::gateway::incoming::ConnectionInfo;
use crate::gateway::refusal::{Refusal, too_large};

/// Whoever watches over a scheduler needs no token to see whether it is well.
const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";
/// What the token for workers may call.
const WORKERS_PREFIX: &str = "/tol.v1.Workers/";
const SCHEME: &str = "bearer ";

/// Who calls, as far as it is known. It stands in a request's extensions.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// The common name of the client's certificate, if the connection has one.
    pub name: Option<String>,
    pub(crate) holder: Option<Arc<Holder>>,
}

/// Decides who may call what.
pub(super) struct Access {
    pub(super) tokens: Tokens,
}

impl Access {
    /// Lets a request through, or answers it.
    pub(super) async fn pass(self: Arc<Self>, mut request: Request, next: Next) -> Response {
        if let Err(refusal) = self.admit(&mut request) {
            return Status::from(refusal).into_http();
        }
        let response = next.run(request).await;
        // The transport says in words of its own that a message is above the limit.
        match Status::from_header_map(response.headers()).as_ref().and_then(too_large) {
            Some(refusal) => Status::from(refusal).into_http(),
            None => response,
        }
    }

    fn admit(&self, request: &mut Request) -> Result<(), Refusal> {
        let extensions = request.extensions();
        let tls = extensions.get::<TlsConnectInfo<ConnectionInfo>>();
        let connection = tls.map(TlsConnectInfo::get_ref).or_else(|| extensions.get::<ConnectionInfo>());
        if let Some(connection) = connection.filter(|connection| !connection.is_served()) {
            return Err(Refusal::TooManyConnections { max: connection.max() });
        }
        let path = request.uri().path();
        if path.starts_with(HEALTH_PREFIX) {
            return Ok(());
        }
        let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
        self.check_token(path, given)?;
        let certificates = tls.and_then(TlsConnectInfo::peer_certs);
        let holder = certificates.as_ref().and_then(|chain| chain.first()).map(|first| Arc::new(Holder::of(first)));
        let name = holder.as_ref().and_then(|holder| holder.names.first().cloned());
        request.extensions_mut().insert(Caller { name, holder });
        Ok(())
    }

    fn check_token(&self, path: &str, authorization: Option<&str>) -> Result<(), Refusal> {
        if self.tokens.is_empty() {
            return Ok(());
        }
        let given = authorization.ok_or(Refusal::NoToken)?;
        let token = given.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        let token = token.and_then(|_| given.get(SCHEME.len()..)).ok_or(Refusal::WrongToken)?;
        // Hashes are compared in the same time wherever they differ.
        let hash = blake3::hash(token.trim().as_bytes());
        if self.tokens.all.is_some_and(|all| all == hash) {
            return Ok(());
        }
        match self.tokens.workers {
            Some(workers) if workers == hash && path.starts_with(WORKERS_PREFIX) => Ok(()),
            Some(workers) if workers == hash => Err(Refusal::WorkersOnly { path: path.to_owned() }),
            Some(_) | None => Err(Refusal::WrongToken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: (Option<&str>, Option<&str>), path: &str, given: Option<&str>, expect: Result<(), &str>) {
        let access = Access { tokens: Tokens::new(tokens.0, tokens.1) };
        let found = access.check_token(path, given);
        assert_eq!(found.as_ref().map(|&()| ()).map_err(Refusal::name), expect, "{path} {given:?}");
    }

    #[test]
    fn a_token_opens_what_it_is_for() {
        let (runs, workers) = ("/tol.v1.Runs/Submit", "/tol.v1.Workers/Session");
        check((None, None), runs, None, Ok(()));
        let both = (Some("all"), Some("some"));
        check(both, runs, None, Err("NO_TOKEN"));
        check(both, runs, Some("Bearer all"), Ok(()));
        check(both, runs, Some("bearer all"), Ok(()));
        check(both, workers, Some("Bearer all"), Ok(()));
        check(both, workers, Some("Bearer some"), Ok(()));
        check(both, runs, Some("Bearer some"), Err("WORKERS_ONLY"));
        check(
            both,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Some("Bearer some"),
            Err("WORKERS_ONLY"),
        );
        for wrong in ["Bearer al", "Bearer alll", "Bearer ", "all", "Basic all", ""] {
            check(both, runs, Some(wrong), Err("WRONG_TOKEN"));
        }
        check((None, Some("some")), runs, Some("Bearer all"), Err("WRONG_TOKEN"));
        // A token that is empty is none at all, and opens nothing.
        check((Some("all"), Some("")), runs, Some("Bearer "), Err("WRONG_TOKEN"));
    }
}
