//! What can go wrong with an artifact.

use std::path::PathBuf;

use crate::database::DatabaseError;
use crate::proto::Undecodable;

/// Why an artifact cannot be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The payload is too large for a message, and there is nowhere else to put it.
    #[error(
        "MESSAGE_TOO_LARGE: the message has {bytes} bytes, the limit is {limit}; give scheduler and workers one artifact store (DATABASE_URL or --artifact-dir), or make the payload smaller"
    )]
    TooLarge { bytes: usize, limit: usize },
    /// No store keeps so much at once: who reads it holds it in memory.
    #[error(
        "an artifact of {bytes} bytes is larger than the limit of {limit}; write the data to a file or an object store and hand on its name"
    )]
    Oversized { bytes: u64, limit: usize },
    /// There is no artifact of that name.
    #[error("{place}: there is no artifact {hash}; it was swept, or another store was used to keep it")]
    Missing { place: String, hash: String },
    /// What is kept is not what was put there.
    #[error("{place}: the artifact {hash} is damaged: its content is another; remove it and run the step again")]
    Damaged { place: String, hash: String },
    /// A name that no artifact can have.
    #[error("`{0}` is no name of an artifact: that is 64 hexadecimal digits in lower case")]
    Name(String),
    /// A message refers to an artifact, and no store is set up here.
    #[error(
        "the message refers to the artifact {hash}, and there is no artifact store here; set up the sender's with DATABASE_URL or --artifact-dir"
    )]
    NoStore { hash: String },
    /// The artifact is there and does not hold what the message says.
    #[error(transparent)]
    Undecodable(#[from] Undecodable),
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error(transparent)]
    Database(#[from] DatabaseError),
}
