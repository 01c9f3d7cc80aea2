//! The texts that spans point into, and the translation of byte offsets to lines and columns.

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
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line = before.bytes().filter(|byte| *byte == b'\n').count();
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[start..].chars().filter(|c| *c != '\u{feff}' || start > 0).count();
    (u32::try_from(line + 1).unwrap_or(u32::MAX), u32::try_from(column + 1).unwrap_or(u32::MAX))
}
