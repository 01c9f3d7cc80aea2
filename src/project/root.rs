//! Where a project begins.

use std::path::{Path, PathBuf};

/// What only a project's root has.
const MARKS: [&str; 3] = [".git", "duo-agent.config.yaml", "duo-agent.config.yml"];

/// Gives the nearest folder from `start` upwards that has `.git` or the settings file, else `otherwise`.
/// `start` is absolute.
pub fn find_root(start: &Path, otherwise: &Path) -> PathBuf {
    let is_root = |folder: &&Path| MARKS.iter().any(|mark| folder.join(mark).symlink_metadata().is_ok());
    start.ancestors().find(is_root).unwrap_or(otherwise).to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::find_root;

    #[test]
    fn the_nearest_mark_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path();
        std::fs::create_dir_all(top.join("a/b/c")).expect("folders");
        let check = |start: &str, expect: &Path| assert_eq!(find_root(&top.join(start), Path::new("/none")), expect);
        check("a/b/c", Path::new("/none"));
        std::fs::create_dir(top.join(".git")).expect("a mark");
        check("a/b/c", top);
        std::fs::write(top.join("a/b/duo-agent.config.yaml"), "").expect("a mark");
        check("a/b/c", &top.join("a/b"));
        check("a", top);
    }
}
