//! Where things lie in the state folder. It names paths; it creates only the folder itself.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::id::RunId;

/// The state folder, `.tol` by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFolder {
    /// The folder itself.
    pub root: PathBuf,
}

impl StateFolder {
    /// Takes the path of the state folder; nothing is touched.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The journal's database. Beside it SQLite keeps `journal.db-wal` and `journal.db-shm`: they belong together.
    pub fn database(&self) -> PathBuf {
        self.root.join("journal.db")
    }

    /// The write-ahead log of the database.
    pub fn write_ahead_log(&self) -> PathBuf {
        self.root.join("journal.db-wal")
    }

    /// Says how far the database was acknowledged.
    pub fn high_water(&self) -> PathBuf {
        self.root.join("high-water")
    }

    /// The lock files of the processes that own runs.
    pub fn owners(&self) -> PathBuf {
        self.root.join("owners")
    }

    /// What scripts of a run printed.
    pub fn logs(&self, run: &RunId) -> PathBuf {
        self.run(run).join("logs")
    }

    /// The files that a run keeps.
    pub fn artifacts(&self, run: &RunId) -> PathBuf {
        self.run(run).join("artifacts")
    }

    /// All that belongs to one run. A name that is no plain file name (read from elsewhere, say) is made one, so that
    /// the path never leaves the state folder.
    pub fn run(&self, run: &RunId) -> PathBuf {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let name: String = run.as_str().chars().map(|c| if plain(c) { c } else { '_' }).collect();
        self.root.join("runs").join(if name.is_empty() { "_".to_owned() } else { name })
    }

    /// The file whose lock a process holds while it creates the journal.
    pub(crate) fn creation_lock(&self) -> PathBuf {
        self.root.join("create.lock")
    }

    /// Creates the folder if it is not there, with a `.gitignore` that keeps all of it out of git.
    pub fn create(&self) -> io::Result<()> {
        let ignore = self.root.join(".gitignore");
        if ignore.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.root)?;
        // What is acknowledged later must not go with the folder's name in a power cut.
        let parent = self.root.parent().filter(|parent| !parent.as_os_str().is_empty());
        fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
        fs::File::create(ignore)?.write_all(b"*\n")
    }
}

impl AsRef<Path> for StateFolder {
    fn as_ref(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_run_leads_out_of_the_folder() {
        let check = |run: &str, expect: &str| {
            assert_eq!(StateFolder::new("/s").logs(&RunId::new(run)), Path::new("/s/runs").join(expect).join("logs"));
        };
        check("0198-ab", "0198-ab");
        check("../../etc", "______etc");
        check("", "_");
        check("a/b", "a_b");
    }
}
