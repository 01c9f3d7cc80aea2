//! What keeps a server from starting or going on, and what a caller is told.

use tonic::Status;

use crate::gateway::GatewayError;
use crate::journal::JournalError;
use crate::runtime::RuntimeError;

/// Why there is no server, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Kafka(#[from] crate::dispatch::kafka::KafkaError),
    #[error(transparent)]
    Artifacts(#[from] crate::artifact::ArtifactError),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("the server ended by a fault of tol itself; what was recorded stays, and a new server goes on from there")]
    Fault,
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
