//! Characters to tokens, one at a time. Names are left in the text; strings come without their escapes.

use std::ops::Range;

use crate::expr::problem::Problem;

/// One token. `Name` covers keywords too; the parser tells them apart.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    End,
    Name,
    Int(u64),
    Double(f64),
    Text(String),
    /// One of the fixed signs, such as `&&` or `(`.
    Sign(&'static str),
    /// A sign that is no operator of the language, such as `=` or `&`.
    Stray(char),
}

/// The signs, longer ones first.
const SIGNS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", "(", ")", "[", "]", "{", "}",
    ",", ".",
];

/// Reads tokens from a text.
pub(super) struct Lexer<'s> {
    text: &'s str,
    at: usize,
}

impl<'s> Lexer<'s> {
    /// Begins at the start of a text.
    pub fn new(text: &'s str) -> Self {
        Self { text, at: 0 }
    }

    /// The next token and its bytes.
    pub fn next(&mut self) -> Result<(Token, Range<usize>), Problem> {
        self.skip_blanks();
        let start = self.at;
        let token = match self.byte(0) {
            None => Token::End,
            Some(b'"' | b'\'') => self.string(start, false)?,
            Some(b'r' | b'R') if matches!(self.byte(1), Some(b'"' | b'\'')) => {
                self.at += 1;
                self.string(start, true)?
            }
            Some(b'b' | b'B') if self.starts_bytes() => {
                let end = start + 1;
                return Err(Problem::new(super::SYNTAX, start..end, "there are no byte strings here")
                    .help("write a string without the `b`"));
            }
            Some(b'0'..=b'9') => self.number(start)?,
            Some(b'.') if matches!(self.byte(1), Some(b'0'..=b'9')) => self.number(start)?,
            Some(byte) if byte == b'_' || byte.is_ascii_alphabetic() => {
                while self.byte(0).is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
                    self.at += 1;
                }
                Token::Name
            }
            Some(_) => self.sign(),
        };
        Ok((token, start..self.at))
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn rest(&self) -> &'s str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.byte(0) {
                Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0c) => self.at += 1,
                Some(b'/') if self.byte(1) == Some(b'/') => {
                    self.at += self.rest().find('\n').unwrap_or(self.rest().len());
                }
                _ => return,
            }
        }
    }

    /// `b"`, `br"` and `rb"`.
    fn starts_bytes(&self) -> bool {
        match self.byte(1) {
            Some(b'"' | b'\'') => true,
            Some(b'r' | b'R') => matches!(self.byte(2), Some(b'"' | b'\'')),
            _ => false,
        }
    }

    fn sign(&mut self) -> Token {
        let rest = self.rest();
        if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            self.at += sign.len();
            return Token::Sign(sign);
        }
        let stray = rest.chars().next().unwrap_or(' ');
        self.at += stray.len_utf8();
        Token::Stray(stray)
    }

    fn digits(&mut self) -> usize {
        let before = self.at;
        while self.byte(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        self.at - before
    }

    fn number(&mut self, start: usize) -> Result<Token, Problem> {
        if self.byte(0) == Some(b'0') && matches!(self.byte(1), Some(b'x' | b'X')) {
            self.at += 2;
            while self.byte(0).is_some_and(|byte| byte.is_ascii_hexdigit()) {
                self.at += 1;
            }
            let value = u64::from_str_radix(self.text.get(start + 2..self.at).unwrap_or_default(), 16).ok();
            return self.end_of_int(start, value);
        }
        let mut fraction = false;
        self.digits();
        if self.byte(0) == Some(b'.') && self.byte(1).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
            self.digits();
            fraction = true;
        }
        if matches!(self.byte(0), Some(b'e' | b'E')) {
            let before = self.at;
            self.at += 1;
            if matches!(self.byte(0), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                self.at = before;
            } else {
                fraction = true;
            }
        }
        if !fraction {
            let value = self.text.get(start..self.at).and_then(|digits| digits.parse().ok());
            return self.end_of_int(start, value);
        }
        self.refuse_letters(start)?;
        match self.text.get(start..self.at).and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite())
        {
            Some(value) => Ok(Token::Double(value)),
            None => Err(Problem::new(super::SYNTAX, start..self.at, "this number is too large for a double")),
        }
    }

    /// Takes the suffix `u`, which changes nothing: all integers are signed here.
    fn end_of_int(&mut self, start: usize, value: Option<u64>) -> Result<Token, Problem> {
        if matches!(self.byte(0), Some(b'u' | b'U')) {
            self.at += 1;
        }
        self.refuse_letters(start)?;
        match value {
            Some(value) => Ok(Token::Int(value)),
            None => Err(Problem::new(super::SYNTAX, start..self.at, "this integer does not fit in 64 bits")),
        }
    }

    fn refuse_letters(&mut self, start: usize) -> Result<(), Problem> {
        if !self.byte(0).is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
            return Ok(());
        }
        while self.byte(0).is_some_and(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
            self.at += 1;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Err(Problem::new(
            super::SYNTAX,
            start..self.at,
            format!("`{}` is not a number", crate::expr::nearest::shortened(text)),
        ))
    }

    /// Reads a string from its opening quote; `start` is where its prefix begins.
    fn string(&mut self, start: usize, raw: bool) -> Result<Token, Problem> {
        let Some(quote) = self.byte(0) else { return Ok(Token::End) };
        let long = self.byte(1) == Some(quote) && self.byte(2) == Some(quote);
        self.at += if long { 3 } else { 1 };
        let mut value = String::new();
        loop {
            let rest = self.rest();
            let Some(next) = rest.chars().next() else {
                return Err(unclosed(start, self.text));
            };
            if next == char::from(quote) && (!long || rest.bytes().take(3).filter(|byte| *byte == quote).count() == 3) {
                self.at += if long { 3 } else { 1 };
                return Ok(Token::Text(value));
            }
            if !long && (next == '\n' || next == '\r') {
                return Err(unclosed(start, self.text));
            }
            if next == '\\' && !raw {
                value.push(self.escape()?);
                continue;
            }
            self.at += next.len_utf8();
            value.push(next);
            // A raw string keeps the backslash and what follows it, a quote too.
            if next == '\\' && self.byte(0) == Some(quote) {
                self.at += 1;
                value.push(char::from(quote));
            }
        }
    }

    fn escape(&mut self) -> Result<char, Problem> {
        let start = self.at;
        let kind = self.rest().chars().nth(1).unwrap_or('\\');
        self.at = (start + 1 + kind.len_utf8()).min(self.text.len());
        let (digits, radix) = match kind {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'a' => return Ok('\u{7}'),
            'b' => return Ok('\u{8}'),
            'f' => return Ok('\u{c}'),
            'v' => return Ok('\u{b}'),
            '\\' | '?' | '"' | '\'' | '`' => return Ok(kind),
            'x' | 'X' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='3' => {
                self.at = start + 1;
                (3, 8)
            }
            _ => (0, 0),
        };
        let text = self.text.get(self.at..self.at + digits).unwrap_or_default();
        let plain = digits > 0 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u32::from_str_radix(text, radix.max(2)).ok().filter(|_| plain).and_then(char::from_u32) {
            Some(found) => {
                self.at += digits;
                Ok(found)
            }
            None => Err(Problem::new(super::SYNTAX, start..self.at, "this escape is not known")
                .help("write `\\\\` for a backslash, or a raw string such as `r\"…\"`")),
        }
    }
}

