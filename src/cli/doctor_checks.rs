//! The checks of `tol doctor`, in the order in which they are shown.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::args::RemoteArgs;
use super::context::Context;
use super::doctor::{Grade, Line};
use super::{doctor_places, doctor_variables};
use crate::handler::secrets::{FOLDER_VARIABLE, VARIABLE_PREFIX};
use crate::journal::{Journal, JournalError, ListFilter, OpenMode, SqliteJournal};

/// Less free space than this is told, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;
/// Less free space than this is no place for a journal, in bytes.
const NO_SPACE: u64 = 64 << 20;
/// How often a write is made durable to see how long it takes.
const SYNCS: usize = 8;
/// A step cannot end faster than a sync; above this it is felt.
const SLOW_SYNC: Duration = Duration::from_millis(50);
/// Runs all checks.
pub fn all(context: &Context, remote: &RemoteArgs) -> Vec<Line> {
    let mut lines = vec![root(context), files(context), state_folder(context)];
    // With DATABASE_URL the journal lies there, and what is in the folder is of earlier runs.
    lines.extend(journal(context));
    lines.push(space(context));
    lines.push(sync(context));
    lines.extend(programs());
    lines.push(locale());
    lines.extend(doctor_variables::all());
    lines.push(dot_env(context));
    lines.push(secrets());
    lines.extend(doctor_places::all(context, remote));
    lines
}

fn root(context: &Context) -> Line {
    let root = &context.root;
    let mark =
        [".git", "duo-agent.config.yaml", "duo-agent.config.yml"].into_iter().find(|mark| root.join(mark).exists());
    match mark {
        Some(mark) => Line::ok("project", format!("{} (it has {mark})", root.display())),
        None => Line::warn(
            "project",
            format!(
                "{}: no folder from here up has .git or duo-agent.config.yaml, so this one counts as the project",
                root.display()
            ),
            "runs are kept in the folder that tol is started in; `git init` or `tol init` marks a root",
        ),
    }
}

fn files(context: &Context) -> Line {
    match super::validate::counts(&context.root) {
        Ok((0, _, _)) => {
            Line::warn("files", "no pipeline, agents.yaml or test was found", "`tol init` writes a small project")
        }
        Ok((checked, 0, 0)) => Line::ok("files", format!("{checked} checked, nothing wrong")),
        Ok((checked, errors, warnings)) => Line::warn(
            "files",
            format!("{checked} checked: {errors} errors, {warnings} warnings"),
            "`tol validate` shows them",
        ),
        Err(failure) => Line::warn("files", failure.message, "`tol validate` says more"),
    }
}

/// The folder itself, or the nearest one above that is there.
fn existing(folder: &Path) -> PathBuf {
    folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn probe(folder: &Path) -> PathBuf {
    folder.join(format!(".tol-doctor-{}", std::process::id()))
}

fn state_folder(context: &Context) -> Line {
    let folder = &context.state_dir;
    if folder.exists() && !folder.is_dir() {
        return Line::fail(
            "state",
            format!("{} is no folder", folder.display()),
            "move it away, or name another with --state-dir",
        );
    }
    let place = existing(folder);
    let file = probe(&place);
    let written = std::fs::write(&file, b"x");
    let _ = std::fs::remove_file(&file);
    match written {
        Ok(()) if folder.is_dir() => Line::ok("state", format!("{} can be written", folder.display())),
        Ok(()) => Line::ok("state", format!("{} is made by the first run", folder.display())),
        Err(error) => Line::fail(
            "state",
            format!("{} cannot be written: {error}", place.display()),
            "give this user the right to write there, or name another folder with --state-dir or TOL_STATE_DIR",
        ),
    }
}

fn journal(context: &Context) -> Vec<Line> {
    let opened = SqliteJournal::open(&context.state_dir, OpenMode::ReadOnly);
    let journal = match opened {
        Ok(journal) => journal,
        Err(JournalError::Absent { .. }) => return vec![Line::ok("journal", "there is none yet")],
        Err(error) => return vec![journal_error(&error)],
    };
    let events = match journal.verify() {
        Ok(events) => events,
        Err(error) => return vec![journal_error(&error)],
    };
    let rows = match journal.list(&ListFilter::default()) {
        Ok(rows) => rows,
        Err(error) => return vec![journal_error(&error)],
    };
    let mut lines =
        vec![Line::ok("journal", format!("opens, ends at its high-water mark, and all {events} events are sound"))];
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *by_status.entry(&row.status).or_default() += 1);
    let listed: Vec<String> = by_status.iter().map(|(status, number)| format!("{number} {status}")).collect();
    lines.push(Line::ok("runs", if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }));
    let left: Vec<_> =
        rows.iter().filter(|row| row.finished_at.is_none() && row.owner.is_none() && row.status != "waiting").collect();
    if let Some(newest) = left.first() {
        lines.push(Line::warn(
            "owners",
            format!("{} not ended, and the process that drove them is gone; the newest is {}", left.len(), newest.run),
            format!("`tol resume {}` goes on with it, `tol runs cancel {}` ends it", newest.run, newest.run),
        ));
    }
    lines
}

