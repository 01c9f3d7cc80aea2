//! A server's part in the division of all runs among several servers over one database: what it gains it takes up, what
//! it loses it lets go of.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::{Holdings, JournalError, Partitions};
use crate::runtime::RuntimeError;
use crate::server::core::Core;

/// How often the division is looked at. Leases last ten seconds.
pub const EVERY: Duration = Duration::from_secs(3);
/// Every so many looks, runs that nobody drives are looked for in what is held: those that a command began and left.
const STRAYS_EVERY: u32 = 5;

/// The part of one server.
pub struct Division {
    pub partitions: Partitions,
}

impl Division {
    /// Looks at the division; blocks. `count` counts the looks from 0.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn look(&self, core: &Arc<Core>, count: u32) -> Result<(), JournalError> {
        let Holdings { held, gained, lost, schedulers } = self.partitions.renew()?;
        for run in core.hall.driven() {
            if lost.contains_key(&self.partitions.partition_of(&run)) && !self.partitions.holds_alone(&run) {
                core.engine.lose(&run);
            }
        }
        if !gained.is_empty() || !lost.is_empty() {
            let words = match schedulers {
                1 => "this server alone".to_owned(),
                many => format!("{many} servers"),
            };
            (core.say)(&format!("{} of {} partitions are here; {words}", held.len(), self.partitions.count()));
        }
        let looked_at = if count.is_multiple_of(STRAYS_EVERY) { held.keys() } else { gained.keys() };
        let mut runs = self.partitions.orphans(&held.keys().copied().collect::<Vec<u32>>())?;
        for partition in looked_at {
            runs.extend(self.partitions.unfinished_runs(*partition)?);
        }
        let mut taken = 0;
        for run in runs {
            match core.take_up(&run) {
                Ok(true) => taken += 1,
                Ok(false) | Err(RuntimeError::Held { .. }) => {}
                Err(RuntimeError::Journal(error)) if !error.is_of_one_run() => return Err(error),
                Err(error) => (core.say)(&format!("run {run} is not taken up: {error}")),
            }
        }
        core.tell_taken(taken);
        Ok(())
    }
}
