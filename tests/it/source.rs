//! The source of the library as the tidy tests see it: lines of code without comments, and without tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::{files_below, read};

/// One file below `src/`.
pub struct Source {
    /// From the root of the checkout: `src/yaml/load.rs`.
    pub path: PathBuf,
    pub text: String,
    /// The room that it belongs to: `yaml`; empty for `lib.rs` and `main.rs`.
    pub room: String,
    /// True for a file that is compiled for tests only.
    pub is_test: bool,
}

impl Source {
    /// The path as text, with slashes.
    pub fn name(&self) -> String {
        self.path.to_string_lossy().replace('\\', "/")
    }

    /// The lines that are compiled into the library, with their numbers: no comments, no tests.
    pub fn code(&self) -> Vec<(usize, &str)> {
        if self.is_test { Vec::new() } else { without_tests(&self.text) }
    }
}

/// Every file below `src/`.
pub fn sources() -> Vec<Source> {
    let files: Vec<(PathBuf, String)> =
        files_below("src", "rs").into_iter().map(|path| (path.clone(), read(path))).collect();
    let test_files: BTreeSet<PathBuf> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    files
        .into_iter()
        .map(|(path, text)| {
            let is_test =
                path.ancestors().any(|part| test_files.contains(part) || test_files.contains(&part.with_extension("")));
            Source { room: room_of(&path), is_test, path, text }
        })
        .collect()
}

fn room_of(path: &Path) -> String {
    let below = path.strip_prefix("src").expect("it is below src");
    let first = below.components().next().expect("a file has a name").as_os_str().to_string_lossy();
    match first.strip_suffix(".rs") {
        Some("lib" | "main") => String::new(),
        Some(name) => name.to_owned(),
        None => first.into_owned(),
    }
}

/// The files, without their ending, of modules that a file declares for tests only.
fn test_modules(path: &Path, text: &str) -> Vec<PathBuf> {
    let stem = path.file_stem().expect("a file has a name");
    let folder = path.parent().expect("a file has a folder");
    let folder = if stem == "mod" || stem == "lib" { folder.to_owned() } else { folder.join(stem) };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines
        .windows(2)
        .filter(|pair| pair[0] == "#[cfg(test)]")
        .filter_map(|pair| {
            let name = pair[1].trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
            Some(folder.join(name.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?))
        })
        .collect()
}

/// What follows `#[cfg(test)]` ends at the first line that closes it: rustfmt puts that at the same indentation.
fn without_tests(text: &str) -> Vec<(usize, &str)> {
    let mut code = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed == "#[cfg(test)]" {
            let indentation = line.len() - trimmed.len();
            let ends = |line: &str| {
                let rest = line.get(indentation..).unwrap_or_default();
                rest == "}" || (!rest.starts_with([' ', '#']) && (rest.ends_with(';') || rest.ends_with("{}")))
            };
            let _ = lines.by_ref().find(|(_, line)| ends(line));
            continue;
        }
        let line = match trimmed.find("//") {
            Some(0) => continue,
            // A slash pair in a text is no comment; a comment after code follows a space.
            _ => line.split(" // ").next().unwrap_or(line),
        };
        code.push((number, line));
    }
    code
}

/// True if a line holds a word, not as a part of a longer one.
pub fn has_word(line: &str, word: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let starts = !word.starts_with(is_part) || !before.is_some_and(is_part);
        let ends = !word.ends_with(is_part) || !after.is_some_and(is_part);
        starts && ends
    })
}

#[test]
fn tests_and_comments_are_no_code() {
    let text =
        "use a;\n// no\n#[cfg(test)]\nmod tests {\n    fn x() {\n    }\n}\n#[cfg(test)]\nuse b;\nlet c = 1; // no\n";
    assert_eq!(without_tests(text), [(1, "use a;"), (10, "let c = 1;")]);
    assert!(has_word("use tokio::x;", "tokio") && !has_word("mytokio", "tokio") && has_word("a.lock()", ".lock("));
}
