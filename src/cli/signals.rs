//! Signals that end a run, and the test hook that kills the process around a commit.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::journal::FaultHook;

/// Names the commit around which the process kills itself: `kill-before-commit:3`, `kill-after-commit:3`. For tests.
const FAULT_VARIABLE: &str = "TOL_FAULT";

/// What a person or a supervisor asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Interrupt,
    Terminate,
}

/// Listens for SIGINT and SIGTERM.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the two signals over from their defaults.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

struct KillHook {
    before: bool,
    commit: u64,
}

impl FaultHook for KillHook {
    fn before_commit(&self, number: u64) {
        if self.before && number == self.commit {
            die();
        }
    }

    fn after_commit(&self, number: u64) {
        if !self.before && number == self.commit {
            die();
        }
    }
}

/// Ends this very process as `kill -9` would.
fn die() {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort();
}

/// The hook that the test variable asks for.
pub fn fault_hook() -> Option<Arc<dyn FaultHook>> {
    let text = std::env::var(FAULT_VARIABLE).ok()?;
    let (point, number) = text.split_once(':')?;
    let commit = number.parse().ok()?;
    match point {
        "kill-before-commit" => Some(Arc::new(KillHook { before: true, commit })),
        "kill-after-commit" => Some(Arc::new(KillHook { before: false, commit })),
        _ => None,
    }
}
