//! What is too large for a message goes by way of the scheduler's artifact store.

use prost::Message as _;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::artifact::{ARTIFACT_BYTES_MAX, INLINE_LIMIT};
use crate::proto::v1::workers_client::WorkersClient;
use crate::proto::{Undecodable, v1};
use crate::task::{Failure, Outcome, Task, Work};
use crate::worker::grpc::connect::Access;
use crate::worker::table::Kept;

/// How large a piece is.
const PIECE_BYTES: usize = 1024 * 1024;

/// How an outcome is to be sent.
pub(super) enum Sending {
    Report(v1::Report),
    /// It can never be sent; this stands for it.
    Instead(Outcome),
}

/// True if an outcome is too large for a message.
pub(super) fn is_large(report: &v1::Report) -> bool {
    report.encoded_len() > INLINE_LIMIT
}

/// An outcome as a message.
pub(super) fn plain(kept: &Kept) -> v1::Report {
    v1::Report { key: Some((&kept.key).into()), outcome: Some(v1::Outcome::from(&*kept.outcome)) }
}

/// An outcome as a message, after its outputs went into the scheduler's store.
///
/// # Errors
/// The scheduler's, if it did not take the outputs now.
pub(super) async fn store(
    kept: &Kept,
    client: &mut WorkersClient<Channel>,
    access: &Access,
) -> Result<Sending, Status> {
    let mut report = plain(kept);
    let too_large = |why: &str| {
        let words = format!("MESSAGE_TOO_LARGE: the outcome is larger than a message can be; {why}");
        Ok(Sending::Instead(Outcome::failed(Failure::permanent(words))))
    };
    let outcome = report.outcome.as_mut().and_then(|outcome| outcome.kind.as_mut());
    let Some(v1::outcome::Kind::Succeeded(done)) = outcome else {
        return too_large("only the outputs of a success can go as an artifact");
    };
    let Some(v1::succeeded::Outputs::OutputsJson(text)) = done.outputs.take() else {
        return too_large("it has no outputs that could go as an artifact");
    };
    match put(text.into_bytes(), client, access).await {
        Ok(reference) => {
            done.outputs = Some(v1::succeeded::Outputs::OutputsRef(reference));
            Ok(Sending::Report(report))
        }
        Err(status) => match status.code() {
            Code::FailedPrecondition => too_large(
                "the scheduler keeps no artifacts: write the data to a file or an object store and put out its name",
            ),
            Code::InvalidArgument | Code::ResourceExhausted => too_large(status.message()),
            _ => Err(status),
        },
    }
}

async fn put(bytes: Vec<u8>, client: &mut WorkersClient<Channel>, access: &Access) -> Result<v1::ArtifactRef, Status> {
    let pieces: Vec<v1::ArtifactPiece> =
        bytes.chunks(PIECE_BYTES).map(|piece| v1::ArtifactPiece { data: piece.to_vec() }).collect();
    Ok(client.put_artifact(access.request(futures::stream::iter(pieces))).await?.into_inner())
}

/// The task of a message; its work comes out of the scheduler's store if it lies there.
///
/// # Errors
/// With words, if it cannot be had or read.
pub(super) async fn load_task(
    mut message: v1::Task,
    client: &mut WorkersClient<Channel>,
    access: &Access,
) -> Result<Task, String> {
    let unreadable = |error: Undecodable| format!("the task cannot be read: {error}");
    let Some(v1::task::Work::WorkRef(reference)) = &message.work else {
        return Task::try_from(message).map_err(unreadable);
    };
    let bytes = get(reference.clone(), client, access).await?;
    let work: Work = serde_json::from_slice(&bytes).map_err(|error| format!("its work cannot be read: {error}"))?;
    message.work = Some(v1::task::Work::from(&work));
    Task::try_from(message).map_err(unreadable)
}

async fn get(
    reference: v1::ArtifactRef,
    client: &mut WorkersClient<Channel>,
    access: &Access,
) -> Result<Vec<u8>, String> {
    let hash = reference.hash.clone();
    let failed = |status: Status| format!("its work is artifact {hash}, which cannot be had: {}", status.message());
    let mut pieces = client.get_artifact(access.request(reference)).await.map_err(failed)?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.map_err(failed)? {
        if bytes.len() + piece.data.len() > ARTIFACT_BYTES_MAX {
            return Err(format!("its work is artifact {hash}, which is larger than 256 MiB"));
        }
        bytes.extend_from_slice(&piece.data);
    }
    if blake3::hash(&bytes).to_hex().as_str() != hash {
        return Err(format!("its work is artifact {hash}, and what came is something else"));
    }
    Ok(bytes)
}
