//! What a session sends to its worker: what the hub has for it, as messages, until one of the two goes away.

use std::sync::Arc;

use futures::Stream;
use prost::Message as _;
use tokio::sync::mpsc::UnboundedReceiver;
use tonic::Status;

use crate::dispatch::{Hub, LeaseKey, Message, SessionId, Stop, ToSession};
use crate::gateway::artifacts::{self, Artifacts};
use crate::gateway::refusal::Refusal;
use crate::proto::{self, v1};
use crate::task::{Failure, Outcome, Task};

/// How a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// The worker has left.
    Left,
    /// The worker is told why.
    Refused(Refusal),
    /// The worker is told to connect again.
    GoingAway(String),
}

/// The sending side of a session. When it is dropped the session is over.
pub(super) struct Outgoing {
    pub(super) hub: Arc<Hub>,
    pub(super) worker: Arc<str>,
    pub(super) id: SessionId,
    pub(super) first: Option<v1::Registered>,
    pub(super) inbox: UnboundedReceiver<ToSession>,
    pub(super) ends: UnboundedReceiver<End>,
    pub(super) artifacts: Option<Arc<dyn Artifacts>>,
    pub(super) reader: Option<tokio::task::AbortHandle>,
    pub(super) is_over: bool,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.hub.leave(self.id);
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

impl Outgoing {
    /// The messages for the worker.
    pub(super) fn messages(self) -> impl Stream<Item = Result<v1::ToWorker, Status>> + Send {
        futures::stream::unfold(self, |mut outgoing| async move {
            let item = outgoing.next().await?;
            Some((item.map(|message| v1::ToWorker { message: Some(message) }), outgoing))
        })
    }

    async fn next(&mut self) -> Option<Result<v1::to_worker::Message, Status>> {
        use v1::to_worker::Message as To;
        if let Some(registered) = self.first.take() {
            return Some(Ok(To::Registered(registered)));
        }
        loop {
            if self.is_over {
                return None;
            }
            let message = tokio::select! {
                biased;
                end = self.ends.recv() => {
                    self.is_over = true;
                    return match end {
                        None | Some(End::Left) => None,
                        Some(End::Refused(refusal)) => Some(Err(refusal.into())),
                        Some(End::GoingAway(reason)) => Some(Ok(To::GoingAway(v1::GoingAway { reason }))),
                    };
                }
                message = self.inbox.recv() => message?,
            };
            match message {
                ToSession::Message(Message::Task(task)) => {
                    if let Some(task) = self.task(&task).await {
                        return Some(Ok(To::Task(task)));
                    }
                }
                ToSession::Message(Message::Stop { key, how }) => {
                    return Some(Ok(To::Stop(v1::Stop { key: Some((&key).into()), now: how == Stop::Now })));
                }
                ToSession::Message(Message::Answer { key, verdict }) => {
                    let verdict = v1::Verdict::from(verdict).into();
                    return Some(Ok(To::Answer(v1::Answer { key: Some((&key).into()), verdict })));
                }
                ToSession::GoingAway(reason) => {
                    self.is_over = true;
                    return Some(Ok(To::GoingAway(v1::GoingAway { reason })));
                }
            }
        }
    }

    /// A task as a message. Work that is too large for one goes by way of the artifact store; without a store the task
    /// fails here, because it could never be sent.
    async fn task(&self, task: &Arc<Task>) -> Option<v1::Task> {
        let mut message = v1::Task::from(&**task);
        let bytes = message.encoded_len();
        if bytes < proto::MAX_MESSAGE_BYTES - ENVELOPE_BYTES {
            return Some(message);
        }
        let kept = match &self.artifacts {
            Some(store) => match serde_json::to_vec(&task.work) {
                Ok(work) => artifacts::put(store, work).await.map_err(|refusal| refusal.to_string()),
                Err(error) => Err(error.to_string()),
            },
            None => Err("this scheduler has no artifact store that it could go by".to_owned()),
        };
        match kept {
            Ok(reference) => {
                message.work = Some(v1::task::Work::WorkRef(reference));
                Some(message)
            }
            Err(why) => {
                let refusal = Refusal::TooLarge { what: format!("the task of {bytes} bytes") };
                let words = format!("{}: {refusal}; {why}", refusal.name());
                let outcome = Outcome::failed(Failure::permanent(words));
                self.hub.report(&self.worker, LeaseKey::of(task), outcome);
                None
            }
        }
    }
}

/// What stands around a task in its message.
const ENVELOPE_BYTES: usize = 64;
