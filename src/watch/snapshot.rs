//! The texts of one look at a project: each is read once, however many threads ask for it, so that all of them check the
//! same state of the folder. What was asked for is remembered, with what was not there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::compile::{SourceProblem, Sources};
use crate::project::FolderSources;

type Text = Result<Arc<str>, SourceProblem>;

/// A project's files as they were when each was first asked for.
#[derive(Debug)]
pub struct Snapshot {
    folder: FolderSources,
    texts: Mutex<BTreeMap<String, Known<Text>>>,
    there: Mutex<BTreeMap<String, Known<bool>>>,
}

#[derive(Clone, Debug)]
struct Known<T> {
    value: T,
    /// False for what was only looked at to compare it with an earlier snapshot.
    asked: bool,
}

impl Snapshot {
    /// Nothing is read yet.
    pub fn new(root: &Path) -> Self {
        Self { folder: FolderSources::new(root), texts: Mutex::default(), there: Mutex::default() }
    }

    /// The project's root.
    pub fn root(&self) -> &Path {
        self.folder.root()
    }

    /// True if all that an earlier one was asked for is as it was then.
    pub fn equals(&self, earlier: &Self) -> bool {
        self.root() == earlier.root()
            && lock(&earlier.texts)
                .iter()
                .filter(|(_, known)| known.asked)
                .all(|(path, known)| self.text(path, false) == known.value)
            && lock(&earlier.there)
                .iter()
                .filter(|(_, known)| known.asked)
                .all(|(path, known)| self.is_there(path, false) == known.value)
    }

    /// Paths within the project of all that was asked for, whether it is there or not.
    pub fn asked(&self) -> Vec<String> {
        let texts = lock(&self.texts);
        let there = lock(&self.there);
        let texts = texts.iter().filter(|(_, known)| known.asked).map(|(path, _)| path);
        let there = there.iter().filter(|(_, known)| known.asked).map(|(path, _)| path);
        let mut all: Vec<String> = texts.chain(there).cloned().collect();
        all.sort();
        all.dedup();
        all
    }

    fn text(&self, path: &str, asked: bool) -> Text {
        known(&self.texts, path, asked, || self.folder.read(path))
    }

    fn is_there(&self, path: &str, asked: bool) -> bool {
        known(&self.there, path, asked, || self.folder.exists(path))
    }
}

impl Sources for Snapshot {
    fn read(&self, path: &str) -> Text {
        self.text(path, true)
    }

    fn exists(&self, path: &str) -> bool {
        self.is_there(path, true)
    }
}

/// What is known of a path; the first answer stays. The lock is not held while the disk is asked.
fn known<T: Clone>(map: &Mutex<BTreeMap<String, Known<T>>>, path: &str, asked: bool, look: impl FnOnce() -> T) -> T {
    if let Some(known) = lock(map).get_mut(path) {
        known.asked |= asked;
        return known.value.clone();
    }
    let value = look();
    let mut map = lock(map);
    let known = map.entry(path.to_owned()).or_insert(Known { value, asked });
    known.asked |= asked;
    known.value.clone()
}

/// Nothing is left half changed where a thread ended by a fault, so its lock is good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::Snapshot;
    use crate::compile::{SourceProblem, Sources};

    #[test]
    fn says_one_thing_of_a_file_and_tells_changes() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a", "1");
        let first = Snapshot::new(folder.path());
        assert_eq!(first.read("a").as_deref(), Ok("1"));
        assert!(!first.exists("b"));
        assert_eq!(first.read("c"), Err(SourceProblem::Missing));
        assert_eq!(first.asked(), ["a", "b", "c"]);
        write("a", "2");
        assert_eq!(first.read("a").as_deref(), Ok("1"));
        let changed = |change: &dyn Fn()| {
            change();
            let next = Snapshot::new(folder.path());
            let same = next.equals(&first);
            assert_eq!(next.asked(), [""; 0]);
            !same
        };
        assert!(changed(&|| {}));
        assert!(!changed(&|| write("a", "1")));
        assert!(changed(&|| write("b", "")));
        assert!(changed(&|| std::fs::remove_file(folder.path().join("b"))
            .and_then(|()| std::fs::write(folder.path().join("c"), ""))
            .unwrap()));
    }
}
