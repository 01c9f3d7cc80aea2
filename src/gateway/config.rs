//! How a gateway is set up, and what it refuses to be set up as.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::gateway::identity::Identities;

/// Where the gateway listens if nothing else is said.
const HOST_DEFAULT: &str = "127.0.0.1";
const PORT_DEFAULT: u16 = 50051;
/// How many connections a gateway takes if nothing else is said.
const CONNECTIONS_DEFAULT: usize = 100;

/// The files of a server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and those that vouch for it, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// Whose certificates clients must have; none: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Who may call. A token is kept as its hash, so that it can neither be printed nor compared in parts.
#[derive(Clone, Default)]
pub struct Tokens {
    pub(crate) all: Option<blake3::Hash>,
    pub(crate) workers: Option<blake3::Hash>,
}

impl Tokens {
    /// A token for every service, and one for workers only.
    pub fn new(all: Option<&str>, workers: Option<&str>) -> Self {
        let hash = |token: &str| (!token.is_empty()).then(|| blake3::hash(token.as_bytes()));
        Self { all: all.and_then(hash), workers: workers.and_then(hash) }
    }

    /// True if callers need no token.
    pub fn is_empty(&self) -> bool {
        self.all.is_none() && self.workers.is_none()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let set = |token: &Option<blake3::Hash>| if token.is_some() { "set" } else { "none" };
        write!(formatter, "Tokens {{ all: {}, workers: {} }}", set(&self.all), set(&self.workers))
    }
}

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    pub host: String,
    pub port: u16,
    /// How the scheduler calls itself to its workers.
    pub scheduler: String,
    pub tls: Option<TlsFiles>,
    pub tokens: Tokens,
    pub identities: Identities,
    pub max_connections: usize,
    /// A connection on which nothing came for so long is asked whether it lives, and closed if it does not answer.
    pub keepalive: Duration,
    pub keepalive_timeout: Duration,
    /// How long connections may take to end after the gateway was told to.
    pub grace: Duration,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            host: HOST_DEFAULT.to_owned(),
            port: PORT_DEFAULT,
            scheduler: "tol".to_owned(),
            tls: None,
            tokens: Tokens::default(),
            identities: Identities::default(),
            max_connections: CONNECTIONS_DEFAULT,
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a gateway cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("{0}")]
    Setting(String),
    #[error("cannot read {}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("cannot listen on {address}: {error}")]
    Listen { address: String, error: std::io::Error },
    #[error("the TLS files cannot be used: {0}")]
    Tls(String),
    #[error("the gateway has failed: {0}")]
    Serve(String),
}

impl GatewayConfig {
    /// What the environment says: GRPC_HOST, GRPC_PORT, GRPC_MAX_CONNECTIONS, GRPC_TLS_ENABLED, GRPC_TLS_CERT,
    /// GRPC_TLS_KEY, GRPC_TLS_CLIENT_CA, TOL_TOKEN, TOL_WORKER_TOKEN.
    ///
    /// # Errors
    /// If a variable cannot be read, or TLS is switched on without its files.
    pub fn from_env(env: &BTreeMap<String, String>) -> Result<Self, GatewayError> {
        let mut config = Self::default();
        let get = |name: &str| env.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if let Some(host) = get("GRPC_HOST") {
            host.clone_into(&mut config.host);
        }
        if let Some(port) = get("GRPC_PORT") {
            config.port = port.parse().map_err(|_| setting(format!("GRPC_PORT={port}: expected a port")))?;
        }
        if let Some(max) = get("GRPC_MAX_CONNECTIONS") {
            let number = max.parse().ok().filter(|number| *number > 0);
            config.max_connections =
                number.ok_or_else(|| setting(format!("GRPC_MAX_CONNECTIONS={max}: expected a number from 1")))?;
        }
        let files = (get("GRPC_TLS_CERT"), get("GRPC_TLS_KEY"));
        let enabled = match get("GRPC_TLS_ENABLED") {
            None => files.0.is_some() || files.1.is_some(),
            Some("true" | "1" | "yes") => true,
            Some("false" | "0" | "no") => false,
            Some(other) => return Err(setting(format!("GRPC_TLS_ENABLED={other}: expected true or false"))),
        };
        if enabled {
            let (Some(certificate), Some(key)) = files else {
                return Err(setting("TLS needs both GRPC_TLS_CERT and GRPC_TLS_KEY: files in PEM".to_owned()));
            };
            let client_ca = get("GRPC_TLS_CLIENT_CA").map(PathBuf::from);
            config.tls = Some(TlsFiles { certificate: certificate.into(), key: key.into(), client_ca });
        } else if get("GRPC_TLS_CLIENT_CA").is_some() {
            return Err(setting("GRPC_TLS_CLIENT_CA needs TLS: set GRPC_TLS_CERT and GRPC_TLS_KEY too".to_owned()));
        }
        config.tokens = Tokens::new(get("TOL_TOKEN"), get("TOL_WORKER_TOKEN"));
        Ok(config)
    }

