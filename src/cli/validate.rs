//! `tol validate`: checks files without running anything and without touching the network.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::exit::{self, Failure};
use super::scan::{STDIN, Scan, Target, scan, shown};
use crate::compile::{Checker, SourceProblem, Sources};
use crate::diagnostic::{
    Count, Diagnostic, FileId, Files, Span, count, render_github, render_human, render_json, render_sarif,
};
use crate::project::{FolderSources, text_of};
use crate::schema::DocumentKind;
use crate::yaml::Limits;

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

/// `tol validate`.
#[derive(Clone, Debug, Args)]
pub struct ValidateArgs {
    /// Files, folders or patterns to check; `-` is standard input [default: the working folder]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t)]
    pub format: ValidateFormat,
    /// Fail on warnings, too
    #[arg(long)]
    pub strict: bool,
}

/// For whom findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ValidateFormat {
    /// Text with the line and the place in it
    #[default]
    Human,
    /// One JSON object
    Json,
    /// SARIF 2.1.0
    Sarif,
    /// Workflow commands of GitHub
    Github,
}

/// What a check came to.
#[derive(Debug, Default)]
struct Findings {
    files: Files,
    diagnostics: Vec<Diagnostic>,
    checked: usize,
}

/// Runs the command; gives its exit code.
pub fn run(arguments: &ValidateArgs) -> Result<u8, Failure> {
    let here = std::env::current_dir()?;
    let here = here.canonicalize().unwrap_or(here);
    let scan = scan(&arguments.paths, &here)?;
    let stdin = scan.targets.iter().any(|target| target.path.ends_with(STDIN)).then(read_stdin);
    let findings = check_all(scan, stdin, &here)?;
    if findings.checked == 0 && findings.diagnostics.is_empty() {
        let message = "there is nothing to check: no pipeline (a file with `apiVersion: tol/v1`), agents.yaml, \
                       duo-agent.config.yaml or *.test.yaml was found";
        return Err(Failure::invalid(message));
    }
    let count = count(&findings.files, &findings.diagnostics);
    print(&findings, count, arguments.format);
    let is_bad = count.errors > 0 || (arguments.strict && count.warnings > 0);
    Ok(if is_bad { exit::FAILED } else { exit::DONE })
}

/// How many files of a folder were checked, and how many errors and warnings there are.
///
/// # Errors
/// If the folder cannot be looked at.
pub fn counts(folder: &Path) -> Result<(usize, usize, usize), Failure> {
    let folder = folder.canonicalize()?;
    let findings = check_all(scan(std::slice::from_ref(&folder), &folder)?, None, &folder)?;
    let count = count(&findings.files, &findings.diagnostics);
    Ok((findings.checked, count.errors, count.warnings))
}

fn print(findings: &Findings, count: Count, format: ValidateFormat) {
    let (files, diagnostics) = (&findings.files, &findings.diagnostics);
    let mut stdout = std::io::stdout().lock();
    let text = match format {
        ValidateFormat::Human => {
            let has_no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let colour = stdout.is_terminal() && !has_no_colour;
            format!("{}{}\n", render_human(files, diagnostics, colour), summary(findings.checked, count))
        }
        ValidateFormat::Json => render_json(files, diagnostics, findings.checked),
        ValidateFormat::Sarif => render_sarif(files, diagnostics),
        ValidateFormat::Github => render_github(files, diagnostics),
    };
    // A reader that left, such as `head`, has seen what it wanted.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn summary(checked: usize, count: Count) -> String {
    let plural = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let found = if count == Count::default() {
        "nothing wrong".to_owned()
    } else {
        format!("{}, {}", plural(count.errors, "error"), plural(count.warnings, "warning"))
    };
    format!("{} checked: {found}", plural(checked, "file"))
}

fn read_stdin() -> Result<Arc<str>, SourceProblem> {
    let limit = Limits::default().max_bytes as u64;
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|error| SourceProblem::Unreadable(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(SourceProblem::TooLarge { bytes: bytes.len() as u64, limit });
    }
    text_of(&bytes)
}

/// A project's files, and beside them what came by standard input.
struct Project {
    folder: FolderSources,
    stdin: Option<Result<Arc<str>, SourceProblem>>,
}

impl Sources for Project {
    fn read(&self, path: &str) -> Result<Arc<str>, SourceProblem> {
        match &self.stdin {
            Some(text) if path.ends_with(STDIN) => text.clone(),
            Some(_) | None => self.folder.read(path),
        }
    }

    fn exists(&self, path: &str) -> bool {
        (self.stdin.is_some() && path.ends_with(STDIN)) || self.folder.exists(path)
    }
}

