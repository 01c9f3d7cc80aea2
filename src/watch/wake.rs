//! The bell of the thread that reads the folder: who rings it, and how long it waits for quiet after the first ring.
//!
//! However many events arrive, only what is needed to wait is kept of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many files that are being written are waited for.
const MOST_OPEN: usize = 1000;

/// What the thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Stop,
    /// Somebody asked for it: check again, whatever is known.
    Reload,
    /// Something changed.
    Changed,
    /// It is time to look whether something changed unnoticed.
    Look,
}

/// How long to wait for more events.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After the last event.
    pub quiet: Duration,
    /// After the first event, if they do not cease.
    pub longest: Duration,
    /// After the first event, if a file is still open for writing.
    pub writing: Duration,
}

/// The bell.
#[derive(Debug, Default)]
pub struct Wake {
    state: Mutex<State>,
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first and the last event since the last call.
    rung: Option<(Instant, Instant)>,
    /// Files with bytes written and not closed yet.
    open: BTreeSet<PathBuf>,
    reload: bool,
    stop: bool,
    trouble: Option<String>,
}

impl Wake {
    /// Something changed.
    pub fn ring(&self) {
        self.change(|state| state.ring());
    }

    /// Bytes were written to a file.
    pub fn written(&self, file: PathBuf) {
        self.change(|state| {
            if state.open.len() < MOST_OPEN {
                state.open.insert(file);
            }
            state.ring();
        });
    }

    /// A file that was open for writing was closed.
    pub fn closed(&self, file: &PathBuf) {
        self.change(|state| {
            state.open.remove(file);
            state.ring();
        });
    }

    /// The system cannot tell of changes any more.
    pub fn trouble(&self, why: String) {
        self.change(|state| {
            state.trouble.get_or_insert(why);
            state.ring();
        });
    }

    /// Asks for a check.
    pub fn reload(&self) {
        self.change(|state| state.reload = true);
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.change(|state| state.stop = true);
    }

    /// What kept the system from telling of changes, told once.
    pub fn take_trouble(&self) -> Option<String> {
        self.lock().trouble.take()
    }

    /// True if there is something that no call has told yet.
    pub fn is_rung(&self) -> bool {
        let state = self.lock();
        state.rung.is_some() || state.reload || state.stop
    }

    /// Waits for the next call; for no longer than `look` without an event.
    pub fn wait(&self, patience: Patience, look: Duration) -> Call {
        let look_at = Instant::now() + look;
        let mut state = self.lock();
        loop {
            if state.stop {
                return Call::Stop;
            }
            if std::mem::take(&mut state.reload) {
                state.rest();
                return Call::Reload;
            }
            let now = Instant::now();
            let (due, call) = match state.rung {
                Some((first, last)) if state.open.is_empty() => {
                    ((last + patience.quiet).min(first + patience.longest), Call::Changed)
                }
                Some((first, _)) => (first + patience.writing, Call::Changed),
                None => (look_at, Call::Look),
            };
            if now >= due {
                state.rest();
                return call;
            }
            state = self.bell.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.bell.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn ring(&mut self) {
        let now = Instant::now();
        self.rung = Some((self.rung.map_or(now, |(first, _)| first), now));
    }

    fn rest(&mut self) {
        self.rung = None;
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Call, Patience, Wake};

    #[test]
    fn waits_for_quiet_but_not_for_ever() {
        let patience = Patience {
            quiet: Duration::from_millis(30),
            longest: Duration::from_millis(200),
            writing: Duration::from_millis(400),
        };
        let wake = Wake::default();
        assert_eq!(wake.wait(patience, Duration::from_millis(1)), Call::Look);
        let took = |ring: &(dyn Fn() + Sync)| {
            let started = Instant::now();
            ring();
            let call = wake.wait(patience, Duration::from_secs(60));
            (call, started.elapsed())
        };
        let (call, one) = took(&|| wake.ring());
        assert!(call == Call::Changed && one >= patience.quiet, "{one:?}");
        let (call, open) = took(&|| wake.written("a".into()));
        assert!(call == Call::Changed && open >= patience.writing, "{open:?}");
        let (call, closed) = took(&|| {
            wake.written("a".into());
            wake.closed(&"a".into());
        });
        assert!(call == Call::Changed && closed < patience.writing, "{closed:?}");
        assert_eq!(took(&|| wake.reload()).0, Call::Reload);
        let steady = std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..60 {
                    wake.ring();
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            took(&|| wake.ring())
        });
        assert!(steady.0 == Call::Changed && steady.1 < Duration::from_millis(500), "{steady:?}");
        wake.stop();
        assert!(wake.is_rung());
        assert_eq!(wake.wait(patience, Duration::from_secs(60)), Call::Stop);
    }
}
