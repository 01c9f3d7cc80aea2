//! `tol test`: runs the cases of test files against the scheduler; nothing is started and no network is touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::exit::{DONE, FAILED, Failure};
use super::scan::{scan, shown};
use super::test_report::{self, CaseReport, FileReport, Problem};
use crate::compile::Sources;
use crate::compile::{CheckOptions, Program, check, folder_of, join};
use crate::diagnostic::{Diagnostic, Files, Severity, Span, render_human};
use crate::model::{ReadContext, TestCase, TestFile, read_test};
use crate::project::FolderSources;
use crate::schema::{self, DocumentKind};
use crate::testing::{CaseResult, check_case};
use crate::watch::Target;
use crate::yaml;

/// Cases are played and conditions evaluated by recursion, up to their own limits.
const STACK_BYTES: usize = 32 << 20;

/// `tol test`.
#[derive(Clone, Debug, Args)]
pub struct TestArgs {
    /// Test files, folders or patterns [default: the working folder]
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value_t)]
    pub format: TestFormat,
    /// Write the results to a file; the text still goes to standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// For whom results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TestFormat {
    /// Text for people
    #[default]
    Text,
    /// One JSON object
    Json,
    /// JUnit XML, as CI servers read it
    Junit,
}

/// Finds test files, runs their cases and prints how they ended.
pub fn run(arguments: &TestArgs) -> Result<u8, Failure> {
    let here = std::env::current_dir()?;
    let here = here.canonicalize().unwrap_or(here);
    let mut found = scan(&arguments.paths, &here)?;
    found.targets.retain(|target| target.is_named || is_test(&target.path));
    if found.targets.is_empty() {
        return Err(Failure::invalid(
            "there is nothing to test: no *.test.yaml was found; `tol init` writes one to start from",
        ));
    }
    let targets = found.targets;
    let worker = std::thread::Builder::new().name("test".to_owned()).stack_size(STACK_BYTES);
    let reports = std::thread::scope(|scope| {
        let worker =
            worker.spawn_scoped(scope, || targets.iter().map(|target| run_file(target, &here)).collect::<Vec<_>>())?;
        worker.join().map_err(|_| std::io::Error::other("the tests ended by a fault of tol itself"))
    })?;
    let text = match arguments.format {
        TestFormat::Text => test_report::text(&reports),
        TestFormat::Json => test_report::json(&reports),
        TestFormat::Junit => test_report::junit(&reports),
    };
    match &arguments.output {
        None => super::output::print(&text),
        Some(file) => {
            super::output::write_file(file, text.as_bytes())?;
            super::output::print(&test_report::text(&reports));
        }
    }
    let failed = reports.iter().any(|report| !report.passed());
    Ok(if failed { FAILED } else { DONE })
}

fn is_test(path: &str) -> bool {
    path.ends_with(".test.yaml") || path.ends_with(".test.yml")
}

/// Runs one file. What keeps it from being run at all is reported as the file's own problem.
fn run_file(target: &Target, here: &Path) -> FileReport {
    let sources = FolderSources::new(&target.root);
    let mut session = Session { sources, root: target.root.clone(), here: here.to_owned() };
    let path = session.shown(&target.path);
    match session.read(&target.path) {
        Err(problems) => FileReport { path, problems, cases: Vec::new() },
        Ok((test, files)) => session.cases(path, &test, &files),
    }
}

struct Session {
    sources: FolderSources,
    root: PathBuf,
    here: PathBuf,
}

impl Session {
    fn shown(&self, path: &str) -> String {
        shown(&self.root.join(path), &self.here)
    }

    fn problem(&self, files: &Files, diagnostic: &Diagnostic) -> Problem {
        let place = files.place(diagnostic.span);
        let help = diagnostic.help.as_ref().map_or(String::new(), |help| format!(" ({help})"));
        Problem {
            path: self.shown(files.path(diagnostic.span.file)),
            line: place.line,
            column: place.column,
            message: format!("{}{help} [{}]", diagnostic.message, diagnostic.code),
            expected: None,
            actual: None,
            picture: Some(render_human(files, std::slice::from_ref(diagnostic), false)),
        }
    }

    /// Reads a test file and holds it against its schema.
    fn read(&mut self, path: &str) -> Result<(TestFile, Files), Vec<Problem>> {
        let mut files = Files::default();
        let text =
            self.sources.read(path).map_err(|problem| vec![Problem::of_file(self.shown(path), problem.to_string())])?;
        let file = files.add(path, text.clone());
        let (tree, mut diagnostics) = yaml::load(file, &text, &yaml::Limits::default());
        let Some(tree) = tree else {
            return Err(diagnostics.iter().map(|found| self.problem(&files, found)).collect());
        };
        schema::check(DocumentKind::Test, &tree, &mut diagnostics);
        let test = read_test(&tree, file, path, &mut ReadContext::new(&files, &mut diagnostics));
        diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
        if diagnostics.is_empty() {
            return Ok((test, files));
        }
        Err(diagnostics.iter().map(|found| self.problem(&files, found)).collect())
    }

    fn cases(&mut self, path: String, test: &TestFile, files: &Files) -> FileReport {
        let mut programs: BTreeMap<Option<String>, Result<Arc<Program>, Vec<Problem>>> = BTreeMap::new();
        let mut report = FileReport { path, problems: Vec::new(), cases: Vec::new() };
        for case in &test.cases {
            let profile = case.profile.as_ref().map(|profile| profile.value.to_string());
            let program = programs.entry(profile.clone()).or_insert_with(|| self.compile(test, files, profile));
            match program {
                Ok(program) => {
                    let result = check_case(program, case);
                    report.cases.push(self.case(files, case, result));
                }
                // A pipeline that does not compile is told once, not with every case.
                Err(problems) => report.problems.append(problems),
            }
        }
        report
    }

    fn case(&self, files: &Files, case: &TestCase, result: CaseResult) -> CaseReport {
        let at = |span: Span| files.place(span);
        let problems = result.findings.into_iter().map(|finding| Problem {
            path: self.shown(files.path(finding.span.file)),
            line: at(finding.span).line,
            column: at(finding.span).column,
            message: finding.message,
            expected: finding.expected,
            actual: finding.actual,
            picture: None,
        });
        CaseReport {
            name: case.name.value.to_string(),
            line: at(case.name.span).line,
            problems: problems.collect(),
            ended: result.ended,
            duration: result.duration,
        }
    }

    /// Compiles the pipeline of a test with a profile.
    fn compile(&self, test: &TestFile, files: &Files, profile: Option<String>) -> Result<Arc<Program>, Vec<Problem>> {
        let place = files.place(test.pipeline.span);
        let at_name = |message: String| {
            let path = self.shown(&test.path);
            vec![Problem { line: place.line, column: place.column, ..Problem::of_file(path, message) }]
        };
        let Some(path) = join(folder_of(&test.path), &test.pipeline.value) else {
            return Err(at_name(format!("`{}` lies outside the project", test.pipeline.value)));
        };
        if !self.sources.exists(&path) {
            return Err(at_name(format!(
                "there is no pipeline `{}`; the path goes from the folder of the test file",
                test.pipeline.value
            )));
        }
        let (mut files, mut diagnostics) = (Files::default(), Vec::new());
        let program = check(&path, &self.sources, &mut files, &mut diagnostics, &CheckOptions { profile });
        program.map(Arc::new).ok_or_else(|| {
            let errors = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
            errors.map(|found| self.problem(&files, found)).collect()
        })
    }
}
