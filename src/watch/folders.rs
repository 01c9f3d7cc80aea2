//! Asks the system to tell of changes in folders, one watch a folder: git's data and the journal are never watched, so
//! that a busy journal wakes nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{ErrorKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::interest::Interest;
use super::wake::Wake;

/// The watches of one server.
pub struct Folders {
    wake: Arc<Wake>,
    interest: Arc<Mutex<Interest>>,
    watcher: Option<RecommendedWatcher>,
    /// Device and number of what was watched under a path.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    most: usize,
}

impl Folders {
    /// Nothing is watched yet. More than `most` folders are not watched.
    pub fn new(wake: Arc<Wake>, most: usize) -> Self {
        Self { wake, interest: Arc::default(), watcher: None, watched: BTreeMap::new(), most }
    }

    /// Watches these folders and no others, and listens for what the interest says. True if one of them was not watched
    /// before.
    ///
    /// # Errors
    /// What keeps the system from telling of every change; then nothing is watched.
    pub fn cover(&mut self, folders: &BTreeSet<PathBuf>, interest: Interest) -> Result<bool, String> {
        *self.interest.lock().unwrap_or_else(PoisonError::into_inner) = interest;
        let covered = self.try_cover(folders);
        if covered.is_err() {
            self.end();
        }
        covered
    }

    /// Watches nothing any more.
    pub fn end(&mut self) {
        self.watcher = None;
        self.watched.clear();
    }

    fn try_cover(&mut self, folders: &BTreeSet<PathBuf>) -> Result<bool, String> {
        if folders.len() > self.most {
            return Err(format!("{} folders are more than the {} that are watched", folders.len(), self.most));
        }
        let mut watcher = match self.watcher.take() {
            Some(watcher) => watcher,
            None => self.listen()?,
        };
        let gone: Vec<PathBuf> = self.watched.keys().filter(|path| !folders.contains(*path)).cloned().collect();
        for path in gone {
            // It may be gone by itself, with its folder.
            let _ = watcher.unwatch(&path);
            self.watched.remove(&path);
        }
        let mut is_wider = false;
        for path in folders {
            is_wider |= self.watch(&mut watcher, path)?;
        }
        self.watcher = Some(watcher);
        Ok(is_wider)
    }

    /// A watch is asked for anew even where there was one: the system forgets those of a folder that was moved or
    /// deleted, and the number of a deleted folder may be that of the one that took its place.
    fn watch(&mut self, watcher: &mut RecommendedWatcher, path: &Path) -> Result<bool, String> {
        // A folder that is gone by now is missed by the next look, which an event of its parent brings about.
        let Ok(found) = path.metadata() else { return Ok(false) };
        let identity = (found.dev(), found.ino());
        let before = self.watched.insert(path.to_owned(), identity);
        if before.is_some_and(|before| before != identity) {
            let _ = watcher.unwatch(path);
        }
        match watcher.watch(path, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(before != Some(identity)),
            Err(error) => match error.kind {
                ErrorKind::PathNotFound => Ok(false),
                ErrorKind::Io(ref problem) if problem.kind() == std::io::ErrorKind::NotFound => Ok(false),
                ErrorKind::MaxFilesWatch => {
                    let help = "raise it: `sysctl fs.inotify.max_user_watches=524288`";
                    Err(format!("the system's limit of watched folders is reached; {help}"))
                }
                ErrorKind::Generic(_) | ErrorKind::Io(_) | ErrorKind::WatchNotFound | ErrorKind::InvalidConfig(_) => {
                    Err(format!("{}: {error}", path.display()))
                }
            },
        }
    }

    fn listen(&self) -> Result<RecommendedWatcher, String> {
        let (wake, interest) = (self.wake.clone(), self.interest.clone());
        let hear = move |event: notify::Result<notify::Event>| match event {
            Ok(event) => interest.lock().unwrap_or_else(PoisonError::into_inner).hear(&event, &wake),
            Err(error) => wake.trouble(error.to_string()),
        };
        RecommendedWatcher::new(hear, notify::Config::default()).map_err(|error| error.to_string())
    }
}
