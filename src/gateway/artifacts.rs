//! Payloads that are too large for a message: taken in and given out in pieces.

use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::gateway::refusal::{Refusal, too_large};
use crate::proto::v1;

/// How large a piece is that the gateway sends.
const PIECE_BYTES: usize = 1024 * 1024;
/// The largest artifact that a worker may put here, in bytes; it is held in memory until it is whole.
const ARTIFACT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Keeps payloads by their content. Its calls may wait for a disk or a database.
pub trait Artifacts: Send + Sync + 'static {
    /// Keeps bytes and names them by their content.
    ///
    /// # Errors
    /// With words, if they cannot be kept.
    fn put(&self, bytes: &[u8]) -> Result<v1::ArtifactRef, String>;

    /// What has this name, if there is such a thing.
    ///
    /// # Errors
    /// With words, if it cannot be read.
    fn get(&self, hash: &str) -> Result<Option<Vec<u8>>, String>;
}

/// Calls a store away from the threads that serve connections.
async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Refusal> {
    let result = tokio::task::spawn_blocking(call).await.unwrap_or_else(|error| Err(error.to_string()));
    result.map_err(|why| Refusal::Store { why: format!("the artifact store: {why}") })
}

/// Keeps bytes.
pub(super) async fn put(store: &Arc<dyn Artifacts>, bytes: Vec<u8>) -> Result<v1::ArtifactRef, Refusal> {
    let store = store.clone();
    blocking(move || store.put(&bytes)).await
}

/// Gives bytes back.
pub(super) async fn get(store: &Arc<dyn Artifacts>, hash: &str) -> Result<Vec<u8>, Refusal> {
    let (store, name) = (store.clone(), hash.to_owned());
    let found = blocking(move || store.get(&name)).await?;
    found.ok_or_else(|| Refusal::NoArtifact { hash: hash.to_owned() })
}

/// Takes in what a worker sends.
pub(super) async fn receive(mut pieces: Streaming<v1::ArtifactPiece>) -> Result<Vec<u8>, Status> {
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.map_err(|status| too_large(&status).map_or(status, Status::from))? {
        if bytes.len() + piece.data.len() > ARTIFACT_BYTES_MAX {
            let why = format!("an artifact has at most {} MiB", ARTIFACT_BYTES_MAX / (1024 * 1024));
            return Err(Refusal::Malformed { why }.into());
        }
        bytes.extend_from_slice(&piece.data);
    }
    Ok(bytes)
}

/// Gives out bytes in pieces.
pub(super) fn send(bytes: Vec<u8>) -> mpsc::Receiver<Result<v1::ArtifactPiece, Status>> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        for piece in bytes.chunks(PIECE_BYTES) {
            if sender.send(Ok(v1::ArtifactPiece { data: piece.to_vec() })).await.is_err() {
                return;
            }
        }
    });
    receiver
}
