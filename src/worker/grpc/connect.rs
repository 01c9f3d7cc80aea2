//! How a gateway is reached: its address, TLS, the token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::proto::MAX_MESSAGE_BYTES;
use crate::proto::v1::workers_client::WorkersClient;

/// How long a connection may take to be made.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// A connection on which nothing came for so long is asked whether it lives; after the second time it is given up.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much may be on its way to this side of a stream, and of a connection.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const PORT_DEFAULT: u16 = 50051;

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayAddress {
    host: String,
    port: u16,
}

impl GatewayAddress {
    /// Reads `HOST` or `HOST:PORT`; an IPv6 address stands in brackets.
    ///
    /// # Errors
    /// With words that say what is expected.
    pub fn read(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected HOST or HOST:PORT, such as gateway.example:50051");
        let text_ok = !text.contains('/') && !text.contains(char::is_whitespace);
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            Some(_) | None => (text, PORT_DEFAULT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || !text_ok || bare.is_none() && host.contains(':') {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for GatewayAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

/// The files of a client's TLS, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// Whose certificates a gateway may have; none: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// This worker's own certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name in the gateway's certificate, if it is not the host that is connected to.
    pub domain: Option<String>,
}

/// Why a gateway cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot read {}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("the TLS files cannot be used: {0}")]
    Tls(String),
    #[error("the token holds characters that no token can")]
    Token,
    #[error("`{0}` is no address")]
    Address(String),
}

/// What a worker shows to get in. It does not print its token.
#[derive(Clone, Default)]
pub struct Access {
    tls: Option<ClientTlsConfig>,
    pub(super) token: Option<MetadataValue<Ascii>>,
}

impl Access {
    /// Reads the files. Without TLS settings connections are plain.
    ///
    /// # Errors
    /// If a file cannot be read, or the token cannot be one.
    pub fn new(tls: Option<&TlsSettings>, token: Option<&str>) -> Result<Self, ConnectError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| ConnectError::File { path: path.to_owned(), error });
        let tls = match tls {
            None => None,
            Some(settings) => {
                let mut tls = ClientTlsConfig::new();
                tls = match &settings.ca {
                    Some(ca) => tls.ca_certificate(Certificate::from_pem(read(ca)?)),
                    None => tls.with_native_roots(),
                };
                if let Some((certificate, key)) = &settings.identity {
                    tls = tls.identity(Identity::from_pem(read(certificate)?, read(key)?));
                }
                if let Some(domain) = &settings.domain {
                    tls = tls.domain_name(domain);
                }
                Some(tls)
            }
        };
        let token = token.filter(|token| !token.is_empty()).map(|token| {
            let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| ConnectError::Token)?;
            value.set_sensitive(true);
            Ok(value)
        });
        Ok(Self { tls, token: token.transpose()? })
    }

    /// How a gateway is reached.
    ///
    /// # Errors
    /// If the address or the TLS files cannot be used.
    pub(super) fn endpoint(&self, address: &GatewayAddress) -> Result<Endpoint, ConnectError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
            .map_err(|_| ConnectError::Address(address.to_string()))?
            .connect_timeout(CONNECT_WAIT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .tcp_nodelay(true);
        match &self.tls {
            Some(tls) => endpoint.tls_config(tls.clone()).map_err(|error| ConnectError::Tls(words_of(&error))),
            None => Ok(endpoint),
        }
    }

    /// A request with the token.
    pub(super) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

/// The client of a connection, with the limits of a message.
pub(super) fn client(channel: Channel) -> WorkersClient<Channel> {
    WorkersClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// An error with what caused it: the transport says the reason only there.
pub(super) fn words_of(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        next = error.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<&str>) {
        let found = GatewayAddress::read(text);
        match expect {
            Some(expect) => assert_eq!(found.unwrap().to_string(), expect, "{text}"),
            None => assert!(found.unwrap_err().contains("HOST:PORT"), "{text}"),
        }
    }

    #[test]
    fn addresses_are_read() {
        check("host", Some("host:50051"));
        check("host:1", Some("host:1"));
        check("127.0.0.1:50051", Some("127.0.0.1:50051"));
        check("[::1]", Some("[::1]:50051"));
        check("[::1]:7", Some("[::1]:7"));
        for wrong in ["", ":1", "host:", "host:x", "host:70000", "::1", "http://host:1", "a b"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let tls = TlsSettings { ca: Some("/nowhere/ca.pem".into()), ..TlsSettings::default() };
        let error = Access::new(Some(&tls), None).err().unwrap().to_string();
        assert!(error.contains("/nowhere/ca.pem"), "{error}");
        assert!(matches!(Access::new(None, Some("a\nb")), Err(ConnectError::Token)));
    }
}
