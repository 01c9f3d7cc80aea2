//! From a place in a scalar's value back to its place in the file: quotes, escapes, folded lines, block scalars.
//!
//! The text is read again only when a diagnostic asks, so that loading keeps no map of every scalar. A block scalar's
//! span begins at its `|` or `>` and ends after its last line that is not blank; all other spans are the scalar itself,
//! quotes included.

use std::ops::{ControlFlow, Range};

use crate::diagnostic::Span;

/// Gives the span in the file of a byte range of a scalar's value.
///
/// `text` is the whole file, `span` the scalar node's span as the loader gave it. A range beyond the value ends with
/// the scalar; where the node is no scalar of the text, the span itself is given.
pub fn place_in_scalar(text: &str, span: Span, range: Range<usize>) -> Span {
    let mut finder = Finder { range, start: None, end: None, last: None };
    // It breaks as soon as both ends are known.
    let _ = scan(text, span, &mut |piece| finder.take(&piece));
    let fallback_start = finder.last.unwrap_or(span.start as usize);
    let start = finder.start.unwrap_or(fallback_start);
    let end = finder.end.unwrap_or(if finder.range.end > finder.range.start { fallback_start } else { start });
    super::load::span(span.file, start, end.max(start))
}

/// A stretch of the value and the stretch of the file that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    value: Range<usize>,
    source: Range<usize>,
    /// The bytes are the same in both, so every place within has its own counterpart.
    is_verbatim: bool,
}

struct Finder {
    range: Range<usize>,
    start: Option<usize>,
    end: Option<usize>,
    last: Option<usize>,
}

impl Finder {
    fn take(&mut self, piece: &Piece) -> ControlFlow<()> {
        self.last = Some(piece.source.end);
        if self.start.is_none() && self.range.start < piece.value.end {
            let inside = if piece.is_verbatim { self.range.start.saturating_sub(piece.value.start) } else { 0 };
            self.start = Some(piece.source.start + inside);
        }
        if self.end.is_none() && self.range.end > self.range.start && self.range.end <= piece.value.end {
            let inside = self.range.end - piece.value.start;
            self.end = Some(if piece.is_verbatim { piece.source.start + inside } else { piece.source.end });
        }
        let is_done = self.start.is_some() && (self.end.is_some() || self.range.end <= self.range.start);
        if is_done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Gives every piece of a scalar's value, in order.
fn scan(text: &str, span: Span, visit: &mut dyn FnMut(Piece) -> ControlFlow<()>) -> ControlFlow<()> {
    let (start, end) = (span.start as usize, (span.end as usize).min(text.len()));
    let mut output = Output { length: 0, visit };
    match text.as_bytes().get(start) {
        Some(b'|') => block(text, start, end, false, &mut output),
        Some(b'>') => block(text, start, end, true, &mut output),
        Some(b'"') => flow(text, start + 1..end.saturating_sub(1), Quotes::Double, &mut output),
        Some(b'\'') => flow(text, start + 1..end.saturating_sub(1), Quotes::Single, &mut output),
        Some(_) | None => flow(text, start..end, Quotes::None, &mut output),
    }
}

struct Output<'a> {
    length: usize,
    visit: &'a mut dyn FnMut(Piece) -> ControlFlow<()>,
}

impl Output<'_> {
    /// Bytes that are the same in value and file.
    fn verbatim(&mut self, source: Range<usize>) -> ControlFlow<()> {
        if source.is_empty() {
            return ControlFlow::Continue(());
        }
        let value = self.length..self.length + source.len();
        self.length = value.end;
        (self.visit)(Piece { value, source, is_verbatim: true })
    }

