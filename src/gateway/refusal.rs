//! Why a gateway says no, and the status that a caller gets for it.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::proto;

/// The name of a refusal stands in this entry of a status's metadata, for programs.
const NAME_ENTRY: &str = "tol-error";
/// What tonic's words for a message above the limit begin with.
const DECODED_TOO_LARGE: &str = "Error, decoded message length too large";
const ENCODED_TOO_LARGE: &str = "Error, encoded message length too large";

/// Why a call is refused. The words are for people; [`Refusal::name`] is for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this gateway wants a token: set TOL_TOKEN, or TOL_WORKER_TOKEN for a worker")]
    NoToken,
    #[error("this is not the gateway's token: compare TOL_TOKEN or TOL_WORKER_TOKEN on both sides")]
    WrongToken,
    #[error("the token for workers may not call {path}: that takes TOL_TOKEN")]
    WorkersOnly { path: String },
    #[error("{why}")]
    QueueNotAllowed { why: String },
    #[error(
        "this gateway speaks version {} of the protocol and takes every 1.x, not `{given}`: use a worker of the same major version",
        proto::VERSION
    )]
    Version { given: String },
    #[error("this gateway has its {max} connections already: connect to another one, or raise its limit")]
    TooManyConnections { max: usize },
    #[error("{what} is larger than {} MiB, the limit of a message", proto::MAX_MESSAGE_BYTES / (1024 * 1024))]
    TooLarge { what: String },
    #[error("{why}")]
    Malformed { why: String },
    #[error("{why}")]
    Draining { why: String },
    #[error("nothing was heard for {seconds} s, although a heartbeat is due every {heartbeat_ms} ms")]
    Silent { seconds: u64, heartbeat_ms: u64 },
    #[error("worker {worker} has connected again elsewhere; give every worker a name of its own")]
    Superseded { worker: String },
    #[error("there is no artifact {hash}")]
    NoArtifact { hash: String },
    #[error("this gateway keeps no artifacts")]
    NoStore,
    #[error("{why}")]
    Store { why: String },
}

impl Refusal {
    /// The name that programs may rely on.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoToken => "NO_TOKEN",
            Self::WrongToken => "WRONG_TOKEN",
            Self::WorkersOnly { .. } => "WORKERS_ONLY",
            Self::QueueNotAllowed { .. } => "QUEUE_NOT_ALLOWED",
            Self::Version { .. } => "VERSION",
            Self::TooManyConnections { .. } => "TOO_MANY_CONNECTIONS",
            Self::TooLarge { .. } => "MESSAGE_TOO_LARGE",
            Self::Malformed { .. } => "MALFORMED",
            Self::Draining { .. } => "DRAINING",
            Self::Silent { .. } => "SILENT",
            Self::Superseded { .. } => "SUPERSEDED",
            Self::NoArtifact { .. } => "NO_ARTIFACT",
            Self::NoStore => "NO_STORE",
            Self::Store { .. } => "STORE",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoToken | Self::WrongToken => Code::Unauthenticated,
            Self::WorkersOnly { .. } | Self::QueueNotAllowed { .. } => Code::PermissionDenied,
            Self::Version { .. } | Self::NoStore => Code::FailedPrecondition,
            Self::TooManyConnections { .. } | Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Malformed { .. } => Code::InvalidArgument,
            Self::Draining { .. } | Self::Store { .. } => Code::Unavailable,
            Self::Silent { .. } => Code::DeadlineExceeded,
            Self::Superseded { .. } => Code::Aborted,
            Self::NoArtifact { .. } => Code::NotFound,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let name = refusal.name();
        let mut status = Status::new(refusal.code(), format!("{name}: {refusal}"));
        status.metadata_mut().insert(NAME_ENTRY, MetadataValue::from_static(name));
        status
    }
}

/// The refusal that a status of the transport stands for, if it is about a message above the limit.
pub fn too_large(status: &Status) -> Option<Refusal> {
    let message = status.message();
    let found = message.strip_prefix(DECODED_TOO_LARGE).or_else(|| message.strip_prefix(ENCODED_TOO_LARGE))?;
    let bytes: String =
        found.chars().skip_while(|one| !one.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    Some(Refusal::TooLarge { what: format!("a message of {bytes} bytes") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(refusal: Refusal, code: Code, words: &str) {
        let name = refusal.name();
        let status = Status::from(refusal);
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(status.metadata().get(NAME_ENTRY).unwrap(), name);
        assert!(status.message().starts_with(&format!("{name}: ")), "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
    }

    #[test]
    fn every_refusal_has_its_status_and_says_what_to_do() {
        let why = || "words".to_owned();
        check(Refusal::NoToken, Code::Unauthenticated, "set TOL_TOKEN");
        check(Refusal::WrongToken, Code::Unauthenticated, "compare TOL_TOKEN");
        check(Refusal::WorkersOnly { path: "/a/B".to_owned() }, Code::PermissionDenied, "/a/B");
        check(Refusal::QueueNotAllowed { why: why() }, Code::PermissionDenied, "words");
        check(Refusal::Version { given: "2.0.0".to_owned() }, Code::FailedPrecondition, "not `2.0.0`");
        check(Refusal::TooManyConnections { max: 100 }, Code::ResourceExhausted, "100 connections");
        check(Refusal::TooLarge { what: "it".to_owned() }, Code::ResourceExhausted, "it is larger than 10 MiB");
        check(Refusal::Malformed { why: why() }, Code::InvalidArgument, "words");
        check(Refusal::Draining { why: why() }, Code::Unavailable, "words");
        check(Refusal::Silent { seconds: 15, heartbeat_ms: 5000 }, Code::DeadlineExceeded, "15 s");
        check(Refusal::Superseded { worker: "w".to_owned() }, Code::Aborted, "worker w");
        check(Refusal::NoArtifact { hash: "ab".to_owned() }, Code::NotFound, "ab");
        check(Refusal::NoStore, Code::FailedPrecondition, "no artifacts");
        check(Refusal::Store { why: why() }, Code::Unavailable, "words");
    }

    #[test]
    fn the_transports_words_about_size_are_known() {
        let status =
            Status::out_of_range("Error, decoded message length too large: found 7 bytes, the limit is: 5 bytes");
        let refusal = too_large(&status).unwrap();
        assert!(refusal.to_string().contains("a message of 7 bytes"), "{refusal}");
        assert_eq!(too_large(&Status::out_of_range("elsewhere")), None);
    }
}
