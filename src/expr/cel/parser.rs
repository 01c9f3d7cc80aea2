//! Tokens to a tree, by precedence climbing. Nesting and height are bounded, so no text can overflow the stack.

use std::ops::Range;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::functions;
use super::lexer::{Lexer, Token};
use super::tree::{Call, Comprehension, Form, Kind, Node, Operator};
use super::{FUNCTION, PATTERN, SYNTAX, TOO_LARGE};
use crate::expr::nearest::{shortened, suggestion};
use crate::expr::problem::Problem;

/// The longest text of an expression, in bytes.
pub(super) const LONGEST_TEXT: usize = 64 * 1024;

/// How deep parentheses, calls, lists and signs may nest. One level of comprehensions takes
/// 20 KB of the stack without optimisation.
const DEEPEST_NESTING: u16 = 48;

/// How high the tree may become, by chains such as `a + b + c …` too. One level takes two frames of the stack.
const HIGHEST_TREE: u16 = 200;

/// Words that CEL keeps for itself.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "while",
];

/// The compiled size that a regular expression may have, in bytes.
const PATTERN_BYTES: usize = 1 << 20;

/// Reads a whole text. Mistakes of the form end it; unknown functions and the like are gathered.
pub(super) fn parse(source: &str) -> Result<Node, Vec<Problem>> {
    if source.len() > LONGEST_TEXT {
        let message = format!("this expression has {} bytes; {LONGEST_TEXT} are the most", source.len());
        return Err(vec![Problem::new(TOO_LARGE, 0..source.len(), message)]);
    }
    let mut parser = match Parser::new(source) {
        Ok(parser) => parser,
        Err(problem) => return Err(vec![problem]),
    };
    match parser.whole() {
        Ok(node) if parser.problems.is_empty() => Ok(node),
        Ok(_) => Err(parser.problems),
        Err(problem) => {
            parser.problems.push(problem);
            Err(parser.problems)
        }
    }
}

/// Compiles a regular expression within the bound on its size.
pub(super) fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build().map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.strip_prefix("error: ").unwrap_or(last).to_owned()
            }
        }
    })
}

struct Parser<'s> {
    source: &'s str,
    lexer: Lexer<'s>,
    token: Token,
    range: Range<usize>,
    /// Where the token before this one ended.
    last_end: usize,
    depth: u16,
    /// Variables of the comprehensions around the current place, outermost first.
    variables: Vec<&'s str>,
    problems: Vec<Problem>,
}

type Parsed<T> = Result<T, Problem>;

impl<'s> Parser<'s> {
    fn new(source: &'s str) -> Parsed<Self> {
        let blanks = source.len() - source.trim_start().len();
        if source.trim_start().starts_with("{{") {
            return Err(Problem::new(SYNTAX, blanks..blanks + 2, "an expression is written without `{{ }}`")
                .help("leave the braces out"));
        }
        let mut lexer = Lexer::new(source);
        let (token, range) = lexer.next()?;
        let variables = Vec::new();
        Ok(Self { source, lexer, token, range, last_end: 0, depth: 0, variables, problems: Vec::new() })
    }

    fn whole(&mut self) -> Parsed<Node> {
        if self.token == Token::End {
            return Err(Problem::new(SYNTAX, 0..self.source.len(), "an expression is expected, this is empty"));
        }
        let node = self.expression()?;
        if self.token == Token::End { Ok(node) } else { Err(self.unexpected("the end or an operator")) }
    }

