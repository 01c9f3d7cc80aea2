//! From what was typed to the files that `tol validate` checks: folders, patterns, standard input, project roots.
//!
//! Which of the files in a folder belong to this language is decided when they are read, in `watch`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::exit::Failure;
use crate::project::{expand_glob, find_root, is_glob, list_folder};
use crate::watch::Target;

/// The name under which standard input is shown.
pub const STDIN: &str = "<stdin>";

/// All files to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// In the order of roots and paths, each once.
    pub targets: Vec<Target>,
    /// What cannot even be listed, each as it is shown and with the reason.
    pub unreadable: Vec<(String, String)>,
}

/// Finds the files that arguments name; without arguments, those of the working folder. `here` is the working folder,
/// without links.
///
/// # Errors
/// A path does not exist, or a pattern matches nothing.
pub fn scan(arguments: &[PathBuf], here: &Path) -> Result<Scan, Failure> {
    let working_folder = [PathBuf::from(".")];
    let arguments = if arguments.is_empty() { &working_folder } else { arguments };
    let mut scanner = Scanner { here, scan: Scan::default(), places: BTreeMap::new() };
    for argument in arguments {
        if argument.as_os_str() == "-" {
            scanner.file(&here.join(STDIN), here, true);
            continue;
        }
        if here.join(argument).symlink_metadata().is_ok() {
            scanner.path(argument);
            continue;
        }
        let pattern = argument.to_str().filter(|text| is_glob(text));
        let found = pattern.map(|pattern| expand_glob(&here.join(pattern).to_string_lossy())).unwrap_or_default();
        if found.is_empty() {
            let name = argument.display();
            let problem =
                if pattern.is_some() { "the pattern matches no file" } else { "there is no such file or folder" };
            return Err(Failure::invalid(format!("`{name}`: {problem}")));
        }
        for path in found {
            scanner.path(&path);
        }
    }
    let mut scan = scanner.scan;
    // A file that was also named by itself comes first among its doubles.
    scan.targets.sort_by(|left, right| {
        (&left.root, &left.path, !left.is_named).cmp(&(&right.root, &right.path, !right.is_named))
    });
    scan.targets.dedup_by(|later, first| (&later.root, &later.path) == (&first.root, &first.path));
    Ok(scan)
}

struct Scanner<'a> {
    here: &'a Path,
    scan: Scan,
    /// Real folder and root by folder.
    places: BTreeMap<PathBuf, (PathBuf, PathBuf)>,
}

impl Scanner<'_> {
    /// Takes what was named: a file, or a folder with all that is in it.
    fn path(&mut self, path: &Path) {
        let full = self.here.join(path);
        if !full.is_dir() {
            self.file(&full, self.here, true);
            return;
        }
        let base = full.canonicalize().unwrap_or_else(|_| full.clone());
        let listed = list_folder(&base);
        for file in listed.files {
            self.file(&file, &base, false);
        }
        for (folder, reason) in listed.unreadable {
            self.scan.unreadable.push((shown(&folder, self.here), reason));
        }
    }

    /// Takes one file. Where no folder above it is marked as a root, its root is the working folder, or `base` if that
    /// does not contain it.
    fn file(&mut self, file: &Path, base: &Path, is_named: bool) {
        let folder = file.parent().unwrap_or(Path::new("/"));
        let (real, root) = self.place(folder, base);
        let name = file.file_name().unwrap_or_default();
        let within = real.strip_prefix(&root).unwrap_or(Path::new("")).join(name);
        let parts: Option<Vec<&str>> = within.iter().map(|part| part.to_str()).collect();
        match parts {
            Some(parts) => self.scan.targets.push(Target { root, path: parts.join("/"), is_named }),
            None => {
                let reason = "its name is not UTF-8".to_owned();
                self.scan.unreadable.push((shown(file, self.here), reason));
            }
        }
    }

    /// The real path of a folder, and the root of its project.
    fn place(&mut self, folder: &Path, base: &Path) -> (PathBuf, PathBuf) {
        if let Some(place) = self.places.get(folder) {
            return place.clone();
        }
        let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let mut root = find_root(&real, if real.starts_with(self.here) { self.here } else { base });
        if !real.starts_with(&root) {
            root.clone_from(&real);
        }
        self.places.insert(folder.to_owned(), (real.clone(), root.clone()));
        (real, root)
    }
}

