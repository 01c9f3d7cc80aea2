//! The parsed form of an expression. Every node knows its bytes in the text.

use std::ops::Range;

use regex::Regex;
use serde_json::Value;

use super::functions::Function;

/// One node with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
    /// How many levels of nodes are below, bounded by the parser so that no walk can overflow the stack.
    pub height: u16,
}

impl Node {
    /// The bytes of the node.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Visits the nodes directly below, in the order of the text.
    pub fn each_child<'n>(&'n self, visit: &mut dyn FnMut(&'n Node)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Name(_) | Kind::Variable(_) => {}
            Kind::List(items) | Kind::All(items) | Kind::Any(items) => items.iter().for_each(visit),
            Kind::Map(entries) => {
                for (key, value) in entries {
                    visit(key);
                    visit(value);
                }
            }
            Kind::Field { of, .. } | Kind::Not(of) | Kind::Negate(of) | Kind::Has(of) => visit(of),
            Kind::Index { of, index } => {
                visit(of);
                visit(index);
            }
            Kind::Binary { left, right, .. } => {
                visit(left);
                visit(right);
            }
            Kind::Conditional(parts) => parts.iter().for_each(visit),
            Kind::Call(call) => call.arguments.iter().for_each(visit),
            Kind::Comprehension(comprehension) => {
                visit(&comprehension.range);
                visit(&comprehension.body);
                comprehension.then.iter().for_each(visit);
            }
        }
    }
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Literal(Value),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// A name that the caller must know.
    Name(Box<str>),
    /// A variable of a comprehension: how many comprehensions outwards it was named; 0 is the nearest.
    Variable(u16),
    /// The name's bytes end where the node ends.
    Field {
        of: Box<Node>,
        name: Box<str>,
    },
    Index {
        of: Box<Node>,
        index: Box<Node>,
    },
    Not(Box<Node>),
    Negate(Box<Node>),
    /// `&&` over two or more.
    All(Vec<Node>),
    /// `||` over two or more.
    Any(Vec<Node>),
    Binary {
        operator: Operator,
        left: Box<Node>,
        right: Box<Node>,
    },
    /// Condition, then, else.
    Conditional(Box<[Node; 3]>),
    /// `has(…)` of a field or of a constant index.
    Has(Box<Node>),
    Call(Box<Call>),
    Comprehension(Box<Comprehension>),
}

/// A call of a function. The receiver of a method is the first argument.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub function: Function,
    pub arguments: Vec<Node>,
    /// The pattern of `matches`, compiled where it is a literal.
    pub pattern: Option<Regex>,
}

/// `all`, `exists`, `exists_one`, `filter` and `map` over a list or the keys of a map.
#[derive(Clone, Debug)]
pub(super) struct Comprehension {
    pub form: Form,
    pub range: Node,
    /// The predicate; for `map` with two arguments the result of each element.
    pub body: Node,
    /// For `map` with three arguments: what a chosen element becomes.
    pub then: Option<Node>,
}

/// Which comprehension it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
}

impl Form {
    /// The comprehension of that name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "all" => Some(Self::All),
            "exists" => Some(Self::Exists),
            "exists_one" => Some(Self::ExistsOne),
            "filter" => Some(Self::Filter),
            "map" => Some(Self::Map),
            _ => None,
        }
    }
}

/// An operator between two values, without the logical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    /// As it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
        }
    }
}
