//! Collects diagnostics and puts the mistakes of expressions at their places in the file.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Files, Severity, Span};
use crate::expr::Problem;
use crate::yaml::{Node, place_in_scalar};

/// How many mistakes of one text are told; the place of each is found by going over the text.
pub const MOST_PROBLEMS: usize = 50;

/// The diagnostics of one compilation.
pub struct Report<'a> {
    pub files: &'a Files,
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    /// An empty one over these texts.
    pub fn new(files: &'a Files) -> Self {
        Self { files, diagnostics: Vec::new() }
    }

    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// The place of a part of a scalar's value.
    pub fn place(&self, scalar: Span, range: Range<usize>) -> Span {
        place_in_scalar(self.files.text(scalar.file), scalar, range)
    }

    /// Adds a mistake of an expression or template in a scalar.
    pub fn problem(&mut self, scalar: Span, problem: Problem) {
        let span = self.place(scalar, problem.range);
        self.push(Diagnostic::error(problem.code, span, problem.message).maybe_help(problem.help));
    }
}

/// True if there is an error among these.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}

/// The help text that offers a spelling.
pub fn did_you_mean(name: Option<&str>) -> Option<String> {
    name.map(|name| format!("did you mean `{name}`?"))
}

/// The node that stands exactly at a place.
pub fn node_at(node: &Node, span: Span) -> Option<&Node> {
    if node.span == span {
        return Some(node);
    }
    let inside =
        |child: &&Node| child.span.file == span.file && child.span.start <= span.start && span.end <= child.span.end;
    let entries = node.entries().iter().map(|entry| &entry.node);
    entries.chain(node.items()).filter(inside).find_map(|child| node_at(child, span))
}

/// The node at a JSON pointer below a node, or the deepest one on the way there.
pub fn node_at_pointer<'n>(node: &'n Node, pointer: &str) -> &'n Node {
    let mut at = node;
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        let next = at.get(&part).or_else(|| part.parse().ok().and_then(|index: usize| at.items().get(index)));
        let Some(next) = next else { break };
        at = next;
    }
    at
}
