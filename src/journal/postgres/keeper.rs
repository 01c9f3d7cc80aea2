//! What goes on beside the writing: leases are renewed, others are told of writes, and what others tell is heard.
//!
//! The channel is listened to before anything is read, and a new connection counts as a change, so that no wake-up is
//! lost. Below all that lies a slow look at the tables.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::Notification;

use crate::database::Link;
use crate::journal::postgres::grants::RENEW;
use crate::journal::postgres::shared::{Shared, lock};
use crate::journal::postgres::sql;

/// The channel of all journals of a database.
pub(crate) const CHANNEL: &str = "tol_journal";
/// How often the tables are looked at, should a notification be lost.
const POLL: Duration = Duration::from_secs(5);
/// Others are told of writes at most once in so long.
const ANNOUNCE: Duration = Duration::from_millis(20);
/// A renewal or look that takes longer than this is given up, with its connection.
const LIMIT: Duration = Duration::from_secs(5);

/// The keeper's connection: it must not stand in anybody's way for long.
pub(crate) const SETUP: &str = "SET statement_timeout = '5s'; SET lock_timeout = '3s'; \
     SET idle_in_transaction_session_timeout = '5s'; SET synchronous_commit = 'off'; LISTEN tol_journal";

/// What others have done: their writes and all commands.
const LOOK: &str = "
SELECT coalesce((SELECT sum(counter) FROM tol.writers WHERE id <> $1), 0)::int8,
  coalesce((SELECT max(id) FROM tol.commands), 0)";

pub(crate) struct Keeper {
    pub(crate) link: Link,
    pub(crate) shared: Arc<Shared>,
    /// Only a journal that writes holds anything.
    pub(crate) writes: bool,
    seen: Option<(i64, i64)>,
}

enum Event {
    Heard(Option<Notification>),
    Renew,
    Look,
    Announce,
}

impl Keeper {
    pub(crate) fn new(link: Link, shared: Arc<Shared>, writes: bool) -> Self {
        Self { link, shared, writes, seen: None }
    }

    /// The keeper's life; it ends with its lane.
    pub(crate) async fn run(mut self) {
        let mut renew = tokio::time::interval(RENEW);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look = tokio::time::interval(POLL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let Ok(session) = self.link.connect_until(Instant::now()).await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let event = tokio::select! {
                heard = session.notifications.recv() => Event::Heard(heard),
                _ = renew.tick() => Event::Renew,
                _ = look.tick() => Event::Look,
                () = self.shared.announce.notified() => Event::Announce,
            };
            let done = match event {
                Event::Heard(Some(notification)) => {
                    self.hear(&notification);
                    continue;
                }
                Event::Heard(None) => {
                    self.link.disconnect();
                    // Whatever was told while nobody listened is read anew.
                    self.shared.note_change();
                    continue;
                }
                Event::Renew => tokio::time::timeout(LIMIT, self.renew()).await,
                Event::Look => tokio::time::timeout(LIMIT, self.look()).await,
                Event::Announce => tokio::time::timeout(LIMIT, self.announce()).await,
            };
            if !matches!(done, Ok(Ok(()))) {
                self.link.disconnect();
                self.shared.note_change();
                // A renewal that failed is tried again at once, on a new connection.
                renew.reset_immediately();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    fn hear(&self, notification: &Notification) {
        if notification.channel() == CHANNEL && notification.payload() != self.shared.id {
            self.shared.note_change();
        }
    }

    async fn renew(&mut self) -> Result<(), tokio_postgres::Error> {
        let asked_for = self.shared.grants().all();
        let joined = lock(&self.shared.joined).clone();
        let id = self.shared.id.clone();
        let Some(session) = self.link.session().filter(|_| self.writes) else { return Ok(()) };
        let asked = Instant::now();
        if !asked_for.is_empty() {
            let (keys, epochs): (Vec<String>, Vec<i64>) = asked_for.iter().cloned().unzip();
            let statement = session.prepared(sql::RENEW).await?;
            let rows = session.client.query(&statement, &[&keys, &epochs, &id]).await?;
            let renewed: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
            self.shared.grants().renewed(&asked_for, &renewed, asked);
        }
        let alive = "UPDATE tol.writers SET seen_at = clock_timestamp() WHERE id = $1";
        let statement = session.prepared(alive).await?;
        session.client.execute(&statement, &[&id]).await?;
        if joined.is_some() {
            let alive = "UPDATE tol.schedulers SET expires_at = clock_timestamp() + interval '10 s' WHERE id = $1";
            let statement = session.prepared(alive).await?;
            session.client.execute(&statement, &[&id]).await?;
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<(), tokio_postgres::Error> {
        let id = self.shared.id.clone();
        let Some(session) = self.link.session() else { return Ok(()) };
        let statement = session.prepared(LOOK).await?;
        let row = session.client.query_one(&statement, &[&id]).await?;
        let found = (row.get(0), row.get(1));
        if self.seen.replace(found).is_some_and(|seen| seen != found) {
            self.shared.note_change();
        }
        Ok(())
    }

    /// Tells others that something was written; several writes in short order are told once.
    async fn announce(&mut self) -> Result<(), tokio_postgres::Error> {
        let id = self.shared.id.clone();
        let Some(session) = self.link.session() else { return Ok(()) };
        let statement = session.prepared("SELECT pg_notify('tol_journal', $1)").await?;
        session.client.execute(&statement, &[&id]).await?;
        tokio::time::sleep(ANNOUNCE).await;
        Ok(())
    }
}
