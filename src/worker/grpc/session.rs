//! One session with one gateway, from its registration to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::dispatch::{LeaseKey, Stop, Verdict};
use crate::proto::v1::workers_client::WorkersClient;
use crate::proto::{VERSION, v1};
use crate::task::Failure;
use crate::worker::grpc::client::{Notice, Shared};
use crate::worker::grpc::connect::{client, words_of};
use crate::worker::grpc::payload::{self, Sending};
use crate::worker::table::Kept;

/// How long a gateway may take to answer a registration.
const REGISTER_WAIT: Duration = Duration::from_secs(15);
/// How often an outcome is sent again that the scheduler does not know the run of, yet.
const AGAIN: Duration = Duration::from_secs(1);
/// How many messages wait for the connection; then their sources wait.
const MESSAGES: usize = 4;

/// How a session ended.
pub(super) enum Ended {
    /// There was none.
    NoConnection(String),
    /// The gateway did not take the worker.
    Refused(Status),
    /// It was there, and is over.
    Over(String),
}

/// Connects, registers, and works until one side goes away.
pub(super) async fn run(shared: &Arc<Shared>, number: usize, gateway: &str, endpoint: &Endpoint) -> Ended {
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return Ended::NoConnection(words_of(&error)),
    };
    // From here on the gateway may hand out.
    shared.is_open(number);
    let (out, outgoing) = mpsc::channel(MESSAGES);
    let about = shared.about.clone();
    let kept = shared.table.kept().into_iter().map(|kept| kept.key);
    let leases: Vec<v1::LeaseKey> = shared.table.in_work().into_iter().chain(kept).map(|key| (&key).into()).collect();
    let register = v1::Register {
        worker: about.worker,
        queues: about.queues,
        capabilities: about.capabilities,
        concurrency: about.concurrency,
        leases,
        version: VERSION.to_owned(),
    };
    let mut client = client(channel);
    let began = Instant::now();
    // The channel is new and has room.
    let _ = out.try_send(message(v1::from_worker::Message::Register(register)));
    let request = shared.access.request(ReceiverStream::new(outgoing));
    let registered = tokio::time::timeout(REGISTER_WAIT, async {
        let mut incoming = client.session(request).await?.into_inner();
        let first = incoming.message().await?;
        Ok::<_, Status>((incoming, first))
    });
    let (incoming, registered) = match registered.await {
        Err(_) => return Ended::NoConnection("it did not answer within 15 s".to_owned()),
        Ok(Err(status)) => return refused(status),
        Ok(Ok((incoming, Some(v1::ToWorker { message: Some(v1::to_worker::Message::Registered(registered)) })))) => {
            (incoming, registered)
        }
        Ok(Ok((_, None))) => return Ended::NoConnection("it ended the session".to_owned()),
        Ok(Ok((_, Some(_)))) => return Ended::NoConnection("it does not speak this protocol".to_owned()),
    };
    shared.tell(Notice::Connected { gateway: gateway.to_owned(), scheduler: registered.scheduler.clone() });
    shared.lines.is_connected(number, true);
    let beat = Duration::from_millis(registered.heartbeat_ms.max(1));
    shared.table.registered(number, began, Duration::from_millis(registered.lease_ms / 2));
    let reader = Reader { shared: shared.clone(), number, client: client.clone(), began };
    let writer = Writer {
        shared: shared.clone(),
        number,
        client,
        began,
        out,
        sent: BTreeMap::new(),
        storing: BTreeSet::new(),
        stored: JoinSet::new(),
    };
    // Each goes on while the other waits: neither side can be blocked by the other's reading.
    let why = tokio::select! {
        why = reader.read(incoming) => why,
        why = writer.write(beat) => why,
    };
    Ended::Over(why)
}

fn refused(status: Status) -> Ended {
    // A status without words of the gateway comes from the transport.
    if std::error::Error::source(&status).is_some() {
        return Ended::NoConnection(words_of(&status));
    }
    Ended::Refused(status)
}

