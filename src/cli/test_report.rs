//! What `tol test` prints: text, JSON, JUnit XML.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::time::format_duration;

/// How one file went.
#[derive(Clone, Debug, Default)]
pub struct FileReport {
    /// As it is shown.
    pub path: String,
    /// What kept its cases from being run.
    pub problems: Vec<Problem>,
    pub cases: Vec<CaseReport>,
}

/// How one case went.
#[derive(Clone, Debug, Default)]
pub struct CaseReport {
    pub name: String,
    pub line: u32,
    pub problems: Vec<Problem>,
    pub ended: Option<String>,
    /// In virtual time.
    pub duration: Duration,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, Default)]
pub struct Problem {
    pub path: String,
    pub line: u32,
    pub column: u32,
    pub message: String,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
    /// The place in its file, drawn.
    pub picture: Option<String>,
}

impl Problem {
    /// A problem of a file as a whole.
    pub fn of_file(path: String, message: String) -> Self {
        Self { path, line: 1, column: 1, message, ..Self::default() }
    }
}

impl FileReport {
    /// True if all was as expected.
    pub fn passed(&self) -> bool {
        self.problems.is_empty() && self.cases.iter().all(|case| case.problems.is_empty())
    }

    fn failed_cases(&self) -> usize {
        self.cases.iter().filter(|case| !case.problems.is_empty()).count()
    }
}

/// Passed, failed, and files that could not be run.
fn totals(reports: &[FileReport]) -> (usize, usize, usize) {
    let cases: usize = reports.iter().map(|report| report.cases.len()).sum();
    let failed: usize = reports.iter().map(FileReport::failed_cases).sum();
    (cases - failed, failed, reports.iter().filter(|report| !report.problems.is_empty()).count())
}

