//! The texts that spans point into, and the translation of byte offsets to lines and columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Span;

/// Names one text of a [`Files`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u32);

/// A place as people count it: lines and columns from 1, columns in Unicode characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: u32,
    pub column: u32,
    pub end_line: u32,
    pub end_column: u32,
}

/// All texts that were read, by number.
#[derive(Clone, Debug, Default)]
pub struct Files {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    path: Arc<str>,
    text: Arc<str>,
}

impl Files {
    /// Keeps a text under the path that its reader will be shown, and gives its number.
    pub fn add(&mut self, path: &str, text: Arc<str>) -> FileId {
        self.entries.push(Entry { path: Arc::from(path), text });
        FileId(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
    }

    /// The path of a text.
    pub fn path(&self, file: FileId) -> &str {
        self.entries.get(file.0 as usize).map_or("", |entry| &entry.path)
    }

    /// The text itself.
    pub fn text(&self, file: FileId) -> &str {
        self.entries.get(file.0 as usize).map_or("", |entry| &entry.text)
    }

    /// The text itself, to be kept elsewhere too.
    pub fn shared_text(&self, file: FileId) -> Arc<str> {
        self.entries.get(file.0 as usize).map_or_else(|| Arc::from(""), |entry| Arc::clone(&entry.text))
    }

    /// How many texts there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where a span begins and ends.
    pub fn place(&self, span: Span) -> Place {
        let text = self.text(span.file);
        let (line, column) = locate(text, span.start as usize);
        let (end_line, end_column) = locate(text, span.end.max(span.start) as usize);
        Place { line, column, end_line, end_column }
    }
}

/// Line and column of a byte offset. A byte order mark at the start has no width.
fn locate(text: &str, offset: usize) -> (u32, u32) {
    let offset = floor_boundary(text, offset);
    let before = text.get(..offset).unwrap_or_default();
    let line = before.bytes().filter(|byte| *byte == b'\n').count();
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (narrow(line + 1), narrow(1 + width(text, start, offset)))
}

/// How many columns a stretch of one line has.
fn width(text: &str, start: usize, end: usize) -> usize {
    let stretch = text.get(start..end).unwrap_or_default();
    let has_mark = start == 0 && stretch.starts_with('\u{feff}');
    stretch.chars().count() - usize::from(has_mark)
}

fn floor_boundary(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Places of many spans: it finds the lines of a text once, and counts on from the last place of the same line.
pub(super) struct Places<'a> {
    files: &'a Files,
    texts: BTreeMap<FileId, Lines<'a>>,
}

/// One text with its line starts.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// Line start, offset and column of the last answer.
    last: (usize, usize, usize),
}

impl<'a> Places<'a> {
    pub(super) fn new(files: &'a Files) -> Self {
        Self { files, texts: BTreeMap::new() }
    }

    /// Where a span begins and ends; the same as [`Files::place`].
    pub(super) fn place(&mut self, span: Span) -> Place {
        let lines = self.lines(span.file);
        let (line, column) = lines.locate(span.start as usize);
        let (end_line, end_column) = lines.locate(span.end.max(span.start) as usize);
        Place { line, column, end_line, end_column }
    }

    /// The line, without its break, that a byte offset lies in, and the offset at which it begins.
    pub(super) fn line(&mut self, file: FileId, offset: usize) -> (&'a str, usize) {
        let lines = self.lines(file);
        let (_, start) = lines.line_of(offset.min(lines.text.len()));
        let rest = lines.text.get(start..).unwrap_or_default();
        let line = rest.get(..rest.find('\n').unwrap_or(rest.len())).unwrap_or_default();
        (line.strip_suffix('\r').unwrap_or(line), start)
    }

    fn lines(&mut self, file: FileId) -> &mut Lines<'a> {
        let files = self.files;
        self.texts.entry(file).or_insert_with(|| {
            let text = files.text(file);
            let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
            Lines { text, starts: std::iter::once(0).chain(breaks).collect(), last: (0, 0, 0) }
        })
    }
}

impl Lines<'_> {
    /// The number, from 0, and the start of the line of an offset.
    fn line_of(&self, offset: usize) -> (usize, usize) {
        let number = self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        (number, self.starts.get(number).copied().unwrap_or_default())
    }

    fn locate(&mut self, offset: usize) -> (u32, u32) {
        let offset = floor_boundary(self.text, offset);
        let (number, start) = self.line_of(offset);
        let (last_start, last_offset, last_column) = self.last;
        let column = if last_start == start && (start..=offset).contains(&last_offset) {
            last_column + width(self.text, last_offset, offset)
        } else {
            width(self.text, start, offset)
        };
        self.last = (start, offset, column);
        (narrow(number + 1), narrow(column + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::{Files, Places, Span};

    fn check(text: &str, range: std::ops::Range<u32>, expect: (u32, u32, u32, u32)) {
        let mut files = Files::default();
        let file = files.add("a.yaml", text.into());
        let span = Span { file, start: range.start, end: range.end };
        let place = files.place(span);
        assert_eq!((place.line, place.column, place.end_line, place.end_column), expect, "{text:?} {range:?}");
    }

    #[test]
    fn counts_characters_from_one() {
        check("a: b\nc: d\n", 5..6, (2, 1, 2, 2));
        check("größe: x\r\n🎉: y", 16..18, (2, 2, 2, 4));
        check("\u{feff}a: b", 3..4, (1, 1, 1, 2));
        check("\ta", 1..2, (1, 2, 1, 3));
        check("a", 0..9, (1, 1, 1, 2));
        check("", 0..0, (1, 1, 1, 1));
        check("ö", 1..2, (1, 1, 1, 2));
    }

    #[test]
    fn many_places_are_the_same_as_single_ones() {
        let text = "\u{feff}größe: 1\n\n  🎉 x: y\r\nz";
        let mut files = Files::default();
        let file = files.add("a.yaml", text.into());
        let mut places = Places::new(&files);
        for start in 0..=30 {
            for end in [start, start + 1, start + 7] {
                let span = Span { file, start, end };
                assert_eq!(places.place(span), files.place(span), "{span:?}");
            }
        }
    }
}
