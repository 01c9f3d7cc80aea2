//! Diagnostics for programs: JSON as the contract has it, SARIF 2.1.0, and the commands of GitHub's logs.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use super::files::Places;
use super::tidy::{Finding, count, tidy};
use super::{Diagnostic, Files, Severity};

/// Prints one JSON object: how many files were checked, how many errors and warnings there are, and all findings.
pub fn render_json(files: &Files, diagnostics: &[Diagnostic], checked_files: usize) -> String {
    let mut places = Places::new(files);
    let findings: Vec<Value> = tidy(files, diagnostics, &mut places).iter().map(json_finding).collect();
    let count = count(files, diagnostics);
    let report = json!({
        "files": checked_files,
        "errors": count.errors,
        "warnings": count.warnings,
        "diagnostics": findings,
    });
    format!("{report}\n")
}

fn json_finding(one: &Finding<'_>) -> Value {
    let related: Vec<Value> = one
        .related
        .iter()
        .map(|related| {
            json!({
                "path": related.path,
                "line": related.place.line,
                "column": related.place.column,
                "message": related.message,
            })
        })
        .collect();
    json!({
        "code": one.code,
        "severity": severity(one.severity),
        "path": one.path,
        "line": one.place.line,
        "column": one.place.column,
        "end_line": one.place.end_line,
        "end_column": one.place.end_column,
        "message": one.message,
        "help": one.help,
        "url": one.page(),
        "related": related,
    })
}

/// The word for a severity, which JSON, SARIF and GitHub share.
fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// Prints one SARIF 2.1.0 log with one run.
pub fn render_sarif(files: &Files, diagnostics: &[Diagnostic]) -> String {
    let mut places = Places::new(files);
    let findings = tidy(files, diagnostics, &mut places);
    let mut indexes: BTreeMap<&str, usize> = findings.iter().map(|one| (one.code, 0)).collect();
    let mut rules = Vec::new();
    for (number, (code, index)) in indexes.iter_mut().enumerate() {
        *index = number;
        let page = format!("{}/blob/main/docs/errors/{code}.md", env!("CARGO_PKG_REPOSITORY"));
        rules.push(json!({ "id": code, "helpUri": page }));
    }
    let results: Vec<Value> =
        findings.iter().map(|one| sarif_result(one, indexes.get(one.code).copied().unwrap_or_default())).collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "tol",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log}\n")
}

fn sarif_result(one: &Finding<'_>, rule_index: usize) -> Value {
    let text = match &one.help {
        Some(help) => format!("{}: {help}", one.message),
        None => one.message.clone(),
    };
    let region = json!({
        "startLine": one.place.line,
        "startColumn": one.place.column,
        "endLine": one.place.end_line,
        "endColumn": one.place.end_column,
    });
    let mut result = json!({
        "ruleId": one.code,
        "ruleIndex": rule_index,
        "level": severity(one.severity),
        "message": { "text": text },
        "locations": [{ "physicalLocation": { "artifactLocation": { "uri": uri(one.path) }, "region": region } }],
    });
    let related: Vec<Value> = one
        .related
        .iter()
        .map(|related| {
            json!({
                "message": { "text": related.message },
                "physicalLocation": {
                    "artifactLocation": { "uri": uri(related.path) },
                    "region": { "startLine": related.place.line, "startColumn": related.place.column },
                },
            })
        })
        .collect();
    if let (false, Some(object)) = (related.is_empty(), result.as_object_mut()) {
        object.insert("relatedLocations".to_owned(), Value::Array(related));
    }
    result
}

/// A path as a relative or `file:` URI reference.
fn uri(path: &str) -> String {
    let mut output = String::with_capacity(path.len());
    if path.starts_with('/') {
        output.push_str("file://");
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'.' | b'_' | b'~') {
            output.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(output, "%{byte:02X}");
        }
    }
    output
}

