//! Where a run keeps what its programs leave behind: logs, artifacts, and files that live as long as an attempt.
//!
//! Names of units become names of files that a person still reads: `child/step` is `child.step`, which no other unit
//! can be, since ids have no dots.

use std::io;
use std::path::{Path, PathBuf};

use crate::id::{RunId, UnitPath};

/// Names longer than this end in a hash, because most file systems stop at 255 bytes.
const NAME_BYTES_MAX: usize = 160;

/// The folder of a run.
pub fn run_folder(state_folder: &Path, run: &RunId) -> PathBuf {
    state_folder.join("runs").join(file_name(run.as_str()))
}

/// The folder of a run's logs.
pub fn logs_folder(state_folder: &Path, run: &RunId) -> PathBuf {
    run_folder(state_folder, run).join("logs")
}

/// The log of one attempt at one unit.
pub fn log_file(state_folder: &Path, run: &RunId, unit: &UnitPath, attempt: u32) -> PathBuf {
    logs_folder(state_folder, run).join(format!("{}.{attempt}.jsonl", file_name(unit.as_str())))
}

/// Where the standard output of an attempt is kept when it is too large to be a text.
pub fn stdout_file(state_folder: &Path, run: &RunId, unit: &UnitPath, attempt: u32) -> PathBuf {
    logs_folder(state_folder, run).join(format!("{}.{attempt}.stdout", file_name(unit.as_str())))
}

/// The folder that a step may keep files in; the items of a fan-out share it.
pub fn artifacts_folder(state_folder: &Path, run: &RunId, unit: &UnitPath) -> PathBuf {
    run_folder(state_folder, run).join("artifacts").join(file_name(unit.split_item().0))
}

/// A folder for files that live as long as an attempt.
pub fn temporary_folder(state_folder: &Path, run: &RunId) -> PathBuf {
    run_folder(state_folder, run).join("tmp")
}

/// Makes a folder that is likely to be there already, in one system call if it or its parent is.
pub fn ensure_folder(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(_) => std::fs::create_dir_all(folder),
    }
}

/// A name that is safe as one part of a path on every system, and another for every other text.
pub fn file_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' => name.push('.'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'[' | b']' => name.push(char::from(byte)),
            other => name.push_str(&format!("%{other:02X}")),
        }
    }
    if name.len() > NAME_BYTES_MAX {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        name.truncate(NAME_BYTES_MAX - 33);
        name.push('~');
        name.push_str(hash.get(..32).unwrap_or_default());
    }
    if name.is_empty() { "%".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(file_name(text), expect);
    }

    #[test]
    fn names_stay_readable_and_apart() {
        check("fetch", "fetch");
        check("child/step", "child.step");
        check("branches[0]/grow", "branches[0].grow");
        check("evidence/E1[3]", "evidence.E1[3]");
        check("..", "%2E%2E");
        check("a.b", "a%2Eb");
        check("", "%");
        check("ż", "%C5%BC");
        let long = file_name(&"x/".repeat(400));
        assert!(long.len() <= NAME_BYTES_MAX);
        assert_ne!(long, file_name(&"x/".repeat(401)));
    }
}
