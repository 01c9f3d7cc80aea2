//! How a group of batches gets into the database: planned, written in one transaction, looked up when its fate is not
//! known, planned anew without the runs that another holds.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::future::{BoxFuture, join_all};
use tokio_postgres::types::ToSql;

use crate::id::RunId;
use crate::journal::chain;
use crate::journal::error::JournalError;
use crate::journal::pending::{self, PendingRows};
use crate::journal::postgres::claim::home_of;
use crate::journal::postgres::group::{After, Plan, PlannedRun};
use crate::journal::postgres::shared::lock;
use crate::journal::postgres::sql::{self, Step};
use crate::journal::postgres::writer::{Doubt, Known, Trouble, Waiting, Writer};
use crate::journal::transaction::Head;
use crate::journal::types::{Batch, Claim};

/// The fate of one batch of a group.
pub(crate) type Fate = Result<(), JournalError>;

/// The fates of a group so far; `None`: not known yet.
type Fates = [Option<Fate>];

impl Writer {
    /// Writes batches as one transaction. The outer error is the journal's end; the inner ones concern single runs.
    pub(crate) async fn write_group(&mut self, batches: &[Batch]) -> Result<Vec<Fate>, JournalError> {
        let mut fates: Vec<Option<Fate>> = batches.iter().map(|_| None).collect();
        let mut waiting = Waiting::default();
        let mut doubt = None;
        loop {
            let trouble = match self.attempt(batches, &mut fates, &mut doubt).await {
                Ok(()) if fates.iter().all(Option::is_some) => break,
                Ok(()) => continue,
                Err(trouble) => trouble,
            };
            let trouble = match trouble {
                Trouble::Unexpected => match self.look_again(batches, &mut fates, &mut doubt).await {
                    Ok(()) => Trouble::Unexpected,
                    Err(trouble) => trouble,
                },
                other => other,
            };
            self.stand(trouble, &mut waiting).await?;
        }
        Ok(fates.into_iter().flatten().collect())
    }

    /// One attempt to write all batches that have no fate yet.
    async fn attempt(
        &mut self,
        batches: &[Batch],
        fates: &mut Fates,
        doubt: &mut Option<Doubt>,
    ) -> Result<(), Trouble> {
        if let Some(last) = doubt {
            let found = self.written_up_to().await?;
            if found == last.counter {
                let Some(last) = doubt.take() else { return Ok(()) };
                self.take_effect(last, fates);
                return Ok(());
            }
        }
        let mut plan = self.plan(batches, fates).await?;
        if plan.runs.is_empty() {
            return Ok(());
        }
        let (counter, members, after) = (plan.counter, plan.members(), plan.after(batches));
        let fresh = Doubt { counter, members, after, asked: Instant::now() };
        let steps = plan.steps(batches, &self.shared.id.clone());
        if let Some(fault) = &self.shared.fault {
            fault.before_commit(u64::try_from(plan.counter).unwrap_or(0));
        }
        match self.execute(&steps).await {
            Ok(()) => {
                if let Some(fault) = &self.shared.fault {
                    fault.after_commit(u64::try_from(plan.counter).unwrap_or(0));
                }
                self.take_effect(fresh, fates);
                Ok(())
            }
            Err(Trouble::Away(error)) => {
                *doubt = Some(fresh);
                Err(Trouble::Away(error))
            }
            Err(other) => Err(other),
        }
    }

    /// The number of this process's last write that took effect, once none of them is still going on.
    async fn written_up_to(&mut self) -> Result<i64, Trouble> {
        let id = self.shared.id.clone();
        // The lock waits for a write that the server still carries out for a connection that is gone.
        let sql = "SELECT counter FROM tol.writers WHERE id = $1 FOR UPDATE";
        let found = self.session().await?.client.query_opt(sql, &[&id]).await;
        match found.map_err(|error| self.trouble(&error))? {
            Some(row) => Ok(row.get(0)),
            None => {
                let what = "the row of this process is gone, so that nobody can tell what it has written";
                Err(self.shared.place.corrupt(what).into())
            }
        }
    }

    /// Notes that a plan is written.
    fn take_effect(&mut self, written: Doubt, fates: &mut Fates) {
        self.counter = written.counter;
        for place in written.members {
            if let Some(fate) = fates.get_mut(place) {
                *fate = Some(Ok(()));
            }
        }
        for After { run, key, epoch, head, refusal, finished } in written.after {
            if key.starts_with("r/") && !finished {
                // A run that was accepted in this write is held from now on.
                let mut grants = self.shared.grants();
                if grants.get(&key).is_none() {
                    grants.put(&key, epoch, written.asked);
                }
            }
            if finished && key.starts_with("r/") {
                self.shared.grants().remove(&key, epoch);
            }
            match refusal {
                Some(error) => drop(self.runs.insert(run, Known::Refused(error))),
                // A finished run is seldom written again; the database knows where it ends.
                None if finished => drop(self.runs.remove(&run)),
                None => drop(self.runs.insert(run, Known::At { head, key, epoch })),
            }
        }
    }

