//! Diagnostics as every printer wants them: in order, each once, without what only follows from another, and bounded.

use std::borrow::Cow;

use super::files::Places;
use super::{Diagnostic, FileId, Files, Place, Severity, Span};

/// How many findings of one file are printed.
const MOST_PER_FILE: usize = 1000;
/// How long a message may be, in characters; a value in it can be as long as its file.
const LONGEST_MESSAGE: usize = 500;
/// How many related places are printed with one finding.
const MOST_RELATED: usize = 10;
const MORE: &str = "TOL0020";

/// How many findings there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub errors: usize,
    pub warnings: usize,
}

/// Counts what [`render_human`](super::render_human) and the others would report, had they no bound on their length.
pub fn count(files: &Files, diagnostics: &[Diagnostic]) -> Count {
    let mut count = Count::default();
    for one in sorted(files, diagnostics) {
        match one.severity {
            Severity::Error => count.errors += 1,
            Severity::Warning => count.warnings += 1,
        }
    }
    count
}

/// One finding, ready to be printed.
pub(super) struct Finding<'a> {
    pub code: &'static str,
    pub severity: Severity,
    pub span: Span,
    pub path: &'a str,
    pub place: Place,
    pub message: String,
    pub help: Option<String>,
    pub related: Vec<Related<'a>>,
}

/// Another place of a finding.
pub(super) struct Related<'a> {
    pub path: &'a str,
    pub place: Place,
    pub message: String,
}

impl Finding<'_> {
    /// Where the code is explained, from the root of the documentation's repository.
    pub(super) fn page(&self) -> String {
        format!("docs/errors/{}.md", self.code)
    }
}

/// All findings in the order of paths and positions.
pub(super) fn tidy<'a>(files: &'a Files, diagnostics: &[Diagnostic], places: &mut Places<'a>) -> Vec<Finding<'a>> {
    let mut findings: Vec<Finding<'a>> = Vec::new();
    let sorted = sorted(files, diagnostics);
    for of_file in sorted.chunk_by(|left, right| left.span.file == right.span.file) {
        findings.extend(of_file.iter().take(MOST_PER_FILE).map(|one| finding(files, one, places)));
        let hidden = of_file.get(MOST_PER_FILE..).unwrap_or_default();
        let Some(first) = hidden.first() else { continue };
        let severity = hidden.iter().map(|one| one.severity).min().unwrap_or(Severity::Error);
        let message = format!("{} more findings in this file are not shown", hidden.len());
        let more = Diagnostic { severity, ..Diagnostic::error(MORE, first.span, message) };
        findings.push(finding(files, &more.help("mend those above, then check again"), places));
    }
    findings
}

fn finding<'a>(files: &'a Files, one: &Diagnostic, places: &mut Places<'a>) -> Finding<'a> {
    let related = one.related.iter().take(MOST_RELATED).map(|(span, message)| Related {
        path: files.path(span.file),
        place: places.place(*span),
        message: shortened(message).into_owned(),
    });
    let related = related.collect();
    Finding {
        code: one.code,
        severity: one.severity,
        span: one.span,
        path: files.path(one.span.file),
        place: places.place(one.span),
        message: shortened(&one.message).into_owned(),
        help: one.help.as_deref().map(|help| shortened(help).into_owned()),
        related,
    }
}

/// In order, each once, and without what follows from a file that could not be read as it was meant.
fn sorted<'d>(files: &Files, diagnostics: &'d [Diagnostic]) -> Vec<&'d Diagnostic> {
    let mut sorted: Vec<&Diagnostic> = diagnostics.iter().collect();
    sorted.sort_by(|left, right| {
        let path = |one: &Diagnostic| files.path(one.span.file);
        let key = |one: &Diagnostic| (one.span.file, one.span.start, one.span.end, one.code);
        path(left).cmp(path(right)).then(key(left).cmp(&key(right))).then(left.message.cmp(&right.message))
    });
    sorted.dedup_by(|left, right| (left.code, left.span) == (right.code, right.span) && left.message == right.message);
    let unreadable = unreadable(&sorted);
    sorted.retain(|one| is_of_reading(one) || !is_within(&unreadable, one.span));
    sorted
}

