//! What a session sends to its worker: what the hub has for it, as messages, until one of the two goes away.

use std::sync::Arc;

use futures::Stream;
use tokio::sync::mpsc::UnboundedReceiver;
use tonic::Status;

use crate::artifact::Store;
use crate::dispatch::{Hub, LeaseKey, Message, SessionId, Stop, ToSession};
use crate::gateway::artifacts;
use crate::gateway::refusal::Refusal;
use crate::proto::v1;
use crate::task::{Failure, Outcome, Task};

/// What the gateway itself has to say to a worker.
#[derive(Debug)]
pub(super) enum Control {
    /// Lines up to this number are kept.
    LogTaken(u64),
    /// The hub gives the worker nothing more.
    Drained,
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
    pub(super) control: UnboundedReceiver<Control>,
    pub(super) artifacts: Option<Arc<dyn Store>>,
    pub(super) reader: Option<tokio::task::AbortHandle>,
    /// The worker is to be told that nothing more comes, behind what the hub gave it before.
    pub(super) says_drained: bool,
    /// Why the gateway goes away, which the worker is told last.
    pub(super) going_away: Option<String>,
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
            let message = if self.says_drained || self.going_away.is_some() {
                let Ok(message) = self.inbox.try_recv() else {
                    if let Some(reason) = self.going_away.take() {
                        self.is_over = true;
                        return Some(Ok(To::GoingAway(v1::GoingAway { reason })));
                    }
                    self.says_drained = false;
                    return Some(Ok(To::Drained(v1::Drained {})));
                };
                message
            } else {
                tokio::select! {
                    biased;
                    control = self.control.recv() => match control.unwrap_or(Control::Left) {
                        Control::LogTaken(number) => return Some(Ok(To::LogTaken(v1::LogTaken { number }))),
                        Control::Drained => {
                            self.says_drained = true;
                            continue;
                        }
                        Control::Left => return None,
                        Control::Refused(refusal) => {
                            self.is_over = true;
                            return Some(Err(refusal.into()));
                        }
                        Control::GoingAway(reason) => {
                            // What the hub gave the worker before still goes to it: it is the worker's by lease.
                            self.hub.drain(self.id);
                            self.going_away = Some(reason);
                            continue;
                        }
                    },
                    message = self.inbox.recv() => message?,
                }
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
                ToSession::Heard(number) => return Some(Ok(To::HeartbeatTaken(v1::HeartbeatTaken { number }))),
                ToSession::GoingAway(reason) => {
                    self.is_over = true;
                    return Some(Ok(To::GoingAway(v1::GoingAway { reason })));
                }
            }
        }
    }

    /// A task as a message. Work that is too large for one goes by way of the artifact store. What cannot be sent now
    /// or ever fails here, since nobody else would ever report it.
    async fn task(&self, task: &Arc<Task>) -> Option<v1::Task> {
        let error = match artifacts::offload(task, self.artifacts.as_ref()).await {
            Ok(message) => return Some(message),
            Err(error) => error,
        };
        let words = format!("the task cannot be sent to worker {}: {error}", self.worker);
        let passes = matches!(Refusal::from(error), Refusal::Store { .. });
        let failure = if passes { Failure::transient(words) } else { Failure::permanent(words) };
        self.hub.report(&self.worker, LeaseKey::of(task), Outcome::failed(failure));
        None
    }
}