/// Checks all files, by several threads if they are many.
fn check_all(scan: Scan, stdin: Option<Result<Arc<str>, SourceProblem>>, here: &Path) -> Result<Findings, Failure> {
    let mut projects: BTreeMap<&Path, Project> = BTreeMap::new();
    for target in &scan.targets {
        projects
            .entry(&target.root)
            .or_insert_with(|| Project { folder: FolderSources::new(&target.root), stdin: stdin.clone() });
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let threads = if scan.targets.len() < FEW_FILES { 1 } else { threads };
    let share = scan.targets.len().div_ceil(threads).max(1);
    let mut merged = Merged::default();
    std::thread::scope(|scope| {
        let projects = &projects;
        let mut workers = Vec::new();
        for targets in scan.targets.chunks(share) {
            let builder = std::thread::Builder::new().name("check".to_owned()).stack_size(STACK_BYTES);
            workers.push(builder.spawn_scoped(scope, move || check_some(targets, projects, here))?);
        }
        for worker in workers {
            let parts = worker.join().map_err(|_| Failure::failed("the check ended by a fault of tol itself"))?;
            parts.into_iter().for_each(|part| merged.add(part));
        }
        Ok::<(), Failure>(())
    })?;
    let mut findings = merged.findings;
    for (path, reason) in scan.unreadable {
        let help = "make it readable, or name the files to check one by one";
        let message = format!("`{path}` cannot be read: {reason}");
        let finding = Diagnostic::error(NOT_READ, nowhere(&mut findings.files, &path), message).help(help);
        findings.diagnostics.push(finding);
    }
    Ok(findings)
}

/// The start of a text that is not there.
fn nowhere(files: &mut Files, path: &str) -> Span {
    Span { file: files.add(path, Arc::from("")), start: 0, end: 0 }
}

/// Checks some of the files, by one checker a project. Paths in the findings are as they are shown.
fn check_some(targets: &[Target], projects: &BTreeMap<&Path, Project>, here: &Path) -> Vec<Findings> {
    let mut parts = Vec::new();
    for of_project in targets.chunk_by(|left, right| left.root == right.root) {
        let Some(root) = of_project.first().map(|target| target.root.as_path()) else { continue };
        let Some(project) = projects.get(root) else { continue };
        let mut checker = Checker::new(project);
        let mut checked = 0;
        let mut passed_by = Vec::new();
        for target in of_project {
            match check_one(target, project, &mut checker) {
                Ok(is_checked) => checked += usize::from(is_checked),
                Err(problem) => passed_by.push((target, problem)),
            }
        }
        let (files, diagnostics) = checker.finish();
        let mut part = Findings { files: Files::default(), diagnostics, checked };
        for number in 0..files.len() {
            let file = FileId(u32::try_from(number).unwrap_or(u32::MAX));
            part.files.add(&shown(&root.join(files.path(file)), here), files.shared_text(file));
        }
        for (target, problem) in passed_by {
            let path = shown(&root.join(&target.path), here);
            let message = format!("`{path}` is not checked: {problem}");
            let place = nowhere(&mut part.files, &path);
            part.diagnostics.push(Diagnostic::warning(NOT_READ, place, message).help("mend or delete the link"));
        }
        parts.push(part);
    }
    parts
}

/// Checks one file; false if it is nothing of this language.
///
/// # Errors
/// A file that was not named by itself is a link to nothing, or to the outside.
fn check_one(target: &Target, project: &Project, checker: &mut Checker<'_>) -> Result<bool, SourceProblem> {
    let kind = match checker.kind(&target.path) {
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
                return Ok(false);
            }
        }
        Err(problem @ (SourceProblem::Missing | SourceProblem::Outside)) if !target.is_named => return Err(problem),
        // The checker says of such a file what keeps it from being read.
        Err(_) => DocumentKind::Pipeline,
    };
    checker.check_document(&target.path, kind);
    Ok(true)
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
    use super::{Findings, Merged, is_blank, is_include, summary};
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
            merged.add(Findings { files, diagnostics: vec![one], checked: 1 });
        }
        let findings = merged.findings;
        assert_eq!((findings.files.len(), findings.checked), (2, 2));
        assert!(
            findings.diagnostics.iter().all(|one| one.span.file == FileId(0) && one.related[0].0.file == FileId(0))
        );
        assert_eq!(count(&findings.files, &findings.diagnostics), Count { errors: 1, warnings: 0 });
    }

    #[test]
    fn sums_up() {
        assert_eq!(summary(1, Count::default()), "1 file checked: nothing wrong");
        assert_eq!(summary(3, Count { errors: 1, warnings: 2 }), "3 files checked: 1 error, 2 warnings");
    }
}
