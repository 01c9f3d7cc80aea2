//! What makes a message too large goes into the artifact store, and a reference takes its place.

use serde_json::Value;

use crate::artifact::{ArtifactError, Store};
use crate::proto::{Form, MAX_MESSAGE_BYTES, Undecodable, outcome_len, task_len, v1};
use crate::task::{Task, Work};

/// The largest task or outcome that is sent as it is. What is between it and the limit of a message is for the
/// envelope around it.
pub const INLINE_LIMIT: usize = MAX_MESSAGE_BYTES - 64 * 1024;

/// A task as it can be sent in this form: its work goes into the store if it would be larger than `limit`.
///
/// # Errors
/// `MESSAGE_TOO_LARGE` if there is no store, or if what is left is still too large.
pub fn offload_task(
    task: &Task,
    store: Option<&dyn Store>,
    form: Form,
    limit: usize,
) -> Result<v1::Task, ArtifactError> {
    let mut message = v1::Task::from(task);
    let bytes = task_len(&message, form)?;
    if bytes <= limit {
        return Ok(message);
    }
    let store = store.ok_or(ArtifactError::TooLarge { bytes, limit })?;
    if matches!(&task.work, Work::Agent(call) if call.schema == Some(Value::Null)) {
        // In the store it could not be told from no schema.
        return Err(Undecodable::new("the schema of an agent's answer is `null`").into());
    }
    let work = serde_json::to_vec(&task.work).map_err(|error| Undecodable::new(error.to_string()))?;
    message.work = Some(v1::task::Work::WorkRef(store.put(&work)?));
    check(task_len(&message, form)?, limit)?;
    Ok(message)
}

/// The task of a message; its work comes out of the store if it lies there.
///
/// # Errors
/// If the message cannot be read, or the store does not have its work.
pub fn load_task(mut message: v1::Task, store: Option<&dyn Store>) -> Result<Task, ArtifactError> {
    let Some(v1::task::Work::WorkRef(reference)) = &message.work else { return Ok(Task::try_from(message)?) };
    let bytes = fetch(reference, store)?;
    let work: Work =
        serde_json::from_slice(&bytes).map_err(|error| Undecodable::new(format!("the work in the store: {error}")))?;
    message.work = Some(v1::task::Work::from(&work));
    Ok(Task::try_from(message)?)
}

/// An outcome as it can be sent in this form: its outputs go into the store if it would be larger than `limit`.
///
/// # Errors
/// `MESSAGE_TOO_LARGE` if there is no store, or if what is left is still too large.
pub fn offload_outcome(
    outcome: &crate::task::Outcome,
    store: Option<&dyn Store>,
    form: Form,
    limit: usize,
) -> Result<v1::Outcome, ArtifactError> {
    let mut message = v1::Outcome::from(outcome);
    let bytes = outcome_len(&message, form)?;
    if bytes <= limit {
        return Ok(message);
    }
    let store = store.ok_or(ArtifactError::TooLarge { bytes, limit })?;
    if let Some(v1::outcome::Kind::Succeeded(done)) = &mut message.kind
        && let Some(v1::succeeded::Outputs::OutputsJson(text)) = &done.outputs
    {
        done.outputs = Some(v1::succeeded::Outputs::OutputsRef(store.put(text.as_bytes())?));
    }
    check(outcome_len(&message, form)?, limit)?;
    Ok(message)
}

/// The outcome of a message; its outputs come out of the store if they lie there.
///
/// # Errors
/// If the message cannot be read, or the store does not have its outputs.
pub fn load_outcome(
    mut message: v1::Outcome,
    store: Option<&dyn Store>,
) -> Result<crate::task::Outcome, ArtifactError> {
    if let Some(v1::outcome::Kind::Succeeded(done)) = &mut message.kind
        && let Some(v1::succeeded::Outputs::OutputsRef(reference)) = &done.outputs
    {
        let text = String::from_utf8(fetch(reference, store)?)
            .map_err(|_| Undecodable::new("the outputs in the store are not UTF-8"))?;
        done.outputs = Some(v1::succeeded::Outputs::OutputsJson(text));
    }
    Ok(crate::task::Outcome::try_from(message)?)
}

fn fetch(reference: &v1::ArtifactRef, store: Option<&dyn Store>) -> Result<Vec<u8>, ArtifactError> {
    store.ok_or_else(|| ArtifactError::NoStore { hash: reference.hash.clone() })?.get(reference)
}

fn check(bytes: usize, limit: usize) -> Result<(), ArtifactError> {
    if bytes > limit {
        return Err(ArtifactError::TooLarge { bytes, limit });
    }
    Ok(())
}
