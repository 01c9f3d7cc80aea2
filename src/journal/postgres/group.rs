//! What one group of batches is to write: the runs in it, where each begins and ends, and the statements.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use crate::id::RunId;
use crate::journal::chain::{Fields, Sum};
use crate::journal::create::signed;
use crate::journal::error::JournalError;
use crate::journal::pending::PendingRows;
use crate::journal::postgres::sql::{self, Step};
use crate::journal::transaction::Head;
use crate::journal::types::{Batch, NewRun};

/// A run of a group.
pub(crate) struct PlannedRun {
    pub(crate) run: RunId,
    /// Under what it is held.
    pub(crate) key: String,
    pub(crate) epoch: i64,
    /// Where its log ended before.
    pub(crate) head: Head,
    /// The partition that it belongs to when nobody holds it singly.
    pub(crate) home: Option<i32>,
    pub(crate) rows: PendingRows,
    /// The batches that are written, by their places in the group.
    pub(crate) batches: Vec<usize>,
    /// Why later batches are not.
    pub(crate) refusal: Option<JournalError>,
}

/// All that one transaction writes.
pub(crate) struct Plan {
    /// The number of this write among all of this process's.
    pub(crate) counter: i64,
    pub(crate) runs: Vec<PlannedRun>,
}

/// Where a run's log ends once a plan is written.
pub(crate) struct After {
    pub(crate) run: RunId,
    pub(crate) key: String,
    pub(crate) epoch: i64,
    pub(crate) head: Head,
    pub(crate) refusal: Option<JournalError>,
    pub(crate) finished: bool,
}

type Values = Vec<Box<dyn ToSql + Sync + Send>>;

fn boxed<T: ToSql + Sync + Send + 'static>(values: &mut Values, value: T) {
    values.push(Box::new(value));
}

/// The checksum over what never changes in a run's row.
pub(crate) fn run_sum(run: &str, new: &NewRun) -> Sum {
    let mut fields = Fields::of("runs");
    fields.add(run.as_bytes()).add(new.pipeline.as_bytes()).add(new.path.as_bytes());
    fields.add_number(Some(signed(new.started_at.0))).add_optional(new.parent.as_ref().map(RunId::as_str));
    fields.add(new.definition_hash.as_bytes()).add_optional(new.git_commit.as_deref());
    fields.add_number(new.git_dirty.map(i64::from)).sum()
}

impl Plan {
    /// The places of all batches that are written.
    pub(crate) fn members(&self) -> Vec<usize> {
        self.runs.iter().flat_map(|run| run.batches.iter().copied()).collect()
    }

    /// How the runs stand once this is written.
    pub(crate) fn after(&self, batches: &[Batch]) -> Vec<After> {
        let after = |planned: &PlannedRun| {
            let finished = planned.batches.iter().filter_map(|place| batches.get(*place)?.summary.as_ref()).next_back();
            After {
                run: planned.run.clone(),
                key: planned.key.clone(),
                epoch: planned.epoch,
                head: Head {
                    next_seq: planned.rows.next_seq,
                    row: planned.rows.sum,
                    fresh: false,
                    ..planned.head.clone()
                },
                refusal: planned.refusal.clone(),
                finished: finished.is_some_and(|summary| summary.finished_at.is_some()),
            }
        };
        self.runs.iter().map(after).collect()
    }

    /// The statements in their order; one alone needs no transaction around it.
    pub(crate) fn steps(&mut self, batches: &[Batch], holder: &str) -> Vec<Step> {
        let mut steps = self.accepting(batches, holder);
        steps.push(self.writing(holder));
        steps.extend(self.beside(batches, holder));
        steps
    }