/// A path as it is shown: from the working folder, by `..` too if that is not far, else whole.
pub fn shown(path: &Path, here: &Path) -> String {
    if path.file_name().is_some_and(|name| name == STDIN) {
        return STDIN.to_owned();
    }
    let common = path.iter().zip(here.iter()).take_while(|(left, right)| left == right).count();
    // Two absolute paths always have their first part, `/`, in common.
    if common <= 1 && here.iter().count() > 1 {
        return path.to_string_lossy().into_owned();
    }
    let upwards = here.iter().skip(common).map(|_| std::ffi::OsStr::new(".."));
    let relative: PathBuf = upwards.chain(path.iter().skip(common)).collect();
    relative.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{scan, shown};

    fn check(here: &Path, arguments: &[&str], expect: &[(&str, &str, bool)]) {
        let arguments: Vec<PathBuf> = arguments.iter().map(PathBuf::from).collect();
        let scan = scan(&arguments, here).expect("they exist");
        let got: Vec<_> = scan
            .targets
            .iter()
            .map(|target| {
                let root = target.root.strip_prefix(here).map_or("?", |root| root.to_str().unwrap_or("?"));
                (root, target.path.as_str(), target.is_named)
            })
            .collect();
        assert_eq!(got, expect, "for {arguments:?}");
        assert_eq!(scan.unreadable, []);
    }

    #[test]
    fn finds_files_and_their_roots() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().canonicalize().expect("a path");
        for path in ["a/deep", "b"] {
            std::fs::create_dir_all(here.join(path)).expect("a folder");
        }
        for path in ["1.yaml", "a/2.yaml", "a/deep/3.yaml", "a/4.txt", "a/duo-agent.config.yaml", "b/[x].yaml"] {
            std::fs::write(here.join(path), "").expect("a file");
        }
        let all = [
            ("", "1.yaml", false),
            ("", "b/[x].yaml", false),
            ("a", "2.yaml", false),
            ("a", "deep/3.yaml", false),
            ("a", "duo-agent.config.yaml", false),
        ];
        check(&here, &[], &all);
        check(&here, &["."], &all);
        check(&here, &["a/deep"], &[("a", "deep/3.yaml", false)]);
        check(&here, &["a/4.txt", "1.yaml", "./1.yaml"], &[("", "1.yaml", true), ("a", "4.txt", true)]);
        check(&here, &["*.yaml", "a/*/*.yaml"], &[("", "1.yaml", true), ("a", "deep/3.yaml", true)]);
        check(&here, &["b/[x].yaml"], &[("", "b/[x].yaml", true)]);
        check(&here, &["b", "b/[x].yaml"], &[("", "b/[x].yaml", true)]);
        check(&here, &["-"], &[("", "<stdin>", true)]);
        for missing in ["none.yaml", "none/*.yaml", "none"] {
            let failure = scan(&[PathBuf::from("1.yaml"), PathBuf::from(missing)], &here).expect_err("it is missing");
            assert!(failure.code == 2 && failure.message.contains(missing), "{failure:?}");
        }
    }

    #[test]
    fn without_a_mark_the_named_folder_is_the_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path().canonicalize().expect("a path");
        std::fs::create_dir_all(top.join("other/deep")).expect("folders");
        std::fs::create_dir_all(top.join("here")).expect("a folder");
        std::fs::write(top.join("other/deep/1.yaml"), "").expect("a file");
        let scan = scan(&[PathBuf::from("../other")], &top.join("here")).expect("it exists");
        let targets: Vec<_> = scan.targets.iter().map(|target| (target.root.clone(), target.path.as_str())).collect();
        assert_eq!(targets, [(top.join("other"), "deep/1.yaml")]);
    }

    #[test]
    fn shows_paths_from_the_working_folder() {
        let check = |path: &str, here: &str, expect: &str| {
            assert_eq!(shown(Path::new(path), Path::new(here)), expect, "{path} from {here}");
        };
        check("/a/b/c.yaml", "/a/b", "c.yaml");
        check("/a/c.yaml", "/a/b", "../c.yaml");
        check("/x/c.yaml", "/a/b", "/x/c.yaml");
        check("/x/c.yaml", "/", "x/c.yaml");
        check("/a/b/<stdin>", "/a/b", "<stdin>");
    }
}
