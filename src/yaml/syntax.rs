//! Syntax errors in words: what is wrong, where it began, and what to write instead.

use granit_parser::{ErrorKind, ScanError};

use super::build::{Context, too_deep, unquoted_template};
use super::codes;
use super::load::{Limits, control_character, span};
use crate::diagnostic::{Diagnostic, FileId};

/// Turns the parser's error into a diagnostic.
pub(super) fn explain(file: FileId, text: &str, error: &ScanError, context: &Context, limits: &Limits) -> Diagnostic {
    let mut offset = error.marker().byte_offset().unwrap_or(context.last_end).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let scene = Scene { file, text, offset, context };
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        return too_deep(scene.token().span, limits);
    }
    if let ErrorKind::UnexpectedCharacter { character } = error.kind()
        && (character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}'))
    {
        return control_character(file, offset, *character);
    }
    scene.tab(error.kind()).or_else(|| scene.template()).unwrap_or_else(|| scene.by_kind(error))
}

/// The place of an error and what stands around it.
struct Scene<'a> {
    file: FileId,
    text: &'a str,
    offset: usize,
    context: &'a Context,
}

/// A piece of the line of an error.
struct Token {
    span: crate::diagnostic::Span,
    text: String,
}

impl Scene<'_> {
    fn token(&self) -> Token {
        self.token_at(self.offset)
    }

    /// From a place to the next blank, at least one character and at most 60.
    fn token_at(&self, start: usize) -> Token {
        let rest = self.text.get(start..).unwrap_or_default();
        let limit = rest.char_indices().nth(60).map_or(rest.len(), |(at, _)| at);
        let rest = rest.get(..limit).unwrap_or_default();
        let length = rest.find(char::is_whitespace).unwrap_or(rest.len());
        self.stretch(start, start + length)
    }

    fn stretch(&self, start: usize, end: usize) -> Token {
        let text = self.text.get(start..end).unwrap_or_default().to_owned();
        Token { span: span(self.file, start, end), text }
    }

    fn line_start(&self, offset: usize) -> usize {
        self.text.get(..offset).and_then(|before| before.rfind('\n')).map_or(0, |at| at + 1)
    }

    fn line_end(&self, offset: usize) -> usize {
        let rest = self.text.get(offset..).unwrap_or_default();
        offset + rest.find(['\n', '\r']).unwrap_or(rest.len())
    }

    fn error(&self, at: &Token, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::error(codes::SYNTAX, at.span, message).help(help.into())
    }

    /// A tab where a line's indentation should be.
    fn tab(&self, kind: &ErrorKind) -> Option<Diagnostic> {
        let is_of_tabs = matches!(
            kind,
            ErrorKind::TabNotAllowed
                | ErrorKind::TabInBlockIndentation
                | ErrorKind::TabInIndentation
                | ErrorKind::TabAtBlockScalarStart
                | ErrorKind::TabInPlainScalar
                | ErrorKind::InvalidBlockEntryWhitespace
                | ErrorKind::InvalidMappingValueWhitespace
        );
        let line = self.line_start(self.offset);
        // A line that begins with a tab can be taken for a part of the value above it, where the error is then.
        let next = self.text.get(self.offset..).and_then(|rest| rest.find('\n')).map(|at| self.offset + at + 1);
        let start = self.tab_in_indentation(line).or_else(|| next.and_then(|next| self.tab_in_indentation(next)));
        let start = match start {
            Some(start) => start,
            None if is_of_tabs => line + self.text.get(line..self.line_end(self.offset))?.find('\t')?,
            None => return None,
        };
        let tabs = self.text.get(start..).unwrap_or_default().bytes().take_while(|byte| *byte == b'\t').count();
        let message = "a tab stands where YAML wants spaces";
        let help = "indent with spaces; most editors can do that for .yaml files by themselves";
        Some(Diagnostic::error(codes::TAB, span(self.file, start, start + tabs), message).help(help))
    }

    /// The first tab in the blanks that a line begins with.
    fn tab_in_indentation(&self, line: usize) -> Option<usize> {
        let rest = self.text.get(line..self.line_end(line))?;
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let is_only_blank = blank == rest.len();
        rest.get(..blank)?.find('\t').filter(|_| !is_only_blank).map(|at| line + at)
    }

    /// An unquoted `{{ … }}` before the error, on its line or where the open brace stands.
    fn template(&self) -> Option<Diagnostic> {
        let from = self.context.open_flow.map_or(self.line_start(self.offset), |open| self.line_start(open));
        let end = self.line_end(self.offset);
        let area = self.text.get(from..end.min(from + 10_000)).or_else(|| self.text.get(from..self.offset))?;
        for (at, _) in area.match_indices("{{") {
            let before = area.get(..at)?;
            let is_value =
                before.ends_with(": ") || before.ends_with("- ") || before.ends_with('[') || before.ends_with(", ");
            let start = from + at;
            if !is_value || start > self.offset {
                continue;
            }
            let line = self.text.get(start..self.line_end(start))?;
            let is_list = before.ends_with('[') || before.ends_with(", ");
            let closed = line.find("}}").map_or(line.len(), |close| close + 2);
            let length = if is_list { closed } else { without_comment(line).trim_end().len().max(closed) };
            let place = span(self.file, start, start + length);
            return Some(unquoted_template(place, line.get(..length)?));
        }
        None
    }

    fn by_kind(&self, error: &ScanError) -> Diagnostic {
        let here = self.token();
        match error.kind() {
            ErrorKind::MappingValueNotAllowed => self.second_colon(),
            ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => self.missing_colon(),
            ErrorKind::ExpectedBlockMappingKey => self.no_key(),
            ErrorKind::ExpectedBlockSequenceEntry => {
                let message = format!("`{}` does not belong to the list that goes on here", here.text);
                self.error(&here, message, "begin the line with `- `, or indent it as the lines that it belongs to")
            }
            ErrorKind::BlockSequenceEntryNotAllowed => {
                self.error(&here, "a list cannot begin here", "begin it on a line of its own, one `- ` for each item")
            }
            ErrorKind::BlockEntryInFlowCollection => {
                self.error(&here, "`- ` cannot stand between brackets", "separate the items by commas: [a, b]")
            }
            ErrorKind::UnclosedQuotedScalar
            | ErrorKind::InvalidQuotedScalarIndent
            | ErrorKind::DocumentIndicatorInQuotedScalar => self.open_quote(),
            ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
                let message = format!("`{}` stands after the closing quote", here.text);
                self.error(&here, message, "put the whole value between quotes, and quotes within it as '' or \\\"")
            }
            ErrorKind::UnknownQuotedScalarEscape
            | ErrorKind::InvalidQuotedScalarHexEscape
            | ErrorKind::InvalidUnicodeEscape => {
                let message = "this is no escape that double quotes know";
                self.error(
                    &self.bad_escape(),
                    message,
                    "write a backslash as \\\\, or use single quotes, which leave it as it is",
                )
            }
            ErrorKind::UnclosedFlowCollection { .. }
            | ErrorKind::UnexpectedEofFlowSequence
            | ErrorKind::UnexpectedEofFlowMapping
            | ErrorKind::UnexpectedEofImplicitFlowMapping
            | ErrorKind::ExpectedFlowSequenceSeparator
            | ErrorKind::ExpectedFlowMappingSeparator
            | ErrorKind::InvalidColonPlacement
            | ErrorKind::InvalidFlowScalarIndent => self.open_bracket(),
            ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
                let message = format!("this `{open}` meets a `{close}` before it is closed");
                let want = if *open == '[' { ']' } else { '}' };
                let bracket = self.stretch(self.offset, (self.offset + 1).min(self.text.len()));
                self.error(&bracket, message, format!("close it by `{want}` first"))
            }
            ErrorKind::MisplacedFlowCollectionEnd => self.error(
                &here,
                "nothing is open that this bracket could close",
                "delete it, or put the text in quotes",
            ),
            ErrorKind::UnexpectedCharacter { character } => {
                let message = format!("a value without quotes cannot begin with `{character}`");
                self.error(&here, message, "put the value in quotes")
            }
            ErrorKind::MissingAnchorOrAliasName => {
                let message = "a name is missing after this `&` or `*`";
                self.error(&here, message, "put the value in quotes if it is meant as text")
            }
            ErrorKind::InvalidBlockScalarHeader => {
                let message = "text cannot stand behind `|` or `>`";
                self.error(
                    &here,
                    message,
                    "begin the text on the next line, indented; or put it in quotes on this line",
                )
            }
            ErrorKind::InvalidBlockScalarIndent => {
                let message = "this line is indented less than the text block that it belongs to";
                self.error(&here, message, "indent it as the first line of the block")
            }
            ErrorKind::CommentNotSeparated => self.error(
                &here,
                "a comment needs a space before its `#`",
                "put a space before `#`, or quotes around the value",
            ),
            ErrorKind::UndeclaredTagHandle | ErrorKind::ExpectedTagBang | ErrorKind::InvalidTagTerminator => {
                let message = "this tag is not known";
                self.error(&here, message, "put the value in quotes if it is meant to begin with `!`")
            }
            ErrorKind::InvalidIndentation | ErrorKind::ExpectedNodeContent => self.error(
                &here,
                "this is not indented as YAML needs it here",
                "line it up with the lines it belongs to",
            ),
            other => self.error(&here, format!("this is not valid YAML: {other}"), "see https://yaml.org/spec/1.2.2/"),
        }
    }

    /// A `:` where a value is already being read: `description: first: second`, or a key that is indented too deep.
    fn second_colon(&self) -> Diagnostic {
        let line = self.line_start(self.offset);
        let before = self.text.get(line..self.offset).unwrap_or_default();
        if let Some(first) = before.find(": ") {
            let value = line + first + 1;
            let start =
                value + self.text.get(value..).map_or(0, |rest| rest.len() - rest.trim_start_matches(' ').len());
            let rest = self.text.get(start..self.line_end(start)).unwrap_or_default();
            let rest = without_comment(rest).trim_end();
            let place = span(self.file, start, start + rest.len());
            let message = "a value that holds `: ` must be in quotes: YAML takes the colon for the end of a key";
            let fits = rest.len() <= 100 && !rest.contains(['"', '\\']);
            let help = if fits { format!("write \"{rest}\"") } else { "put the whole value in quotes".to_owned() };
            return Diagnostic::error(codes::UNQUOTED_COLON, place, message).help(help);
        }
        let scalar = self.text.get(self.context.last_scalar..self.context.last_end).unwrap_or_default();
        let first_line = scalar.lines().next().unwrap_or_default();
        if let Some((key, _)) = first_line.split_once(':') {
            let place = self.stretch(self.context.last_scalar, self.context.last_scalar + key.len() + 1);
            let message = format!("`{first_line}` has no space after its colon, so it is no key");
            return self.error(&place, message, "put a space after the colon");
        }
        let indent = before.len() - before.trim_start().len();
        let key = self.stretch(line + indent, self.offset);
        let message = format!("the key `{}` cannot stand here: its line goes on with the value above", key.text);
        self.error(&key, message, "line it up with the key that it belongs beside, or leave the value above it out")
    }

    /// A line that is neither `key: value` nor anything else.
    fn missing_colon(&self) -> Diagnostic {
        let line = self.line_start(self.offset);
        let indent = self.text.get(line..).map_or(0, |rest| rest.len() - rest.trim_start_matches(' ').len());
        let start = if self.offset > line + indent { self.offset } else { line + indent };
        let rest = without_comment(self.text.get(start..self.line_end(start)).unwrap_or_default()).trim_end();
        let place = self.stretch(start, start + rest.len().min(self.token_at(start).text.len().max(1)));
        if let Some((key, value)) = rest.split_once(':')
            && !value.is_empty()
        {
            let message = format!("`{}` has no space after its colon, so it is no key", place.text);
            return self.error(&place, message, format!("write `{key}: {value}`"));
        }
        let message = format!("a key and its `:` are missing here: `{}` stands alone", place.text);
        self.error(&place, message, format!("write `{}: …`, or indent the line as part of the value above", place.text))
    }

    /// Something that is no key of the mapping that goes on here.
    fn no_key(&self) -> Diagnostic {
        let here = self.token();
        let line = self.line_start(self.offset);
        let before = self.text.get(line..self.offset).unwrap_or_default();
        if before.trim().is_empty() {
            if here.text.starts_with('-') {
                let message = "a list item cannot stand here, between the keys of a mapping";
                return self.error(&here, message, "indent it under the key whose value it is");
            }
            let message = format!("`{}` lines up with no key above it", here.text);
            return self.error(&here, message, "give it the indentation of the keys that it belongs beside");
        }
        let message = format!("`{}` stands after the end of the value", here.text);
        self.error(&here, message, "put the whole value in quotes, or begin a new line")
    }

    /// A quote that is not closed before its line's indentation or the file ends.
    fn open_quote(&self) -> Diagnostic {
        let between = self.text.get(self.context.last_end..).unwrap_or_default();
        let start = between.find(['"', '\'']).map_or(self.offset, |at| self.context.last_end + at);
        let place = self.stretch(start, (start + 1).min(self.text.len()));
        self.error(&place, "this quote is never closed", "close it at the end of the value")
    }

    /// The first backslash from the error on that begins no escape.
    fn bad_escape(&self) -> Token {
        let bytes = self.text.as_bytes();
        let mut at = self.offset;
        while let Some(byte) = bytes.get(at) {
            if *byte != b'\\' {
                at += 1;
                continue;
            }
            let digits = match bytes.get(at + 1) {
                Some(b'x') => 2,
                Some(b'u') => 4,
                Some(b'U') => 8,
                Some(known) if b"0abt\tnvfre \"/\\N_LP\r\n".contains(known) => 0,
                Some(_) | None => break,
            };
            let written = bytes.get(at + 2..).unwrap_or_default();
            if written.iter().take_while(|byte| byte.is_ascii_hexdigit()).count() < digits {
                break;
            }
            at += 2;
        }
        if at >= bytes.len() {
            return self.token();
        }
        let length = self.text.get(at..).map_or(0, |rest| rest.chars().take(2).map(char::len_utf8).sum());
        self.stretch(at, at + length)
    }

    /// A bracket or brace that is not closed, or a missing comma.
    fn open_bracket(&self) -> Diagnostic {
        let is_at_bracket = self.text.get(self.offset..).is_some_and(|rest| rest.starts_with(['[', '{']));
        let open = if is_at_bracket { self.offset } else { self.context.open_flow.unwrap_or(self.offset) };
        let bracket = self.stretch(open, (open + 1).min(self.text.len()));
        let closing = if bracket.text == "{" { "}" } else { "]" };
        let is_on_later_line = self.line_start(self.offset) != self.line_start(open);
        if is_at_bracket || self.offset >= self.text.trim_end().len() || is_on_later_line {
            let message = format!("this `{}` is never closed", bracket.text);
            return self.error(&bracket, message, format!("write `{closing}` where it ends"));
        }
        let here = self.token();
        let message = format!("`{}` cannot stand here: a `,` or `{closing}` is missing before it", here.text);
        self.error(
            &here,
            message,
            "separate the items by commas, and put text with brackets, commas or colons in quotes",
        )
        .related(bracket.span, "it began here")
    }
}

/// A line without its comment.
fn without_comment(line: &str) -> &str {
    line.find(" #").and_then(|at| line.get(..at)).unwrap_or(line)
}
