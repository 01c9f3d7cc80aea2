//! Checks many files, of one project or of several, by several threads if they are many.
//!
//! `tol validate` asks it for findings; a server for the programs, too. Which of the files belong to the language is
//! decided here, when they are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compile::{Checker, Program, SourceProblem, Sources};
use crate::diagnostic::{Diagnostic, FileId, Files, Span};
use crate::schema::DocumentKind;

/// A file or folder of a scan that cannot be read.
const NOT_READ: &str = "TOL0019";
/// Fewer files than this are checked by one thread.
const FEW_FILES: usize = 16;
/// More threads than this are not faster: most of the time goes into memory.
const MOST_THREADS: usize = 8;
/// Nested conditions and templates are checked by recursion, up to their own limits.
const STACK_BYTES: usize = 32 << 20;
/// Top-level keys of a file that pipelines include.
const INCLUDE_KEYS: [&str; 4] = ["defaults", "agents", "tools", "templates"];

/// One file to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Its project's root, absolute and without links.
    pub root: PathBuf,
    /// Its path within the root, with `/`.
    pub path: String,
    /// It was named by itself, so it is checked whatever it holds.
    pub is_named: bool,
}

/// What the files are checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To tell what is wrong with any of them.
    Validate,
    /// To run the pipelines among them; tests of pipelines are passed by.
    Serve,
}

/// What a check came to.
#[derive(Debug, Default)]
pub struct Findings {
    pub files: Files,
    pub diagnostics: Vec<Diagnostic>,
    /// How many of the files belong to the language.
    pub checked: usize,
    /// Every pipeline that can be run, in the order of the targets; none unless they are to be served.
    pub programs: Vec<Arc<Program>>,
}

impl Findings {
    /// Adds that a file or folder cannot be read, shown by this path.
    pub fn unreadable(&mut self, path: &str, reason: &str) {
        let help = "make it readable, or name the files to check one by one";
        let message = format!("`{path}` cannot be read: {reason}");
        let finding = Diagnostic::error(NOT_READ, nowhere(&mut self.files, path), message).help(help);
        self.diagnostics.push(finding);
    }
}

/// Why a check did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    #[error("the check could not be begun: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the check ended by a fault of tol itself")]
    Fault,
}

/// Checks files. `targets` are in the order of their roots, and `projects` has the sources of every root. `show` gives
/// the path under which a file stands in the findings.
///
/// # Errors
/// Only if the check itself fails; what is wrong with the files is in the findings.
pub fn survey<S: Sources + Sync>(
    targets: &[Target],
    projects: &BTreeMap<PathBuf, S>,
    purpose: Purpose,
    show: &(dyn Fn(&Path) -> String + Sync),
) -> Result<Findings, SurveyError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let threads = if targets.len() < FEW_FILES { 1 } else { threads };
    let share = targets.len().div_ceil(threads).max(1);
    let mut merged = Merged::default();
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for targets in targets.chunks(share) {
            let builder = std::thread::Builder::new().name("check".to_owned()).stack_size(STACK_BYTES);
            workers.push(builder.spawn_scoped(scope, move || check_some(targets, projects, purpose, show))?);
        }
        for worker in workers {
            let parts = worker.join().map_err(|_| SurveyError::Fault)?;
            parts.into_iter().for_each(|part| merged.add(part));
        }
        Ok::<(), SurveyError>(())
    })?;
    Ok(merged.findings)
}

/// The start of a text that is not there.
pub fn nowhere(files: &mut Files, path: &str) -> Span {
    Span { file: files.add(path, Arc::from("")), start: 0, end: 0 }
}

/// Checks some of the files, by one checker a project.
fn check_some<S: Sources>(
    targets: &[Target],
    projects: &BTreeMap<PathBuf, S>,
    purpose: Purpose,
    show: &dyn Fn(&Path) -> String,
) -> Vec<Findings> {
    let mut parts = Vec::new();
    for of_project in targets.chunk_by(|left, right| left.root == right.root) {
        let Some(root) = of_project.first().map(|target| target.root.as_path()) else { continue };
        let Some(project) = projects.get(root) else { continue };
        let mut checker = Checker::new(project);
        let mut checked = 0;
        let mut programs = Vec::new();
        let mut passed_by = Vec::new();
        for target in of_project {
            match check_one(target, project, &mut checker, purpose) {
                Ok(kind) => {
                    checked += usize::from(kind.is_some());
                    if purpose == Purpose::Serve && kind == Some(DocumentKind::Pipeline) {
                        programs.extend(checker.program(&target.path).map(Arc::new));
                    }
                }
                Err(problem) => passed_by.push((target, problem)),
            }
        }
        let (files, diagnostics) = checker.finish();
        let mut part = Findings { files: Files::default(), diagnostics, checked, programs };
        for number in 0..files.len() {
            let file = FileId(u32::try_from(number).unwrap_or(u32::MAX));
            part.files.add(&show(&root.join(files.path(file))), files.shared_text(file));
        }
        for (target, problem) in passed_by {
            let path = show(&root.join(&target.path));
            let message = format!("`{path}` is not checked: {problem}");
            let place = nowhere(&mut part.files, &path);
            part.diagnostics.push(Diagnostic::warning(NOT_READ, place, message).help("mend or delete the link"));
        }
        parts.push(part);
    }
    parts
}