    /// Runs statements as one transaction, all sent at once: a client that stops leaves nothing half done for long.
    async fn execute(&mut self, steps: &[Step]) -> Result<(), Trouble> {
        self.session().await?;
        let result = async {
            let session = self.link.connect().await.map_err(Failure::Database)?;
            let mut prepared = Vec::with_capacity(steps.len());
            for step in steps {
                prepared.push(session.prepared(step.sql).await.map_err(Failure::Statement)?);
            }
            let client = &session.client;
            let mut sent: Vec<BoxFuture<'_, Result<(), tokio_postgres::Error>>> = Vec::with_capacity(steps.len() + 2);
            let alone = steps.len() == 1;
            if !alone {
                sent.push(Box::pin(client.batch_execute("BEGIN")));
            }
            for (step, statement) in steps.iter().zip(&prepared) {
                let values: Vec<&(dyn ToSql + Sync)> = step.values.iter().map(|value| &**value as _).collect();
                sent.push(Box::pin(async move { client.execute_raw(statement, values).await.map(drop) }));
            }
            if !alone {
                sent.push(Box::pin(client.batch_execute("COMMIT")));
            }
            // The requests go out in this order at the first poll. After a failure the server turns down all that
            // follows and makes the `COMMIT` a rollback, so that the first failure tells the fate of all.
            let results = join_all(sent).await;
            // A connection that broke behind a failure is no doubt about what came before it.
            results.into_iter().collect::<Result<Vec<()>, _>>().map_err(Failure::Statement)
        };
        match result.await {
            Ok(_) => Ok(()),
            Err(Failure::Database(error)) if error.is_away() => Err(Trouble::Away(error)),
            Err(Failure::Database(error)) => Err(Trouble::End(error.into())),
            Err(Failure::Statement(error)) => Err(self.trouble(&error)),
        }
    }

    /// What is to be written of the batches that have no fate yet. Those that cannot be get theirs here.
    async fn plan(&mut self, batches: &[Batch], fates: &mut Fates) -> Result<Plan, Trouble> {
        self.renew_what_may_have_run_out(batches, fates).await?;
        let mut plan = Plan { counter: self.counter + 1, runs: Vec::new() };
        let mut places: HashMap<RunId, usize> = HashMap::new();
        for (place, batch) in batches.iter().enumerate() {
            let Some(fate) = fates.get_mut(place) else { continue };
            if fate.is_some() {
                continue;
            }
            let at = match places.entry(batch.run.clone()) {
                Entry::Occupied(entry) => *entry.get(),
                Entry::Vacant(entry) => match self.begin(batch).await? {
                    Ok(planned) => {
                        plan.runs.push(planned);
                        *entry.insert(plan.runs.len() - 1)
                    }
                    Err(error) => {
                        self.count(&error);
                        *fate = Some(self.refuse(&batch.run, error));
                        continue;
                    }
                },
            };
            let Some(planned) = plan.runs.get_mut(at) else { continue };
            let first = planned.batches.is_empty();
            let taken = match (&planned.refusal, &batch.accept) {
                (Some(error), _) => Err(error.clone()),
                (None, Some(_)) if !(first && planned.head.fresh) => {
                    Err(self.shared.place.fenced(&batch.run, "a run of that name was accepted before"))
                }
                (None, _) => pending::check_size(batch, self.shared.place.path())
                    .and_then(|()| planned.rows.take(batch, self.shared.place.path())),
            };
            match taken {
                Ok(()) => planned.batches.push(place),
                Err(error) => {
                    *fate = Some(Err(error.clone()));
                    self.count(&error);
                    planned.refusal = Some(error);
                }
            }
        }
        for planned in plan.runs.iter().filter(|planned| planned.batches.is_empty()) {
            if let Some(error) = &planned.refusal
                && !planned.head.fresh
            {
                self.runs.insert(planned.run.clone(), Known::Refused(error.clone()));
            }
        }
        plan.runs.retain(|planned| !planned.batches.is_empty());
        plan.runs.iter_mut().for_each(|planned| planned.rows.seal());
        Ok(plan)
    }

