//! A run's state from its journal: the definition compiled again, every event applied again.

use std::sync::Arc;

use crate::compile::{CheckOptions, MemorySources, Program, check};
use crate::diagnostic::{Files, Severity, render_human};
use crate::id::RunId;
use crate::journal::{Journal, RunRow};
use crate::runtime::RuntimeError;
use crate::scheduler::{Accepted, Event, Stamped, State, admit, apply};
use crate::time::Timestamp;

/// A run as it stands in the journal.
#[derive(Debug)]
pub struct Rebuilt {
    pub row: RunRow,
    pub state: State,
    pub history: Vec<Stamped>,
}

/// Compiles a run's own definition, whatever has become of the files.
///
/// # Errors
/// If the definition is not in the journal or no longer compiles.
pub fn load_program(
    journal: &dyn Journal,
    row: &RunRow,
    profile: Option<String>,
) -> Result<Arc<Program>, RuntimeError> {
    let definition = |problem: String| RuntimeError::Definition { run: row.run.clone(), problem };
    let bytes =
        journal.definition(&row.definition_hash)?.ok_or_else(|| definition("it is not in the journal".to_owned()))?;
    let sources: MemorySources = serde_json::from_slice(&bytes).map_err(|error| definition(error.to_string()))?;
    let mut files = Files::default();
    let mut diagnostics = Vec::new();
    let program = check(&row.path, &sources, &mut files, &mut diagnostics, &CheckOptions { profile });
    program.map(Arc::new).ok_or_else(|| {
        diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
        definition(render_human(&files, &diagnostics, false))
    })
}

/// Replays a run. Every event must be one that the scheduler would admit again: else the journal is corrupt.
///
/// # Errors
/// If there is no such run, its definition does not compile, or its history is not lawful.
pub fn rebuild(journal: &dyn Journal, run: &RunId) -> Result<Rebuilt, RuntimeError> {
    let row = journal.run(run)?.ok_or_else(|| RuntimeError::NoSuchRun(run.to_string()))?;
    let records = journal.load(run)?;
    let corrupt = |seq: u64, problem: String| RuntimeError::Corrupt { run: run.clone(), seq, problem };
    let mut history = Vec::with_capacity(records.len());
    for record in &records {
        let stamped: Stamped = serde_json::from_slice(&record.body)
            .map_err(|error| corrupt(record.seq, format!("cannot be read: {error}")))?;
        history.push(stamped);
    }
    let (at, accepted) = match history.first() {
        Some(Stamped { at, event: Event::Accepted(accepted), .. }) => (*at, Arc::<Accepted>::new((**accepted).clone())),
        Some(_) => return Err(corrupt(1, "is not the acceptance of the run".to_owned())),
        None => return Err(corrupt(1, "is missing".to_owned())),
    };
    let program = load_program(journal, &row, accepted.options.profile.clone())?;
    let state = replay(program, accepted, at, &history).map_err(|(seq, problem)| corrupt(seq, problem))?;
    Ok(Rebuilt { row, state, history })
}

/// Applies a history to a fresh state.
///
/// # Errors
/// The number of the first unlawful event, and why it is so.
pub fn replay(
    program: Arc<Program>,
    accepted: Arc<Accepted>,
    at: Timestamp,
    history: &[Stamped],
) -> Result<State, (u64, String)> {
    let mut state = State::new(program, accepted, at);
    for (number, stamped) in history.iter().enumerate() {
        let seq = number as u64 + 1;
        if stamped.v > crate::scheduler::EVENT_VERSION {
            return Err((seq, format!("has version {}, newer than this tol reads; update tol", stamped.v)));
        }
        match (stamped.event.to_input(), number) {
            (None, 0) => {}
            (None, _) => return Err((seq, "accepts the run a second time".to_owned())),
            (Some(input), _) => {
                if let Err(rejection) = admit(&state, input, stamped.at.max(state.now)) {
                    return Err((seq, format!("is not lawful: {rejection}")));
                }
            }
        }
        apply(&mut state, stamped);
    }
    Ok(state)
}
