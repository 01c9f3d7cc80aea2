//! Diagnostics for people: where, what, the line with the exact span underlined, and what to do.

use std::fmt::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::files::Places;
use super::tidy::{Finding, tidy};
use super::{Diagnostic, Files, Severity};

/// How much of a line is shown, in characters; around the span if it is longer.
const WIDEST_LINE: usize = 120;
/// How much of that stands before the span.
const WIDEST_LEAD: usize = 50;
/// A help that is no longer than this stands under the span, a longer one on a line of its own.
const LONGEST_LABEL: usize = 60;

/// Prints findings for a terminal: in the order of paths and positions, each as
///
/// ```text
/// a.yaml:2:8: error[TOL0204]: `evidnce` is not a step of this pipeline
///   |
/// 2 | from: [evidnce]
///   |        ^^^^^^^ did you mean `evidence`?
///   = docs: docs/errors/TOL0204.md
/// ```
///
/// Control characters are written as escapes, so that nothing in a file can steer the terminal.
pub fn render_human(files: &Files, diagnostics: &[Diagnostic], colour: bool) -> String {
    let mut places = Places::new(files);
    let mut output = String::new();
    for one in tidy(files, diagnostics, &mut places) {
        header(&mut output, &one, colour);
        // A file that is empty or was not read has no line to show.
        let (source, footer) = if files.text(one.span.file).is_empty() {
            (String::new(), one.help.as_deref().map(visible))
        } else {
            snippet(&one, &mut places, colour)
        };
        output.push_str(&source);
        footnotes(&mut output, &one, footer.as_deref(), colour);
        output.push('\n');
    }
    output
}

fn header(output: &mut String, one: &Finding<'_>, colour: bool) {
    let (bold, end) = if colour { ("\u{1b}[1m", "\u{1b}[0m") } else { ("", "") };
    let (name, paint) = match one.severity {
        Severity::Error => ("error", "\u{1b}[1;91m"),
        Severity::Warning => ("warning", "\u{1b}[1;93m"),
    };
    let paint = if colour { paint } else { "" };
    let (path, message) = (visible(one.path), visible(&one.message));
    let (line, column) = (one.place.line, one.place.column);
    // Writing to a string cannot fail.
    let _ =
        writeln!(output, "{bold}{path}:{line}:{column}:{end} {paint}{name}[{}]{end}: {bold}{message}{end}", one.code);
}

/// The line with the span underlined, and the help if it was too long to stand there.
fn snippet(one: &Finding<'_>, places: &mut Places<'_>, colour: bool) -> (String, Option<String>) {
    let (line, line_start) = places.line(one.span.file, one.span.start as usize);
    let start = (one.span.start as usize).saturating_sub(line_start).min(line.len());
    let end = (one.span.end as usize).saturating_sub(line_start).clamp(start, line.len());
    let (shown, range) = window(line, start, end);
    let help = one.help.as_deref().map(visible);
    let is_label = help.as_ref().is_some_and(|help| help.chars().count() <= LONGEST_LABEL);
    let (label, footer) = if is_label { (help, None) } else { (None, help) };
    let level = match one.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let annotation = AnnotationKind::Primary.span(range).label(label);
    let source = Snippet::source(shown).line_start(one.place.line as usize).annotation(annotation);
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let text = renderer.render(&[Group::with_level(level).element(source)]);
    (format!("{text}\n"), footer)
}

/// What stands under the line: the help, other places, and the page of the code.
fn footnotes(output: &mut String, one: &Finding<'_>, help: Option<&str>, colour: bool) {
    let gutter = " ".repeat(one.place.line.to_string().len() + 1);
    let (paint, end) = if colour { ("\u{1b}[1;94m", "\u{1b}[0m") } else { ("", "") };
    let mut footnote = |name: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(output, "{gutter}{paint}={end} {name}: {text}");
    };
    if let Some(help) = help {
        footnote("help", help);
    }
    for related in &one.related {
        let (path, place) = (visible(related.path), related.place);
        footnote("note", &format!("{path}:{}:{}: {}", place.line, place.column, visible(&related.message)));
    }
    footnote("docs", &one.page());
}

