//! TLS to the database: whom to trust, in the words of PostgreSQL's own programs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::database::error::DatabaseError;

/// Whom a connection trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// There is no TLS.
    Plain,
    /// Whoever answers.
    Anyone,
    /// Whoever has a certificate of one of these authorities.
    Authority(PathBuf),
    /// The host of the address, with a certificate of one of these authorities.
    Host(PathBuf),
}

/// How to begin TLS; without it for `Plain`.
pub(crate) fn connector(trust: &Trust) -> Result<Option<MakeRustlsConnect>, DatabaseError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| DatabaseError::Url { what: format!("TLS cannot be used: {error}") })?;
    let config = match trust {
        Trust::Plain => return Ok(None),
        Trust::Anyone => {
            let verifier = Lenient { provider, authority: None };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Trust::Authority(file) => {
            let authority = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(file)?), Arc::clone(&provider))
                .build()
                .map_err(|error| unusable(file, &error.to_string()))?;
            let verifier = Lenient { provider, authority: Some(authority) };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Trust::Host(file) => builder.with_root_certificates(roots(file)?).with_no_client_auth(),
    };
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn unusable(file: &Path, what: &str) -> DatabaseError {
    DatabaseError::Certificates { file: file.to_owned(), what: what.to_owned() }
}

fn roots(file: &Path) -> Result<RootCertStore, DatabaseError> {
    let mut store = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unusable(file, &error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(file, &error.to_string()))?;
        store.add(certificate).map_err(|error| unusable(file, &error.to_string()))?;
    }
    if store.is_empty() {
        return Err(unusable(file, "there is no certificate in it"));
    }
    Ok(store)
}

/// Looks at the authority at most, never at the name.
#[derive(Debug)]
struct Lenient {
    provider: Arc<CryptoProvider>,
    authority: Option<Arc<WebPkiServerVerifier>>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authority) = &self.authority else { return Ok(ServerCertVerified::assertion()) };
        match authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
