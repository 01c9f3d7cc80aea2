//! One connection for callers that are not asynchronous: each call waits for its turn and its result.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::database::error::{DatabaseError, is_away, is_passing};
use crate::database::lane::Lane;
use crate::database::link::Link;
use crate::database::url::DatabaseUrl;

/// How often a call that met a deadlock or the like is tried again.
const PASSING_MOST: u32 = 20;

/// A database with one connection and one thread. Calls may come from any thread, also inside a runtime.
#[derive(Clone)]
pub struct Database {
    lane: Arc<Lane>,
    link: Arc<Mutex<Link>>,
    place: Arc<str>,
    patience: Duration,
}

impl Database {
    /// Connects. `name` is what the server calls the connection. While the server is away a call waits for it as long
    /// as `patience` says.
    pub fn open(url: &DatabaseUrl, name: &str, patience: Duration) -> Result<Self, DatabaseError> {
        let failed = |error: std::io::Error| DatabaseError::Failed {
            place: url.shown().to_owned(),
            code: String::new(),
            what: format!("its thread cannot be started: {error}"),
        };
        let lane = Arc::new(Lane::start("tol-database").map_err(failed)?);
        let database = Self::on(lane, Link::new(Arc::new(url.clone()), name, ""), patience);
        database.call(|client| Box::pin(async move { client.batch_execute("").await }))?;
        Ok(database)
    }

    /// Uses a thread and a way that are there already.
    pub fn on(lane: Arc<Lane>, link: Link, patience: Duration) -> Self {
        Self { place: link.place().into(), lane, link: Arc::new(Mutex::new(link)), patience }
    }

    /// The database, as messages show it.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Does something with the connection and waits for it.
    ///
    /// When the connection breaks, a new one is made and `work` is called again, even if its first call may have
    /// taken effect: it must be such that a second time changes nothing. A deadlock calls it again, too.
    pub fn call<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        F: for<'c> Fn(&'c mut Client) -> BoxFuture<'c, Result<T, tokio_postgres::Error>> + Send + Sync + 'static,
        T: Send + 'static,
    {
        let database = self.clone();
        let result = self.lane.wait_for(async move { database.attempt(work).await });
        let ended = || DatabaseError::Away { place: self.place.to_string(), what: "its thread has ended".to_owned() };
        result.unwrap_or_else(|| Err(ended()))
    }

    /// The same for callers that are asynchronous. It runs wherever it is awaited, within a runtime.
    pub async fn attempt<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        F: for<'c> Fn(&'c mut Client) -> BoxFuture<'c, Result<T, tokio_postgres::Error>> + Send + Sync,
        T: Send,
    {
        let mut link = self.link.lock().await;
        let deadline = Instant::now() + self.patience;
        let mut passing = 0;
        loop {
            let session = link.connect_until(deadline).await?;
            match work(&mut session.client).await {
                Ok(value) => return Ok(value),
                Err(error) if is_away(&error) && Instant::now() < deadline => {
                    link.disconnect();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) if is_passing(&error) && passing < PASSING_MOST => {
                    passing += 1;
                    tokio::time::sleep(Duration::from_millis(u64::from(passing) * 5)).await;
                }
                Err(error) => return Err(DatabaseError::of(&self.place, &error)),
            }
        }
    }
}