    /// Refuses an address that others can reach if anybody could read along or call.
    ///
    /// # Errors
    /// With words that say what to set.
    pub fn check_address(&self, address: SocketAddr) -> Result<(), GatewayError> {
        if address.ip().is_loopback() {
            return Ok(());
        }
        let place = format!("{address} can be reached from other machines");
        let Some(tls) = &self.tls else {
            return Err(setting(format!(
                "{place}: set GRPC_TLS_CERT and GRPC_TLS_KEY, so that nobody reads along, or listen on 127.0.0.1"
            )));
        };
        if self.tokens.is_empty() && tls.client_ca.is_none() {
            return Err(setting(format!(
                "{place}: set TOL_TOKEN or GRPC_TLS_CLIENT_CA, so that not everybody may call, or listen on 127.0.0.1"
            )));
        }
        Ok(())
    }
}

fn setting(words: String) -> GatewayError {
    GatewayError::Setting(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<GatewayConfig, String> {
        let env = pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        GatewayConfig::from_env(&env).map_err(|error| error.to_string())
    }

    fn check_refused(pairs: &[(&str, &str)], words: &str) {
        let error = read(pairs).unwrap_err();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn the_environment_is_read_and_checked() {
        let config = read(&[]).unwrap();
        assert_eq!((config.host.as_str(), config.port, config.max_connections), ("127.0.0.1", 50051, 100));
        let tls = [("GRPC_TLS_CERT", "c"), ("GRPC_TLS_KEY", "k"), ("GRPC_TLS_CLIENT_CA", "a")];
        let config = read(&[&tls[..], &[("GRPC_PORT", "1"), ("TOL_TOKEN", "hush")]].concat()).unwrap();
        let files = config.tls.clone().unwrap();
        assert_eq!((files.certificate, files.client_ca), (PathBuf::from("c"), Some(PathBuf::from("a"))));
        assert!(!format!("{config:?}").contains("hush"));
        assert!(read(&[&tls[..2], &[("GRPC_TLS_ENABLED", "false")]].concat()).unwrap().tls.is_none());
        check_refused(&[("GRPC_PORT", "x")], "GRPC_PORT=x");
        check_refused(&[("GRPC_MAX_CONNECTIONS", "0")], "from 1");
        check_refused(&[("GRPC_TLS_ENABLED", "true")], "needs both");
        check_refused(&[("GRPC_TLS_ENABLED", "perhaps")], "true or false");
        check_refused(&[("GRPC_TLS_CLIENT_CA", "a")], "needs TLS");
    }

    #[test]
    fn a_public_address_wants_tls_and_a_token() {
        let public: SocketAddr = "0.0.0.0:1".parse().unwrap();
        let check = |pairs: &[(&str, &str)], words: &str| {
            let error = read(pairs).unwrap().check_address(public).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        check(&[("TOL_TOKEN", "t")], "GRPC_TLS_CERT");
        let tls = [("GRPC_TLS_CERT", "c"), ("GRPC_TLS_KEY", "k")];
        check(&tls, "TOL_TOKEN or GRPC_TLS_CLIENT_CA");
        let with = |more: (&str, &str)| read(&[&tls[..], &[(more.0, more.1)]].concat()).unwrap();
        assert!(with(("TOL_WORKER_TOKEN", "t")).check_address(public).is_ok());
        assert!(with(("GRPC_TLS_CLIENT_CA", "a")).check_address(public).is_ok());
        assert!(read(&[]).unwrap().check_address("127.0.0.1:1".parse().unwrap()).is_ok());
        assert!(read(&[]).unwrap().check_address("[::1]:1".parse().unwrap()).is_ok());
    }
}