    /// So many bytes of the value that stand for something else in the file.
    fn written_as(&mut self, bytes: usize, source: Range<usize>) -> ControlFlow<()> {
        if bytes == 0 {
            return ControlFlow::Continue(());
        }
        let value = self.length..self.length + bytes;
        self.length = value.end;
        (self.visit)(Piece { value, source, is_verbatim: false })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    None,
    Single,
    Double,
}

/// A plain or quoted scalar: escapes are taken apart, and a line break with the blanks around it is one space.
fn flow(text: &str, body: Range<usize>, quotes: Quotes, output: &mut Output<'_>) -> ControlFlow<()> {
    let bytes = text.as_bytes();
    let byte = |at: usize| if at < body.end { bytes.get(at).copied() } else { None };
    let mut at = body.start;
    let mut run = at;
    while let Some(current) = byte(at) {
        match current {
            b'\'' if quotes == Quotes::Single => {
                output.verbatim(run..at)?;
                output.written_as(1, at..at + 2)?;
                at += 2;
                run = at;
            }
            b'\\' if quotes == Quotes::Double => {
                output.verbatim(run..at)?;
                at = escape(text, at, body.end, output)?;
                run = at;
            }
            b'\n' | b'\r' => {
                let content_end = trim_blanks_back(bytes, run, at);
                output.verbatim(run..content_end)?;
                let (next, breaks) = skip_breaks(bytes, at, body.end);
                output.written_as(if breaks == 1 { 1 } else { breaks - 1 }, content_end..next)?;
                at = next;
                run = at;
            }
            _ => at += 1,
        }
    }
    output.verbatim(run..body.end.max(run))
}

/// Where the blanks before `end` begin, at most back to `start`.
fn trim_blanks_back(bytes: &[u8], start: usize, mut end: usize) -> usize {
    while end > start && matches!(bytes.get(end - 1), Some(b' ' | b'\t')) {
        end -= 1;
    }
    end
}

/// Skips line breaks and the blanks around them; gives where the text goes on, and how many breaks there were.
fn skip_breaks(bytes: &[u8], mut at: usize, end: usize) -> (usize, usize) {
    let mut breaks = 0;
    while at < end {
        match bytes.get(at) {
            Some(b' ' | b'\t') => at += 1,
            Some(b'\r' | b'\n') => {
                at += break_length(bytes, at);
                breaks += 1;
            }
            Some(_) | None => break,
        }
    }
    (at, breaks)
}

/// The length of the line break at a place: CR LF is one.
fn break_length(bytes: &[u8], at: usize) -> usize {
    match (bytes.get(at), bytes.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => 2,
        (Some(b'\r' | b'\n'), _) => 1,
        _ => 0,
    }
}

/// One escape of a double-quoted scalar; gives where the text goes on.
fn escape(text: &str, at: usize, end: usize, output: &mut Output<'_>) -> ControlFlow<(), usize> {
    let bytes = text.as_bytes();
    let hexadecimal = |from: usize, digits: usize| {
        text.get(from..from + digits).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    let (source_length, value_length) = match bytes.get(at + 1) {
        Some(b'\n' | b'\r') => {
            // An escaped line break is nothing; the blank lines after it are line breaks.
            let (next, breaks) = skip_breaks(bytes, at + 1, end);
            (next - at, breaks.saturating_sub(1))
        }
        Some(b'x') => (4, utf8_length(hexadecimal(at + 2, 2))),
        Some(b'u') => {
            let unit = hexadecimal(at + 2, 4);
            // Two halves of a surrogate pair are one character.
            if (0xd800..0xdc00).contains(&unit) { (12, 4) } else { (6, utf8_length(unit)) }
        }
        Some(b'U') => (10, utf8_length(hexadecimal(at + 2, 8))),
        Some(b'N' | b'_') => (2, 2),
        Some(b'L' | b'P') => (2, 3),
        Some(_) | None => (2, 1),
    };
    let next = (at + source_length).min(end);
    output.written_as(value_length, at..next)?;
    ControlFlow::Continue(next)
}

fn utf8_length(code_point: u32) -> usize {
    char::from_u32(code_point).map_or(3, char::len_utf8)
}

/// The `|` or `>` of a block scalar whose content was found at `content`: the first one after `from`, past the colon,
/// dash, anchor, tag and comments that may stand between.
pub(super) fn header_start(text: &str, from: usize, content: usize) -> usize {
    indicator_start(text, from, content, |byte| matches!(byte, b'|' | b'>'))
}

fn indicator_start(text: &str, from: usize, content: usize, is_indicator: fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    while let Some(byte) = bytes.get(at) {
        let stop: fn(u8) -> bool = match byte {
            byte if is_indicator(*byte) => return at,
            b'#' => |byte| matches!(byte, b'\n' | b'\r'),
            b'&' | b'!' => |byte| byte.is_ascii_whitespace(),
            _ => |_| true,
        };
        at += 1;
        while bytes.get(at).is_some_and(|byte| !stop(*byte)) {
            at += 1;
        }
    }
    content.min(text.len())
}

/// The first dash of a block list whose first item was found at `item`, past what may stand between.
pub(super) fn list_start(text: &str, from: usize, item: usize) -> usize {
    indicator_start(text, from, item, |byte| byte == b'-')
}

/// What a block scalar's first line says.
struct Header {
    keep: bool,
    strip: bool,
    indent: Option<usize>,
    /// Where its first content line begins.
    body: usize,
}

fn header(text: &str, start: usize) -> Header {
    let bytes = text.as_bytes();
    let mut header = Header { keep: false, strip: false, indent: None, body: start + 1 };
    while let Some(byte) = bytes.get(header.body) {
        match byte {
            b'+' => header.keep = true,
            b'-' => header.strip = true,
            b'1'..=b'9' => header.indent = Some(usize::from(byte - b'0')),
            _ => break,
        }
        header.body += 1;
    }
    header.body = line_end(bytes, header.body);
    header.body += break_length(bytes, header.body);
    header
}

fn line_end(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    from + rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len())
}

/// A block scalar, literal or folded.
fn block(text: &str, start: usize, end: usize, folded: bool, output: &mut Output<'_>) -> ControlFlow<()> {
    let bytes = text.as_bytes();
    let header = header(text, start);
    let indent = match header.indent {
        Some(indent) => parent_indent(text, start) + indent,
        None => found_indent(bytes, header.body, end),
    };
    let mut line = header.body;
    // Line breaks whose meaning depends on what follows: that of the last content line, then those of blank lines.
    let mut content_break: Option<Range<usize>> = None;
    let mut blank_breaks: Vec<Range<usize>> = Vec::new();
    let mut was_indented = false;
    while line < bytes.len() {
        let stop = line_end(bytes, line);
        let next = stop + break_length(bytes, stop);
        let spaces = bytes.get(line..stop).unwrap_or_default().iter().take_while(|byte| **byte == b' ').count();
        let content = line + spaces.min(indent);
        if content == stop {
            if next == stop {
                break;
            }
            blank_breaks.push(stop..next);
            line = next;
            continue;
        }
        let is_over = line >= end && !text.get(content..stop).unwrap_or_default().trim().is_empty();
        if spaces < indent || is_over {
            break;
        }
        let is_indented = matches!(bytes.get(content), Some(b' ' | b'\t'));
        let folds = folded && !was_indented && !is_indented;
        if let Some(source) = content_break.take() {
            let bytes = usize::from(!folds || blank_breaks.is_empty());
            output.written_as(bytes, source)?;
        }
        for source in blank_breaks.drain(..) {
            output.written_as(1, source)?;
        }
        output.verbatim(content..stop)?;
        // A file that ends without a line break is read as if it had one.
        content_break = Some(stop..next);
        was_indented = is_indented;
        line = next;
    }
    if let Some(source) = content_break
        && !header.strip
    {
        output.written_as(1, source)?;
    }
    if header.keep {
        for source in blank_breaks {
            output.written_as(1, source)?;
        }
    }
    ControlFlow::Continue(())
}

/// The indentation of the first line that is not blank.
fn found_indent(bytes: &[u8], body: usize, end: usize) -> usize {
    let mut line = body;
    let mut deepest = 0;
    while line < bytes.len() {
        let stop = line_end(bytes, line);
        let spaces = bytes.get(line..stop).unwrap_or_default().iter().take_while(|byte| **byte == b' ').count();
        if line + spaces < stop {
            // Without content of its own, what comes next belongs to the parent.
            return if line < end { spaces } else { deepest.max(1) };
        }
        deepest = deepest.max(spaces);
        if stop == bytes.len() {
            break;
        }
        line = stop + break_length(bytes, stop);
    }
    deepest.max(1)
}

/// The indentation that an indicator such as the 2 of `|2` counts from: the column of the key or dash before it.
fn parent_indent(text: &str, header: usize) -> usize {
    let mut end = header;
    loop {
        let before = text.get(..end).unwrap_or_default();
        let line = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
        let prefix = text.get(line..end).unwrap_or_default().trim_start_matches('\u{feff}');
        if prefix.starts_with("---") {
            return 0;
        }
        let is_blank_or_comment = prefix.trim_start().is_empty() || prefix.trim_start().starts_with(['#', '&', '!']);
        if !is_blank_or_comment {
            return key_column(prefix);
        }
        if line == 0 {
            return 0;
        }
        end = line - 1;
    }
}

/// The column of the last dash, question mark or key of what stands before a value on its line.
fn key_column(prefix: &str) -> usize {
    let bytes = prefix.as_bytes();
    let mut column = 0;
    let mut at = 0;
    loop {
        while bytes.get(at) == Some(&b' ') {
            at += 1;
        }
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'-' | b'?' | b':'), Some(b' ') | None) => {
                column = at;
                at += 1;
            }
            (Some(b'&' | b'!'), _) => {
                // An anchor or tag: of the value if nothing but the header follows, else of the key.
                let length = bytes.get(at..).unwrap_or_default().iter().take_while(|byte| **byte != b' ').count();
                let rest = prefix.get(at + length..).unwrap_or_default();
                if rest.trim().is_empty() || rest.trim_start().starts_with(['&', '!']) && !rest.contains(':') {
                    return column;
                }
                return at;
            }
            (Some(_), _) => return at,
            (None, _) => return column,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use proptest::prelude::*;

