//! A text to a tree: finds the tags, reads them, pairs blocks with their ends. All mistakes are gathered.

use std::ops::Range;

use super::build::{Tag, build};
use super::helper::{HELPERS, Helper};
use super::lexer::{TagLexer, Token, is_word};
use super::path::split;
use super::spaces::{Edges, Piece, trim};
use super::tree::{Argument, BlockKind, Call, Item, Path, Start};
use super::{ARGUMENTS, HELPER, PAIRING, REFUSED, SYNTAX, TOO_LARGE};
use crate::expr::nearest::{nearest, shortened};
use crate::expr::problem::Problem;
use crate::expr::reference::Segment;

/// How deep blocks may nest; each `else if` counts as a level.
const DEEPEST_BLOCKS: usize = 64;

/// How deep calls may nest in one tag.
const DEEPEST_CALLS: usize = 16;

/// How many mistakes of one text are told.
const MOST_PROBLEMS: usize = 50;

/// The names that `@` may have.
const LOCALS: [&str; 4] = ["index", "key", "first", "last"];

/// Reads a text that holds `{{`; says too whether it is one tag with nothing around it.
pub(super) fn parse(source: &str) -> Result<(Vec<Item>, bool), Vec<Problem>> {
    let mut parser = Parser {
        source,
        at: 0,
        pieces: vec![Piece::default()],
        tags: Vec::new(),
        edges: Vec::new(),
        open: Vec::new(),
        problems: Vec::new(),
    };
    parser.scan();
    if !parser.problems.is_empty() {
        parser.problems.sort_by_key(|problem| problem.range.start);
        return Err(parser.problems);
    }
    let is_one_tag = parser.tags.len() == 1 && parser.pieces.iter().all(|piece| piece.text.is_empty());
    trim(&mut parser.pieces, &parser.edges);
    let mut pieces = parser.pieces.into_iter();
    let mut tags = parser.tags.into_iter();
    Ok((build(&mut pieces, &mut tags), is_one_tag))
}

/// A block whose end has not come yet.
struct Opened {
    name: Box<str>,
    range: Range<usize>,
    kind: BlockKind,
    parameters: Vec<Box<str>>,
    /// Levels that `else if` added.
    chained: usize,
    has_else: bool,
}

struct Parser<'s> {
    source: &'s str,
    at: usize,
    /// The texts between the tags: one more than tags.
    pieces: Vec<Piece>,
    tags: Vec<Tag>,
    edges: Vec<Edges>,
    open: Vec<Opened>,
    problems: Vec<Problem>,
}

/// A tag could not be read; its problem is noted already.
struct Broken;

impl<'s> Parser<'s> {
    fn problem(&mut self, code: &'static str, range: Range<usize>, message: impl Into<String>) -> &mut Problem {
        self.problems.push_mut(Problem::new(code, range, message))
    }

    fn broken<T>(&mut self, code: &'static str, range: Range<usize>, message: impl Into<String>) -> Result<T, Broken> {
        self.problem(code, range, message);
        Err(Broken)
    }

