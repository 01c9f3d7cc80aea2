//! The only place that says no: an input becomes an event, or a refusal that names its reason.

use super::event::{Decision, Event, Input, Rejection, Settlement};
use super::state::{State, UnitKey};
use super::status::StepStatus;
use crate::id::{LeaseToken, UnitPath};
use crate::model::Action;
use crate::time::Timestamp;

/// Holds an input against the state at a time.
///
/// # Errors
/// A [`Rejection`] if the input is late, repeated, contrary, or names what is not there. The state is as before.
pub fn admit(state: &State, input: Input, now: Timestamp) -> Result<Event, Rejection> {
    if let Some(verdict) = &state.verdict {
        return Err(match input {
            Input::Report { unit, .. } | Input::Start { unit, .. } | Input::Lost { unit, .. } => Rejection::Stale(unit),
            Input::Time => Rejection::NothingDue,
            Input::Decide { unit, decision, by, comment } => return decide(state, unit, decision, by, comment),
            Input::Cancel { .. }
            | Input::Pause { .. }
            | Input::Unpause { .. }
            | Input::Settle { .. }
            | Input::Idle
            | Input::Recover
            | Input::Reclaim => Rejection::Ended(verdict.status.as_str()),
        });
    }
    match input {
        Input::Start { unit, token } => {
            let current = state.find(&unit).is_some_and(|key| {
                let waits = state.unit(key).is_some_and(|at| at.token == token.0 && token.0 != 0 && !at.start_recorded);
                waits && state.retry_of(key).is_some_and(|retry| retry.never)
            });
            if current { Ok(Event::Started { unit, token }) } else { Err(Rejection::Stale(unit)) }
        }
        Input::Report { unit, token, outcome, draw } => {
            if is_current(state, &unit, token) {
                Ok(Event::Reported { unit, token, outcome, draw })
            } else {
                Err(Rejection::Stale(unit))
            }
        }
        Input::Lost { unit, token, why } => {
            if is_current(state, &unit, token) {
                Ok(Event::Lost { unit, token, why })
            } else {
                Err(Rejection::Stale(unit))
            }
        }
        Input::Time => {
            if state.next_timer().is_some_and(|at| at <= now) {
                Ok(Event::TimePassed)
            } else {
                Err(Rejection::NothingDue)
            }
        }
        Input::Cancel { by, now } => {
            if state.stopping.is_some() && (!now || state.stopping_now) {
                Err(Rejection::Same)
            } else {
                Ok(Event::CancelRequested { by, now })
            }
        }
        Input::Pause { by } => {
            if state.paused {
                Err(Rejection::Same)
            } else {
                Ok(Event::Paused { by })
            }
        }
        Input::Unpause { by } => {
            if state.paused {
                Ok(Event::Unpaused { by })
            } else {
                Err(Rejection::Same)
            }
        }
        Input::Decide { unit, decision, by, comment } => decide(state, unit, decision, by, comment),
        Input::Settle { unit, settlement, by } => settle(state, unit, settlement, by),
        Input::Idle => {
            if state.idle {
                Err(Rejection::Same)
            } else {
                Ok(Event::Idle)
            }
        }
        Input::Recover => Ok(Event::Recovered),
        Input::Reclaim => Ok(Event::Reclaimed),
    }
}

fn is_current(state: &State, unit: &UnitPath, token: LeaseToken) -> bool {
    let at = state.find(unit).and_then(|key| state.unit(key));
    at.is_some_and(|at| at.token == token.0 && token.0 != 0)
}

fn known(state: &State, unit: &UnitPath) -> Result<UnitKey, Rejection> {
    state.find(unit).ok_or_else(|| Rejection::UnknownStep(unit.clone()))
}

fn decide(
    state: &State,
    unit: UnitPath,
    decision: Decision,
    by: String,
    comment: Option<String>,
) -> Result<Event, Rejection> {
    let key = known(state, &unit)?;
    let Some(at) = state.unit(key) else { return Err(Rejection::UnknownStep(unit)) };
    let approve = match state.scope(key.scope).action(key.step) {
        Some(Action::Approve(approve)) => Some(approve),
        _ => None,
    };
    if at.asks_a_person() && at.status == StepStatus::Waiting && state.verdict.is_none() {
        if let Some(approve) = approve
            && !approve.approvers.is_empty()
            && !approve.approvers.iter().any(|name| **name == *by)
        {
            return Err(Rejection::NotApprover { unit, by, approvers: approve.approvers.join(", ") });
        }
        return Ok(Event::Decided { unit, decision, by, comment });
    }
    // The first decision stands: the same again changes nothing, a contrary one is refused.
    if approve.is_some() && at.status.is_final() {
        let before = match at.status {
            _ if at.fallback => None,
            StepStatus::Succeeded => Some(Decision::Approved),
            StepStatus::Failed if at.outputs.is_some() => Some(Decision::Rejected),
            _ => None,
        };
        return Err(match before {
            Some(before) if before == decision => Rejection::Same,
            Some(before) => Rejection::Contrary { unit, before: before.as_str() },
            None => Rejection::NotWaiting { unit, status: at.status.as_str() },
        });
    }
    Err(Rejection::NotWaiting { unit, status: at.status.as_str() })
}

fn settle(state: &State, unit: UnitPath, settlement: Settlement, by: String) -> Result<Event, Rejection> {
    let key = known(state, &unit)?;
    match state.unit(key) {
        Some(at) if at.status == StepStatus::Unknown => Ok(Event::Settled { unit, settlement, by }),
        Some(at) => Err(Rejection::NotUnknown { unit, status: at.status.as_str() }),
        None => Err(Rejection::UnknownStep(unit)),
    }
}