    use super::{place_in_scalar, scan};
    use crate::diagnostic::{FileId, Span};
    use crate::yaml::{Limits, Node, Yaml, load};

    /// Puts the value together again from the pieces that the scan gives, and compares it with the parser's.
    fn check_value(text: &str, node: &Node) {
        match &node.value {
            Yaml::String(value) => {
                let mut length = 0;
                let mut end = 0;
                let _ = scan(text, node.span, &mut |piece| {
                    assert_eq!(piece.value.start, length, "{text:?}");
                    assert!(piece.source.start >= end && piece.source.end <= text.len(), "{text:?} {piece:?}");
                    (length, end) = (piece.value.end, piece.source.end);
                    let source = text.get(piece.source.clone());
                    assert!(source.is_some(), "{text:?} {piece:?}");
                    if piece.is_verbatim {
                        assert_eq!(source, value.get(piece.value.clone()), "{text:?} {piece:?}");
                    } else {
                        let part = value.get(piece.value.clone()).unwrap_or_default();
                        let is_escape = source.is_some_and(|source| source.starts_with(['\\', '\'']));
                        let is_break = part.chars().all(|c| matches!(c, ' ' | '\n'));
                        assert!(is_escape || is_break, "{text:?} {piece:?} {part:?}");
                    }
                    ControlFlow::Continue(())
                });
                // Blanks without a line break at the very end can count as one more empty line.
                let is_open_end = text.ends_with(' ') && value.ends_with('\n');
                assert!(length == value.len() || is_open_end && length + 1 == value.len(), "{text:?} gives {value:?}");
            }
            Yaml::Map(entries) => entries.iter().for_each(|entry| check_value(text, &entry.node)),
            Yaml::List(items) => items.iter().for_each(|item| check_value(text, item)),
            Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => {}
        }
    }

