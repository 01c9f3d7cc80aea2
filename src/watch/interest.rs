//! Which of the changes that the system tells of may change what is served.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, DataChange, ModifyKind};
use notify::{Event, EventKind};

use super::wake::Wake;
use crate::project::is_skipped;

/// What is listened for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Folders whose entries matter.
    pub folders: BTreeSet<PathBuf>,
    /// Paths that matter wherever they are: the served folder itself, the links that lead to it, files that pipelines
    /// name, whether they are there or not.
    pub paths: BTreeSet<PathBuf>,
    /// Nothing below these matters.
    pub ignored: Vec<PathBuf>,
}

impl Interest {
    /// Rings the bell if an event matters.
    pub fn hear(&self, event: &Event, wake: &Wake) {
        if event.need_rescan() {
            return wake.ring();
        }
        let kind = event.kind;
        if matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write)) {
            return;
        }
        for path in event.paths.iter().filter(|path| self.matters(path)) {
            match kind {
                EventKind::Modify(ModifyKind::Data(DataChange::Any)) => wake.written(path.clone()),
                EventKind::Access(_) => wake.closed(path),
                EventKind::Any
                | EventKind::Create(_)
                | EventKind::Modify(_)
                | EventKind::Remove(_)
                | EventKind::Other => wake.ring(),
            }
        }
    }

    fn matters(&self, path: &Path) -> bool {
        if self.paths.contains(path) || self.folders.contains(path) {
            return true;
        }
        let name = path.file_name().unwrap_or_default();
        let is_here = path.parent().is_some_and(|folder| self.folders.contains(folder));
        let is_link_folder = name.as_encoded_bytes().starts_with(b"..");
        let is_ignored = (is_skipped(name) && !is_link_folder) || self.ignored.iter().any(|top| path.starts_with(top));
        if !is_here || is_ignored {
            return false;
        }
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            return true;
        }
        match path.symlink_metadata() {
            Ok(found) => found.is_dir() || found.is_symlink(),
            // It may have been a folder or a link; what has an extension hardly was.
            Err(_) => is_link_folder || path.extension().is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::Interest;

    #[test]
    fn tells_what_matters() {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        for name in ["sub", ".git", ".tol", "state", "out"] {
            std::fs::create_dir(top.join(name)).unwrap();
        }
        for name in ["log.txt", "named.json", "Makefile"] {
            std::fs::write(top.join(name), "").unwrap();
        }
        symlink("..2026", top.join("..data")).unwrap();
        let interest = Interest {
            folders: BTreeSet::from([top.to_owned(), top.join("gone.d")]),
            paths: BTreeSet::from([top.join("named.json"), PathBuf::from("/elsewhere/current")]),
            ignored: vec![top.join("state")],
        };
        let check = |path: &str, expect: bool| assert_eq!(interest.matters(&top.join(path)), expect, "{path}");
        for path in
            ["a.yaml", "b.yml", "named.json", "sub", "..data", "..data_tmp", "gone", "gone.d", "", "/elsewhere/current"]
        {
            check(path, true);
        }
        for path in [
            ".git",
            ".tol",
            "state",
            "state/journal.db",
            "log.txt",
            "Makefile",
            "gone.txt",
            "out/a.yaml",
            "/elsewhere/x",
        ] {
            check(path, false);
        }
    }
}
