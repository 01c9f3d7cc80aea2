//! Bytes to text: what is not UTF-8 is a diagnostic at its place.

use std::borrow::Cow;

use super::codes;
use crate::diagnostic::{Diagnostic, FileId, Span};

/// Takes bytes as UTF-8.
///
/// # Errors
/// The offset of the first byte that is not UTF-8. The same offset is right in the text of [`lossy`].
pub fn decode(bytes: &[u8]) -> Result<&str, usize> {
    std::str::from_utf8(bytes).map_err(|error| error.valid_up_to())
}

/// The text with a replacement character for what is not UTF-8, to be shown beside a diagnostic.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The diagnostic for a file whose byte at `offset` is not UTF-8; `file` holds its [`lossy`] text.
pub fn not_utf8(file: FileId, offset: usize) -> Diagnostic {
    let start = u32::try_from(offset).unwrap_or(u32::MAX);
    // The replacement character has three bytes.
    let span = Span { file, start, end: start.saturating_add(3) };
    Diagnostic::error(codes::NOT_UTF8, span, "this byte is not UTF-8").help("save the file in the encoding UTF-8")
}

#[cfg(test)]
mod tests {
    use super::{decode, lossy, not_utf8};
    use crate::diagnostic::Files;

    fn check(bytes: &[u8], expect: Result<&str, (u32, u32)>) {
        let got = decode(bytes).map_err(|offset| {
            let mut files = Files::default();
            let file = files.add("a.yaml", lossy(bytes).into());
            let place = files.place(not_utf8(file, offset).span);
            assert_eq!((place.end_line, place.end_column), (place.line, place.column + 1));
            (place.line, place.column)
        });
        assert_eq!(got, expect);
    }

    #[test]
    fn gives_the_place_of_the_first_bad_byte() {
        check("größe".as_bytes(), Ok("größe"));
        check(b"a\nb: \xff\xfe", Err((2, 4)));
        check(b"a\xc3", Err((1, 2)));
        check("ä: \u{1f389}".as_bytes().split_last().map_or(&[], |(_, rest)| rest), Err((1, 4)));
    }
}
