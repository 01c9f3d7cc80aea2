//! A run as the store has it, and what was begun for it: the witness against which the promises are held.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tol::compile::Program;
use tol::id::UnitPath;
use tol::scheduler::{Effect, Event, Phase, Settlement, Stamped, State, StepStatus, UnitKey, admit, apply};

use super::super::watch::Watch;

/// One hand-out, as its event has made it.
struct HandOut {
    key: UnitKey,
    path: UnitPath,
    attempt: u32,
    fallback: bool,
    /// Workers that have begun it.
    begun: Vec<usize>,
    reported: bool,
}

/// One run.
pub struct Truth {
    run: usize,
    program: Arc<Program>,
    /// Only schedulers go wrong: what a worker has is never lost.
    gentle: bool,
    pub lines: Vec<String>,
    pub state: Option<State>,
    watch: Watch,
    epoch: u64,
    hand_outs: BTreeMap<u64, HandOut>,
    /// Attempts at units that must not run twice.
    once: BTreeMap<(UnitKey, bool), BTreeSet<u32>>,
    pub begun: usize,
    /// What began after its unit had ended, where the transport may repeat itself.
    pub late: usize,
}

impl Truth {
    pub fn new(run: usize, program: Arc<Program>, gentle: bool) -> Self {
        Self {
            run,
            gentle,
            program,
            lines: Vec::new(),
            state: None,
            watch: Watch::default(),
            epoch: 0,
            hand_outs: BTreeMap::new(),
            once: BTreeMap::new(),
            begun: 0,
            late: 0,
        }
    }

    /// True once the run has ended.
    pub fn has_ended(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.verdict.is_some())
    }

    /// An event becomes durable.
    pub fn append(&mut self, epoch: u64, line: String) {
        let run = self.run;
        assert!(epoch >= self.epoch, "I4: r{run} epoch {epoch} writes after epoch {}", self.epoch);
        self.epoch = epoch;
        let stamped: Stamped = serde_json::from_str(&line).unwrap();
        self.lines.push(line);
        if let (None, Event::Accepted(accepted)) = (&self.state, &stamped.event) {
            self.state = Some(State::new(self.program.clone(), Arc::new((**accepted).clone()), stamped.at));
        }
        let state = self.state.as_mut().expect("a run begins with its acceptance");
        if let Some(input) = stamped.event.to_input() {
            let admitted = admit(state, input, stamped.at);
            assert_eq!(
                admitted.as_ref(),
                Ok(&stamped.event),
                "I5: r{run} an event is written that would not be admitted"
            );
        }
        match &stamped.event {
            Event::Reported { token, unit, .. } => {
                let hand_out =
                    self.hand_outs.get_mut(&token.0).unwrap_or_else(|| panic!("{unit} was never handed out"));
                assert!(!std::mem::replace(&mut hand_out.reported, true), "I3: r{run} {unit} is committed twice");
            }
            Event::Settled { unit, settlement: Settlement::Retry, .. } => {
                let key = state.find(unit).unwrap();
                *self.watch.let_again.entry(key).or_default() += 1;
            }
            Event::CancelRequested { .. } => {
                self.watch.late_stop |= matches!(state.scopes[0].phase, Phase::Hooks | Phase::Done);
            }
            Event::Lost { unit, token, why } => {
                let begun = self.hand_outs.get(&token.0).map(|hand_out| hand_out.begun.len());
                assert!(
                    !self.gentle || begun == Some(0),
                    "r{run} {unit} {} is lost ({why}), and its worker is well",
                    token.0
                );
            }
            Event::Accepted(_)
            | Event::Started { .. }
            | Event::TimePassed
            | Event::Paused { .. }
            | Event::Unpaused { .. }
            | Event::Decided { .. }
            | Event::Settled { .. }
            | Event::Idle
            | Event::Recovered
            | Event::Reclaimed => {}
        }
        let effects = apply(state, &stamped);
        let starts = matches!(stamped.event, Event::Started { .. });
        self.watch.effects(state, starts, &effects);
        self.watch.check(state);
        for effect in effects {
            let (Effect::Dispatch { unit, token } | Effect::RecordStart { unit, token }) = effect else { continue };
            let at = state.unit(unit).unwrap();
            let (attempt, fallback, path) = (at.attempt, at.fallback, state.path(unit));
            let hand_out = HandOut { key: unit, path, attempt, fallback, begun: Vec::new(), reported: false };
            // A recorded start comes to the same hand-out twice.
            let before = self.hand_outs.entry(token.0).or_insert(hand_out);
            assert_eq!(before.key, unit, "token {} is given to two units", token.0);
        }
    }

    /// A worker begins a hand-out. `repeats` says that the transport may deliver it twice or late.
    pub fn begin(&mut self, path: &UnitPath, token: u64, once: bool, worker: usize, repeats: bool) {
        let run = self.run;
        let state = self.state.as_ref().unwrap();
        let hand_out = self.hand_outs.get_mut(&token);
        let hand_out =
            hand_out.unwrap_or_else(|| panic!("r{run} {path} {token} is in work and its event is not durable"));
        assert_eq!(hand_out.path, *path);
        self.begun += 1;
        let unit = state.unit(hand_out.key).unwrap();
        let succeeded = unit.status == StepStatus::Succeeded;
        self.late += usize::from(unit.status.is_final());
        assert!(
            repeats || !succeeded,
            "I2: r{run} worker {worker} begins {path} {token} after its success was recorded"
        );
        assert!(
            repeats || hand_out.begun.is_empty(),
            "r{run} {path} {token} is begun by {:?} and {worker}",
            hand_out.begun
        );
        if once {
            assert!(unit.start_recorded || unit.token != token, "r{run} {path} {token} begins without a record of it");
            assert!(
                hand_out.begun.is_empty(),
                "once: r{run} {path} {token} is begun by {:?} and {worker}",
                hand_out.begun
            );
            let attempts = self.once.entry((hand_out.key, hand_out.fallback)).or_default();
            attempts.insert(hand_out.attempt);
            let allowed = 1 + self.watch.let_again.get(&hand_out.key).copied().unwrap_or(0);
            assert!(attempts.len() <= allowed, "once: r{run} {path} is begun in attempts {attempts:?}");
        }
        hand_out.begun.push(worker);
    }
}
