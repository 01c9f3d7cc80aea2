//! What is served: the programs of a folder, found by the name of their pipeline or the path of its file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::survey::{Findings, nowhere};
use crate::compile::Program;
use crate::diagnostic::{Diagnostic, FileId, Files, Severity, Span, nearest, render_human};
use crate::model::Settings;

/// Two pipelines with one name.
const SAME_NAME: &str = "TOL0701";

/// Findings with the texts that they point into.
#[derive(Clone, Debug)]
pub struct Problems {
    pub files: Files,
    pub diagnostics: Vec<Diagnostic>,
    /// When the files were read.
    pub found_at: SystemTime,
}

impl Problems {
    /// As `tol validate` prints them.
    pub fn text(&self, colour: bool) -> String {
        render_human(&self.files, &self.diagnostics, colour)
    }
}

/// All that is served at one time.
#[derive(Clone, Debug)]
pub struct Set {
    /// The project's root, absolute and without links.
    pub root: PathBuf,
    /// Of the project.
    pub settings: Arc<Settings>,
    /// When its files were read.
    pub loaded_at: SystemTime,
    /// Counts the sets that were live, from 1.
    pub number: u64,
    /// What does not keep it from being served.
    pub warnings: Problems,
    programs: BTreeMap<Box<str>, Arc<Program>>,
    /// Path by name.
    names: BTreeMap<Box<str>, Box<str>>,
}

impl Set {
    /// The program of a pipeline by its name, or by the path of its file within the project.
    pub fn find(&self, text: &str) -> Option<&Arc<Program>> {
        let path = match self.names.get(text) {
            Some(path) => path,
            None => text.strip_prefix("./").unwrap_or(text),
        };
        self.programs.get(path)
    }

    /// The name or path that was probably meant.
    pub fn nearest(&self, text: &str) -> Option<&str> {
        nearest(text, self.names.keys().map(|name| &**name))
            .or_else(|| nearest(text, self.programs.keys().map(|path| &**path)))
    }

    /// Every program, in the order of paths.
    pub fn programs(&self) -> impl Iterator<Item = &Arc<Program>> {
        self.programs.values()
    }

    /// True if a file of this path is served.
    pub fn has_path(&self, path: &str) -> bool {
        self.programs.contains_key(path)
    }

    /// How many pipelines there are.
    pub fn len(&self) -> usize {
        self.programs.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }
}

/// Makes a set of what a check found, or says what keeps it from being one.
pub fn assemble(
    mut findings: Findings,
    root: &Path,
    settings: Arc<Settings>,
    number: u64,
    loaded_at: SystemTime,
    show: &dyn Fn(&Path) -> String,
) -> Result<Set, Problems> {
    let mut programs: BTreeMap<Box<str>, Arc<Program>> = BTreeMap::new();
    let mut names: BTreeMap<Box<str>, Box<str>> = BTreeMap::new();
    for program in std::mem::take(&mut findings.programs) {
        let pipeline = &program.root.pipeline;
        let (name, path) = (pipeline.name.value.clone(), pipeline.path.clone());
        match names.get(&name) {
            None => {
                names.insert(name, path.clone());
            }
            // A link and its target are one pipeline under two paths.
            Some(first) if is_one_file(root, first, &path) => {}
            Some(first) => {
                let place = |path: &str, files: &mut Files, span: Span| {
                    let shown = show(&root.join(path));
                    let known = (0..files.len()).map(|number| FileId(u32::try_from(number).unwrap_or(u32::MAX)));
                    match known.into_iter().find(|file| files.path(*file) == shown) {
                        Some(file) => Span { file, ..span },
                        None => nowhere(files, &shown),
                    }
                };
                let here = place(&path, &mut findings.files, pipeline.name.span);
                let message = format!("two pipelines are named `{name}`: `{first}` and `{path}`");
                let mut found = Diagnostic::error(SAME_NAME, here, message)
                    .help("give one of them another name, or take its file out of the served folder");
                if let Some(other) = programs.get(first) {
                    let there = place(first, &mut findings.files, other.root.pipeline.name.span);
                    found = found.related(there, "the first one");
                }
                findings.diagnostics.push(found);
            }
        }
        programs.insert(path, program);
    }
    let is_bad = findings.diagnostics.iter().any(|one| one.severity == Severity::Error);
    let problems = Problems { files: findings.files, diagnostics: findings.diagnostics, found_at: loaded_at };
    if is_bad {
        return Err(problems);
    }
    Ok(Set { root: root.to_owned(), settings, loaded_at, number, warnings: problems, programs, names })
}

/// True if two paths lead to one file.
fn is_one_file(root: &Path, one: &str, other: &str) -> bool {
    match (root.join(one).canonicalize(), root.join(other).canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
