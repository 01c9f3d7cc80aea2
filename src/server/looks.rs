//! What a server looks at every second: writes that were refused, and outcomes of runs that ended before it began.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::dispatch::{Dispatch, Hub};
use crate::id::RunId;
use crate::server::core::Core;

/// How often it looks. Workers send again as often what nobody has taken in.
const EVERY: Duration = Duration::from_secs(1);

/// Looks until the server ends.
pub fn start(core: Arc<Core>, hub: Arc<Hub>, ending: CancellationToken) {
    tokio::spawn(async move {
        let mut refused = 0;
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = ending.cancelled() => return,
            }
            let now = core.journal.refused();
            match now.saturating_sub(refused) {
                0 => {}
                1 => (core.say)("1 write was refused: another server has its run"),
                count => (core.say)(&format!("{count} writes were refused: another server has their runs")),
            }
            refused = now;
            let strangers = hub.strangers();
            if !strangers.is_empty() {
                let (core, hub) = (core.clone(), hub.clone());
                let looked = tokio::task::spawn_blocking(move || settle(&core, &hub, strangers)).await;
                if looked.is_err() {
                    return;
                }
            }
        }
    });
}

/// Has the hub know which of these runs have ended, so that workers need not keep what they did for them. Of a run that
/// is not in the journal, or that another server drives, nothing is said.
fn settle(core: &Core, hub: &Hub, strangers: BTreeSet<RunId>) {
    for run in strangers {
        // An answer that cannot be had now is asked for again with the next copy of the outcome.
        let has_ended = core.journal.run(&run).is_ok_and(|row| row.is_some_and(|row| row.finished_at.is_some()));
        if has_ended && !core.hall.drives(&run) {
            hub.forget(&run, true);
        }
    }
}
