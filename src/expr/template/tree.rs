//! The parsed form of a template. Names are resolved to what they start from; every name knows its bytes.

use std::ops::Range;

use serde_json::Value;

use super::helper::Helper;
use crate::expr::reference::Segment;

/// A stretch of a template.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Text(Box<str>),
    /// `{{ … }}`: a value as text.
    Value(Argument),
    Block(Box<Block>),
}

/// `{{#if …}} … {{else}} … {{/if}}` and the like.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub kind: BlockKind,
    pub argument: Argument,
    /// Names behind `as`, each with what it is called inside.
    pub parameters: Vec<Box<str>>,
    pub body: Vec<Item>,
    /// What stands behind `{{else}}`, if there is one.
    pub otherwise: Option<Vec<Item>>,
}

/// What a block does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockKind {
    If,
    Unless,
    Each,
    With,
}

impl BlockKind {
    pub const NAMES: [&'static str; 4] = ["if", "unless", "each", "with"];

    /// The block of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "if" => Some(Self::If),
            "unless" => Some(Self::Unless),
            "each" => Some(Self::Each),
            "with" => Some(Self::With),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::Unless => "unless",
            Self::Each => "each",
            Self::With => "with",
        }
    }

    /// How many names may stand behind its `as`.
    pub fn most_parameters(self) -> usize {
        match self {
            Self::If | Self::Unless => 0,
            Self::With => 1,
            Self::Each => 2,
        }
    }

    /// Whether `this` means something else inside.
    pub fn has_this(self) -> bool {
        self.most_parameters() > 0
    }
}

/// What a tag shows or a helper takes.
#[derive(Clone, Debug)]
pub(super) enum Argument {
    Literal(Value),
    Path(Path),
    Call(Box<Call>),
}

/// A helper with its arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub helper: Helper,
    pub arguments: Vec<Argument>,
    pub range: Range<usize>,
}

/// A name with fields behind it.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub start: Start,
    /// For `Start::Root` the root name comes first.
    pub segments: Vec<Segment>,
    pub range: Range<usize>,
}

/// What a path starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A name that the caller must know.
    Root,
    /// The item of the nearest `#each` or `#with`.
    This,
    /// A name behind `as`, counted from the outermost of all that are in scope.
    Parameter(usize),
    /// `@index`, `@key`, `@first`, `@last`.
    Local(&'static str),
}

impl Argument {
    /// Visits the paths in it, in the order of the text.
    pub fn each_path<'a>(&'a self, visit: &mut dyn FnMut(&'a Path)) {
        match self {
            Self::Literal(_) => {}
            Self::Path(path) => visit(path),
            Self::Call(call) => call.arguments.iter().for_each(|argument| argument.each_path(visit)),
        }
    }
}

/// Visits all paths of a template, in the order of the text.
pub(super) fn each_path<'a>(items: &'a [Item], visit: &mut dyn FnMut(&'a Path)) {
    for item in items {
        match item {
            Item::Text(_) => {}
            Item::Value(argument) => argument.each_path(visit),
            Item::Block(block) => {
                block.argument.each_path(visit);
                each_path(&block.body, visit);
                each_path(block.otherwise.as_deref().unwrap_or_default(), visit);
            }
        }
    }
}