    fn check_text(text: &str) {
        let (node, diagnostics) = load(FileId(0), text, &Limits::default());
        if let Some(node) = node.filter(|_| diagnostics.is_empty()) {
            check_value(text, &node);
        }
    }

    /// Where `needle` of the value of `a` is found in the file.
    fn check(text: &str, needle: &str, expect: &str) {
        let (node, diagnostics) = load(FileId(0), text, &Limits::default());
        assert_eq!(diagnostics, [], "{text:?}");
        let node = node.expect("a tree");
        let scalar = node.get("a").expect("a");
        let value = scalar.as_str().expect("a string");
        let start = value.find(needle).unwrap_or_else(|| panic!("{needle:?} in {value:?}"));
        let place = place_in_scalar(text, scalar.span, start..start + needle.len());
        assert_eq!(&text[place.start as usize..place.end as usize], expect, "{text:?} has {needle:?}");
    }

    #[test]
    fn finds_places() {
        check("a: run {{ x }}\n", "x", "x");
        check("a: one\n  two\n\n  three\n", "two", "two");
        check("a: one\n  two\n\n  three\n", "two\nthree", "two\n\n  three");
        check("a: 'it''s {{ x }}'\n", "x", "x");
        check("a: 'it''s'\n", "'", "''");
        check("a: \"\\u00e9\\n{{ x }} \\ud83c\\udf89 y\"\n", "x", "x");
        check("a: \"\\u00e9\\n{{ x }} \\ud83c\\udf89 y\"\n", "🎉", "\\ud83c\\udf89");
        check("a: \"one \\\n   two\"\n", "two", "two");
        check("a: |\r\n  one\r\n\r\n    two\r\n", "two", "two");
        check("a: >2-\n    one\n  two\n  three\n", "three", "three");
        check("b: 1\na: &x !!str |  # a | comment\n  größe {{ x }}\n", "x", "x");
        check("\u{feff}a: \"{{ x }}\"", "x", "x");
    }