/// The words of the error say what to do.
fn journal_error(error: &JournalError) -> Line {
    Line { grade: Grade::Fail, ..Line::ok("journal", error.to_string()) }
}

fn space(context: &Context) -> Line {
    let place = existing(&context.state_dir);
    let free = match rustix::fs::statvfs(&place) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => return Line::warn("space", format!("{}: {error}", place.display()), "look at the disk"),
    };
    let words = format!("{:.1} GiB free for the state folder", free as f64 / (1u64 << 30) as f64);
    if free < NO_SPACE {
        Line::fail(
            "space",
            words,
            "free some: a run stops when its events cannot be written; `tol runs prune` removes old runs",
        )
    } else if free < LITTLE_SPACE {
        Line::warn("space", words, "free some; `tol runs prune` removes old runs")
    } else {
        Line::ok("space", words)
    }
}

fn sync(context: &Context) -> Line {
    let place = existing(&context.state_dir);
    let file = probe(&place);
    let measured = measure(&file);
    let _ = std::fs::remove_file(&file);
    match measured {
        Ok((median, slowest)) => {
            let words =
                format!("a durable write takes {:.2} ms, at most {:.2} ms of {SYNCS}", millis(median), millis(slowest));
            if median > SLOW_SYNC {
                Line::warn(
                    "sync",
                    words,
                    "every step waits for at least one; put the state folder on a faster disk with --state-dir",
                )
            } else {
                Line::ok("sync", words)
            }
        }
        Err(error) => Line::fail(
            "sync",
            format!("{}: {error}", place.display()),
            "tol writes nothing where writes cannot be made durable",
        ),
    }
}

fn millis(length: Duration) -> f64 {
    length.as_secs_f64() * 1000.0
}

fn measure(file: &Path) -> std::io::Result<(Duration, Duration)> {
    let mut file = std::fs::File::create(file)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok((times.get(SYNCS / 2).copied().unwrap_or_default(), times.last().copied().unwrap_or_default()))
}

fn programs() -> Vec<Line> {
    let check = |name: &'static str, arguments: &[&str], missing: fn(&'static str, String) -> Line| {
        let ran = Command::new(name).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
        match ran {
            Ok(output) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout);
                let first = text.lines().next().unwrap_or_default().trim();
                Line::ok(name, if first.is_empty() { "it can be started".to_owned() } else { first.to_owned() })
            }
            Ok(output) => missing(name, format!("it ends with {}", output.status)),
            Err(error) => missing(name, format!("it cannot be started: {error}")),
        }
    };
    vec![
        check("sh", &["-c", ":"], |name, why| Line::fail(name, why, "scripts (`run: …`) need a POSIX shell on PATH")),
        check("bash", &["--version"], |name, why| Line::warn(name, why, "only steps with `shell: bash` need it")),
        check("git", &["--version"], |name, why| {
            Line::warn(name, why, "runs do not record the commit, and `tol diff` cannot read revisions")
        }),
    ]
}

fn locale() -> Line {
    let value = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let is_utf8 = |value: &str| value.to_ascii_uppercase().replace('-', "").contains("UTF8");
    match value {
        Some(value) if is_utf8(&value) => Line::ok("locale", value),
        Some(value) => Line::warn(
            "locale",
            format!("{value} is not UTF-8"),
            "scripts may print bytes that are replaced; set LANG=C.UTF-8",
        ),
        None => Line::warn("locale", "no locale is set", "scripts may print bytes that are replaced; set LANG=C.UTF-8"),
    }
}

fn dot_env(context: &Context) -> Line {
    match context.environment() {
        Ok(_) if context.root.join(".env").exists() => Line::ok(".env", "it can be read"),
        Ok(_) => Line::ok(".env", "there is none"),
        Err(failure) => Line::fail(".env", failure.message, "no run starts until it is mended: one NAME=VALUE a line"),
    }
}

fn secrets() -> Line {
    let by_variable =
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(VARIABLE_PREFIX)).count();
    let Some(folder) = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from) else {
        return Line::ok("secrets", format!("{by_variable} by variable; {FOLDER_VARIABLE} is not set"));
    };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) => {
            return Line::fail(
                "secrets",
                format!("{FOLDER_VARIABLE} names {}, which cannot be listed: {error}", folder.display()),
                "name a folder with one file for each secret, or unset it",
            );
        }
    };
    let mut number = 0;
    let mut open = Vec::new();
    for entry in entries.flatten() {
        let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
        if meta.is_file() {
            number += 1;
            if meta.permissions().mode() & 0o004 != 0 {
                open.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    let words = format!("{by_variable} by variable, {number} in {}", folder.display());
    if open.is_empty() {
        return Line::ok("secrets", words);
    }
    open.sort();
    Line::warn(
        "secrets",
        format!("{words}; everybody can read {}", open.join(", ")),
        format!("chmod o-r in {}", folder.display()),
    )
}
