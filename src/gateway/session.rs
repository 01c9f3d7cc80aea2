//! The service that workers connect to: takes a worker in, reads what it says, and notices when it has gone.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::artifact::{ArtifactError, Store};
use crate::dispatch::{Hub, Joining, LeaseKey, LogSink, SessionId, WorkerLine};
use crate::gateway::access::Caller;
use crate::gateway::artifacts;
use crate::gateway::identity::Identities;
use crate::gateway::outgoing::{Control, Outgoing};
use crate::gateway::refusal::{Refusal, too_large};
use crate::proto::{self, v1};
use crate::task::{Failure, Outcome};

/// How long a worker may take to say who it is.
const REGISTER_WAIT: Duration = Duration::from_secs(10);
/// Bounds on what a worker says of itself.
const NAME_BYTES_MAX: usize = 200;
const QUEUES_MAX: usize = 100;
const CONCURRENCY_MAX: u32 = 1024;
const LEASES_MAX: usize = 10_000;
/// Of how many workers it is remembered which of their lines are kept.
const WORKERS_MAX: usize = 10_000;

/// What all sessions of a gateway share.
pub(super) struct Shared {
    pub(super) hub: Arc<Hub>,
    pub(super) logs: Arc<dyn LogSink>,
    pub(super) artifacts: Option<Arc<dyn Store>>,
    pub(super) identities: Identities,
    pub(super) scheduler: String,
    open: Mutex<Open>,
}

/// The sessions that are open, by worker.
#[derive(Default)]
struct Open {
    sessions: HashMap<Arc<str>, (SessionId, UnboundedSender<Control>)>,
    /// Why no new ones are taken.
    closed: Option<String>,
    /// The newest lines that are kept, by worker.
    lines: HashMap<Arc<str>, u64>,
}

impl Open {
    fn keep_number(&mut self, worker: &Arc<str>, number: u64) {
        if self.lines.len() >= WORKERS_MAX {
            let sessions = &self.sessions;
            self.lines.retain(|worker, _| sessions.contains_key(worker));
        }
        self.lines.insert(worker.clone(), number);
    }
}