    /// Where a run stands before its first batch of a group, or why nothing of it can be written.
    async fn begin(&mut self, batch: &Batch) -> Result<Result<PlannedRun, JournalError>, Trouble> {
        let run = &batch.run;
        if batch.accept.is_some() && !self.runs.contains_key(run) {
            let head = Head { number: 0, next_seq: batch.first_seq, position: 0, row: chain::root(run), fresh: true };
            let home = lock(&self.shared.joined).is_some().then(|| home_of(run, self.shared.partitions));
            let partition = home.map(|home| format!("p/{home}"));
            let held = partition.and_then(|key| Some((self.shared.grants().get(&key)?.epoch, key)));
            let (epoch, key) = held.unwrap_or_else(|| (1, format!("r/{run}")));
            return Ok(Ok(planned(run, key, epoch, head, home)));
        }
        if !self.runs.contains_key(run) {
            match self.claim(run).await {
                Ok(Claim::Taken) => {}
                Ok(Claim::Held { holder }) => {
                    return Ok(Err(self.shared.place.fenced(run, format!("it is held by {holder}"))));
                }
                Err(Trouble::End(error)) if error.is_of_one_run() => return Ok(Err(error)),
                Err(trouble) => return Err(trouble),
            }
        }
        match self.runs.get(run) {
            Some(Known::At { head, key, epoch }) => {
                let held = self.shared.grants().get(key).is_some_and(|grant| grant.epoch == *epoch);
                if held {
                    return Ok(Ok(planned(run, key.clone(), *epoch, head.clone(), None)));
                }
                let what = format!("this process held it as epoch {epoch} of {key}, and holds that no more");
                Ok(Err(self.shared.place.fenced(run, what)))
            }
            Some(Known::Refused(error)) => Ok(Err(error.clone())),
            None => Ok(Err(self.shared.place.no_such_run(run))),
        }
    }

    /// Gives a run up for good, and gives the fate of its batch.
    fn refuse(&mut self, run: &RunId, error: JournalError) -> Fate {
        if !matches!(error, JournalError::NoSuchRun { .. }) {
            self.runs.insert(run.clone(), Known::Refused(error.clone()));
        }
        Err(error)
    }

    fn count(&self, error: &JournalError) {
        if matches!(error, JournalError::Fenced { .. }) {
            self.shared.fenced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// After a write that the server turned down: finds the runs that are not as expected, and gives their batches
    /// their fate.
    async fn look_again(
        &mut self,
        batches: &[Batch],
        fates: &mut Fates,
        doubt: &mut Option<Doubt>,
    ) -> Result<(), Trouble> {
        let found = self.written_up_to().await?;
        if let Some(last) = doubt.take_if(|last| last.counter == found) {
            // What a broken connection had been asked to do was done after all.
            self.take_effect(last, fates);
        }
        let mut runs: Vec<String> = Vec::new();
        let mut seen = HashSet::new();
        for (batch, fate) in batches.iter().zip(fates.iter()) {
            if fate.is_none() && seen.insert(&batch.run) {
                runs.push(batch.run.as_str().to_owned());
            }
        }
        let id = self.shared.id.clone();
        let rows = self.session().await?.client.query(sql::STANDING, &[&runs]).await;
        let rows = rows.map_err(|error| self.trouble(&error))?;
        let mut standing = HashMap::new();
        for row in rows {
            let place: i64 = row.get(0);
            let Some(run) = usize::try_from(place - 1).ok().and_then(|place| runs.get(place)) else { continue };
            standing.insert(RunId::new(run), row);
        }
        for (batch, fate) in batches.iter().zip(fates.iter_mut()).filter(|(_, fate)| fate.is_none()) {
            let run = &batch.run;
            let Some(row) = standing.get(run) else { continue };
            let why = match self.runs.get(run) {
                Some(Known::At { head, key, epoch }) => {
                    let (next_seq, sum): (i64, Vec<u8>) = (row.get(1), row.get(2));
                    let (owner, now, holder): (String, Option<i64>, Option<String>) =
                        (row.get(3), row.get(4), row.get(5));
                    let name = row.get::<_, Option<String>>(7).unwrap_or_else(|| "nobody".to_owned());
                    if owner != *key || now != Some(*epoch) || holder.as_ref() != Some(&id) {
                        let now = now.unwrap_or(0);
                        Some(format!(
                            "it was held here as epoch {epoch} of {key}, and is held by {name} as epoch {now} of {owner}"
                        ))
                    } else if u64::try_from(next_seq) != Ok(head.next_seq) || sum != head.row {
                        Some(format!("its log does not end before event {} any more", head.next_seq))
                    } else {
                        None
                    }
                }
                Some(Known::Refused(_)) => None,
                None if batch.accept.is_some() => Some("a run of that name was accepted before".to_owned()),
                None => None,
            };
            if let Some(what) = why {
                if let Some(Known::At { key, epoch, .. }) = self.runs.get(run)
                    && row.get::<_, Option<i64>>(4) != Some(*epoch)
                {
                    self.shared.grants().remove(key, *epoch);
                }
                let error = self.shared.place.fenced(run, what);
                // Two that accept a run of one name at once is nothing to be told of: there is one run then.
                if batch.accept.is_none() {
                    self.count(&error);
                }
                *fate = Some(self.refuse(run, error));
            }
        }
        // A lease that has run out and was not taken is renewed before the next attempt.
        self.renew_all().await
    }
}

fn planned(run: &RunId, key: String, epoch: i64, head: Head, home: Option<i32>) -> PlannedRun {
    let rows = PendingRows::after(&head);
    PlannedRun { run: run.clone(), key, epoch, head, home, rows, batches: Vec::new(), refusal: None }
}

enum Failure {
    Database(crate::database::DatabaseError),
    Statement(tokio_postgres::Error),
}
