//! Seeded simulation of the scheduler's core: random pipelines under loss, duplication, delay, reordering, crashes and
//! clocks that jump. `TOL_SEEDS=N` runs that many projects, `TOL_SEED=n` repeats one.

mod generate;
mod many;
mod outcome;
mod rng;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rng::Rng;

/// Each project is run so often, under different schedules.
const RUNS_PER_PROJECT: u64 = 8;
/// Projects of a plain `cargo test`: 8 runs each, within a minute of a debug build.
const PROJECTS: u64 = 1000;

fn one(seed: u64) -> usize {
    let project = generate::project(&mut Rng::new(seed));
    let mut events = 0;
    for schedule in 0..RUNS_PER_PROJECT {
        let mut rng = Rng::new(seed.wrapping_mul(1_000_003).wrapping_add(schedule));
        let mut world = world::World::new(&mut rng, &project);
        let result = catch_unwind(AssertUnwindSafe(|| world.run()));
        match result {
            Ok(count) => events += count,
            Err(cause) => {
                let words = cause.downcast_ref::<String>().cloned();
                let words =
                    words.or_else(|| cause.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default();
                let from = world.trace.len().saturating_sub(40);
                panic!(
                    "seed {seed}, schedule {schedule}: {words}\nrepeat it with TOL_SEED={seed}\n{}\n{}",
                    generate::show(&project.sources),
                    world.trace[from..].join("\n")
                );
            }
        }
    }
    events
}

#[test]
fn every_run_ends_and_keeps_its_promises() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("TOL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TOL_SEEDS").unwrap_or(PROJECTS),
    };
    let started = std::time::Instant::now();
    let count = seeds.end - seeds.start;
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let events: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let mine = seeds.clone().filter(move |seed| seed % threads == worker);
                scope.spawn(move || mine.map(one).sum::<usize>())
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))).sum()
    });
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} runs of {count} projects, {events} events, {:.0} runs a second",
        count * RUNS_PER_PROJECT,
        (count * RUNS_PER_PROJECT) as f64 / seconds
    );
}
