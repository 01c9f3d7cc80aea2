//! How long runs that have ended are kept: by age and by count. Enforced after each run of `tol run`, at intervals by
//! `tol serve`, and by `tol runs prune`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::id::RunId;
use crate::journal::{Journal, JournalError, StateFolder};
use crate::model::Settings;
use crate::time::Timestamp;

/// What is kept. With both set, a run goes when it is older and not among the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    pub age: Option<Duration>,
    pub count: Option<u64>,
}

/// What was removed.
#[derive(Debug, Default)]
pub struct Removed {
    pub runs: Vec<RunId>,
    /// Folders of theirs that could not be removed, each with the reason.
    pub left: Vec<(PathBuf, String)>,
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
    ///
    /// # Errors
    /// If the journal cannot be written.
    pub fn enforce(
        self,
        journal: &dyn Journal,
        state_dir: &Path,
        now: Timestamp,
        dry_run: bool,
    ) -> Result<Removed, JournalError> {
        if self == Self::default() {
            return Ok(Removed::default());
        }
        let age_ms = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let before = self.age.map(|length| Timestamp(now.0.saturating_sub(age_ms(length))));
        let mut removed = Removed { runs: journal.prune(before, self.count, dry_run)?, left: Vec::new() };
        let folder = StateFolder::new(state_dir.to_owned());
        for run in removed.runs.iter().filter(|_| !dry_run) {
            let place = folder.run(run);
            if let Err(error) = std::fs::remove_dir_all(&place)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                removed.left.push((place, error.to_string()));
            }
        }
        Ok(removed)
    }
}
