//! How things go wrong in a cluster, how they mend, and what people ask of its runs.

use std::collections::{BTreeMap, VecDeque};

use tol::scheduler::{Decision, Input, Settlement, StepStatus};

use super::cluster::{Cluster, Happening};
use super::fault::Fault;
use super::store::OWNED;

impl Cluster<'_> {
    /// A task is on its way to a worker.
    pub(super) fn spring(&mut self, worker: usize) {
        if let Some((kill, length)) = self.worker_traps.remove(&worker) {
            let fault = if kill { Fault::KillWorker(worker, length) } else { Fault::FreezeWorker(worker, length) };
            self.goes_wrong(fault);
        }
    }

    pub(super) fn goes_wrong(&mut self, fault: Fault) {
        let now = self.now;
        self.say(None, || format!("!! {fault:?}"));
        match fault {
            Fault::KillNode(number, length) => self.kill(true, number, length),
            Fault::RestartNode(number, length) => {
                let node = &mut self.nodes[number];
                if node.up && !node.frozen {
                    node.go_away(now);
                    self.sends();
                    self.kill(true, number, length);
                }
            }
            Fault::KillWorker(number, length) => self.kill(false, number, length),
            Fault::FreezeNode(number, length) => {
                if self.nodes[number].up && !self.nodes[number].frozen {
                    self.nodes[number].frozen = true;
                    let life = self.nodes[number].life;
                    self.after(length, Happening::Thaw { node: true, number, life });
                }
            }
            Fault::FreezeWorker(number, length) => {
                if self.workers[number].up && !self.workers[number].frozen {
                    self.workers[number].frozen = true;
                    let life = self.workers[number].life;
                    self.after(length, Happening::Thaw { node: false, number, life });
                }
            }
            Fault::AtWrite { node, kill, length } => drop(self.node_traps.insert(node, (kill, length))),
            Fault::AtTask { worker, kill, length } => drop(self.worker_traps.insert(worker, (kill, length))),
            Fault::CutStore(number, length) => {
                if !std::mem::replace(&mut self.nodes[number].cut, true) {
                    self.after(length, Happening::Mended(number));
                }
            }
            Fault::SlowStore(length) => self.slow_store_until = now + length,
            Fault::Clock(number, by) => self.nodes[number].skew += by,
            Fault::CutLink { worker, node, length, stall } => {
                self.links_cut.insert((worker, node), (now + length, stall));
            }
            Fault::LoseBus(length) => self.bus_lost_until = now + length,
            Fault::SlowBus(length) => self.bus_slow_until = now + length,
            Fault::Whim(run) => self.whim(run),
        }
    }

    fn kill(&mut self, node: bool, number: usize, length: u64) {
        let (up, frozen) = if node {
            let at = &mut self.nodes[number];
            (std::mem::replace(&mut at.up, false), std::mem::replace(&mut at.frozen, false))
        } else {
            let at = &mut self.workers[number];
            (std::mem::replace(&mut at.up, false), std::mem::replace(&mut at.frozen, false))
        };
        if frozen {
            let buffer = if node { &mut self.node_buffers[number] } else { &mut self.worker_buffers[number] };
            buffer.clear();
        }
        if up {
            self.after(length, Happening::Starts { node, number });
            // Connections of a dead process are reset.
            for worker in (0..self.shape.workers).filter(|_| node) {
                self.workers[worker].reset(number);
            }
        }
    }

    pub(super) fn start(&mut self, node: bool, number: usize) {
        let now = self.now;
        if node {
            let counters = self.nodes[number].ledger.counters();
            self.stats.lost += counters.lost;
            self.stats.reclaimed += counters.reclaimed;
            self.stats.stale += counters.stale;
            self.nodes[number].reborn(self.shape.bus, now);
            let life = self.nodes[number].life;
            self.after(50, Happening::NodeWakes(number, life));
        } else {
            self.workers[number].reborn();
            let life = self.workers[number].life;
            self.after(50, Happening::WorkerBeats(number, life));
        }
    }

    pub(super) fn thaw(&mut self, node: bool, number: usize, life: u32) {
        let now = self.now;
        let waiting = std::mem::take(if node {
            let at = &mut self.nodes[number];
            if at.life != life || !at.frozen {
                return;
            }
            at.frozen = false;
            at.well_since = now;
            &mut self.node_buffers[number]
        } else {
            let at = &mut self.workers[number];
            if at.life != life || !at.frozen {
                return;
            }
            at.frozen = false;
            &mut self.worker_buffers[number]
        });
        self.say(None, || format!("{}{number} goes on", if node { "n" } else { "w" }));
        // What came over one connection stays in its order; which connection is looked at first is chance.
        let mut ways: BTreeMap<usize, VecDeque<Happening>> = BTreeMap::new();
        for happening in waiting {
            let way = match &happening {
                Happening::FromStore(..) => 1,
                Happening::ToNode { worker, .. } => 10 + worker,
                Happening::ToWorker { node, .. } => 10 + node,
                _ => 0,
            };
            ways.entry(way).or_default().push_back(happening);
        }
        while !ways.is_empty() {
            let way = *ways.keys().nth(self.rng.below(ways.len())).unwrap();
            for _ in 0..1 + self.rng.below(4) {
                if let Some(happening) = ways.get_mut(&way).and_then(VecDeque::pop_front) {
                    self.after(0, happening);
                }
            }
            ways.retain(|_, waiting| !waiting.is_empty());
        }
    }

    /// The scheduler that drives a run, as far as it knows.
    fn driver(&mut self, run: usize) -> Option<usize> {
        let now = self.now;
        (0..self.shape.nodes).find(|node| {
            let at = &self.nodes[*node];
            at.up && !at.frozen && at.owns(run, now) && at.state(run).is_some()
        })
    }

    fn whim(&mut self, run: usize) {
        let Some(node) = self.driver(run) else { return };
        let by = "p".to_owned();
        let input = match self.rng.below(8) {
            0 => Input::Cancel { by, now: self.rng.percent(40) },
            1 => Input::Pause { by },
            2 | 3 => Input::Unpause { by },
            _ => return self.answer(node, run),
        };
        self.nodes[node].command(run, input, self.now, self.rng);
    }

    fn answer(&mut self, node: usize, run: usize) {
        let Some(state) = self.nodes[node].state(run) else { return };
        let questions: Vec<_> = state.open_questions().collect();
        if questions.is_empty() {
            return;
        }
        let key = questions[self.rng.below(questions.len())];
        let unit = state.path(key);
        let by = "ada".to_owned();
        let input = if state.unit(key).is_some_and(|unit| unit.status == StepStatus::Unknown) {
            let settlement = [Settlement::Succeeded, Settlement::Failed, Settlement::Retry][self.rng.below(3)];
            Input::Settle { unit, settlement, by }
        } else {
            let decision = if self.rng.percent(60) { Decision::Approved } else { Decision::Rejected };
            Input::Decide { unit, decision, by, comment: None }
        };
        self.nodes[node].command(run, input, self.now, self.rng);
    }

    pub(super) fn people_look(&mut self) {
        for run in 0..self.shape.runs {
            let Some(node) = self.driver(run) else { continue };
            if self.nodes[node].state(run).is_some_and(|state| state.paused) {
                self.nodes[node].command(run, Input::Unpause { by: "p".to_owned() }, self.now, self.rng);
            }
            self.answer(node, run);
        }
        // A lease of the store is never held by nobody for long.
        let free = (0..self.shape.partitions).find(|partition| self.store.owner(*partition, self.now).is_none());
        if let Some(partition) = free {
            let since = self.store.until(partition);
            assert!(self.now <= since.max(OWNED) + 60_000, "nobody takes partition {partition} over");
        }
    }
}