fn counted(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

/// For people: every case, and below it what was not as expected.
pub fn text(reports: &[FileReport]) -> String {
    let mut text = String::new();
    for report in reports {
        let _ = writeln!(text, "{}", report.path);
        for problem in &report.problems {
            match &problem.picture {
                Some(picture) => {
                    let _ = writeln!(text, "{}", picture.trim_end());
                }
                None => {
                    let _ = writeln!(
                        text,
                        "  error: {}:{}:{}: {}",
                        problem.path, problem.line, problem.column, problem.message
                    );
                }
            }
        }
        for case in &report.cases {
            let mark = if case.problems.is_empty() { "ok  " } else { "FAIL" };
            let time = if case.duration.is_zero() {
                String::new()
            } else {
                format!(" ({} virtual)", format_duration(case.duration))
            };
            let _ = writeln!(text, "  {mark} {}{time}", case.name);
            for problem in &case.problems {
                let _ =
                    writeln!(text, "       {}:{}:{}: {}", problem.path, problem.line, problem.column, problem.message);
            }
            if let Some(ended) = &case.ended {
                let _ = writeln!(text, "       note: {ended}");
            }
        }
    }
    let (passed, failed, broken) = totals(reports);
    let _ = write!(
        text,
        "{} in {}: {passed} passed, {failed} failed",
        counted(passed + failed, "case"),
        counted(reports.len(), "file")
    );
    if broken > 0 {
        let _ = write!(text, ", {} could not be run", counted(broken, "file"));
    }
    text.push('\n');
    text
}

fn problem_json(problem: &Problem) -> Value {
    let mut object = json!({
        "path": problem.path, "line": problem.line, "column": problem.column, "message": problem.message,
    });
    if let Value::Object(map) = &mut object {
        map.extend(problem.expected.iter().map(|value| ("expected".to_owned(), value.clone())));
        map.extend(problem.actual.iter().map(|value| ("actual".to_owned(), value.clone())));
    }
    object
}

/// For programs: one object.
pub fn json(reports: &[FileReport]) -> String {
    let (passed, failed, broken) = totals(reports);
    let files: Vec<Value> = reports
        .iter()
        .map(|report| {
            let cases: Vec<Value> = report
                .cases
                .iter()
                .map(|case| {
                    json!({
                        "name": case.name,
                        "line": case.line,
                        "status": if case.problems.is_empty() { "passed" } else { "failed" },
                        "virtual_ms": u64::try_from(case.duration.as_millis()).unwrap_or(u64::MAX),
                        "ended": case.ended,
                        "findings": case.problems.iter().map(problem_json).collect::<Vec<_>>(),
                    })
                })
                .collect();
            json!({ "path": report.path, "problems": report.problems.iter().map(problem_json).collect::<Vec<_>>(), "cases": cases })
        })
        .collect();
    format!("{}\n", json!({ "passed": passed, "failed": failed, "files_not_run": broken, "files": files }))
}

/// For CI servers: a suite for each file, a test case for each case.
pub fn junit(reports: &[FileReport]) -> String {
    let (passed, failed, _) = totals(reports);
    let errors: usize = reports.iter().map(|report| report.problems.len()).sum();
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let _ = writeln!(
        text,
        "<testsuites name=\"tol test\" tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\">",
        passed + failed + errors
    );
    for report in reports {
        let name = escaped(&report.path);
        let tests = report.cases.len() + report.problems.len();
        let (failures, errors) = (report.failed_cases(), report.problems.len());
        let _ = writeln!(
            text,
            "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"0\">"
        );
        for problem in &report.problems {
            let message = escaped(&problem.message);
            let place = escaped(&format!("{}:{}:{}", problem.path, problem.line, problem.column));
            let _ = writeln!(text, "    <testcase name=\"{place}\" classname=\"{name}\">");
            let _ = writeln!(
                text,
                "      <error message=\"{message}\" type=\"invalid\">{place}: {message}</error>\n    </testcase>"
            );
        }
        for case in &report.cases {
            let head = format!(
                "    <testcase name=\"{}\" classname=\"{name}\" file=\"{name}\" line=\"{}\" time=\"0\"",
                escaped(&case.name),
                case.line
            );
            let Some(first) = case.problems.first() else {
                let _ = writeln!(text, "{head}/>");
                continue;
            };
            let places = case
                .problems
                .iter()
                .map(|problem| format!("{}:{}:{}: {}", problem.path, problem.line, problem.column, problem.message));
            let body: Vec<String> = places.chain(case.ended.iter().map(|ended| format!("note: {ended}"))).collect();
            let _ = writeln!(text, "{head}>");
            let _ = writeln!(
                text,
                "      <failure message=\"{}\" type=\"expectation\">{}</failure>\n    </testcase>",
                escaped(&first.message),
                escaped(&body.join("\n"))
            );
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// A text as XML may hold it; characters that XML cannot hold at all are replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{CaseReport, FileReport, Problem, escaped, junit, text};

    fn reports() -> Vec<FileReport> {
        let problem = Problem {
            path: "a.test.yaml".to_owned(),
            line: 9,
            column: 3,
            message: "expected \"<\", got \"&\"".to_owned(),
            ..Problem::default()
        };
        let good = CaseReport { name: "good".to_owned(), line: 4, ..CaseReport::default() };
        let bad = CaseReport {
            name: "bad".to_owned(),
            line: 7,
            problems: vec![problem],
            ended: Some("it failed".to_owned()),
            ..CaseReport::default()
        };
        let broken = FileReport {
            path: "b.test.yaml".to_owned(),
            problems: vec![Problem::of_file("b.test.yaml".to_owned(), "no".to_owned())],
            cases: Vec::new(),
        };
        vec![FileReport { path: "a.test.yaml".to_owned(), problems: Vec::new(), cases: vec![good, bad] }, broken]
    }

    #[test]
    fn text_names_every_case_and_place() {
        let expect = "a.test.yaml\n  ok   good\n  FAIL bad\n       a.test.yaml:9:3: expected \"<\", got \"&\"\n       note: it failed\n\
                      b.test.yaml\n  error: b.test.yaml:1:1: no\n2 cases in 2 files: 1 passed, 1 failed, 1 file could not be run\n";
        assert_eq!(text(&reports()), expect);
    }

    #[test]
    fn junit_counts_and_escapes() {
        let xml = junit(&reports());
        assert!(xml.contains("<testsuites name=\"tol test\" tests=\"3\" failures=\"1\" errors=\"1\">"), "{xml}");
        assert!(
            xml.contains("<failure message=\"expected &quot;&lt;&quot;, got &quot;&amp;&quot;\" type=\"expectation\">"),
            "{xml}"
        );
        assert_eq!(xml.matches("<testcase").count(), 3);
        assert_eq!(xml.matches("</testsuite>").count(), 2);
    }

    #[test]
    fn what_xml_cannot_hold_is_replaced() {
        assert_eq!(escaped("a\u{1}b\u{ffff}\n<"), "a\u{fffd}b\u{fffd}&#10;&lt;");
    }
}
