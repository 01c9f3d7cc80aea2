//! Circuit breakers: a target that fails half the time is left alone for a while, one breaker for each target.
//!
//! Targets are what several steps and runs of a worker share: an HTTP server, an agent. A call that is refused here
//! fails as transient and says when to come again, so that the step's own retry decides and nothing retries twice.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Url;

use crate::task::{ErrorClass, Failure, Outcome, Work};

/// Calls older than this are not counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Fewer calls than this tell nothing.
const CALLS_MIN: usize = 20;
/// How long a target is left alone before one call tries it again.
const OPEN: Duration = Duration::from_secs(30);
/// The most calls and targets that are remembered.
const CALLS_MAX: usize = 1000;
const TARGETS_MAX: usize = 10_000;

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// Calls go through.
    Closed,
    /// No call goes through.
    Open,
    /// One call goes through, to see.
    HalfOpen,
}

#[derive(Default)]
struct Breaker {
    /// When calls ended, and whether they had failed.
    calls: VecDeque<(Instant, bool)>,
    opened: Option<Instant>,
    probing: bool,
}

/// The breakers of one worker.
#[derive(Default)]
pub struct Breakers(Mutex<BTreeMap<String, Breaker>>);

impl Breakers {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Breaker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether a call may go through now.
    ///
    /// # Errors
    /// The failure to answer with instead.
    pub fn ask(&self, target: &str, now: Instant) -> Result<(), Failure> {
        let mut all = self.all();
        let Some(breaker) = all.get_mut(target) else { return Ok(()) };
        let Some(opened) = breaker.opened else { return Ok(()) };
        let wait = (opened + OPEN).saturating_duration_since(now);
        if wait.is_zero() && !breaker.probing {
            breaker.probing = true;
            return Ok(());
        }
        let wait = wait.max(Duration::from_secs(1));
        let words = format!(
            "{target} has failed too often in the last minute and is left alone for {} s (its circuit breaker is open)",
            wait.as_secs()
        );
        let retry_after_ms = u64::try_from(wait.as_millis()).ok();
        Err(Failure { retry_after_ms, ..Failure::transient(words) })
    }

    /// Says how a call that went through has ended.
    pub fn tell(&self, target: &str, outcome: &Outcome, now: Instant) {
        let failed = match outcome {
            Outcome::Succeeded { .. } => Some(false),
            // A target that says what is wrong with the call is in order itself.
            Outcome::Failed { failure, .. } => {
                Some(matches!(failure.class, ErrorClass::Transient | ErrorClass::Timeout))
            }
            Outcome::Stopped => None,
        };
        let mut all = self.all();
        if all.len() >= TARGETS_MAX && !all.contains_key(target) {
            all.retain(|_, breaker| breaker.opened.is_some());
        }
        let breaker = all.entry(target.to_owned()).or_default();
        let probed = std::mem::take(&mut breaker.probing);
        let Some(failed) = failed else { return };
        if breaker.opened.is_some() {
            if probed && failed {
                breaker.opened = Some(now);
            } else if probed {
                *breaker = Breaker::default();
            }
            return;
        }
        breaker.calls.push_back((now, failed));
        while breaker.calls.len() > CALLS_MAX
            || breaker.calls.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
        {
            breaker.calls.pop_front();
        }
        let failures = breaker.calls.iter().filter(|(_, failed)| *failed).count();
        if breaker.calls.len() >= CALLS_MIN && failures * 2 >= breaker.calls.len() {
            breaker.opened = Some(now);
            breaker.calls.clear();
        }
    }

    /// How each target that was called stands.
    pub fn states(&self, now: Instant) -> Vec<(String, Circuit)> {
        let state = |breaker: &Breaker| match breaker.opened {
            None => Circuit::Closed,
            Some(opened) if now.duration_since(opened) < OPEN => Circuit::Open,
            Some(_) => Circuit::HalfOpen,
        };
        self.all().iter().map(|(target, breaker)| (target.clone(), state(breaker))).collect()
    }
}

/// The target of a task, if it has one that others share.
pub fn target_of(work: &Work) -> Option<String> {
    match work {
        Work::Run(_) => None,
        Work::Http(request) => {
            let url = Url::parse(&request.url).ok()?;
            Some(url.origin().ascii_serialization())
        }
        Work::Agent(call) => Some(format!("agent {}", call.agent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> Outcome {
        Outcome::failed(Failure::transient("no"))
    }

    fn refused(breakers: &Breakers, now: Instant) -> Option<u64> {
        breakers.ask("t", now).err().and_then(|failure| failure.retry_after_ms)
    }

    #[test]
    fn half_of_the_calls_open_it_and_one_call_closes_it_again() {
        let (breakers, start) = (Breakers::default(), Instant::now());
        for call in 0..20 {
            assert_eq!(breakers.ask("t", start), Ok(()));
            let outcome = if call % 2 == 0 { Outcome::success(1.into()) } else { failed() };
            breakers.tell("t", &outcome, start);
        }
        assert_eq!(refused(&breakers, start), Some(30_000));
        assert_eq!(breakers.ask("other", start), Ok(()));
        assert_eq!(breakers.states(start), [("t".to_owned(), Circuit::Open)]);
        // One call tries it; the others wait for what becomes of it.
        let later = start + OPEN;
        assert_eq!(breakers.states(later), [("t".to_owned(), Circuit::HalfOpen)]);
        assert_eq!((breakers.ask("t", later), refused(&breakers, later)), (Ok(()), Some(1000)));
        breakers.tell("t", &failed(), later);
        assert_eq!(refused(&breakers, later), Some(30_000));
        let later = later + OPEN;
        assert_eq!(breakers.ask("t", later), Ok(()));
        // A try that was stopped tells nothing, and the next call tries again.
        breakers.tell("t", &Outcome::Stopped, later);
        assert_eq!(breakers.ask("t", later), Ok(()));
        breakers.tell("t", &Outcome::success(1.into()), later);
        assert_eq!(breakers.states(later), [("t".to_owned(), Circuit::Closed)]);
    }

    #[test]
    fn few_calls_old_calls_and_refused_requests_tell_nothing() {
        let (breakers, start) = (Breakers::default(), Instant::now());
        for _ in 0..19 {
            breakers.tell("t", &failed(), start);
        }
        for _ in 0..30 {
            breakers.tell("t", &Outcome::failed(Failure::permanent("404")), start + WINDOW * 2);
        }
        assert_eq!(breakers.ask("t", start + WINDOW * 2), Ok(()));
    }
}
