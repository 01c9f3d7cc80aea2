//! Many seeds, and what is shown of one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::generate::{self, Project};
use super::super::rng::Rng;
use super::cluster::{Cluster, Stats};
use super::fault::{Fault, Shape, plan};

/// Clusters of a plain `cargo test`.
const CLUSTERS: u64 = 1200;
/// How many lines of what happened are shown.
const SHOWN: usize = 60;

fn attempt(seed: u64, project: &Project, shape: Shape, faults: &[(u64, Fault)], trace: bool) -> Result<Stats, Failed> {
    let mut rng = Rng::new(seed.wrapping_mul(31).wrapping_add(7));
    let mut cluster = Cluster::new(&mut rng, project, shape, faults.to_vec());
    cluster.trace = trace.then(Vec::new);
    match catch_unwind(AssertUnwindSafe(|| cluster.run())) {
        Ok(()) => Ok(cluster.stats),
        Err(cause) => {
            let words = cause.downcast_ref::<String>().cloned();
            let words =
                words.or_else(|| cause.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default();
            Err(Failed { words, trace: cluster.trace.take().unwrap_or_default() })
        }
    }
}

struct Failed {
    words: String,
    trace: Vec<String>,
}

fn one(seed: u64) -> Stats {
    let mut rng = Rng::new(seed ^ 0xC1A5);
    let project = generate::project(&mut rng);
    let shape = Shape::draw(&mut rng);
    let mut faults = plan(&mut rng, shape);
    let first = match attempt(seed, &project, shape, &faults, false) {
        Ok(stats) => return stats,
        Err(failed) => failed,
    };
    // What is not needed for it to fail is left out.
    let mut number = 0;
    while number < faults.len() {
        let mut fewer = faults.clone();
        fewer.remove(number);
        if attempt(seed, &project, shape, &fewer, false).is_err() { faults = fewer } else { number += 1 }
    }
    let Err(last) = attempt(seed, &project, shape, &faults, true) else { panic!("seed {seed}: {}", first.words) };
    // Of several runs only the one that is blamed is of interest, and what happened to everybody.
    let runs: Vec<String> = (0..shape.runs).map(|run| format!("r{run} ")).collect();
    let blamed = runs.iter().find(|run| last.words.contains(&***run));
    let of_interest = |line: &&String| {
        let run = runs.iter().find(|run| line.get(9..).is_some_and(|line| line.starts_with(&***run)));
        run.is_none() || blamed.is_none() || run == blamed
    };
    let trace: Vec<&str> = last.trace.iter().filter(of_interest).map(String::as_str).collect();
    let from = trace.len().saturating_sub(SHOWN);
    panic!(
        "seed {seed}, {shape:?}: {}\nwith less that goes wrong: {}\nrepeat it with TOL_SEED={seed}\nwhat goes wrong: {faults:?}\n{}\n{}",
        first.words,
        last.words,
        generate::show(&project.sources),
        trace[from..].join("\n")
    );
}

#[test]
fn many_schedulers_and_workers_keep_every_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("TOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TOL_SEEDS").unwrap_or(CLUSTERS),
    };
    let count = seeds.end - seeds.start;
    let started = std::time::Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let stats: Stats = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let mine = seeds.clone().filter(move |seed| seed % threads == worker);
                scope.spawn(move || mine.map(one).fold(Stats::default(), Stats::plus))
            })
            .collect();
        let joined = workers.into_iter().map(|worker| worker.join());
        joined
            .map(|stats| stats.unwrap_or_else(|cause| std::panic::resume_unwind(cause)))
            .fold(Stats::default(), Stats::plus)
    });
    println!("{count} clusters in {:.1} s: {stats:?}", started.elapsed().as_secs_f64());
    if count >= CLUSTERS {
        // A simulation in which nothing goes wrong shows nothing.
        assert!(stats.fenced > 0 && stats.lost > 0 && stats.reclaimed > 0 && stats.takeovers > 0, "{stats:?}");
    }
}