/// Codes up to TOL0099 are about files and YAML.
fn is_of_reading(one: &Diagnostic) -> bool {
    one.code.starts_with("TOL00")
}

/// The spans that the reader could not make sense of, in order, each with the greatest end up to it.
fn unreadable(sorted: &[&Diagnostic]) -> Vec<(FileId, u32, u32)> {
    let reading = sorted.iter().filter(|one| is_of_reading(one) && one.severity == Severity::Error);
    let mut spans: Vec<(FileId, u32, u32)> = reading.map(|one| (one.span.file, one.span.start, one.span.end)).collect();
    spans.sort_unstable();
    let mut last: Option<(FileId, u32)> = None;
    for (file, _, end) in &mut spans {
        if let Some((last_file, last_end)) = last
            && last_file == *file
        {
            *end = last_end.max(*end);
        }
        last = Some((*file, *end));
    }
    spans
}

fn is_within(spans: &[(FileId, u32, u32)], inner: Span) -> bool {
    let after = spans.partition_point(|(file, start, _)| (*file, *start) <= (inner.file, inner.start));
    let before = after.checked_sub(1).and_then(|at| spans.get(at));
    before.is_some_and(|(file, start, end)| *file == inner.file && *start < *end && inner.end <= *end)
}

fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((cut, _)) => Cow::Owned(format!("{}…", text.get(..cut).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Count, Places, count, tidy};
    use crate::diagnostic::{Diagnostic, FileId, Files, Span};

    /// Two small files.
    pub fn files() -> Files {
        let mut files = Files::default();
        files.add("b.yaml", "from: [evidnce, sources]\nname: x\n".into());
        files.add("a.yaml", "größe: 🎉 x\n".into());
        files
    }

    /// A span in the first or second of them.
    pub fn span(file: u32, start: u32, end: u32) -> Span {
        Span { file: FileId(file), start, end }
    }

    fn check(diagnostics: &[Diagnostic], expect: &[&str]) {
        let files = files();
        let mut places = Places::new(&files);
        let got: Vec<String> = tidy(&files, diagnostics, &mut places)
            .iter()
            .map(|one| format!("{}:{}:{} {} {}", one.path, one.place.line, one.place.column, one.code, one.message))
            .collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn sorts_and_drops_doubles_and_cascades() {
        let diagnostics = [
            Diagnostic::error("TOL0204", span(0, 7, 14), "two"),
            Diagnostic::error("TOL0204", span(1, 7, 8), "one"),
            Diagnostic::error("TOL0204", span(0, 7, 14), "two"),
            Diagnostic::error("TOL0101", span(0, 16, 23), "follows from the alias"),
            Diagnostic::error("TOL0006", span(0, 16, 23), "an alias"),
            Diagnostic::warning("TOL0601", span(0, 0, 4), "three"),
            Diagnostic::error("TOL0101", span(0, 25, 29), "four"),
        ];
        check(
            &diagnostics,
            &[
                "a.yaml:1:6 TOL0204 one",
                "b.yaml:1:1 TOL0601 three",
                "b.yaml:1:8 TOL0204 two",
                "b.yaml:1:17 TOL0006 an alias",
                "b.yaml:2:1 TOL0101 four",
            ],
        );
        assert_eq!(count(&files(), &diagnostics), Count { errors: 4, warnings: 1 });
    }

    #[test]
    fn bounds_number_and_length() {
        let many: Vec<Diagnostic> =
            (0..1500).map(|i| Diagnostic::error("TOL0204", span(0, 0, 4), format!("m{i:04}"))).collect();
        let files = files();
        let mut places = Places::new(&files);
        let findings = tidy(&files, &many, &mut places);
        assert_eq!(findings.len(), 1001);
        assert_eq!(findings[1000].message, "500 more findings in this file are not shown");
        assert_eq!(count(&files, &many).errors, 1500);
        let long = [Diagnostic::error("TOL0204", span(0, 0, 4), "ö".repeat(10_000))];
        assert_eq!(tidy(&files, &long, &mut places)[0].message.chars().count(), 501);
    }
}