/// Prints one workflow command of GitHub a finding, which its pages show beside the line.
pub fn render_github(files: &Files, diagnostics: &[Diagnostic]) -> String {
    let mut places = Places::new(files);
    let mut output = String::new();
    for one in tidy(files, diagnostics, &mut places) {
        let place = one.place;
        let mut properties = format!("file={},line={},endLine={}", property(one.path), place.line, place.end_line);
        // GitHub takes columns only where they are on one line.
        if place.line == place.end_line {
            // Writing to a string cannot fail.
            let _ = write!(properties, ",col={},endColumn={}", place.column, place.end_column);
        }
        let text = match &one.help {
            Some(help) => format!("{}: {help}", one.message),
            None => one.message.clone(),
        };
        let _ = writeln!(
            output,
            "::{} {properties},title={}::{}",
            severity(one.severity),
            property(one.code),
            command_text(&text)
        );
    }
    output
}

/// The text of a command, in which the end of a line would end it.
fn command_text(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A property of a command, which also a colon or comma would end.
fn property(text: &str) -> String {
    command_text(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::{render_github, render_json, render_sarif, uri};
    use crate::diagnostic::tidy::tests::{files, span};
    use crate::diagnostic::{Diagnostic, Files, Span};

    fn sample() -> Vec<Diagnostic> {
        vec![
            Diagnostic::error("TOL0204", span(0, 7, 14), "no `evidnce`")
                .help("did you mean `evidence`?")
                .related(span(1, 0, 7), "here"),
            Diagnostic::warning("TOL0601", span(1, 14, 15), "x"),
        ]
    }

    #[test]
    fn json_is_as_the_contract_says() {
        let text = render_json(&files(), &sample(), 3);
        let expect = concat!(
            r#"{"files":3,"errors":1,"warnings":1,"diagnostics":[{"code":"TOL0601","severity":"warning","path":"a.yaml","#,
            r#""line":1,"column":10,"end_line":1,"end_column":11,"message":"x","help":null,"#,
            r#""url":"docs/errors/TOL0601.md","related":[]},{"code":"TOL0204","severity":"error","path":"b.yaml","#,
            r#""line":1,"column":8,"end_line":1,"end_column":15,"message":"no `evidnce`","help":"did you mean `evidence`?","#,
            r#""url":"docs/errors/TOL0204.md","related":[{"path":"a.yaml","line":1,"column":1,"message":"here"}]}]}"#,
            "\n"
        );
        assert_eq!(text, expect);
    }

    #[test]
    fn sarif_names_rules_and_places() {
        let log: serde_json::Value = serde_json::from_str(&render_sarif(&files(), &sample())).expect("JSON");
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        assert_eq!(run["tool"]["driver"]["rules"][0]["id"], "TOL0204");
        let result = &run["results"][1];
        assert_eq!((&result["ruleId"], &result["ruleIndex"]), (&"TOL0204".into(), &0.into()));
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "b.yaml");
        assert_eq!(place["region"]["startColumn"], 8);
        assert_eq!(result["relatedLocations"][0]["message"]["text"], "here");
        assert_eq!(uri("a b/ö:%.yaml"), "a%20b/%C3%B6%3A%25.yaml");
        assert_eq!(uri("/a"), "file:///a");
    }

    #[test]
    fn github_commands_are_escaped() {
        let mut files = Files::default();
        let file = files.add("a,b:\n%.yaml", "x\ny\n".into());
        let one = Diagnostic::error("TOL0204", Span { file, start: 0, end: 1 }, "a\nb: 5%, c");
        let two = Diagnostic::warning("TOL0601", Span { file, start: 0, end: 3 }, "m").help("h");
        let expect = "::error file=a%2Cb%3A%0A%25.yaml,line=1,endLine=1,col=1,endColumn=2,title=TOL0204::a%0Ab: 5%25, c\n\
                      ::warning file=a%2Cb%3A%0A%25.yaml,line=1,endLine=2,title=TOL0601::m: h\n";
        assert_eq!(render_github(&files, &[one, two]), expect);
    }
}