    fn accepting(&self, batches: &[Batch], holder: &str) -> Vec<Step> {
        let new = |planned: &PlannedRun| {
            let place = planned.batches.first().filter(|_| planned.head.fresh)?;
            batches.get(*place)?.accept.as_deref().cloned()
        };
        let accepted: Vec<(&PlannedRun, NewRun)> =
            self.runs.iter().filter_map(|planned| Some((planned, new(planned)?))).collect();
        if accepted.is_empty() {
            return Vec::new();
        }
        let mut definitions = BTreeMap::new();
        for (_, new) in &accepted {
            definitions.entry(new.definition_hash.clone()).or_insert_with(|| new.definition.to_vec());
        }
        let sum =
            |(hash, body): (&String, &Vec<u8>)| Fields::of("definitions").add(hash.as_bytes()).add(body).sum().to_vec();
        let mut values = Values::new();
        let sums: Vec<Vec<u8>> = definitions.iter().map(sum).collect();
        boxed(&mut values, definitions.keys().cloned().collect::<Vec<_>>());
        boxed(&mut values, definitions.into_values().collect::<Vec<_>>());
        boxed(&mut values, sums);
        let definitions = Step { sql: sql::DEFINITIONS, values };

        fn column<T>(accepted: &[(&PlannedRun, NewRun)], of: impl Fn(&PlannedRun, &NewRun) -> T) -> Vec<T> {
            accepted.iter().map(|(planned, new)| of(planned, new)).collect()
        }
        let mut values = Values::new();
        boxed(&mut values, column(&accepted, |planned, _| planned.run.as_str().to_owned()));
        boxed(&mut values, column(&accepted, |_, new| new.pipeline.clone()));
        boxed(&mut values, column(&accepted, |_, new| new.path.clone()));
        boxed(&mut values, column(&accepted, |_, new| signed(new.started_at.0)));
        let parent = |new: &NewRun| new.parent.as_ref().map(|parent| parent.as_str().to_owned());
        boxed(&mut values, column(&accepted, |_, new| parent(new)));
        boxed(&mut values, column(&accepted, |_, new| new.definition_hash.clone()));
        boxed(&mut values, column(&accepted, |_, new| new.git_commit.clone()));
        boxed(&mut values, column(&accepted, |_, new| new.git_dirty));
        boxed(&mut values, column(&accepted, |planned, new| run_sum(planned.run.as_str(), new).to_vec()));
        let accept = Step { sql: sql::ACCEPT, values };
        let mut values = Values::new();
        boxed(&mut values, column(&accepted, |planned, _| planned.run.as_str().to_owned()));
        boxed(&mut values, column(&accepted, |planned, _| signed(planned.head.next_seq)));
        boxed(&mut values, column(&accepted, |planned, _| planned.head.row.to_vec()));
        boxed(&mut values, column(&accepted, |planned, _| planned.key.clone()));
        boxed(&mut values, column(&accepted, |planned, _| planned.home));
        let mut steps = vec![definitions, accept, Step { sql: sql::BEGIN, values }];
        let single: Vec<String> =
            accepted.iter().map(|(planned, _)| planned.key.clone()).filter(|key| key.starts_with("r/")).collect();
        if !single.is_empty() {
            steps.push(Step { sql: sql::HOLD, values: vec![Box::new(single), Box::new(holder.to_owned())] });
        }
        steps
    }

