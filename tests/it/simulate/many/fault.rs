//! What goes wrong in a cluster, planned before it begins, so that a failure can be tried again with less of it.

use super::super::rng::Rng;

/// One thing that goes wrong, or a person's whim.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// `kill -9`; it starts again after so many milliseconds.
    KillNode(usize, u64),
    /// SIGSTOP, and SIGCONT after so long.
    FreezeNode(usize, u64),
    /// SIGTERM: it gives up what it has; then it starts again.
    RestartNode(usize, u64),
    /// The store is out of reach; what is under way may still arrive there.
    CutStore(usize, u64),
    /// The store answers late.
    SlowStore(u64),
    /// The wall clock of a scheduler jumps by so many milliseconds.
    Clock(usize, i64),
    /// SIGSTOP (or `kill -9`) at the worst moment: a write has become durable, and nothing has followed from it yet.
    AtWrite {
        node: usize,
        kill: bool,
        length: u64,
    },
    KillWorker(usize, u64),
    FreezeWorker(usize, u64),
    /// SIGSTOP (or `kill -9`) while a task is on its way to it.
    AtTask {
        worker: usize,
        kill: bool,
        length: u64,
    },
    /// A worker and a scheduler cannot reach each other. With `stall` what is sent meanwhile arrives afterwards.
    CutLink {
        worker: usize,
        node: usize,
        length: u64,
        stall: bool,
    },
    /// The bus loses everything.
    LoseBus(u64),
    /// The bus is late.
    SlowBus(u64),
    /// Somebody cancels, pauses, goes on or answers something.
    Whim(usize),
}

/// How many schedulers, workers, partitions and runs a cluster has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub nodes: usize,
    pub workers: usize,
    pub partitions: usize,
    pub runs: usize,
    /// Work goes over a bus instead of sessions.
    pub bus: bool,
    /// Only schedulers and their clocks go wrong: workers and their connections are well.
    pub gentle: bool,
}

impl Shape {
    pub fn draw(rng: &mut Rng) -> Self {
        let bus = rng.percent(35);
        Self {
            gentle: !bus && rng.percent(25),
            bus,
            nodes: 2 + rng.below(2),
            workers: 2 + rng.below(3),
            partitions: 1 + rng.below(2),
            runs: 2 + rng.below(4),
        }
    }
}

/// When what goes wrong, in order of time, in milliseconds.
pub fn plan(rng: &mut Rng, shape: Shape) -> Vec<(u64, Fault)> {
    let mut plan = Vec::new();
    let mut at = rng.next() % 4000;
    for _ in 0..rng.below(26) {
        plan.push((at, draw(rng, shape)));
        at += rng.next() % 6000;
    }
    if rng.percent(15) {
        // A rolling restart.
        let begin = rng.next() % 20_000;
        plan.extend((0..shape.nodes).map(|node| (begin + 2500 * node as u64, Fault::RestartNode(node, 2000))));
        plan.sort_by_key(|(at, _)| *at);
    }
    plan
}

fn draw(rng: &mut Rng, shape: Shape) -> Fault {
    let node = rng.below(shape.nodes);
    let worker = rng.below(shape.workers);
    let length = match rng.below(3) {
        0 => rng.next() % 1500,
        1 => rng.next() % 12_000,
        _ => rng.next() % 45_000,
    };
    match rng.below(if shape.gentle { 10 } else { 30 }) {
        0 => Fault::KillNode(node, length),
        1..=2 => Fault::FreezeNode(node, length),
        3 => Fault::RestartNode(node, length),
        4..=6 => Fault::AtWrite { node, kill: rng.percent(30), length },
        7 => Fault::Clock(node, (rng.next() % 240_000) as i64 - 120_000),
        8..=9 => Fault::Whim(rng.below(shape.runs)),
        10..=11 => Fault::CutStore(node, length),
        12 => Fault::SlowStore(length),
        13 => Fault::KillWorker(worker, length),
        14..=16 => Fault::FreezeWorker(worker, length),
        17..=19 => Fault::AtTask { worker, kill: rng.percent(30), length },
        20..=24 if shape.bus => [Fault::LoseBus(length), Fault::SlowBus(length)][rng.below(2)],
        20..=24 => Fault::CutLink { worker, node, length, stall: rng.percent(50) },
        _ => Fault::Whim(rng.below(shape.runs)),
    }
}
