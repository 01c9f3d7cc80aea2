//! Inside of a tag: characters to tokens.

use std::ops::Range;

use serde_json::Value;

/// One token of a tag.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A path as written: `params.tags.[0]`, `this`, `@index`, `../x`, `else`, `as`.
    Word,
    Literal(Value),
    Open,
    Close,
    Bar,
    Assign,
    Tilde,
    /// Two or three `}`.
    End(usize),
    /// A character that has no meaning in a tag.
    Stray,
    /// A `{`, or the end of the text: the tag was never closed.
    Unclosed,
    /// A string without its closing quote.
    OpenString,
}

/// Reads the tokens of one tag.
pub(super) struct TagLexer<'s> {
    text: &'s str,
    pub at: usize,
}

/// Whether a character may stand in a segment of a path.
pub(super) fn is_word(letter: char) -> bool {
    !letter.is_whitespace() && !letter.is_control() && !"!\"#%&'()*+,./;<=>@[\\]^`{|}~".contains(letter)
}

impl<'s> TagLexer<'s> {
    /// Begins at an offset.
    pub fn new(text: &'s str, at: usize) -> Self {
        Self { text, at }
    }

    fn rest(&self) -> &'s str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next token and its bytes.
    pub fn next(&mut self) -> (Token, Range<usize>) {
        self.at += self.rest().len() - self.rest().trim_start().len();
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return (Token::Unclosed, start..start) };
        let (token, length) = match first {
            '}' => {
                let count = rest.bytes().take_while(|byte| *byte == b'}').count().min(3);
                (if count < 2 { Token::Unclosed } else { Token::End(count) }, count)
            }
            '{' => (Token::Unclosed, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '|' => (Token::Bar, 1),
            '=' => (Token::Assign, 1),
            '~' => (Token::Tilde, 1),
            '"' | '\'' => return self.string(start, first),
            '@' | '.' | '[' => (Token::Word, self.path_length()),
            letter if is_word(letter) => {
                let length = self.path_length();
                (literal(rest.get(..length).unwrap_or_default()).map_or(Token::Word, Token::Literal), length)
            }
            other => (Token::Stray, other.len_utf8()),
        };
        self.at += length;
        (token, start..self.at)
    }

    /// How far a path goes: words, dots, slashes, `@` and `[…]`.
    fn path_length(&self) -> usize {
        let rest = self.rest();
        let mut length = 0;
        while let Some(next) = rest.get(length..).and_then(|rest| rest.chars().next()) {
            if next == '[' {
                match rest.get(length..).and_then(|rest| rest.find(']')) {
                    Some(end) if !rest.get(length..length + end).unwrap_or_default().contains("}}") => {
                        length += end + 1
                    }
                    _ => return length + 1,
                }
            } else if is_word(next) || matches!(next, '.' | '/' | '@') {
                length += next.len_utf8();
            } else {
                break;
            }
        }
        length.max(1)
    }

    fn string(&mut self, start: usize, quote: char) -> (Token, Range<usize>) {
        let mut value = String::new();
        let mut letters = self.rest().char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            if letter == quote {
                self.at += at + 1;
                return (Token::Literal(Value::String(value)), start..self.at);
            }
            if letter != '\\' {
                value.push(letter);
                continue;
            }
            match letters.next().map(|(_, letter)| letter) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some(other @ ('"' | '\'' | '\\')) => value.push(other),
                Some(other) => value.extend(['\\', other]),
                None => {}
            }
        }
        (Token::OpenString, start..start + 1)
    }
}

fn literal(word: &str) -> Option<Value> {
    match word {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        "null" => return Some(Value::Null),
        _ => {}
    }
    let digits = word.strip_prefix('-').unwrap_or(word);
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    if let Ok(value) = word.parse::<i64>() {
        return Some(Value::from(value));
    }
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    word.parse::<f64>().ok().filter(|value| plain && value.is_finite()).map(Value::from)
}