    fn writing(&mut self, holder: &str) -> Step {
        let keys: BTreeMap<String, i64> = self.runs.iter().map(|run| (run.key.clone(), run.epoch)).collect();
        let mut values = Values::new();
        boxed(&mut values, keys.keys().cloned().collect::<Vec<_>>());
        boxed(&mut values, keys.values().copied().collect::<Vec<_>>());
        boxed(&mut values, holder.to_owned());
        boxed(&mut values, self.runs.iter().map(|run| run.run.as_str().to_owned()).collect::<Vec<_>>());
        boxed(&mut values, self.runs.iter().map(|run| run.key.clone()).collect::<Vec<_>>());
        boxed(&mut values, self.runs.iter().map(|run| signed(run.head.next_seq)).collect::<Vec<_>>());
        boxed(&mut values, self.runs.iter().map(|run| run.head.row.to_vec()).collect::<Vec<_>>());
        boxed(&mut values, self.runs.iter().map(|run| signed(run.rows.next_seq)).collect::<Vec<_>>());
        boxed(&mut values, self.runs.iter().map(|run| run.rows.sum.to_vec()).collect::<Vec<_>>());
        boxed(&mut values, i64::try_from(keys.len()).unwrap_or(i64::MAX));
        let (mut of_run, mut first_seqs, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bodies, mut sums): (Vec<Vec<u8>>, Vec<Vec<u8>>) = (Vec::new(), Vec::new());
        for run in &mut self.runs {
            for row in run.rows.sealed.drain(..) {
                of_run.push(run.run.as_str().to_owned());
                first_seqs.push(signed(row.first_seq));
                counts.push(signed(row.count));
                bodies.push(row.packed);
                sums.push(row.sum.to_vec());
            }
        }
        boxed(&mut values, of_run);
        boxed(&mut values, first_seqs);
        boxed(&mut values, counts);
        boxed(&mut values, bodies);
        boxed(&mut values, sums);
        boxed(&mut values, self.counter);
        boxed(&mut values, i64::try_from(self.runs.len()).unwrap_or(i64::MAX));
        Step { sql: sql::WRITE, values }
    }

    /// What the batches carry beside events.
    fn beside(&self, batches: &[Batch], holder: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        let (mut runs, mut statuses, mut paused, mut finished) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut ended = Vec::new();
        let (mut results, mut replies) = (BTreeMap::new(), BTreeMap::new());
        for planned in &self.runs {
            let of_run = || planned.batches.iter().filter_map(|place| batches.get(*place));
            if let Some(summary) = of_run().filter_map(|batch| batch.summary.as_ref()).next_back() {
                runs.push(planned.run.as_str().to_owned());
                statuses.push(summary.status.clone());
                paused.push(summary.paused);
                finished.push(summary.finished_at.map(|time| signed(time.0)));
                if summary.finished_at.is_some() && planned.key.starts_with("r/") {
                    ended.push(planned.key.clone());
                }
            }
            results.extend(of_run().flat_map(|batch| &batch.cache).map(|put| (put.key.as_str(), put)));
            for reply in of_run().flat_map(|batch| &batch.handled) {
                replies.entry(reply.id).or_insert_with(|| reply.body.clone());
            }
        }
        let mut step = |sql: &'static str, values: Values| steps.push(Step { sql, values });
        if !runs.is_empty() {
            step(sql::SUMMARIES, vec![Box::new(runs), Box::new(statuses), Box::new(paused), Box::new(finished)]);
        }
        if !ended.is_empty() {
            ended.sort();
            step(sql::LET_GO, vec![Box::new(ended), Box::new(holder.to_owned())]);
        }
        if !results.is_empty() {
            let (mut keys, mut bodies, mut expiries) = (Vec::new(), Vec::new(), Vec::new());
            let (mut created, mut sums) = (Vec::new(), Vec::new());
            for put in results.into_values() {
                let expires_at = put.expires_at.map(|time| signed(time.0));
                let sum = Fields::of("cache").add(put.key.as_bytes()).add(&put.value).add_number(expires_at).sum();
                keys.push(put.key.clone());
                bodies.push(put.value.clone());
                expiries.push(expires_at);
                created.push(signed(put.created_at.0));
                sums.push(sum.to_vec());
            }
            let values: Values =
                vec![Box::new(keys), Box::new(bodies), Box::new(expiries), Box::new(created), Box::new(sums)];
            step(sql::RESULTS, values);
        }
        if !replies.is_empty() {
            let (ids, bodies): (Vec<i64>, Vec<Vec<u8>>) = replies.into_iter().unzip();
            step(sql::REPLIES, vec![Box::new(ids), Box::new(bodies)]);
        }
        steps
    }
}