    #[test]
    fn a_range_beyond_the_value_stays_in_it() {
        let span = Span { file: FileId(0), start: 3, end: 8 };
        let place = place_in_scalar("a: 'bcd'\n", span, 7..9);
        assert_eq!((place.start, place.end), (7, 7));
        let place = place_in_scalar("a: 'bcd'\n", span, 1..1);
        assert_eq!((place.start, place.end), (5, 5));
    }

    #[test]
    fn agrees_with_the_parser_on_odd_block_scalars() {
        for text in [
            "a: |\n",
            "a: |+\n\n\nb: c\n",
            "a: |+\n  x\n\n\n",
            "a: >\n  x\n  y\n\n  z\n   more\n  less\n\n\n",
            "a: >-\n\n  x\n\n\n  y\n",
            "a: >+\n  x\n \n\n  y\n\n",
            "a: |\n\n   \n  x\n",
            "a: |1\n  x\n y\n",
            "- |2\n   x\n  y\n",
            "- a: |2\n      x\n    y\n",
            "a:\n- |1\n  x\n y\n",
            "a:\n  |2\n    x\n  y\n",
            "a:\n  &b\n  # c\n  |1\n  x\n y\n",
            "? |1\n  x\n y\n: |1\n  z\n",
            "--- |1\n  x\n",
            "--- |\nx\ny\n",
            "a: |\n  x",
            "a: |\n  x\n   ",
            "a: |\n  x\n     \n  y\n     \nb: c\n",
            "a: >\n  x\n  \ty\n  z\n",
            "a: |-\n  x  \n\nb: |\n  y\n# c\nd: e\n",
            "a: |  \t# c\n  x\n",
            "a: \"x\n\n\n  y\"\n",
            "a: \" x \n  y \"\n",
            "a: \"x\\t\n  y\"\n",
            "a: \"x\\\n\n  \\  y\\x41\\N\\_\\L\\P\\U0001F389\"\n",
            "a: '\n  x\n  '\n",
            "a: x \t\n \t\n  y\n",
        ] {
            check_text(text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn gives_back_every_scalar(
            head in prop::sample::select(vec!["a: ", "- ", "- a: ", "a:\n  ", "a:\n - b: ", "x: &q ", "- - ", "\u{feff}a: "]),
            quote in prop::sample::select(vec!["", "'", "\"", "|", "|+", "|-", "|1", "|2-", ">", ">+", ">-", ">1+"]),
            lines in prop::collection::vec("[ ]{0,6}[a-c é🎉\t'\"\\\\n,x#:4-]{0,8}", 0..7),
            ending in prop::sample::select(vec!["\n", "\r\n"]),
            tail in prop::sample::select(vec!["", "\n", "\nb: c\n", "\n# c\n"]),
        ) {
            let body: Vec<String> = lines.iter().map(|line| {
                match (quote.starts_with(['|', '>']), line.trim().is_empty()) {
                    (true, false) => format!("      {line}"),
                    // A line of too few blanks and a tab is neither content nor an empty line for every parser.
                    (true, true) => line.replace('\t', ""),
                    // Behind a tab the parser takes `#` for a comment in the middle of a plain scalar.
                    (false, _) if quote.is_empty() => line.replace('\t', ""),
                    (false, _) => line.clone(),
                }
            }).collect();
            let body = body.join(ending);
            let text = match quote {
                "" => format!("{head}{body}{tail}"),
                "'" | "\"" => format!("{head}{quote}{body}{quote}{tail}"),
                _ => format!("{head}{quote}{ending}{body}{tail}"),
            };
            check_text(&text);
        }
    }
}
