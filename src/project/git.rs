//! What git knows of the files that a run is made of. Without git, or outside a repository, nothing.

use std::path::Path;
use std::process::{Command, Stdio};

/// The commit that is checked out, and whether any of the files differs from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitState {
    pub commit: Option<String>,
    pub dirty: Option<bool>,
}

/// Asks git about some files of a project. It costs one process, so callers ask while they do something else.
pub fn state_of(root: &Path, files: &[String]) -> GitState {
    if !root.ancestors().any(|folder| folder.join(".git").exists()) {
        return GitState::default();
    }
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args([
            "--literal-pathspecs",
            "status",
            "--porcelain=v2",
            "--branch",
            "--untracked-files=normal",
            "--ignored=matching",
            "--",
        ])
        .args(files)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let Ok(output) = output else { return GitState::default() };
    if !output.status.success() {
        return GitState::default();
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let commit = text.lines().find_map(|line| line.strip_prefix("# branch.oid ")).filter(|oid| *oid != "(initial)");
    let dirty = text.lines().any(|line| !line.starts_with('#'));
    GitState { commit: commit.map(str::to_owned), dirty: Some(dirty) }
}

/// The text of a file at a revision.
///
/// # Errors
/// What git says about it.
pub fn show(root: &Path, revision: &str, path: &str) -> Result<Vec<u8>, String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["show", "--end-of-options", &format!("{revision}:./{path}")])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("git cannot be started: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
