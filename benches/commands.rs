//! What whole commands take, each beside a baseline of the same run: `cargo bench --bench commands [NAME…]`.
//!
//! The baselines start the same scripts without an engine, or read the same files without checking them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs of each command; the median is printed, with the least and the most.
const ROUNDS: usize = 11;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let runs = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
    let folder = std::env::temp_dir().join(format!("tol-bench-commands-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{error}"));
    for (name, steps, chained, goal) in [
        ("one_step", 1, true, "11.6 ms, 0.2 of Dagu"),
        ("chain_40", 40, true, "64.4 ms, 0.2 of Dagu"),
        ("chain_400", 400, true, "510 ms, 0.05 of Dagu"),
        ("fan_100", 100, false, "105 ms, 0.1 of Dagu"),
    ] {
        if runs(name) {
            run_of(&folder, name, steps, chained, goal);
        }
    }
    if runs("version") {
        let figure = measure(&folder, &["--version"]);
        say("start of the process (tol --version)", &figure, &baseline_of(|| spawn("true", &[])), "");
    }
    if runs("validate_one") {
        write(&folder, "one.yaml", &pipeline(1, true));
        let figure = measure(&folder, &["validate", "one.yaml"]);
        say("validate one file", &figure, &baseline_of(|| spawn("cat", &["one.yaml"])), "Dagu 36 ms");
    }
    if runs("validate_10000") {
        validate_many(&folder);
    }
    let _ = std::fs::remove_dir_all(folder);
}

/// The least, the median and the most.
struct Figure {
    least: Duration,
    median: Duration,
    most: Duration,
}

fn figure(mut times: Vec<Duration>) -> Figure {
    times.sort_unstable();
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    Figure { least: at(0), median: at(times.len() / 2), most: at(times.len() - 1) }
}

fn say(name: &str, figure: &Figure, baseline: &Figure, goal: &str) {
    let millis = |length: Duration| length.as_secs_f64() * 1e3;
    println!(
        "{name:<40} {:>8.1} ms ({:.1} to {:.1})   baseline: {:.1} ms   {goal}",
        millis(figure.median),
        millis(figure.least),
        millis(figure.most),
        millis(baseline.median)
    );
}

fn measure(folder: &Path, arguments: &[&str]) -> Figure {
    let one = || {
        let started = Instant::now();
        let status = Command::new(env!("CARGO_BIN_EXE_tol"))
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.is_ok_and(|status| status.success()), "tol {arguments:?} failed");
        started.elapsed()
    };
    one();
    figure((0..ROUNDS).map(|_| one()).collect())
}

fn baseline_of(mut once: impl FnMut()) -> Figure {
    figure(
        (0..ROUNDS)
            .map(|_| {
                let started = Instant::now();
                once();
                started.elapsed()
            })
            .collect(),
    )
}

fn spawn(program: &str, arguments: &[&str]) {
    let _ =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("{error}"));
    path
}

fn pipeline(steps: usize, chained: bool) -> String {
    let mut yaml = String::from("apiVersion: tol/v1\nname: bench\nsteps:\n");
    for step in 0..steps {
        let depends = if chained && step > 0 { format!(", depends: [s{}]", step - 1) } else { String::new() };
        let _ = writeln!(yaml, "  - {{ id: s{step}, run: \"true\"{depends} }}");
    }
    yaml
}

fn run_of(folder: &Path, name: &str, steps: usize, chained: bool, goal: &str) {
    let file = format!("{name}.yaml");
    write(folder, &file, &pipeline(steps, chained));
    let figure = measure(folder, &["run", &file, "--format", "json"]);
    let baseline = baseline_of(|| (0..steps).for_each(|_| spawn("sh", &["-eu", "-c", "true"])));
    say(&format!("tol run, {name}"), &figure, &baseline, goal);
}

fn validate_many(folder: &Path) {
    let many = folder.join("many");
    for number in 0..10_000 {
        let inner = many.join(format!("d{}", number % 100));
        std::fs::create_dir_all(&inner).unwrap_or_else(|error| panic!("{error}"));
        let text = format!(
            "apiVersion: tol/v1\nname: p{number}\nparams:\n  depth: {{ type: integer, default: 3 }}\nsteps:\n  - id: a\n    \
             run: ./a.sh\n    env: {{ N: \"{{{{ params.depth }}}}\" }}\n  - id: b\n    if: params.depth > 2 && a.status == \
             \"succeeded\"\n    run: [echo, \"{{{{ a.outputs.text }}}}\"]\n    timeout: 30s\n"
        );
        write(&inner, &format!("p{number}.yaml"), &text);
    }
    let figure = measure(&many, &["validate", "."]);
    let baseline = baseline_of(|| {
        for number in 0..10_000 {
            let text = std::fs::read(many.join(format!("d{}/p{number}.yaml", number % 100)));
            std::hint::black_box(text.is_ok());
        }
    });
    say("tol validate, 10,000 files", &figure, &baseline, "1,000 ms");
}