/// Checks one file; gives what it is, none if it is nothing of this language or not looked at for this purpose.
///
/// # Errors
/// A file that was not named by itself is a link to nothing, or to the outside.
fn check_one(
    target: &Target,
    project: &dyn Sources,
    checker: &mut Checker<'_>,
    purpose: Purpose,
) -> Result<Option<DocumentKind>, SourceProblem> {
    let kind = match checker.kind(&target.path) {
        Ok(Some(DocumentKind::Test)) if purpose == Purpose::Serve => return Ok(None),
        Ok(Some(kind)) => kind,
        Ok(None) => {
            let text = match project.read(&target.path) {
                Ok(text) | Err(SourceProblem::NotUtf8 { text, .. }) => text,
                Err(_) => Arc::from(""),
            };
            if is_include(&text) && target.is_named {
                DocumentKind::Include
            } else if target.is_named || is_blank(&text) {
                DocumentKind::Pipeline
            } else {
                return Ok(None);
            }
        }
        Err(problem @ (SourceProblem::Missing | SourceProblem::Outside)) if !target.is_named => return Err(problem),
        // The checker says of such a file what keeps it from being read.
        Err(_) => DocumentKind::Pipeline,
    };
    checker.check_document(&target.path, kind);
    Ok(Some(kind))
}

/// True for a text of blanks and comments: an empty file among pipelines is one that somebody forgot to write.
fn is_blank(text: &str) -> bool {
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    lines.into_iter().all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

/// True for a text whose top-level keys are those of a file to be included.
fn is_include(text: &str) -> bool {
    let is_key_line = |line: &&str| !line.is_empty() && !line.starts_with([' ', '\t', '#', '-', '}', ']']);
    let mut keys = text.trim_start_matches('\u{feff}').lines().filter(is_key_line).peekable();
    let is_known = |line: &str| line.split_once(':').is_some_and(|(key, _)| INCLUDE_KEYS.contains(&key.trim_end()));
    keys.peek().is_some() && keys.all(is_known)
}

/// The findings of all threads as one. A file that several of them read is one file.
#[derive(Default)]
struct Merged {
    findings: Findings,
    known: BTreeMap<String, Vec<FileId>>,
}

impl Merged {
    fn add(&mut self, part: Findings) {
        let numbers: Vec<FileId> = (0..part.files.len())
            .map(|number| self.file(&part.files, FileId(u32::try_from(number).unwrap_or(u32::MAX))))
            .collect();
        let renumber = |span: &mut Span| {
            span.file = numbers.get(span.file.0 as usize).copied().unwrap_or(span.file);
        };
        self.findings.diagnostics.extend(part.diagnostics.into_iter().map(|mut one| {
            renumber(&mut one.span);
            one.related.iter_mut().for_each(|(span, _)| renumber(span));
            one
        }));
        self.findings.checked += part.checked;
        self.findings.programs.extend(part.programs);
    }

    fn file(&mut self, files: &Files, file: FileId) -> FileId {
        let (path, text) = (files.path(file), files.text(file));
        let known = self.known.entry(path.to_owned()).or_default();
        let merged = &mut self.findings.files;
        if let Some(same) = known.iter().find(|other| merged.text(**other) == text) {
            return *same;
        }
        let number = merged.add(path, files.shared_text(file));
        known.push(number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::{Findings, Merged, is_blank, is_include};
    use crate::diagnostic::{Count, Diagnostic, FileId, Files, Span, count};

    #[test]
    fn tells_texts_apart() {
        for (text, blank, include) in [
            ("", true, false),
            ("\u{feff}# c\n\n---\n", true, false),
            ("a: 1\n", false, false),
            ("# c\ndefaults:\n  retry: {}\n\nagents : {}\n", false, true),
            ("defaults: {}\nsteps: []\n", false, false),
        ] {
            assert_eq!((is_blank(text), is_include(text)), (blank, include), "{text:?}");
        }
    }

    #[test]
    fn what_two_threads_found_in_one_file_is_told_once() {
        let mut merged = Merged::default();
        for others in 0..2 {
            let mut files = Files::default();
            for _ in 0..others {
                files.add("other.yaml", "b".into());
            }
            let file = files.add("shared.yaml", "a".into());
            let span = Span { file, start: 0, end: 1 };
            let one = Diagnostic::error("TOL0204", span, "m").related(span, "r");
            merged.add(Findings { files, diagnostics: vec![one], checked: 1, ..Findings::default() });
        }
        let findings = merged.findings;
        assert_eq!((findings.files.len(), findings.checked), (2, 2));
        assert!(
            findings.diagnostics.iter().all(|one| one.span.file == FileId(0) && one.related[0].0.file == FileId(0))
        );
        assert_eq!(count(&findings.files, &findings.diagnostics), Count { errors: 1, warnings: 0 });
    }
}
