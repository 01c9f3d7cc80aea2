//! A path as it is written, to its parts: dots, slashes, `[…]`, `@`. What a part means is for the parser.

use std::ops::Range;

use crate::expr::reference::Segment;

/// The parts of a path, and whether it begins with `@`.
pub(super) type Segments = (Vec<Segment>, bool);

/// Splits a path that begins at `offset` of its text. A mistake comes as its place and words.
pub(super) fn split(text: &str, offset: usize) -> Result<Segments, (Range<usize>, String)> {
    let local = text.starts_with('@');
    let mut at = usize::from(local);
    let mut segments = Vec::new();
    if text.starts_with("..") || text.contains("/../") {
        let message = "`..` is not used here: give the outer item a name with `as |name|`".to_owned();
        return Err((offset..offset + 2, message));
    }
    if text == "." || text == "./" {
        return Ok((segments, false));
    }
    if text.starts_with("./") {
        segments.push(Segment { name: "this".to_owned(), range: offset..offset + 1 });
        at = 2;
    }
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let (name, start, length) = if let Some(inner) = rest.strip_prefix('[') {
            let Some(end) = inner.find(']') else {
                return Err((offset + at..offset + at + 1, "`[` is never closed: `]` expected".to_owned()));
            };
            (inner.get(..end).unwrap_or_default(), at + 1, end + 2)
        } else {
            let end = rest.find(['.', '/', '[', '@']).unwrap_or(rest.len());
            (rest.get(..end).unwrap_or_default(), at, end)
        };
        if length == 0 {
            let place = (offset + at).min(offset + text.len().saturating_sub(1));
            return Err((place..place + 1, "a name expected here".to_owned()));
        }
        segments.push(Segment { name: name.to_owned(), range: offset + start..offset + start + name.len() });
        at += length;
        match text.as_bytes().get(at) {
            None => return Ok((segments, local)),
            Some(b'.' | b'/') => at += 1,
            Some(_) => {
                return Err((offset + at..offset + at + 1, "`.` expected between the parts of a path".to_owned()));
            }
        }
    }
}
