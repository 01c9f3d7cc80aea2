//! Payloads that are too large for a message: taken in and given out in pieces.

use std::sync::Arc;

use prost::Message;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::artifact::{ARTIFACT_BYTES_MAX, ArtifactError, INLINE_LIMIT, Store, load_outcome, offload_task};
use crate::gateway::refusal::{Refusal, too_large};
use crate::proto::{Form, v1};
use crate::task::{Outcome, Task};

/// How large a piece is that the gateway sends.
const PIECE_BYTES: usize = 1024 * 1024;

/// Calls the store away from the threads that serve connections.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        // A panic in there is an internal error, and is treated like any other on this thread.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A task as it can be sent: its work goes into the store if it is too large for a message.
pub(super) async fn offload(task: &Arc<Task>, store: Option<&Arc<dyn Store>>) -> Result<v1::Task, ArtifactError> {
    let message = v1::Task::from(&**task);
    if message.encoded_len() <= INLINE_LIMIT {
        return Ok(message);
    }
    let (task, store) = (task.clone(), store.cloned());
    blocking(move || offload_task(&task, store.as_deref(), Form::Protobuf, INLINE_LIMIT)).await
}

/// The outcome of a message; its outputs come out of the store if they lie there.
pub(super) async fn load(outcome: v1::Outcome, store: Option<&Arc<dyn Store>>) -> Result<Outcome, ArtifactError> {
    let is_stored = matches!(
        &outcome.kind,
        Some(v1::outcome::Kind::Succeeded(done)) if matches!(done.outputs, Some(v1::succeeded::Outputs::OutputsRef(_)))
    );
    if !is_stored {
        return load_outcome(outcome, None);
    }
    let store = store.cloned();
    blocking(move || load_outcome(outcome, store.as_deref())).await
}

/// Keeps bytes.
pub(super) async fn put(store: &Arc<dyn Store>, bytes: Vec<u8>) -> Result<v1::ArtifactRef, Refusal> {
    let store = store.clone();
    Ok(blocking(move || store.put(&bytes)).await?)
}

/// Gives bytes back.
pub(super) async fn get(store: &Arc<dyn Store>, reference: v1::ArtifactRef) -> Result<Vec<u8>, Refusal> {
    let store = store.clone();
    Ok(blocking(move || store.get(&reference)).await?)
}

impl From<ArtifactError> for Refusal {
    fn from(error: ArtifactError) -> Self {
        let why = error.to_string();
        match error {
            ArtifactError::Missing { .. } => Self::NoArtifact { why },
            ArtifactError::Name(_) | ArtifactError::Undecodable(_) => Self::Malformed { why },
            ArtifactError::Oversized { bytes, .. } => Self::TooLarge { what: format!("an artifact of {bytes} bytes") },
            ArtifactError::NoStore { .. } => Self::NoStore,
            ArtifactError::TooLarge { bytes, .. } => Self::TooLarge { what: format!("a message of {bytes} bytes") },
            ArtifactError::Damaged { .. } | ArtifactError::File { .. } | ArtifactError::Database(_) => {
                Self::Store { why }
            }
        }
    }
}

/// Takes in what a worker sends; it is held in memory until it is whole.
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
