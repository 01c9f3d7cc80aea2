//! Which process owns a run: each owner holds the lock of a file of its own, which the system frees when it dies.
//!
//! The files are opened close-on-exec, so that no child process keeps a lock alive.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::journal::error::JournalError;
use crate::time::Timestamp;

/// The longest text of a lock file that is looked at, in bytes.
const HOLDER_BYTES: usize = 300;

/// This process's lock; the file goes away with it.
#[derive(Debug)]
pub(crate) struct OwnerLock {
    /// What the runs' rows name this process by.
    pub(crate) name: String,
    path: PathBuf,
    _file: File,
}

impl OwnerLock {
    /// Takes a lock under a fresh name and removes the files of dead owners on the way.
    pub(crate) fn take(owners: &Path) -> Result<Self, JournalError> {
        let name = uuid::Uuid::new_v4().to_string();
        let path = lock_path(owners, &name);
        let fresh = owners.join(format!("{name}.new"));
        let take = || -> io::Result<File> {
            fs::create_dir_all(owners)?;
            sweep(owners);
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&fresh)?;
            // The file gets its proper name only when it is locked, so that nobody takes it for a dead one before.
            file.lock()?;
            file.write_all(describe_this_process().as_bytes())?;
            fs::rename(&fresh, &path)?;
            Ok(file)
        };
        let file = take().map_err(|error| JournalError::disk(&path, "create the lock file", &error))?;
        Ok(Self { name, path, _file: file })
    }
}

impl Drop for OwnerLock {
    fn drop(&mut self) {
        // A file that stays is met as a dead owner's later.
        let _ = fs::remove_file(&self.path);
    }
}

/// This process as it is shown to others.
pub(crate) fn describe_this_process() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname"));
    let host = host.map_or_else(|_| "this host".to_owned(), |name| name.trim().to_owned());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    format!("process {} on {host}, since {since}", std::process::id())
}

fn lock_path(owners: &Path, name: &str) -> PathBuf {
    owners.join(format!("{name}.lock"))
}

/// The owner of that name, described, if it lives. A dead owner's file is removed if `tidy` says so.
pub(crate) fn living_holder(owners: &Path, name: &str, tidy: bool) -> Result<Option<String>, JournalError> {
    // A name comes from the database and must not lead elsewhere.
    if uuid::Uuid::try_parse(name).is_err() {
        return Ok(None);
    }
    let path = lock_path(owners, name);
    let failed = |error: &io::Error| JournalError::disk(&path, "look at the lock file", error);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    // A shared lock: two processes that look at a dead owner's file at once must not take each other for it.
    match file.try_lock_shared() {
        Ok(()) => {
            if tidy {
                let _ = fs::remove_file(&path);
            }
            Ok(None)
        }
        Err(TryLockError::WouldBlock) => {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(text.get(..HOLDER_BYTES).unwrap_or(&text)).trim().to_owned();
            Ok(Some(if text.is_empty() { format!("the process that locks {}", path.display()) } else { text }))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// Removes the files of dead owners. What cannot be looked at stays.
fn sweep(owners: &Path) {
    let Ok(entries) = fs::read_dir(owners) else { return };
    for entry in entries.flatten() {
        if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".lock")) {
            let _ = living_holder(owners, name, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_owner_is_named_and_a_dead_one_swept() {
        let folder = tempfile::tempdir().unwrap();
        let owners = folder.path().join("owners");
        let lock = OwnerLock::take(&owners).unwrap();
        let holder = living_holder(&owners, &lock.name, true).unwrap().unwrap();
        assert!(holder.starts_with(&format!("process {} on ", std::process::id())), "{holder}");

        let dead = uuid::Uuid::new_v4().to_string();
        fs::write(lock_path(&owners, &dead), "process 1 on elsewhere").unwrap();
        assert_eq!(living_holder(&owners, &dead, false).unwrap(), None);
        assert!(lock_path(&owners, &dead).exists());
        let other = OwnerLock::take(&owners).unwrap();
        assert!(!lock_path(&owners, &dead).exists());
        assert!(lock_path(&owners, &lock.name).exists());
        drop(lock);
        assert_eq!(fs::read_dir(&owners).unwrap().count(), 1);
        drop(other);
        assert_eq!(fs::read_dir(&owners).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_is_no_owner_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "../../x", "/etc/passwd"] {
            assert_eq!(living_holder(folder.path(), name, true).unwrap(), None);
        }
    }
}
