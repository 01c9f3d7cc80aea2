//! Takes secrets out of bytes, also when a secret is cut in two by the way the bytes arrive.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// What stands where a secret was.
const MASK: &[u8] = b"***";
/// A shorter value is no secret: hiding it would make holes in ordinary words.
const SECRET_BYTES_MIN: usize = 4;
/// Lines of a secret with several lines are hidden by themselves too from this length on.
const LINE_BYTES_MIN: usize = 12;

/// Knows what to hide.
#[derive(Debug)]
pub struct Redactor {
    /// The longest first.
    patterns: Vec<Vec<u8>>,
    /// True for a byte that a pattern begins with: most bytes are passed over by this alone.
    begins: [bool; 256],
}

impl Default for Redactor {
    fn default() -> Self {
        Self::new(std::iter::empty())
    }
}

impl Redactor {
    /// Hides these values, and the forms that they take inside JSON and URLs.
    pub fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let mut patterns: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let lines = value.lines().filter(|line| line.len() >= LINE_BYTES_MIN).map(str::to_owned);
            for form in [value.to_owned(), json_form(value), url_form(value)].into_iter().chain(lines) {
                if value.len() >= SECRET_BYTES_MIN && form.len() >= SECRET_BYTES_MIN {
                    patterns.push(form.into_bytes());
                }
            }
        }
        // Of two secrets that begin alike the longer one is tried first, so that its end is not left over.
        patterns.sort_by(|left, right| right.len().cmp(&left.len()).then_with(|| left.cmp(right)));
        patterns.dedup();
        let mut begins = [false; 256];
        for first in patterns.iter().filter_map(|pattern| pattern.first()) {
            if let Some(slot) = begins.get_mut(usize::from(*first)) {
                *slot = true;
            }
        }
        Self { patterns, begins }
    }

    /// True if there is nothing to hide.
    pub fn is_idle(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Hides secrets in bytes that are whole.
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(mut found) = self.find(bytes, 0) else {
            return Cow::Borrowed(bytes);
        };
        let mut clean = Vec::with_capacity(bytes.len());
        let mut from = 0;
        loop {
            clean.extend_from_slice(bytes.get(from..found.start).unwrap_or_default());
            clean.extend_from_slice(MASK);
            from = found.end;
            match self.find(bytes, from) {
                Some(next) => found = next,
                None => break,
            }
        }
        clean.extend_from_slice(bytes.get(from..).unwrap_or_default());
        Cow::Owned(clean)
    }

    /// Hides secrets in a text.
    pub fn text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
    }

    /// The first secret from a place on, the longest of those that begin there.
    fn find(&self, bytes: &[u8], from: usize) -> Option<Range<usize>> {
        if self.is_idle() {
            return None;
        }
        let rest = bytes.get(from..)?;
        rest.iter().enumerate().find_map(|(offset, byte)| {
            if !self.begins.get(usize::from(*byte)).copied().unwrap_or_default() {
                return None;
            }
            let here = rest.get(offset..)?;
            let pattern = self.patterns.iter().find(|pattern| here.starts_with(pattern))?;
            Some(from + offset..from + offset + pattern.len())
        })
    }

    /// Where the bytes' end may be the beginning of a secret; their length if it cannot.
    fn doubtful_from(&self, bytes: &[u8]) -> usize {
        let longest = self.patterns.first().map_or(0, Vec::len);
        let start = (bytes.len() + 1).saturating_sub(longest);
        (start..bytes.len())
            .find(|&at| {
                let tail = bytes.get(at..).unwrap_or_default();
                self.patterns.iter().any(|pattern| pattern.len() > tail.len() && pattern.starts_with(tail))
            })
            .unwrap_or(bytes.len())
    }
}

/// Hides secrets in bytes that arrive in pieces. It holds back no more than a piece that may become a secret.
#[derive(Debug)]
pub struct StreamRedactor {
    redactor: Arc<Redactor>,
    held: Vec<u8>,
}

impl StreamRedactor {
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, held: Vec::new() }
    }

    /// Takes a piece, and gives on what can be told already.
    pub fn push(&mut self, bytes: &[u8], give: &mut dyn FnMut(&[u8])) {
        let redactor = self.redactor.clone();
        if redactor.is_idle() {
            give(bytes);
            return;
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let mut from = 0;
        let mut doubtful = redactor.doubtful_from(&all);
        while let Some(found) = redactor.find(&all, from).filter(|found| found.start < doubtful) {
            give(all.get(from..found.start).unwrap_or_default());
            give(MASK);
            from = found.end;
            if from > doubtful {
                doubtful = from + redactor.doubtful_from(all.get(from..).unwrap_or_default());
            }
        }
        give(all.get(from..doubtful).unwrap_or_default());
        all.drain(..doubtful.min(all.len()));
        self.held = all;
    }

    /// Gives on what was held back: nothing comes after it.
    pub fn finish(&mut self, give: &mut dyn FnMut(&[u8])) {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            give(&self.redactor.bytes(&held));
        }
    }
}

/// A text as it stands between the quotes of a JSON string.
fn json_form(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(&quoted).to_owned()
}

/// A text as it stands in a URL.
fn url_form(value: &str) -> String {
    let mut form = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            form.push(char::from(byte));
        } else {
            form.push_str(&format!("%{byte:02X}"));
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secrets: &[&str], input: &str, expect: &str) {
        let redactor = Arc::new(Redactor::new(secrets.iter().copied()));
        assert_eq!(redactor.text(input), expect);
        for size in 1..=input.len().max(1) {
            let mut stream = StreamRedactor::new(redactor.clone());
            let mut got = Vec::new();
            for piece in input.as_bytes().chunks(size) {
                stream.push(piece, &mut |bytes| got.extend_from_slice(bytes));
            }
            stream.finish(&mut |bytes| got.extend_from_slice(bytes));
            assert_eq!(String::from_utf8(got).unwrap(), expect, "in pieces of {size}");
        }
    }

    #[test]
    fn secrets_are_hidden_however_the_bytes_are_cut() {
        check(&[], "nothing to hide", "nothing to hide");
        check(&["hunter2"], "the password is hunter2.", "the password is ***.");
        check(&["hunter2"], "hunterhunter2hunter2hunter", "hunter******hunter");
        check(&["abcd", "abcdef"], "abcdef abcd abcdeg", "*** *** ***eg");
        check(&["aaaa"], "aaaaaaaaa", "******a");
        check(&["abc"], "abc is too short to be a secret", "abc is too short to be a secret");
        check(&["zażółć"], "x zażółć y", "x *** y");
        check(&["a+b/c= d"], "a%2Bb%2Fc%3D%20d", "***");
        check(&["say \"hi\""], r#"{"a":"say \"hi\""}"#, r#"{"a":"***"}"#);
        check(&["first long line\nsecond long line"], "> second long line", "> ***");
        check(&["first long line\nsecond long line"], "first long line\nsecond long line!", "***!");
        check(&["", "   "], "an  empty one", "an  empty one");
    }

    #[test]
    fn what_cannot_become_a_secret_is_given_on_at_once() {
        let mut stream = StreamRedactor::new(Arc::new(Redactor::new(["hunter2"].into_iter())));
        let mut got = Vec::new();
        stream.push(b"password: hun", &mut |bytes| got.extend_from_slice(bytes));
        assert_eq!(got, b"password: ");
        stream.push(b"gry\n", &mut |bytes| got.extend_from_slice(bytes));
        assert_eq!(got, b"password: hungry\n");
    }
}