fn message(message: v1::from_worker::Message) -> v1::FromWorker {
    v1::FromWorker { message: Some(message), number: 0 }
}

/// What comes from the gateway.
struct Reader {
    shared: Arc<Shared>,
    number: usize,
    client: WorkersClient<Channel>,
    began: Instant,
}

impl Reader {
    async fn read(self, mut incoming: Streaming<v1::ToWorker>) -> String {
        use v1::to_worker::Message as To;
        loop {
            let message = match incoming.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return "it ended the session".to_owned(),
                Err(status) => return words_of(&status),
            };
            // A message of a later version of the protocol may hold what is not known here.
            match message.message {
                Some(To::Task(task)) => self.task(task).await,
                Some(To::Stop(v1::Stop { key: Some(key), now })) => {
                    self.shared.table.stop(&key.into(), if now { Stop::Now } else { Stop::Graceful });
                }
                Some(To::Answer(answer)) => {
                    let verdict = Verdict::from(answer.verdict());
                    if let Some(key) = answer.key.map(LeaseKey::from) {
                        self.shared.table.answered(&key, verdict);
                        if verdict == Verdict::Unknown {
                            self.shared.table.disowned(&key, self.number);
                        }
                    }
                }
                Some(To::LogTaken(taken)) => self.shared.lines.taken(self.number, taken.number),
                Some(To::HeartbeatTaken(taken)) => {
                    if let Some(sent) = self.began.checked_add(Duration::from_micros(taken.number)) {
                        // No answer is to what is not sent yet.
                        self.shared.table.heard(self.number, sent.min(Instant::now()));
                    }
                }
                Some(To::Drained(_)) => self.shared.is_drained(self.number),
                Some(To::GoingAway(going)) => return format!("it goes away: {}", going.reason),
                Some(To::Registered(_) | To::Stop(v1::Stop { key: None, .. })) | None => {}
            }
        }
    }

    /// Takes a task. Work that lies in the scheduler's store is fetched beside everything else.
    async fn task(&self, task: v1::Task) {
        let Some(key) = task.key.clone().map(LeaseKey::from) else { return };
        let (shared, number, mut client) = (self.shared.clone(), self.number, self.client.clone());
        if !shared.table.expect(&key, number) {
            return;
        }
        let is_stored = matches!(task.work, Some(v1::task::Work::WorkRef(_)));
        let load = async move {
            match payload::load_task(task, &mut client, &shared.access).await {
                Ok(task) => drop(shared.table.take(task, number)),
                Err(why) => shared.table.refuse(key, number, Failure::transient(why)),
            }
        };
        if is_stored {
            tokio::spawn(load);
        } else {
            load.await;
        }
    }
}

/// Waits until the worker is asked to drain; false if nobody can ask any more.
async fn asked_to_drain(draining: &mut watch::Receiver<bool>) -> bool {
    draining.wait_for(|draining| *draining).await.is_ok()
}

/// What goes to the gateway.
struct Writer {
    shared: Arc<Shared>,
    number: usize,
    client: WorkersClient<Channel>,
    began: Instant,
    out: mpsc::Sender<v1::FromWorker>,
    /// The outcomes that were sent over this connection, and when.
    sent: BTreeMap<LeaseKey, Instant>,
    /// The outcomes that go into the scheduler's store first.
    storing: BTreeSet<LeaseKey>,
    stored: JoinSet<(LeaseKey, Result<Sending, Status>)>,
}

