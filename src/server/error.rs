//! What keeps a server from starting or going on, and what a caller is told.

use std::net::SocketAddr;

use tonic::Status;

use crate::journal::JournalError;
use crate::runtime::RuntimeError;
use crate::server::token::TokenError;

/// Why there is no server, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("{address} cannot be listened on: {error}; another server may be there, or choose another by --listen")]
    Bind { address: SocketAddr, error: std::io::Error },
    #[error(
        "{0} can be reached from other machines: give --tls-cert and --tls-key, so that tokens and data are not sent \
         in the clear, or listen on 127.0.0.1"
    )]
    Public(SocketAddr),
    #[error("the TLS settings cannot be used: {0}")]
    Tls(String),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("the listener failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// What a caller is told of an error of the engine or the journal.
pub fn status_of(error: &RuntimeError) -> Status {
    let words = error.to_string();
    match error {
        RuntimeError::NoSuchRun(_) => Status::not_found(words),
        RuntimeError::Rejected(_) | RuntimeError::Refused(_) | RuntimeError::Held { .. } => {
            Status::failed_precondition(words)
        }
        RuntimeError::NoAnswer(_) => Status::deadline_exceeded(words),
        RuntimeError::Stopped => Status::unavailable(words),
        RuntimeError::Journal(JournalError::NoSuchRun { .. }) => Status::not_found(words),
        RuntimeError::Journal(JournalError::TooLarge { .. }) => Status::resource_exhausted(words),
        RuntimeError::Corrupt { .. } | RuntimeError::Definition { .. } => Status::data_loss(words),
        RuntimeError::Journal(_) => Status::internal(words),
    }
}

/// What a caller is told of an error of the journal.
pub fn status_of_journal(error: JournalError) -> Status {
    status_of(&RuntimeError::Journal(error))
}
