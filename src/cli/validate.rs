//! `tol validate`: checks files without running anything and without touching the network.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::exit::{self, Failure};
use super::scan::{STDIN, Scan, scan, shown};
use crate::compile::{SourceProblem, Sources};
use crate::diagnostic::{Count, count, render_github, render_human, render_json, render_sarif};
use crate::project::{FolderSources, text_of};
use crate::watch::{Findings, Purpose, survey};
use crate::yaml::Limits;

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

/// Checks all files that a scan found.
fn check_all(scan: Scan, stdin: Option<Result<Arc<str>, SourceProblem>>, here: &Path) -> Result<Findings, Failure> {
    let mut projects: BTreeMap<PathBuf, Project> = BTreeMap::new();
    for target in &scan.targets {
        if !projects.contains_key(&target.root) {
            let project = Project { folder: FolderSources::new(&target.root), stdin: stdin.clone() };
            projects.insert(target.root.clone(), project);
        }
    }
    let mut findings = survey(&scan.targets, &projects, Purpose::Validate, &|path| shown(path, here))
        .map_err(|error| Failure::failed(error.to_string()))?;
    for (path, reason) in scan.unreadable {
        findings.unreadable(&path, &reason);
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::summary;
    use crate::diagnostic::Count;

    #[test]
    fn sums_up() {
        assert_eq!(summary(1, Count::default()), "1 file checked: nothing wrong");
        assert_eq!(summary(3, Count { errors: 1, warnings: 2 }), "3 files checked: 1 error, 2 warnings");
    }
}