/// The part of a line around a span, with an ellipsis where it was cut, and the span's range in it.
fn window(line: &str, start: usize, end: usize) -> (String, std::ops::Range<usize>) {
    let line = line.strip_prefix('\u{feff}').map_or((line, 0), |rest| (rest, '\u{feff}'.len_utf8()));
    let (line, mark) = line;
    let (start, end) = (start.saturating_sub(mark), end.saturating_sub(mark));
    let before = line.get(..start).unwrap_or_default();
    let inside = line.get(start..end).unwrap_or_default();
    let after = line.get(end..).unwrap_or_default();
    // A cut looks only at the bytes near the span: a line can have megabytes.
    let lead_cut = before.char_indices().rev().nth(WIDEST_LEAD - 1).map_or(0, |(at, _)| at);
    let lead = before.get(lead_cut..).unwrap_or_default();
    let room = WIDEST_LINE.saturating_sub(lead.chars().count());
    let inside_cut = inside.char_indices().nth(room).map_or(inside.len(), |(at, _)| at);
    let shown = inside.get(..inside_cut).unwrap_or_default();
    let room = room.saturating_sub(shown.chars().count());
    let is_inside_cut = inside_cut < inside.len();
    let after_cut = if is_inside_cut { 0 } else { after.char_indices().nth(room).map_or(after.len(), |(at, _)| at) };
    let mut text = String::new();
    if lead_cut > 0 {
        text.push('…');
    }
    text.push_str(&visible(lead));
    let from = text.len();
    text.push_str(&visible(shown));
    let to = text.len();
    text.push_str(&visible(after.get(..after_cut).unwrap_or_default()));
    if is_inside_cut || after_cut < after.len() {
        text.push('…');
    }
    (text, from..to)
}

/// A text with its control characters as escapes; tabs stay.
fn visible(text: &str) -> String {
    let mut output = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hidden(c) {
            output.extend(c.escape_default());
        } else {
            output.push(c);
        }
    }
    output
}

/// Characters that change how others are shown: controls and those that reverse the writing direction.
fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::render_human;
    use crate::diagnostic::tidy::tests::{files, span};
    use crate::diagnostic::{Diagnostic, Files};

    fn check(files: &Files, diagnostic: Diagnostic, expect: &str) {
        assert_eq!(render_human(files, &[diagnostic], false), expect);
    }

    #[test]
    fn underlines_the_span() {
        check(
            &files(),
            Diagnostic::error("TOL0204", span(0, 7, 14), "`evidnce` is not a step of this pipeline")
                .help("did you mean `evidence`?"),
            "\
b.yaml:1:8: error[TOL0204]: `evidnce` is not a step of this pipeline
  |
1 | from: [evidnce, sources]
  |        ^^^^^^^ did you mean `evidence`?
  = docs: docs/errors/TOL0204.md

",
        );
        check(
            &files(),
            Diagnostic::warning("TOL0601", span(1, 14, 15), "x")
                .help("a help that is so long that it does not fit under the span of a line")
                .related(span(0, 25, 29), "the other"),
            "\
a.yaml:1:10: warning[TOL0601]: x
  |
1 | größe: 🎉 x
  |           ^
  = help: a help that is so long that it does not fit under the span of a line
  = note: b.yaml:2:1: the other
  = docs: docs/errors/TOL0601.md

",
        );
    }

    #[test]
    fn is_bounded_and_harmless() {
        let mut files = Files::default();
        let file = files.add("a\n\u{1b}.yaml", format!("a: \"{}\u{1b}[2J\n", "x".repeat(1_000_000)).into());
        let long = crate::diagnostic::Span { file, start: 3, end: 1_000_000 };
        let text = render_human(&files, &[Diagnostic::error("TOL0101", long, "y\u{1b}")], false);
        assert!(text.len() < 1000 && !text.contains('\u{1b}'), "{text}");
        assert!(text.starts_with("a\\n\\u{1b}.yaml:1:4: error[TOL0101]: y\\u{1b}\n"), "{text}");
        let end = crate::diagnostic::Span { file, start: 1_000_000, end: 1_000_004 };
        let text = render_human(&files, &[Diagnostic::error("TOL0101", end, "y")], true);
        assert!(text.len() < 1500 && !text.contains("\u{1b}[2J"), "{text}");
    }

    #[test]
    fn shows_empty_places_and_several_lines() {
        let mut files = Files::default();
        let empty = files.add("empty.yaml", "".into());
        let block = files.add("block.yaml", "\u{feff}a: |\r\n  x\r\n  y\r\n".into());
        for (file, help) in [(empty, "= help: do"), (block, "^ do")] {
            let whole = crate::diagnostic::Span { file, start: 0, end: 4_000 };
            let text = render_human(&files, &[Diagnostic::error("TOL0003", whole, "z").help("do")], false);
            assert!(text.contains(":1:1: error[TOL0003]: z\n") && text.contains(help), "{text}");
        }
    }
}