    fn advance(&mut self) -> Parsed<Token> {
        let (token, range) = self.lexer.next()?;
        self.last_end = self.range.end;
        self.range = range;
        Ok(std::mem::replace(&mut self.token, token))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token, Token::Sign(found) if found == sign)
    }

    fn take_sign(&mut self, sign: &str) -> Parsed<bool> {
        let found = self.is_sign(sign);
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn word(&self) -> &'s str {
        self.source.get(self.range.clone()).unwrap_or_default()
    }

    fn is_word(&self, word: &str) -> bool {
        self.token == Token::Name && self.word() == word
    }

    /// Takes the sign that closes what `opening` opened.
    fn close(&mut self, sign: &str, opening: &Range<usize>) -> Parsed<()> {
        if self.take_sign(sign)? {
            return Ok(());
        }
        if self.token == Token::End {
            let opened = self.source.get(opening.clone()).unwrap_or_default();
            let message = format!("`{opened}` is never closed: `{sign}` expected");
            return Err(Problem::new(SYNTAX, opening.clone(), message));
        }
        Err(self.unexpected(if sign == ")" {
            "`)`"
        } else if sign == "]" {
            "`]`"
        } else {
            "`}`"
        }))
    }

    /// The current token cannot stand here; common slips get the right spelling.
    fn unexpected(&self, expected: &str) -> Problem {
        let help = match &self.token {
            Token::Stray('=') => "did you mean `==`?",
            Token::Stray('&') => "did you mean `&&`?",
            Token::Stray('|') => "did you mean `||`? There are no filters here",
            Token::Name => match self.word() {
                "and" | "AND" => "did you mean `&&`?",
                "or" | "OR" => "did you mean `||`?",
                "is" => "did you mean `==`?",
                "not" => "did you mean `!`?",
                _ => "",
            },
            _ => "",
        };
        let (range, message) = if self.token == Token::End {
            let end = self.source.trim_end().len();
            (end..end, format!("{expected} expected, but the expression ends here"))
        } else {
            let text = shortened(self.word());
            (self.range.clone(), format!("unexpected `{text}`: {expected} expected"))
        };
        let problem = Problem::new(SYNTAX, range, message);
        if help.is_empty() { problem } else { problem.help(help) }
    }

    fn node(&self, kind: Kind, start: usize, end: usize) -> Parsed<Node> {
        let (Ok(from), Ok(to)) = (u32::try_from(start), u32::try_from(end)) else {
            return Err(Problem::new(TOO_LARGE, 0..0, "this expression is too long"));
        };
        let mut node = Node { kind, start: from, end: to, height: 0 };
        let mut height = 0;
        node.each_child(&mut |child| height = height.max(child.height + 1));
        node.height = height;
        self.within_height(node)
    }

    fn within_height(&self, node: Node) -> Parsed<Node> {
        if node.height <= HIGHEST_TREE {
            return Ok(node);
        }
        let message = format!("this expression chains more than {HIGHEST_TREE} operators");
        Err(Problem::new(TOO_LARGE, node.range(), message).help("split it into several steps"))
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEEPEST_NESTING {
            let message = format!("this expression nests deeper than {DEEPEST_NESTING} levels");
            return Err(Problem::new(TOO_LARGE, self.range.clone(), message));
        }
        self.depth += 1;
        let found = read(self);
        self.depth -= 1;
        found
    }

    fn expression(&mut self) -> Parsed<Node> {
        self.deeper(Self::conditional)
    }

    fn conditional(&mut self) -> Parsed<Node> {
        let condition = self.binary(1)?;
        if !self.is_sign("?") {
            return Ok(condition);
        }
        self.advance()?;
        let then = self.deeper(|parser| parser.binary(1))?;
        if !self.take_sign(":")? {
            return Err(self.unexpected("`:` of `condition ? value : value`"));
        }
        let otherwise = self.expression()?;
        let (start, end) = (condition.start as usize, otherwise.end as usize);
        self.node(Kind::Conditional(Box::new([condition, then, otherwise])), start, end)
    }

    /// The operator at the current token and how tightly it binds.
    fn operator(&self) -> Option<(u8, Option<Operator>)> {
        let Token::Sign(sign) = self.token else {
            return self.is_word("in").then_some((3, Some(Operator::In)));
        };
        Some(match sign {
            "||" => (1, None),
            "&&" => (2, None),
            "==" => (3, Some(Operator::Equal)),
            "!=" => (3, Some(Operator::NotEqual)),
            "<" => (3, Some(Operator::Less)),
            "<=" => (3, Some(Operator::LessOrEqual)),
            ">" => (3, Some(Operator::Greater)),
            ">=" => (3, Some(Operator::GreaterOrEqual)),
            "+" => (4, Some(Operator::Add)),
            "-" => (4, Some(Operator::Subtract)),
            "*" => (5, Some(Operator::Multiply)),
            "/" => (5, Some(Operator::Divide)),
            "%" => (5, Some(Operator::Remainder)),
            _ => return None,
        })
    }

    fn binary(&mut self, least: u8) -> Parsed<Node> {
        let mut left = self.unary()?;
        while let Some((binding, operator)) = self.operator().filter(|(binding, _)| *binding >= least) {
            self.advance()?;
            let right = self.binary(binding + 1)?;
            left = self.joined(left, binding, operator, right)?;
        }
        Ok(left)
    }

    fn joined(&self, left: Node, binding: u8, operator: Option<Operator>, right: Node) -> Parsed<Node> {
        let (start, end) = (left.start as usize, right.end as usize);
        if let Some(operator) = operator {
            return self.node(Kind::Binary { operator, left: Box::new(left), right: Box::new(right) }, start, end);
        }
        let Node { kind, start: from, end: to, height } = left;
        // A long chain becomes one flat node; its height is kept up without looking at all parts again.
        let (mut parts, height) = match kind {
            Kind::Any(parts) if binding == 1 => (parts, height),
            Kind::All(parts) if binding == 2 => (parts, height),
            kind => (vec![Node { kind, start: from, end: to, height }], height + 1),
        };
        let height = height.max(right.height + 1);
        let end = right.end;
        parts.push(right);
        let kind = if binding == 1 { Kind::Any(parts) } else { Kind::All(parts) };
        self.within_height(Node { kind, start: from, end, height })
    }

    fn unary(&mut self) -> Parsed<Node> {
        let start = self.range.start;
        if self.take_sign("!")? {
            let of = self.deeper(Self::unary)?;
            let end = of.end as usize;
            return self.node(Kind::Not(Box::new(of)), start, end);
        }
        if self.take_sign("-")? {
            // A sign belongs to its number, so that the least integer can be written.
            match self.token {
                Token::Int(value) => {
                    self.advance()?;
                    let Some(value) = 0_i64.checked_sub_unsigned(value) else {
                        return Err(too_large_int(start..self.last_end));
                    };
                    let literal = self.node(Kind::Literal(Value::from(value)), start, self.last_end)?;
                    return self.postfix(literal);
                }
                Token::Double(value) => {
                    self.advance()?;
                    let literal = self.node(Kind::Literal(Value::from(-value)), start, self.last_end)?;
                    return self.postfix(literal);
                }
                Token::End | Token::Name | Token::Text(_) | Token::Sign(_) | Token::Stray(_) => {}
            }
            let of = self.deeper(Self::unary)?;
            let end = of.end as usize;
            return self.node(Kind::Negate(Box::new(of)), start, end);
        }
        let primary = self.primary()?;
        self.postfix(primary)
    }

    fn postfix(&mut self, mut node: Node) -> Parsed<Node> {
        loop {
            let start = node.start as usize;
            if self.is_sign("[") {
                let opening = self.range.clone();
                self.advance()?;
                let index = self.expression()?;
                self.close("]", &opening)?;
                let kind = Kind::Index { of: Box::new(node), index: Box::new(index) };
                node = self.node(kind, start, self.last_end)?;
            } else if self.take_sign(".")? {
                if self.token != Token::Name {
                    return Err(self.unexpected("a field's name after `.`"));
                }
                let (name, range) = (self.word(), self.range.clone());
                self.advance()?;
                node = if self.is_sign("(") {
                    self.method(node, name, range)?
                } else {
                    self.node(Kind::Field { of: Box::new(node), name: name.into() }, start, range.end)?
                };
            } else {
                return Ok(node);
            }
        }
    }

    fn primary(&mut self) -> Parsed<Node> {
        let range = self.range.clone();
        match &mut self.token {
            Token::Int(value) => {
                let Ok(value) = i64::try_from(*value) else { return Err(too_large_int(range)) };
                self.literal(Value::from(value))
            }
            Token::Double(value) => {
                let value = Value::from(*value);
                self.literal(value)
            }
            Token::Text(text) => {
                let text = std::mem::take(text);
                self.literal(Value::String(text))
            }
            Token::Sign("(") => {
                self.advance()?;
                let inner = self.expression()?;
                self.close(")", &range)?;
                Ok(inner)
            }
            Token::Sign("[") => self.list(),
            Token::Sign("{") => self.map(),
            Token::Name => self.name(),
            Token::End | Token::Sign(_) | Token::Stray(_) => Err(self.unexpected("a value")),
        }
    }

    fn literal(&mut self, value: Value) -> Parsed<Node> {
        let range = self.range.clone();
        self.advance()?;
        self.node(Kind::Literal(value), range.start, range.end)
    }

    fn list(&mut self) -> Parsed<Node> {
        let opening = self.range.clone();
        self.advance()?;
        let mut items = Vec::new();
        while !self.is_sign("]") {
            items.push(self.expression()?);
            if !self.take_sign(",")? {
                break;
            }
        }
        self.close("]", &opening)?;
        self.node(Kind::List(items), opening.start, self.last_end)
    }

    fn map(&mut self) -> Parsed<Node> {
        let opening = self.range.clone();
        self.advance()?;
        let mut entries = Vec::new();
        while !self.is_sign("}") {
            let key = self.expression()?;
            if !self.take_sign(":")? {
                return Err(self.unexpected("`:` and a value"));
            }
            entries.push((key, self.expression()?));
            if !self.take_sign(",")? {
                break;
            }
        }
        self.close("}", &opening)?;
        self.node(Kind::Map(entries), opening.start, self.last_end)
    }

    fn name(&mut self) -> Parsed<Node> {
        let (name, range) = (self.word(), self.range.clone());
        match name {
            "true" | "false" => return self.literal(Value::Bool(name == "true")),
            "null" => return self.literal(Value::Null),
            _ if RESERVED.contains(&name) => {
                return Err(Problem::new(SYNTAX, range, format!("`{name}` is a reserved word: a value expected")));
            }
            _ => {}
        }
        self.advance()?;
        if name == "not" && matches!(self.token, Token::Name | Token::Int(_) | Token::Text(_)) {
            return Err(Problem::new(SYNTAX, range, "unexpected `not`: a value expected").help("did you mean `!`?"));
        }
        if self.is_sign("(") {
            return self.function(name, range);
        }
        let kind = match self.variables.iter().rev().position(|variable| *variable == name) {
            Some(outwards) => Kind::Variable(u16::try_from(outwards).unwrap_or(u16::MAX)),
            None => Kind::Name(name.into()),
        };
        self.node(kind, range.start, range.end)
    }

    /// The arguments in parentheses; the current token is `(`.
    fn arguments(&mut self) -> Parsed<Vec<Node>> {
        let opening = self.range.clone();
        self.advance()?;
        let mut arguments = Vec::new();
        while !self.is_sign(")") {
            arguments.push(self.expression()?);
            if !self.take_sign(",")? {
                break;
            }
        }
        self.close(")", &opening)?;
        Ok(arguments)
    }

    fn function(&mut self, name: &'s str, range: Range<usize>) -> Parsed<Node> {
        let arguments = self.arguments()?;
        if name == "has" {
            return self.has(range, arguments);
        }
        let entry = functions::find(name);
        if let Some(function) = entry.filter(|entry| entry.plain.is_some()) {
            return self.call(function, function.plain, range.clone(), range.start, arguments, 0);
        }
        let problem = if entry.is_some() || Form::named(name).is_some() {
            Problem::new(FUNCTION, range.clone(), format!("`{name}` is called on a value: `value.{name}(…)`"))
        } else {
            unknown_function(name, range.clone())
        };
        self.problems.push(problem);
        self.node(Kind::Literal(Value::Null), range.start, self.last_end)
    }

    fn method(&mut self, receiver: Node, name: &'s str, range: Range<usize>) -> Parsed<Node> {
        if let Some(form) = Form::named(name) {
            return self.comprehension(receiver, form, name, range);
        }
        let start = receiver.start as usize;
        let mut arguments = vec![receiver];
        arguments.extend(self.arguments()?);
        let entry = functions::find(name);
        if let Some(function) = entry.filter(|entry| entry.method.is_some()) {
            return self.call(function, function.method, range, start, arguments, 1);
        }
        let problem = if entry.is_some() || name == "has" {
            Problem::new(FUNCTION, range, format!("`{name}` is called with the value in parentheses: `{name}(value)`"))
        } else {
            unknown_function(name, range)
        };
        self.problems.push(problem);
        self.node(Kind::Literal(Value::Null), start, self.last_end)
    }

    fn call(
        &mut self,
        entry: &functions::Entry,
        bounds: Option<(usize, usize)>,
        name: Range<usize>,
        start: usize,
        arguments: Vec<Node>,
        receivers: usize,
    ) -> Parsed<Node> {
        let (least, most) = bounds.unwrap_or((0, 0));
        let given = arguments.len() - receivers;
        if given < least || given > most {
            let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
            let message = format!("`{}` takes {wanted} argument(s) here, not {given}", entry.name);
            self.problems.push(Problem::new(FUNCTION, name, message));
        }
        let mut pattern = None;
        if entry.function == functions::Function::Matches
            && let Some(Node { kind: Kind::Literal(Value::String(text)), start, end, .. }) = arguments.get(1)
        {
            match compile_pattern(text) {
                Ok(regex) => pattern = Some(regex),
                Err(reason) => {
                    let message = format!("this is not a regular expression that can be used: {reason}");
                    self.problems.push(Problem::new(PATTERN, *start as usize..*end as usize, message));
                }
            }
        }
        let call = Call { function: entry.function, arguments, pattern };
        self.node(Kind::Call(Box::new(call)), start, self.last_end)
    }

    fn has(&mut self, range: Range<usize>, arguments: Vec<Node>) -> Parsed<Node> {
        let mut arguments = arguments.into_iter();
        match (arguments.next(), arguments.next()) {
            (Some(of), None) if is_selection(&of.kind) => {
                self.node(Kind::Has(Box::new(of)), range.start, self.last_end)
            }
            (first, _) => {
                let place = first.map_or(range.clone(), |node| node.range());
                self.problems.push(
                    Problem::new(FUNCTION, place, "`has` asks for one field")
                        .help("write it as `has(step.outputs.key)`"),
                );
                self.node(Kind::Literal(Value::Null), range.start, self.last_end)
            }
        }
    }

    fn comprehension(&mut self, over: Node, form: Form, name: &str, range: Range<usize>) -> Parsed<Node> {
        let start = over.start as usize;
        let opening = self.range.clone();
        self.advance()?;
        let variable = self.word();
        let usage = || {
            Problem::new(FUNCTION, range.clone(), format!("`{name}` takes a variable's name and an expression over it"))
                .help(format!("write it as `list.{name}(x, …)`"))
        };
        if self.token != Token::Name || RESERVED.contains(&variable) || ["true", "false", "null"].contains(&variable) {
            return Err(usage());
        }
        self.advance()?;
        if !self.take_sign(",")? {
            return Err(usage());
        }
        self.variables.push(variable);
        let body = self.expression();
        let then = match (&body, form) {
            (Ok(_), Form::Map) => self.take_sign(",").and_then(|more| more.then(|| self.expression()).transpose()),
            (_, Form::Map | Form::All | Form::Exists | Form::ExistsOne | Form::Filter) => Ok(None),
        };
        self.variables.pop();
        let (body, then) = (body?, then?);
        self.close(")", &opening)?;
        let comprehension = Comprehension { form, range: over, body, then };
        self.node(Kind::Comprehension(Box::new(comprehension)), start, self.last_end)
    }
}

/// Whether `has` can ask for it: a field, or an index by a constant string.
fn is_selection(kind: &Kind) -> bool {
    match kind {
        Kind::Field { .. } => true,
        Kind::Index { index, .. } => matches!(index.kind, Kind::Literal(Value::String(_))),
        Kind::Literal(_)
        | Kind::List(_)
        | Kind::Map(_)
        | Kind::Name(_)
        | Kind::Variable(_)
        | Kind::Not(_)
        | Kind::Negate(_)
        | Kind::All(_)
        | Kind::Any(_)
        | Kind::Binary { .. }
        | Kind::Conditional(_)
        | Kind::Has(_)
        | Kind::Call(_)
        | Kind::Comprehension(_) => false,
    }
}

fn unknown_function(name: &str, range: Range<usize>) -> Problem {
    let problem = Problem::new(FUNCTION, range, format!("there is no function `{}`", shortened(name)));
    match suggestion(name, functions::names()) {
        Some(help) if help.starts_with("did") => problem.help(help),
        _ => problem,
    }
}

fn too_large_int(range: Range<usize>) -> Problem {
    Problem::new(SYNTAX, range, "this integer does not fit in 64 bits with a sign")
}
