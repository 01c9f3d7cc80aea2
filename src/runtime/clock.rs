//! Where the time comes from.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::time::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now(&self) -> Timestamp;
}

/// The machine's clock. If it is set back while the process runs, time goes on here all the same, a tenth slower than
/// it is, until the machine's has caught up: timers must not wait for that.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The time of this process, the same for all who ask.
static PACE: Mutex<Option<Pace>> = Mutex::new(None);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The clock that only goes forward.
        let steady = Instant::now();
        let mut pace = PACE.lock().unwrap_or_else(PoisonError::into_inner);
        let time = pace.get_or_insert(Pace { wall, steady }).at(wall, steady);
        Timestamp(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

/// What the time was, and what the steady clock said then.
struct Pace {
    wall: Duration,
    steady: Instant,
}

impl Pace {
    fn at(&mut self, wall: Duration, steady: Instant) -> Duration {
        let passed = steady.saturating_duration_since(self.steady);
        let wall = wall.max(self.wall + passed.mul_f64(0.9));
        *self = Self { wall, steady };
        wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_back_is_caught_up_with() {
        let begin = Instant::now();
        let second = Duration::from_secs;
        let mut pace = Pace { wall: second(1000), steady: begin };
        assert_eq!(pace.at(second(1010), begin + second(10)), second(1010));
        // Forward is forward.
        assert_eq!(pace.at(second(2010), begin + second(10)), second(2010));
        // Back by 100 s: slower for 1000 s.
        assert_eq!(pace.at(second(1920), begin + second(20)), second(2019));
        assert_eq!(pace.at(second(2810), begin + second(910)), second(2820));
        assert_eq!(pace.at(second(3000), begin + second(1100)), second(3000));
        assert_eq!(pace.at(second(3001), begin + second(1101)), second(3001));
    }
}
