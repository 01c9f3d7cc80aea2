//! How long runs that have ended are kept: by age and by count, enforced after each run and by `tol runs prune`.

use std::path::Path;
use std::time::Duration;

use super::exit::Failure;
use super::print::err;
use crate::id::RunId;
use crate::journal::{Journal, StateFolder};
use crate::model::Settings;
use crate::runtime::{Clock, SystemClock};
use crate::time::Timestamp;

/// What is kept. With both set, a run goes when it is older and not among the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub age: Option<Duration>,
    pub count: Option<u64>,
}

impl Retention {
    /// What the settings say under `retention:`.
    pub fn of(settings: &Settings) -> Self {
        Self {
            age: settings.retention_days.map(|days| Duration::from_secs(u64::from(days) * 86_400)),
            count: settings.retention_runs.map(u64::from),
        }
    }

    /// Removes what is not kept, or only names it, with the folders of logs and artifacts.
    pub fn enforce(self, journal: &dyn Journal, state_dir: &Path, dry_run: bool) -> Result<Vec<RunId>, Failure> {
        if self == Self::default() {
            return Ok(Vec::new());
        }
        let now = SystemClock.now();
        let age_ms = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let before = self.age.map(|length| Timestamp(now.0.saturating_sub(age_ms(length))));
        let gone = journal.prune(before, self.count, dry_run)?;
        let folder = StateFolder::new(state_dir.to_owned());
        for run in gone.iter().filter(|_| !dry_run) {
            let place = folder.run(run);
            if let Err(error) = std::fs::remove_dir_all(&place)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                err!("warning: {}: {error}", place.display());
            }
        }
        Ok(gone)
    }
}
