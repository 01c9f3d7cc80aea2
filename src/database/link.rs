//! A connection that is made again when it breaks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Notification, Statement};

use crate::database::error::DatabaseError;
use crate::database::tls;
use crate::database::url::DatabaseUrl;

/// The first pause between two attempts to connect; each is twice as long as the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(2);

/// One connection as it is open now.
pub struct Session {
    /// Takes statements.
    pub client: Client,
    /// Brings what `LISTEN` asked for; ends with the connection.
    pub notifications: mpsc::UnboundedReceiver<Notification>,
    statements: HashMap<&'static str, Statement>,
}

impl Session {
    /// A statement, prepared when it is first asked for on this connection.
    pub async fn prepared(&mut self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }
}

/// A way to the database, with a connection while there is one.
pub struct Link {
    url: Arc<DatabaseUrl>,
    name: String,
    setup: String,
    session: Option<Session>,
    /// A connection is refused while this is set, as if the network were cut. Only tests set it.
    cut: Arc<AtomicBool>,
}

impl Link {
    /// A way to a database. `name` is what the server calls the connection (`application_name`); `setup` is run on
    /// each new connection.
    pub fn new(url: Arc<DatabaseUrl>, name: &str, setup: &str) -> Self {
        Self { url, name: name.to_owned(), setup: setup.to_owned(), session: None, cut: Arc::default() }
    }

    /// The database, as messages show it.
    pub fn place(&self) -> &str {
        self.url.shown()
    }

    /// Lets a test cut this way off: set, it makes every new connection fail.
    pub fn with_cut(mut self, cut: Arc<AtomicBool>) -> Self {
        self.cut = cut;
        self
    }

    /// The open connection; there is none before `connect`, nor when it has broken.
    pub fn session(&mut self) -> Option<&mut Session> {
        if self.cut.load(Ordering::Relaxed) {
            self.session = None;
        }
        self.session.as_mut().filter(|session| !session.client.is_closed())
    }

    /// Gives the connection up; the next `connect` makes a new one.
    pub fn disconnect(&mut self) {
        self.session = None;
    }

    /// Makes sure that there is a connection. One attempt.
    pub async fn connect(&mut self) -> Result<&mut Session, DatabaseError> {
        let open = self.session().is_some();
        if !open {
            self.session = None;
            if self.cut.load(Ordering::Relaxed) {
                let what = "the way to it is cut".to_owned();
                return Err(DatabaseError::Away { place: self.place().to_owned(), what });
            }
            let session = self.open().await?;
            self.session = Some(session);
        }
        let place = self.url.shown();
        let away = || DatabaseError::Away { place: place.to_owned(), what: "the connection is closed".to_owned() };
        self.session.as_mut().ok_or_else(away)
    }

    /// Makes sure that there is a connection, and tries again until the time is over while the server is away.
    pub async fn connect_until(&mut self, deadline: Instant) -> Result<&mut Session, DatabaseError> {
        let mut pause = PAUSE_FIRST;
        loop {
            match self.connect().await {
                Ok(_) => break,
                Err(error) if error.is_away() && Instant::now() + pause < deadline => tokio::time::sleep(pause).await,
                Err(error) => return Err(error),
            }
            pause = (pause * 2).min(PAUSE_MOST);
        }
        self.connect().await
    }

    async fn open(&self) -> Result<Session, DatabaseError> {
        let failed = |error: tokio_postgres::Error| DatabaseError::of(self.place(), &error);
        let mut config = self.url.config.clone();
        if config.get_application_name().is_none() {
            config.application_name(&self.name);
        }
        // The limit of the configuration is for the socket alone; a server that takes it and says nothing is met here.
        let limit = config.get_connect_timeout().copied().unwrap_or(PAUSE_MOST) * 2;
        let opening = async {
            Ok::<_, DatabaseError>(match tls::connector(&self.url.trust)? {
                Some(tls) => {
                    let (client, connection) = config.connect(tls).await.map_err(failed)?;
                    Session { client, notifications: drive(connection), statements: HashMap::new() }
                }
                None => {
                    let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                    Session { client, notifications: drive(connection), statements: HashMap::new() }
                }
            })
        };
        let late = |_| DatabaseError::Away {
            place: self.place().to_owned(),
            what: format!("it has not answered for {} s", limit.as_secs()),
        };
        let session = tokio::time::timeout(limit, opening).await.map_err(late)??;
        if !self.setup.is_empty() {
            tokio::time::timeout(limit, session.client.batch_execute(&self.setup))
                .await
                .map_err(late)?
                .map_err(failed)?;
        }
        Ok(session)
    }
}

/// Lets a connection go on by itself; what it is told without having asked comes out of the channel.
fn drive<S, T>(mut connection: Connection<S, T>) -> mpsc::UnboundedReceiver<Notification>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut next = std::pin::pin!(futures::stream::poll_fn(move |context| connection.poll_message(context)));
        while let Some(Ok(message)) = futures::StreamExt::next(&mut next).await {
            if let AsyncMessage::Notification(notification) = message {
                // Nobody listens any more: the connection goes on for its other uses.
                let _ = sender.send(notification);
            }
        }
    });
    receiver
}
