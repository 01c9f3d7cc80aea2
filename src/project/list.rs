//! Lists the YAML files under a folder. Linked folders are not entered, and what is no file is passed by.

use std::ffi::OsStr;
use std::fs::FileType;
use std::path::{Path, PathBuf};

/// Folders that hold no pipelines: git's own data, and the journals of runs.
const SKIPPED: [&str; 2] = [".git", ".tol"];

/// What was found under a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Files that end in `.yaml` or `.yml`, links to files included, in the order of their paths.
    pub files: Vec<PathBuf>,
    /// Every folder that was looked into, the first included, in the order of their paths.
    pub folders: Vec<PathBuf>,
    /// Folders that cannot be listed, each with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// Lists the YAML files under a folder, at any depth.
pub fn list_folder(folder: &Path) -> Listed {
    let mut listed = Listed::default();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        listed.folders.push(folder.clone());
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                listed.unreadable.push((folder, error.to_string()));
                continue;
            }
        };
        for entry in entries {
            let (entry, file_type) = match entry.and_then(|entry| entry.file_type().map(|file_type| (entry, file_type)))
            {
                Ok(found) => found,
                Err(error) => {
                    listed.unreadable.push((folder.clone(), error.to_string()));
                    break;
                }
            };
            let is_skipped = is_skipped(&entry.file_name());
            if file_type.is_dir() && !is_skipped {
                waiting.push(entry.path());
            } else if is_yaml(&entry.path()) && is_file(&entry.path(), file_type) {
                listed.files.push(entry.path());
            }
        }
    }
    listed.files.sort();
    listed.folders.sort();
    listed.unreadable.sort();
    listed
}

/// True for the name of a folder that holds no pipelines. Kubernetes mounts a ConfigMap as links through `..data` to a
/// folder whose name begins with two dots: what the links show there is not to be found twice.
pub fn is_skipped(name: &OsStr) -> bool {
    SKIPPED.iter().any(|skipped| name == *skipped) || name.as_encoded_bytes().starts_with(b"..")
}

/// True for a regular file, a link to one, and a link to nothing, which is for the reader to report.
fn is_file(path: &Path, file_type: FileType) -> bool {
    if !file_type.is_symlink() {
        return file_type.is_file();
    }
    path.metadata().map_or(true, |target| target.is_file())
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::list_folder;

    #[test]
    fn lists_files_and_follows_no_linked_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path();
        for path in ["a/b", ".git", ".tol", ".hidden", "x.yaml", "..2026_11"] {
            std::fs::create_dir_all(top.join(path)).expect("a folder");
        }
        for path in [
            "1.yaml",
            "2.yml",
            "3.txt",
            "a/b/4.yaml",
            ".git/5.yaml",
            ".tol/6.yaml",
            ".hidden/7.yaml",
            "x.yaml/8.yaml",
            "..2026_11/9.yaml",
        ] {
            std::fs::write(top.join(path), "").expect("a file");
        }
        symlink(".", top.join("a/again")).expect("a link");
        symlink("../1.yaml", top.join("a/linked.yaml")).expect("a link");
        symlink("nowhere", top.join("gone.yaml")).expect("a link");
        symlink("a", top.join("folder.yaml")).expect("a link");
        let _listener = std::os::unix::net::UnixListener::bind(top.join("socket.yaml")).expect("a socket");
        let listed = list_folder(top);
        let names: Vec<_> = listed.files.iter().filter_map(|path| path.strip_prefix(top).ok()?.to_str()).collect();
        let expect = [".hidden/7.yaml", "1.yaml", "2.yml", "a/b/4.yaml", "a/linked.yaml", "gone.yaml", "x.yaml/8.yaml"];
        assert_eq!(names, expect);
        let folders: Vec<_> = listed.folders.iter().filter_map(|path| path.strip_prefix(top).ok()?.to_str()).collect();
        assert_eq!(folders, ["", ".hidden", "a", "a/b", "x.yaml"]);
        assert_eq!(listed.unreadable, []);
        assert_eq!(list_folder(&top.join("none")).unreadable.len(), 1);
    }
}