impl Writer {
    async fn write(mut self, beat: Duration) -> String {
        let (lines, number) = (self.shared.lines.clone(), self.number);
        let mut changes = self.shared.table.changes();
        let mut draining = self.shared.draining.clone();
        let mut is_draining = false;
        let mut beats = tokio::time::interval(beat);
        let mut again = tokio::time::interval(AGAIN);
        beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let sent = tokio::select! {
                biased;
                _ = beats.tick() => self.heartbeat().await,
                drains = asked_to_drain(&mut draining), if !is_draining => {
                    is_draining = true;
                    if !drains {
                        continue;
                    }
                    self.send(v1::from_worker::Message::Drain(v1::Drain {})).await
                }
                Ok(()) = changes.changed() => self.outcomes().await,
                _ = again.tick() => self.outcomes().await,
                Some(Ok((key, result))) = self.stored.join_next() => self.stored(key, result).await,
                () = lines.wait(number) => self.lines().await,
            };
            if let Err(why) = sent {
                return why;
            }
        }
    }

    async fn send(&self, what: v1::from_worker::Message) -> Result<(), String> {
        self.send_all(message(what)).await
    }

    async fn send_all(&self, message: v1::FromWorker) -> Result<(), String> {
        self.out.send(message).await.map_err(|_| "the connection is gone".to_owned())
    }

    async fn heartbeat(&self) -> Result<(), String> {
        let table = &self.shared.table;
        // Before it is seen what there is: the answer is then about all that had come until that moment.
        let number = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let unsent = table.kept().into_iter().map(|kept| kept.key).filter(|key| !self.sent.contains_key(key));
        let leases = table.in_work().into_iter().chain(unsent).map(|key| (&key).into()).collect();
        let sent_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let heartbeat = v1::Heartbeat {
            worker: self.shared.about.worker.clone(),
            leases,
            free: u32::try_from(table.free()).unwrap_or(u32::MAX),
            sent_at_ms: u64::try_from(sent_at.as_millis()).unwrap_or(u64::MAX),
        };
        let message = Some(v1::from_worker::Message::Heartbeat(heartbeat));
        self.send_all(v1::FromWorker { message, number }).await
    }

    /// Sends one batch of lines, and the outcomes that waited for it.
    async fn lines(&mut self) -> Result<(), String> {
        let Some((number, lines)) = self.shared.lines.next(self.number) else { return Ok(()) };
        let lines = lines.iter().map(v1::LogLine::from).collect();
        let lines = Some(v1::from_worker::Message::Log(v1::LogLines { lines }));
        self.send_all(v1::FromWorker { message: lines, number }).await?;
        self.outcomes().await
    }

    /// Sends the outcomes that are to be sent now; one whose lines are not sent yet waits for them.
    async fn outcomes(&mut self) -> Result<(), String> {
        let kept = self.shared.table.kept();
        self.sent.retain(|key, _| kept.iter().any(|kept| kept.key == *key));
        let is_due = |kept: &Kept| match self.sent.get(&kept.key) {
            Some(at) => kept.is_unknown() && at.elapsed() >= AGAIN,
            None => !self.shared.lines.holds(self.number, &kept.key),
        };
        let due: Vec<Kept> = kept.into_iter().filter(is_due).collect();
        for kept in due {
            let report = payload::plain(&kept);
            if payload::is_large(&report) {
                self.store(kept);
            } else {
                self.report(report).await?;
            }
        }
        Ok(())
    }

    /// Puts the outputs of an outcome into the scheduler's store, beside everything else.
    fn store(&mut self, kept: Kept) {
        if !self.storing.insert(kept.key.clone()) {
            return;
        }
        let (shared, mut client) = (self.shared.clone(), self.client.clone());
        self.stored.spawn(async move {
            let result = payload::store(&kept, &mut client, &shared.access).await;
            (kept.key, result)
        });
    }

    async fn stored(&mut self, key: LeaseKey, result: Result<Sending, Status>) -> Result<(), String> {
        self.storing.remove(&key);
        match result {
            Ok(Sending::Report(report)) => self.report(report).await,
            Ok(Sending::Instead(outcome)) => {
                self.shared.table.replace(&key, outcome);
                Ok(())
            }
            Err(status) => Err(words_of(&status)),
        }
    }

    async fn report(&mut self, report: v1::Report) -> Result<(), String> {
        if let Some(key) = report.key.clone() {
            self.sent.insert(key.into(), Instant::now());
        }
        self.send(v1::from_worker::Message::Report(report)).await
    }
}