fn unclosed(start: usize, text: &str) -> Problem {
    let rest = text.get(start..).unwrap_or_default();
    let end = start + rest.find('\n').unwrap_or(rest.len());
    Problem::new(super::SYNTAX, start..end, "this string is never closed").help("end it with the quote that begins it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Result<Vec<Token>, Problem> {
        let mut lexer = Lexer::new(text);
        let mut found = Vec::new();
        loop {
            match lexer.next()? {
                (Token::End, _) => return Ok(found),
                (token, _) => found.push(token),
            }
        }
    }

    fn check_text(text: &str, expect: &str) {
        assert_eq!(tokens(text), Ok(vec![Token::Text(expect.to_owned())]), "{text}");
    }

    fn check_error(text: &str, expect: Range<usize>) {
        assert_eq!(tokens(text).map_err(|problem| problem.range), Err(expect), "{text}");
    }

    #[test]
    fn strings_in_all_forms() {
        check_text(r"'a'", "a");
        check_text(r#""a'b""#, "a'b");
        check_text(r"'it\'s'", "it's");
        check_text(r"'''a'b''c'''", "a'b''c");
        check_text("\"\"\"a\n\"b\"\"\"", "a\n\"b");
        check_text(r"r'\d+\.'", r"\d+\.");
        check_text(r#"R"\n""#, r"\n");
        check_text(r"'\x41\u00e9\U0001F333\101\n'", "Aé🌳A\n");
        check_text(r"''", "");
        check_text("''''''", "");
    }

    #[test]
    fn strings_that_are_wrong() {
        check_error("'abc", 0..4);
        check_error("1 + 'abc\n'", 4..8);
        check_error(r"'a\q'", 2..4);
        check_error(r"'\ud800'", 1..3);
        check_error(r"'\400'", 1..3);
        check_error("b'x'", 0..1);
        check_error("'''abc'", 0..7);
        check_error("'\\", 0..2);
    }

    #[test]
    fn numbers() {
        let check = |text: &str, expect: Token| assert_eq!(tokens(text), Ok(vec![expect]), "{text}");
        check("0", Token::Int(0));
        check("0x1F", Token::Int(31));
        check("42u", Token::Int(42));
        check("9223372036854775808", Token::Int(1 << 63));
        check("1.5", Token::Double(1.5));
        check(".5", Token::Double(0.5));
        check("1e3", Token::Double(1000.0));
        check("2.5E-1", Token::Double(0.25));
        assert_eq!(tokens("1.size"), Ok(vec![Token::Int(1), Token::Sign("."), Token::Name]));
        check_error("99999999999999999999", 0..20);
        check_error("0x", 0..2);
        check_error("12ab", 0..4);
        check_error("1e999", 0..5);
    }
}