impl Shared {
    pub(super) fn new(
        hub: Arc<Hub>,
        logs: Arc<dyn LogSink>,
        artifacts: Option<Arc<dyn Store>>,
        identities: Identities,
        scheduler: String,
    ) -> Self {
        Self { hub, logs, artifacts, identities, scheduler, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes no more sessions and ends those that there are.
    pub(super) fn close(&self, reason: &str) {
        let mut open = self.open();
        open.closed = Some(reason.to_owned());
        for (_, control) in open.sessions.values() {
            let _ = control.send(Control::GoingAway(reason.to_owned()));
        }
    }

    fn refuse_if_closed(&self) -> Result<(), Refusal> {
        match &self.open().closed {
            Some(reason) => Err(Refusal::Draining { why: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// The service.
#[derive(Clone)]
pub(super) struct Workers(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl v1::workers_server::Workers for Workers {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::ToWorker, Status>> + Send>>;
    type GetArtifactStream = ReceiverStream<Result<v1::ArtifactPiece, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::FromWorker>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        self.0.refuse_if_closed()?;
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or_default();
        let mut incoming = request.into_inner();
        let joining = self.0.registration(&mut incoming, &caller).await?;
        let worker = joining.worker.clone();
        let (id, inbox) = self.0.hub.join(joining);
        let (control, controlled) = unbounded_channel();
        let terms = self.0.hub.terms();
        let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let first = v1::Registered {
            scheduler: self.0.scheduler.clone(),
            heartbeat_ms: millis(terms.heartbeat),
            lease_ms: millis(terms.lease),
        };
        let mut outgoing = Outgoing {
            hub: self.0.hub.clone(),
            worker: worker.clone(),
            id,
            first: Some(first),
            inbox,
            control: controlled,
            artifacts: self.0.artifacts.clone(),
            reader: None,
            says_drained: false,
            going_away: None,
            is_over: false,
        };
        let older = self.0.open().sessions.insert(worker.clone(), (id, control.clone()));
        if let Some((_, older)) = older {
            let _ = older.send(Control::Refused(Refusal::Superseded { worker: worker.to_string() }));
        }
        let reader = Reader { shared: self.0.clone(), worker, id, control };
        outgoing.reader = Some(tokio::spawn(reader.read(incoming)).abort_handle());
        Ok(Response::new(Box::pin(outgoing.messages())))
    }

    async fn put_artifact(
        &self,
        request: Request<Streaming<v1::ArtifactPiece>>,
    ) -> Result<Response<v1::ArtifactRef>, Status> {
        let store = self.0.artifacts.as_ref().ok_or(Refusal::NoStore)?;
        let bytes = artifacts::receive(request.into_inner()).await?;
        Ok(Response::new(artifacts::put(store, bytes).await?))
    }

    async fn get_artifact(
        &self,
        request: Request<v1::ArtifactRef>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        let store = self.0.artifacts.as_ref().ok_or(Refusal::NoStore)?;
        let bytes = artifacts::get(store, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(artifacts::send(bytes))))
    }
}

impl Shared {
    /// Waits for the first message and holds it against what is allowed.
    async fn registration(&self, incoming: &mut Streaming<v1::FromWorker>, caller: &Caller) -> Result<Joining, Status> {
        let malformed = |why: &str| Refusal::Malformed { why: why.to_owned() };
        let first = tokio::time::timeout(REGISTER_WAIT, incoming.message())
            .await
            .map_err(|_| malformed("a worker says who it is first, within 10 s"))?
            .map_err(|status| too_large(&status).map_or(status, Status::from))?;
        let Some(v1::FromWorker { message: Some(v1::from_worker::Message::Register(register)), .. }) = first else {
            return Err(malformed("the first message of a worker is `register`").into());
        };
        Ok(self.joining(register, caller)?)
    }

    fn joining(&self, register: v1::Register, caller: &Caller) -> Result<Joining, Refusal> {
        let v1::Register { worker, queues, capabilities, concurrency, leases, version } = register;
        if version.split('.').next() != proto::VERSION.split('.').next() {
            return Err(Refusal::Version { given: version });
        }
        let malformed = |why: String| Err(Refusal::Malformed { why });
        if worker.is_empty() || worker.len() > NAME_BYTES_MAX || worker.chars().any(char::is_control) {
            return malformed(format!("a worker's name has 1 to {NAME_BYTES_MAX} bytes and no control characters"));
        }
        if queues.is_empty() || queues.len() > QUEUES_MAX || capabilities.len() > QUEUES_MAX {
            return malformed(format!(
                "a worker serves 1 to {QUEUES_MAX} queues and has up to {QUEUES_MAX} capabilities"
            ));
        }
        if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
            return malformed(format!("a worker's concurrency is 1 to {CONCURRENCY_MAX}, not {concurrency}"));
        }
        if leases.len() > LEASES_MAX {
            return malformed(format!("a worker has at most {LEASES_MAX} tasks, not {}", leases.len()));
        }
        if let Some(why) = caller.holder.as_ref().and_then(|holder| self.identities.refusal(holder, &queues)) {
            return Err(Refusal::QueueNotAllowed { why });
        }
        Ok(Joining {
            worker: Arc::from(worker),
            queues: queues.into_iter().collect(),
            capabilities: capabilities.into_iter().collect::<BTreeSet<String>>(),
            concurrency,
            leases: leases.into_iter().map(LeaseKey::from).collect(),
            local: false,
        })
    }
}

/// The receiving side of a session.
struct Reader {
    shared: Arc<Shared>,
    worker: Arc<str>,
    id: SessionId,
    control: UnboundedSender<Control>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut open = self.shared.open();
        if open.sessions.get(&self.worker).is_some_and(|(id, _)| *id == self.id) {
            open.sessions.remove(&self.worker);
        }
    }
}

impl Reader {
    async fn read(self, mut incoming: Streaming<v1::FromWorker>) {
        let terms = self.shared.hub.terms();
        let end = loop {
            let message = match tokio::time::timeout(terms.lease, incoming.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => break Control::Left,
                Ok(Err(status)) => break too_large(&status).map_or(Control::Left, Control::Refused),
                Err(_) => {
                    let heartbeat_ms = u64::try_from(terms.heartbeat.as_millis()).unwrap_or(u64::MAX);
                    break Control::Refused(Refusal::Silent { seconds: terms.lease.as_secs(), heartbeat_ms });
                }
            };
            // A message of a later version of the protocol may hold what is not known here.
            let (Some(what), number) = (message.message, message.number) else { continue };
            if let Err(refusal) = self.take(what, number).await {
                break Control::Refused(refusal);
            }
        };
        let _ = self.control.send(end);
    }

    async fn take(&self, message: v1::from_worker::Message, number: u64) -> Result<(), Refusal> {
        use v1::from_worker::Message as From;
        let hub = &self.shared.hub;
        match message {
            From::Register(_) => return Err(Refusal::Malformed { why: "a worker registers once".to_owned() }),
            From::Heartbeat(heartbeat) => {
                let leases: Vec<LeaseKey> = heartbeat.leases.into_iter().map(LeaseKey::from).collect();
                let leases = leases.get(..LEASES_MAX).unwrap_or(&leases);
                hub.heartbeat_over(self.id, &self.worker, leases, number);
            }
            From::Log(lines) => self.keep_lines(lines, number).await,
            From::Report(report) => {
                let Some(key) = report.key else {
                    return Err(Refusal::Malformed { why: "a report names its hand-out".to_owned() });
                };
                let outcome = self.outcome(report.outcome.unwrap_or_default()).await?;
                hub.report(&self.worker, key.into(), outcome);
            }
            From::Drain(_) => {
                hub.drain(self.id);
                let _ = self.control.send(Control::Drained);
            }
        }
        Ok(())
    }

    /// Keeps lines, unless they are kept already, and says so.
    async fn keep_lines(&self, message: v1::LogLines, number: u64) {
        let newest = self.shared.open().lines.get(&self.worker).copied().unwrap_or_default();
        if number == 0 || number > newest {
            let lines: Vec<WorkerLine> = message.lines.into_iter().filter_map(WorkerLine::from_message).collect();
            let (shared, worker) = (self.shared.clone(), self.worker.clone());
            // Waited for, so that lines stay in order, are there before the outcome, and a slow disk slows the worker
            // and does not fill this process's memory. If the session ends now it is done to its end all the same.
            let kept = tokio::task::spawn_blocking(move || {
                shared.logs.write(&worker, &lines);
                shared.open().keep_number(&worker, number);
            });
            let _ = kept.await;
        }
        let _ = self.control.send(Control::LogTaken(number));
    }

    /// An outcome out of its message. One that makes no sense would make none the next time either, so it is a failure.
    async fn outcome(&self, outcome: v1::Outcome) -> Result<Outcome, Refusal> {
        let error = match artifacts::load(outcome, self.shared.artifacts.as_ref()).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        let words = format!("the outcome that worker {} sent cannot be read: {error}", self.worker);
        match error {
            // It may be had again later: the worker keeps its outcome, connects again and sends it again.
            ArtifactError::File { .. } | ArtifactError::Database(_) => Err(error.into()),
            ArtifactError::Missing { .. } | ArtifactError::Damaged { .. } => {
                Ok(Outcome::failed(Failure::transient(words)))
            }
            ArtifactError::Name(_)
            | ArtifactError::NoStore { .. }
            | ArtifactError::TooLarge { .. }
            | ArtifactError::Oversized { .. }
            | ArtifactError::Undecodable(_) => Ok(Outcome::failed(Failure::permanent(words))),
        }
    }
}