    fn text(&self, range: Range<usize>) -> &'s str {
        self.source.get(range).unwrap_or_default()
    }

    fn push_text(&mut self, text: &str) {
        if let Some(piece) = self.pieces.last_mut() {
            piece.text.push_str(text);
        }
    }

    fn scan(&mut self) {
        while let Some(found) = self.text(self.at..self.source.len()).find("{{") {
            let start = self.at + found;
            let before = self.text(self.at..start);
            let backslashes = before.len() - before.trim_end_matches('\\').len();
            if backslashes == 1 {
                self.push_text(before.strip_suffix('\\').unwrap_or(before));
                let braces = self.text(start..self.source.len()).bytes().take_while(|byte| *byte == b'{').count();
                self.push_text(self.text(start..start + braces));
                self.at = start + braces;
                continue;
            }
            // Two backslashes stand for one, and the tag is a tag.
            let kept = if backslashes > 1 { before.strip_suffix('\\') } else { None };
            self.push_text(kept.unwrap_or(before));
            self.at = start;
            let mut edges = Edges::default();
            let tag = match self.tag(start, &mut edges) {
                Ok(tag) => tag,
                Err(Broken) => {
                    self.skip_tag(start);
                    Tag::Nothing
                }
            };
            self.tags.push(tag);
            self.edges.push(edges);
            self.pieces.push(Piece::default());
            let deep = self.open.iter().map(|block| 1 + block.chained).sum::<usize>() > DEEPEST_BLOCKS;
            if deep {
                self.problems.clear();
                let message = format!("blocks nest deeper than {DEEPEST_BLOCKS} levels here");
                self.problem(TOO_LARGE, start..start + 2, message);
                return;
            }
            if self.problems.len() >= MOST_PROBLEMS {
                return;
            }
        }
        self.push_text(self.text(self.at..self.source.len()));
        while let Some(block) = self.open.pop() {
            let name = block.name;
            let message = format!("`{{{{#{name}}}}}` is never closed: `{{{{/{name}}}}}` expected");
            self.problem(PAIRING, block.range, message);
        }
    }

    /// Goes on behind a tag that could not be read.
    fn skip_tag(&mut self, start: usize) {
        let rest = self.text(start + 2..self.source.len());
        let end = rest.find("}}").map_or(rest.len(), |end| end + 2);
        let next = rest.find("{{").unwrap_or(rest.len());
        self.at = (start + 2 + end.min(next.max(1))).max(self.at.min(self.source.len()));
        while !self.source.is_char_boundary(self.at) {
            self.at += 1;
        }
        // What is left of closing braces belongs to the tag.
        let braces = self.text(self.at..self.source.len()).bytes().take_while(|byte| *byte == b'}').count();
        if end <= next {
            self.at += braces.min(2);
        }
    }

    fn tag(&mut self, start: usize, edges: &mut Edges) -> Result<Tag, Broken> {
        let rest = self.text(start + 2..self.source.len());
        if rest.starts_with("{{") {
            return self.refused(
                start..start + 4,
                "raw blocks `{{{{` are not used here",
                "write `\\{{` for a literal `{{`",
            );
        }
        let mut at = start + 2;
        if rest.starts_with('~') {
            edges.trim_before = true;
            at += 1;
        }
        let rest = self.text(at..self.source.len());
        let sign = rest.chars().next().unwrap_or(' ');
        match sign {
            '!' => self.comment(start, at, edges),
            '>' => self.refused(at..at + 1, "partials are not used here", "write the text itself"),
            '*' => self.refused(at..at + 1, "decorators are not used here", "leave the tag out"),
            '{' => self.value(start, at + 1, 3, edges),
            '&' => self.value(start, at + 1, 2, edges),
            '#' => {
                edges.may_own_line = true;
                self.open(start, at + 1, edges)
            }
            '/' => {
                edges.may_own_line = true;
                self.close(start, at + 1, edges)
            }
            '^' => {
                edges.may_own_line = true;
                self.otherwise(start, at + 1, edges)
            }
            _ => {
                let trimmed = rest.trim_start();
                let after = trimmed.strip_prefix("else").and_then(|rest| rest.chars().next());
                if trimmed.starts_with("else") && after.is_none_or(|next| !is_word(next) && !matches!(next, '.' | '/'))
                {
                    edges.may_own_line = true;
                    let at = at + (rest.len() - trimmed.len()) + "else".len();
                    return self.otherwise(start, at, edges);
                }
                self.value(start, at, 2, edges)
            }
        }
    }

    fn refused<T>(&mut self, range: Range<usize>, message: &str, help: &str) -> Result<T, Broken> {
        self.problem(REFUSED, range, message).help = Some(help.to_owned());
        Err(Broken)
    }

    fn comment(&mut self, start: usize, at: usize, edges: &mut Edges) -> Result<Tag, Broken> {
        let rest = self.text(at + 1..self.source.len());
        let is_long = rest.starts_with("--");
        let is_end = |end: &usize| {
            let body = rest.get(..*end).unwrap_or_default();
            let body = body.strip_suffix('~').unwrap_or(body);
            !is_long || (body.len() >= 4 && body.ends_with("--"))
        };
        let found = rest.match_indices("}}").map(|(end, _)| end).find(is_end);
        let Some(end) = found else { return self.unclosed(start) };
        edges.trim_after = rest.get(..end).is_some_and(|body| body.ends_with('~'));
        edges.may_own_line = true;
        self.at = at + 1 + end + 2;
        Ok(Tag::Nothing)
    }

    fn unclosed<T>(&mut self, start: usize) -> Result<T, Broken> {
        self.broken(SYNTAX, start..start + 2, "unclosed `{{`: `}}` expected")
    }

    /// Reads the end of a tag, a `~` before it too.
    fn end(&mut self, reader: &mut Reader<'s>, start: usize, braces: usize, edges: &mut Edges) -> Result<(), Broken> {
        if reader.token == Token::Tilde {
            edges.trim_after = true;
            reader.advance();
        }
        match &reader.token {
            Token::End(found) if *found >= braces => {
                self.at = reader.range.start + braces;
                Ok(())
            }
            Token::End(_) => self.broken(SYNTAX, start..start + 3, "unclosed `{{{`: `}}}` expected"),
            _ => self.unexpected(reader, start),
        }
    }

    /// Something stands where the tag should end or go on with an argument.
    fn unexpected<T>(&mut self, reader: &Reader<'s>, start: usize) -> Result<T, Broken> {
        let range = reader.range.clone();
        let text = self.text(range.clone());
        match &reader.token {
            Token::Unclosed => self.unclosed(start),
            Token::OpenString => self.broken(SYNTAX, range, "this string is never closed"),
            Token::Bar => {
                self.problem(SYNTAX, range, "unexpected `|`: there are no filters (pipes) in templates").help =
                    Some(format!("helpers stand in front: `{{{{ json x }}}}`; {}", helper_list()));
                Err(Broken)
            }
            Token::Assign => self.broken(SYNTAX, range, "unexpected `=`: helpers take no named arguments here"),
            Token::Word
            | Token::Literal(_)
            | Token::Open
            | Token::Close
            | Token::Tilde
            | Token::End(_)
            | Token::Stray => {
                self.broken(SYNTAX, range, format!("unexpected `{}` in a template: `}}}}` expected", shortened(text)))
            }
        }
    }

    fn value(&mut self, start: usize, at: usize, braces: usize, edges: &mut Edges) -> Result<Tag, Broken> {
        let mut reader = Reader::new(self.source, at);
        if let Token::End(_) = reader.token {
            return self.broken(
                SYNTAX,
                start..reader.range.end,
                "this template is empty: a name expected between the braces",
            );
        }
        let argument = self.call_or_path(&mut reader, start, 0)?;
        self.end(&mut reader, start, braces, edges)?;
        Ok(Tag::Value(argument))
    }

    /// `helper argument …`, or one argument alone.
    fn call_or_path(&mut self, reader: &mut Reader<'s>, start: usize, depth: usize) -> Result<Argument, Broken> {
        let range = reader.range.clone();
        let word = self.text(range.clone());
        if reader.token != Token::Word {
            return self.argument(reader, start, depth);
        }
        let helper = Helper::named(word);
        let mut ahead = reader.clone();
        ahead.advance();
        let has_arguments = matches!(ahead.token, Token::Word | Token::Literal(_) | Token::Open);
        if helper.is_none() && !has_arguments {
            return self.argument(reader, start, depth);
        }
        *reader = ahead;
        let Some(helper) = helper else {
            let message = format!("there is no helper `{}`", shortened(word));
            let near = nearest(word, HELPERS.iter().map(|helper| helper.name()));
            let help = match (near, BlockKind::named(word)) {
                (_, Some(_)) => format!("a block begins with `{{{{#{word} …}}}}`"),
                (Some(near), None) => format!("did you mean `{near}`?"),
                (None, None) => helper_list(),
            };
            self.problem(HELPER, range, message).help = Some(help);
            return Err(Broken);
        };
        let mut arguments = Vec::new();
        while matches!(reader.token, Token::Word | Token::Literal(_) | Token::Open) {
            arguments.push(self.argument(reader, start, depth)?);
        }
        let (least, most) = helper.arguments();
        if arguments.len() < least || arguments.len() > most {
            let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
            let message = format!("`{word}` takes {wanted} argument(s), not {}", arguments.len());
            return self.broken(ARGUMENTS, range, message);
        }
        let range = range.start..reader.last_end;
        Ok(Argument::Call(Box::new(Call { helper, arguments, range })))
    }

    fn argument(&mut self, reader: &mut Reader<'s>, start: usize, depth: usize) -> Result<Argument, Broken> {
        let range = reader.range.clone();
        match &mut reader.token {
            Token::Literal(value) => {
                let value = value.take();
                reader.advance();
                Ok(Argument::Literal(value))
            }
            Token::Word => {
                let path = self.path(range)?;
                reader.advance();
                Ok(Argument::Path(path))
            }
            Token::Open => {
                if depth >= DEEPEST_CALLS {
                    return self.broken(TOO_LARGE, range, format!("calls nest deeper than {DEEPEST_CALLS} levels"));
                }
                reader.advance();
                let inner = self.call_or_path(reader, start, depth + 1)?;
                if reader.token != Token::Close {
                    if matches!(reader.token, Token::End(_)) {
                        return self.broken(SYNTAX, range, "`(` is never closed: `)` expected");
                    }
                    return self.unexpected(reader, start);
                }
                reader.advance();
                Ok(inner)
            }
            Token::Bar
            | Token::Close
            | Token::Assign
            | Token::Tilde
            | Token::End(_)
            | Token::Stray
            | Token::Unclosed
            | Token::OpenString => self.unexpected(reader, start),
        }
    }

    /// The names behind `as` that are in scope, outermost first.
    fn parameters(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        let names: Vec<&str> = self.open.iter().flat_map(|block| block.parameters.iter().map(|name| &**name)).collect();
        names.into_iter()
    }

    fn path(&mut self, range: Range<usize>) -> Result<Path, Broken> {
        let (segments, local) = match split(self.text(range.clone()), range.start) {
            Ok(found) => found,
            Err((place, message)) => return self.broken(SYNTAX, place, message),
        };
        let mut segments = segments;
        if let Some(place) = segments.iter().skip(1).find(|segment| segment.name == "this").map(|s| s.range.clone()) {
            return self.broken(SYNTAX, place, "`this` stands at the start of a path only");
        }
        let has_item = self.open.iter().any(|block| block.kind.has_this());
        let first = segments.first().map(|segment| (segment.name.clone(), segment.range.clone()));
        let Some((name, place)) = first else {
            // `.` alone is `this`.
            return self.item_path(range, Vec::new(), has_item);
        };
        if local {
            if name == "root" && segments.len() > 1 {
                segments.remove(0);
                return Ok(Path { start: Start::Root, segments, range });
            }
            let known = LOCALS.into_iter().find(|known| *known == name);
            let in_each = self.open.iter().any(|block| block.kind == BlockKind::Each);
            return match known {
                Some(known) if in_each && segments.len() == 1 => {
                    Ok(Path { start: Start::Local(known), segments: Vec::new(), range })
                }
                Some(known) if in_each => self.broken(SYNTAX, range, format!("`@{known}` has no fields")),
                Some(known) => {
                    self.broken(SYNTAX, range, format!("`@{known}` has a meaning only inside `{{{{#each}}}}`"))
                }
                None => {
                    let message = format!("there is no `@{}`", shortened(&name));
                    let help = "there is `@index`, `@key`, `@first`, `@last`".to_owned();
                    self.problem(SYNTAX, place, message).help = Some(help);
                    Err(Broken)
                }
            };
        }
        if name == "this" || name == "." {
            segments.remove(0);
            return self.item_path(range, segments, has_item);
        }
        let found = self.parameters().rposition(|parameter| parameter == name);
        if let Some(index) = found {
            segments.remove(0);
            return Ok(Path { start: Start::Parameter(index), segments, range });
        }
        Ok(Path { start: Start::Root, segments, range })
    }

    fn item_path(&mut self, range: Range<usize>, segments: Vec<Segment>, has_item: bool) -> Result<Path, Broken> {
        if has_item {
            return Ok(Path { start: Start::This, segments, range });
        }
        self.broken(SYNTAX, range, "`this` has a meaning only inside `{{#each}}` and `{{#with}}`")
    }

    /// What a block's tag says behind its sign: a kind, an argument, names behind `as`.
    fn block(
        &mut self,
        reader: &mut Reader<'s>,
        start: usize,
        edges: &mut Edges,
    ) -> Result<(BlockKind, Argument, Vec<Box<str>>), Broken> {
        let range = reader.range.clone();
        let word = self.text(range.clone());
        match reader.token {
            Token::Word => {}
            Token::Stray if word == "*" || word == ">" => {
                return self.refused(range, "partials and decorators are not used here", "leave the tag out");
            }
            _ => return self.unexpected(reader, start),
        }
        let Some(kind) = BlockKind::named(word) else {
            let near = nearest(word, BlockKind::NAMES);
            let help = near.map_or_else(
                || "there is `#if`, `#unless`, `#each`, `#with`".to_owned(),
                |near| format!("did you mean `#{near}`?"),
            );
            self.problem(HELPER, range, format!("there is no block `#{}`", shortened(word))).help = Some(help);
            return Err(Broken);
        };
        reader.advance();
        if matches!(reader.token, Token::End(_)) {
            return self.broken(ARGUMENTS, range, format!("`#{word}` needs a value: `{{{{#{word} name}}}}`"));
        }
        let argument = self.argument(reader, start, 0)?;
        let mut parameters: Vec<Box<str>> = Vec::new();
        if reader.token == Token::Word && self.text(reader.range.clone()) == "as" {
            let place = reader.range.clone();
            reader.advance();
            if reader.token != Token::Bar {
                return self.unexpected(reader, start);
            }
            reader.advance();
            while reader.token == Token::Word {
                let name = self.text(reader.range.clone());
                if !name.chars().all(is_word) || name == "this" || parameters.iter().any(|other| **other == *name) {
                    return self.broken(SYNTAX, reader.range.clone(), "this cannot be a name of an item");
                }
                parameters.push(name.into());
                reader.advance();
            }
            if reader.token != Token::Bar {
                return self.unexpected(reader, start);
            }
            reader.advance();
            if parameters.is_empty() || parameters.len() > kind.most_parameters() {
                let message = format!("`#{word}` takes at most {} name(s) behind `as`", kind.most_parameters());
                return self.broken(ARGUMENTS, place, message);
            }
        } else if matches!(reader.token, Token::Word | Token::Literal(_) | Token::Open) {
            let place = reader.range.clone();
            self.problem(ARGUMENTS, place, format!("`#{word}` takes one value")).help =
                Some("put a helper and its arguments in parentheses".to_owned());
            return Err(Broken);
        }
        self.end(reader, start, 2, edges)?;
        Ok((kind, argument, parameters))
    }

    fn open(&mut self, start: usize, at: usize, edges: &mut Edges) -> Result<Tag, Broken> {
        let mut reader = Reader::new(self.source, at);
        let word: Box<str> = self.text(reader.range.clone()).into();
        let found = self.block(&mut reader, start, edges);
        let is_word = !word.is_empty() && word.chars().all(is_word);
        if found.is_err() && !is_word {
            return Err(Broken);
        }
        let (kind, parameters) = match &found {
            Ok((kind, _, parameters)) => (*kind, parameters.clone()),
            // The end of a block that is wrong is still its end, and `this` inside is no second mistake.
            Err(Broken) => (BlockKind::Each, Vec::new()),
        };
        let range = start..if found.is_ok() { self.at } else { start + 2 };
        self.open.push(Opened { name: word, range, kind, parameters, chained: 0, has_else: false });
        found.map(|(kind, argument, parameters)| Tag::Open { kind, argument, parameters })
    }

    fn otherwise(&mut self, start: usize, at: usize, edges: &mut Edges) -> Result<Tag, Broken> {
        let mut reader = Reader::new(self.source, at);
        let place = start..at;
        match self.open.last_mut() {
            None => return self.broken(PAIRING, place, "`{{else}}` stands outside of a block"),
            Some(block) if block.has_else => {
                return self.broken(PAIRING, place, "this block has an `{{else}}` already");
            }
            Some(block) => {
                block.parameters.clear();
            }
        }
        if matches!(reader.token, Token::End(_) | Token::Tilde) {
            if let Some(block) = self.open.last_mut() {
                block.has_else = true;
                block.kind = BlockKind::If;
            }
            self.end(&mut reader, start, 2, edges)?;
            return Ok(Tag::Else);
        }
        if let Some(block) = self.open.last_mut() {
            block.kind = BlockKind::If;
        }
        let (kind, argument, parameters) = self.block(&mut reader, start, edges)?;
        if let Some(block) = self.open.last_mut() {
            block.kind = kind;
            block.parameters.clone_from(&parameters);
            block.chained += 1;
        }
        Ok(Tag::ElseOpen { kind, argument, parameters })
    }

    fn close(&mut self, start: usize, at: usize, edges: &mut Edges) -> Result<Tag, Broken> {
        let mut reader = Reader::new(self.source, at);
        let range = reader.range.clone();
        let word = self.text(range.clone());
        if reader.token != Token::Word {
            return self.unexpected(&reader, start);
        }
        reader.advance();
        self.end(&mut reader, start, 2, edges)?;
        match self.open.last() {
            None => self.broken(PAIRING, range, format!("`{{{{/{}}}}}` closes nothing", shortened(word))),
            Some(block) if *block.name == *word => {
                self.open.pop();
                Ok(Tag::Close)
            }
            Some(block) => {
                let message = format!("`{{{{/{}}}}}` expected here, to close `{{{{#{}}}}}`", block.name, block.name);
                // A name that fits a block further out closes that one; the mistake is told once.
                match self.open.iter().rposition(|block| *block.name == *word) {
                    Some(index) => self.open.truncate(index),
                    None => {
                        self.open.pop();
                    }
                }
                self.broken(PAIRING, range, message)
            }
        }
    }
}

/// Tokens of one tag with the current one at hand.
#[derive(Clone)]
struct Reader<'s> {
    source: &'s str,
    at: usize,
    token: Token,
    range: Range<usize>,
    last_end: usize,
}

impl<'s> Reader<'s> {
    fn new(source: &'s str, at: usize) -> Self {
        let mut reader = Self { source, at, token: Token::Stray, range: at..at, last_end: at };
        reader.advance();
        reader
    }

    fn advance(&mut self) {
        let mut lexer = TagLexer::new(self.source, self.at);
        self.last_end = self.range.end;
        (self.token, self.range) = lexer.next();
        self.at = lexer.at;
    }
}

fn helper_list() -> String {
    let names: Vec<String> = HELPERS.iter().map(|helper| format!("`{}`", helper.name())).collect();
    format!("there is {}", names.join(", "))
}
