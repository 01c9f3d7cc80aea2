//! What bounds a run, and how often and when a step is tried again.

use std::time::Duration;

use crate::diagnostic::Spanned;
use crate::task::ErrorClass;

/// `limits:` of a pipeline. What is absent does not apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    pub max_tokens: Option<u64>,
    /// Money, in the unit of the agents' price entries.
    pub max_cost: Option<f64>,
    pub max_runtime: Option<Duration>,
    pub max_parallel: Option<u32>,
    /// `queues:`, how many actions are out at once on a queue, by its name.
    pub queues: Vec<(Spanned<Box<str>>, u32)>,
    /// Failed steps among the ended ones, 0 to 1, from the fifth ended step on.
    pub error_rate: Option<f64>,
}

/// When a failed attempt is followed by another.
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// `retry: never`: one attempt at most, also over a crash.
    pub never: bool,
    /// Retries after the first try.
    pub limit: u32,
    pub backoff: Backoff,
    pub jitter: Jitter,
    pub on: Vec<ErrorClass>,
}

/// How the pause between attempts grows.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    pub initial: Duration,
    pub factor: f64,
    pub max: Duration,
}

/// How much of the pause is left to chance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Jitter {
    None,
    #[default]
    Full,
    Equal,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(30) }
    }
}

impl Default for Retry {
    /// What `retry: {}` means.
    fn default() -> Self {
        Self {
            never: false,
            limit: 3,
            backoff: Backoff::default(),
            jitter: Jitter::Full,
            on: vec![ErrorClass::Transient, ErrorClass::Timeout],
        }
    }
}

impl Retry {
    /// No second attempt, but none forbidden after a crash either: what a step without `retry` has.
    pub fn once() -> Self {
        Self { limit: 0, ..Self::default() }
    }

    /// The pause before retry number `retry` (from 1), given a draw from 0 to 1.
    pub fn pause(&self, retry: u32, draw: f64) -> Duration {
        let exponent = i32::try_from(retry.saturating_sub(1)).unwrap_or(i32::MAX);
        let full = (self.backoff.initial.as_secs_f64() * self.backoff.factor.powi(exponent))
            .min(self.backoff.max.as_secs_f64());
        let draw = draw.clamp(0.0, 1.0);
        let seconds = match self.jitter {
            Jitter::None => full,
            Jitter::Full => full * draw,
            Jitter::Equal => full / 2.0 + full / 2.0 * draw,
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(self.backoff.max)
    }
}
