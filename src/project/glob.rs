//! Expands patterns such as `pipelines/**/*.yaml` that no shell has expanded.
//!
//! A star is any text of one path part, `?` one character, `[a-z]` or `[!a]` one of a set, and a part `**` any number
//! of folders. As in a shell, a name that begins with a dot is found only by a pattern that does so too.

use std::path::{Path, PathBuf};

/// True if a path can be a pattern.
pub fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

/// Gives the files and folders that match a pattern, in order; folders that cannot be listed match nothing.
pub fn expand_glob(pattern: &str) -> Vec<PathBuf> {
    let start = if pattern.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() };
    let mut found = vec![start];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = found.iter().flat_map(|folder| step(folder, part)).collect();
        // Two stars in a row reach one folder in several ways.
        found.sort();
        found.dedup();
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    found
}

/// What one part of a pattern finds in a folder.
fn step(folder: &Path, part: &str) -> Vec<PathBuf> {
    if part == "**" {
        return folders_under(folder);
    }
    if !is_glob(part) {
        return vec![folder.join(part)];
    }
    let pattern: Vec<char> = part.chars().collect();
    let matching = names(folder).into_iter().filter(|(name, _)| {
        let letters: Vec<char> = name.chars().collect();
        (!name.starts_with('.') || part.starts_with('.')) && matches(&pattern, &letters)
    });
    matching.map(|(name, _)| folder.join(name)).collect()
}

/// The folder and all folders under it, without linked and hidden ones.
fn folders_under(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(current) = all.get(next).cloned() {
        let folders = names(&current).into_iter().filter(|(name, is_folder)| *is_folder && !name.starts_with('.'));
        all.extend(folders.map(|(name, _)| current.join(name)));
        next += 1;
    }
    all
}

/// The names in a folder, each with whether it is a folder itself, not by a link.
fn names(folder: &Path) -> Vec<(String, bool)> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let is_folder = entry.file_type().is_ok_and(|file_type| file_type.is_dir());
        Some((entry.file_name().into_string().ok()?, is_folder))
    });
    named.collect()
}

/// Whether a name matches one part of a pattern. After a mismatch it goes back to the last star only, so the time is
/// at most the product of both lengths.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let (mut at, mut letter) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(letter) {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, letter));
            at += 1;
        } else if let Some(length) = one(pattern.get(at..).unwrap_or_default(), *c) {
            at += length;
            letter += 1;
        } else if let Some((star_at, star_letter)) = star {
            star = Some((star_at, star_letter + 1));
            at = star_at + 1;
            letter = star_letter + 1;
        } else {
            return false;
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|c| *c == '*')
}

/// The length of the pattern's first element if it matches a character.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => set(pattern, c),
        first => (*first == c).then_some(1),
    }
}

/// A set in brackets; without a closing bracket it is the bracket itself.
fn set(pattern: &[char], c: char) -> Option<usize> {
    let is_negated = matches!(pattern.get(1), Some('!' | '^'));
    let start = if is_negated { 2 } else { 1 };
    let rest = pattern.get(start + 1..).unwrap_or_default();
    let Some(length) = rest.iter().position(|end| *end == ']') else { return (c == '[').then_some(1) };
    let end = start + 1 + length;
    let members = pattern.get(start..end).unwrap_or_default();
    let mut found = false;
    let mut at = 0;
    while let Some(first) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some('-'), Some(last)) => {
                found |= (*first..=*last).contains(&c);
                at += 3;
            }
            _ => {
                found |= *first == c;
                at += 1;
            }
        }
    }
    (found != is_negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::{expand_glob, matches};

    fn check(pattern: &str, name: &str, expect: bool) {
        let (letters, name_letters): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        assert_eq!(matches(&letters, &name_letters), expect, "{pattern} {name}");
    }

    #[test]
    fn matches_names() {
        check("*.yaml", "a.yaml", true);
        check("*.yaml", "a.yml", false);
        check("a*b*c", "aXbXbYc", true);
        check("a*b*c", "aXbXbY", false);
        check("?", "ö", true);
        check("[a-c]x", "bx", true);
        check("[!a-c]x", "bx", false);
        check("[]]x", "]x", true);
        check("[x", "[x", true);
        check("**", "anything", true);
        check(&"*a".repeat(50), &"a".repeat(5000), true);
        check(&format!("{}b", "*a".repeat(50)), &"a".repeat(5000), false);
    }

    #[test]
    fn expands_over_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path();
        std::fs::create_dir_all(top.join("x/y")).expect("folders");
        for path in ["1.yaml", "x/2.yaml", "x/y/3.yaml", "x/y/4.txt", ".5.yaml"] {
            std::fs::write(top.join(path), "").expect("a file");
        }
        let check = |pattern: &str, expect: &[&str]| {
            let found = expand_glob(&format!("{}/{pattern}", top.display()));
            let names: Vec<_> = found.iter().filter_map(|path| path.strip_prefix(top).ok()?.to_str()).collect();
            assert_eq!(names, expect, "{pattern}");
        };
        check("*.yaml", &["1.yaml"]);
        check("**/*.yaml", &["1.yaml", "x/2.yaml", "x/y/3.yaml"]);
        check("**/**/y/*", &["x/y/3.yaml", "x/y/4.txt"]);
        check("?/*.yaml", &["x/2.yaml"]);
        check(".*.yaml", &[".5.yaml"]);
        check("none/*.yaml", &[]);
        check("*/none.yaml", &[]);
    }
}
