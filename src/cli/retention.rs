//! Removes what is not kept of the runs that have ended, and says what could not be removed.

use std::path::Path;

use super::exit::Failure;
use super::print::err;
use crate::id::RunId;
use crate::journal::Journal;
use crate::runtime::{Clock, SystemClock};
use crate::server::Retention;

/// Removes it, or only names it.
pub fn enforce(
    retention: Retention,
    journal: &dyn Journal,
    state_dir: &Path,
    dry_run: bool,
) -> Result<Vec<RunId>, Failure> {
    let removed = retention.enforce(journal, state_dir, SystemClock.now(), dry_run)?;
    for (place, reason) in removed.left {
        err!("warning: {}: {reason}", place.display());
    }
    Ok(removed.runs)
}
