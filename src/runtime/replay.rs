//! A run's state from its journal: the definition compiled again, every event applied again.

use std::sync::Arc;

use crate::compile::{CheckOptions, MemorySources, Program, check};
use crate::diagnostic::{Files, Severity, render_human};
use crate::id::RunId;
use crate::journal::{Journal, Record, RunRow};
use crate::runtime::RuntimeError;
use crate::scheduler::{Accepted, Effect, Event, Stamped, State, admit, apply};
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
    rebuild_with(journal, run, &mut |row, profile| load_program(journal, row, profile), &mut |_, _| {})
}

/// Gives the program of a run's row, with the profile that is laid over it.
pub type FindProgram<'a> = dyn FnMut(&RunRow, Option<String>) -> Result<Arc<Program>, RuntimeError> + 'a;

/// The same, with the program from elsewhere, and with what each event led to.
///
/// # Errors
/// As [`rebuild`].
pub fn rebuild_with(
    journal: &dyn Journal,
    run: &RunId,
    program: &mut FindProgram<'_>,
    see: &mut dyn FnMut(Timestamp, Vec<Effect>),
) -> Result<Rebuilt, RuntimeError> {
    let row = journal.run(run)?.ok_or_else(|| RuntimeError::NoSuchRun(run.to_string()))?;
    let history = read_events(run, &journal.load(run)?)?;
    let corrupt = |seq: u64, problem: String| RuntimeError::Corrupt { run: run.clone(), seq, problem };
    let (at, accepted) = match history.first() {
        Some(Stamped { at, event: Event::Accepted(accepted), .. }) => (*at, Arc::<Accepted>::new((**accepted).clone())),
        Some(_) => return Err(corrupt(1, "is not the acceptance of the run".to_owned())),
        None => return Err(corrupt(1, "is missing".to_owned())),
    };
    let program = program(&row, accepted.options.profile.clone())?;
    let mut state = State::new(program, accepted, at);
    advance(&mut state, 0, &history, see).map_err(|(seq, problem)| corrupt(seq, problem))?;
    Ok(Rebuilt { row, state, history })
}

/// The events that records hold.
///
/// # Errors
/// The first record that is none.
pub fn read_events(run: &RunId, records: &[Record]) -> Result<Vec<Stamped>, RuntimeError> {
    let mut events = Vec::with_capacity(records.len());
    for record in records {
        events.push(serde_json::from_slice(&record.body).map_err(|error| RuntimeError::Corrupt {
            run: run.clone(),
            seq: record.seq,
            problem: format!("cannot be read: {error}"),
        })?);
    }
    Ok(events)
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
    advance(&mut state, 0, history, &mut |_, _| {})?;
    Ok(state)
}

/// Applies the events that follow the first `known` ones, and shows what each of them leads to.
///
/// # Errors
/// The number of the first unlawful event, and why it is so.
pub fn advance(
    state: &mut State,
    known: u64,
    events: &[Stamped],
    see: &mut dyn FnMut(Timestamp, Vec<Effect>),
) -> Result<(), (u64, String)> {
    for (seq, stamped) in (known + 1..).zip(events) {
        if stamped.v > crate::scheduler::EVENT_VERSION {
            return Err((seq, format!("has version {}, newer than this tol reads; update tol", stamped.v)));
        }
        match (stamped.event.to_input(), seq) {
            (None, 1) => {}
            (None, _) => return Err((seq, "accepts the run a second time".to_owned())),
            (Some(input), _) => {
                if let Err(rejection) = admit(state, input, stamped.at.max(state.now)) {
                    return Err((seq, format!("is not lawful: {rejection}")));
                }
            }
        }
        see(stamped.at, apply(state, stamped));
    }
    Ok(())
}
