//! Keeps one session with each gateway: connects, and connects again, until the worker ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Code;

use crate::dispatch::LeaseKey;
use crate::worker::grpc::backoff::Backoff;
use crate::worker::grpc::connect::{Access, ConnectError, GatewayAddress};
use crate::worker::grpc::session::{self, Ended};
use crate::worker::lines::Lines;
use crate::worker::table::Table;

/// A session that lasted so long went well: the next try to connect comes soon.
const WENT_WELL: Duration = Duration::from_secs(5);
/// How long an outcome is kept that no scheduler knows the run of.
const UNKNOWN_MAX: Duration = Duration::from_secs(600);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What a worker says of itself when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub worker: String,
    pub queues: Vec<String>,
    pub capabilities: Vec<String>,
    pub concurrency: u32,
}

/// What an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    Connected {
        gateway: String,
        scheduler: String,
    },
    /// It is tried again by itself.
    Disconnected {
        gateway: String,
        why: String,
    },
    /// It would be refused again: the worker is not set up for this gateway.
    Refused {
        gateway: String,
        why: String,
    },
    /// An outcome that no scheduler would take.
    GivenUp {
        key: LeaseKey,
        so_far: u64,
    },
}

/// What all sessions of a worker share.
pub(super) struct Shared {
    pub(super) about: About,
    pub(super) access: Access,
    pub(super) table: Arc<Table>,
    pub(super) lines: Arc<Lines>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) notices: UnboundedSender<Notice>,
}

impl Shared {
    pub(super) fn tell(&self, notice: Notice) {
        // Nobody listens any more when the worker ends.
        let _ = self.notices.send(notice);
    }
}

/// The sessions of one worker. They end when this is dropped.
pub struct Client {
    draining: watch::Sender<bool>,
    _sessions: JoinSet<()>,
}

impl Client {
    /// Connects to every gateway, again and again.
    ///
    /// # Errors
    /// If an address or the TLS files cannot be used.
    pub fn start(
        gateways: &[GatewayAddress],
        about: About,
        access: Access,
        table: Arc<Table>,
        lines: Arc<Lines>,
        notices: UnboundedSender<Notice>,
    ) -> Result<Self, ConnectError> {
        let (draining, receiver) = watch::channel(false);
        let shared = Arc::new(Shared { about, access, table, lines, draining: receiver, notices });
        let mut sessions = JoinSet::new();
        for (number, gateway) in gateways.iter().enumerate() {
            let endpoint = shared.access.endpoint(gateway)?;
            let (shared, name) = (shared.clone(), gateway.to_string());
            sessions.spawn(async move { keep_connected(&shared, number, &name, &endpoint).await });
        }
        sessions.spawn(async move { give_up(&shared).await });
        Ok(Self { draining, _sessions: sessions })
    }

    /// Takes no more tasks; what is in work goes on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }
}

async fn keep_connected(shared: &Arc<Shared>, number: usize, gateway: &str, endpoint: &tonic::transport::Endpoint) {
    let mut backoff = Backoff::new();
    let mut was_connected = false;
    let mut said = String::new();
    loop {
        let began = Instant::now();
        let ended = session::run(shared, number, gateway, endpoint).await;
        shared.lines.is_connected(number, false);
        let (why, is_final) = match ended {
            Ended::NoConnection(why) => (why, false),
            Ended::Refused(status) => {
                let is_final = matches!(
                    status.code(),
                    Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition | Code::InvalidArgument
                );
                (status.message().to_owned(), is_final)
            }
            Ended::Over(why) => {
                was_connected = true;
                said.clear();
                (why, false)
            }
        };
        if is_final && !was_connected {
            shared.tell(Notice::Refused { gateway: gateway.to_owned(), why });
            return;
        }
        if began.elapsed() >= WENT_WELL {
            backoff.reset();
        }
        // The same words again and again help nobody.
        if why != said {
            shared.tell(Notice::Disconnected { gateway: gateway.to_owned(), why: why.clone() });
            said = why;
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

async fn give_up(shared: &Arc<Shared>) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        for key in shared.table.give_up(UNKNOWN_MAX) {
            shared.tell(Notice::GivenUp { key, so_far: shared.table.given_up() });
        }
    }
}
