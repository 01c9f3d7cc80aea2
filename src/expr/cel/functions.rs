//! The functions: their names, how they may be called, and what they take and give.
//!
//! They are those of the CEL specification for JSON values, and those of its strings extension:
//!
//! | call | gives |
//! |---|---|
//! | `size(x)`, `x.size()` | characters of a string, elements of a list, entries of a map |
//! | `int(x)` | an int from an int, a double (towards zero) or a string |
//! | `double(x)` | a double from an int, a double or a string |
//! | `string(x)` | a string from a bool, number or string |
//! | `bool(x)` | a bool from a bool or from `"true"`, `"false"`, `"1"`, `"0"`, `"t"`, `"f"` |
//! | `type(x)` | `"null"`, `"bool"`, `"int"`, `"double"`, `"string"`, `"list"` or `"map"` |
//! | `dyn(x)` | `x`, of a type that is not checked |
//! | `s.matches(pattern)`, `matches(s, pattern)` | whether the regular expression is found in it; linear time |
//! | `s.contains(t)`, `s.startsWith(t)`, `s.endsWith(t)` | bool |
//! | `s.lowerAscii()`, `s.upperAscii()`, `s.trim()`, `s.reverse()` | string |
//! | `s.charAt(i)`, `s.substring(from)`, `s.substring(from, to)` | string, counted in characters |
//! | `s.indexOf(t)`, `s.indexOf(t, from)`, `s.lastIndexOf(t)`, `s.lastIndexOf(t, to)` | int, -1 if there is none |
//! | `s.replace(old, new)`, `s.replace(old, new, limit)` | string |
//! | `s.split(separator)`, `s.split(separator, limit)` | list(string) |
//! | `l.join()`, `l.join(separator)` | string, of a list of strings |
//!
//! The macros are `has(a.b)`, `l.all(x, …)`, `l.exists(x, …)`, `l.exists_one(x, …)`, `l.filter(x, …)`,
//! `l.map(x, …)` and `l.map(x, condition, …)`; over a map they go through its keys.
//! Left out: timestamps, durations, bytes, `format` and `quote`.

use crate::expr::Type;

/// A function that an expression may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Int,
    Double,
    String,
    Bool,
    Type,
    Dyn,
    Matches,
    Contains,
    StartsWith,
    EndsWith,
    LowerAscii,
    UpperAscii,
    Trim,
    Reverse,
    CharAt,
    Substring,
    IndexOf,
    LastIndexOf,
    Replace,
    Split,
    Join,
}

/// How a function is called: with how many arguments behind its name, and with a value in front of it.
pub(super) struct Entry {
    pub name: &'static str,
    pub function: Function,
    /// `f(x)`: least and most arguments.
    pub plain: Option<(usize, usize)>,
    /// `x.f()`: least and most arguments in the parentheses.
    pub method: Option<(usize, usize)>,
}

const fn plain(name: &'static str, function: Function) -> Entry {
    Entry { name, function, plain: Some((1, 1)), method: None }
}

const fn method(name: &'static str, function: Function, least: usize, most: usize) -> Entry {
    Entry { name, function, plain: None, method: Some((least, most)) }
}

const ENTRIES: [Entry; 22] = [
    Entry { name: "size", function: Function::Size, plain: Some((1, 1)), method: Some((0, 0)) },
    plain("int", Function::Int),
    plain("double", Function::Double),
    plain("string", Function::String),
    plain("bool", Function::Bool),
    plain("type", Function::Type),
    plain("dyn", Function::Dyn),
    Entry { name: "matches", function: Function::Matches, plain: Some((2, 2)), method: Some((1, 1)) },
    method("contains", Function::Contains, 1, 1),
    method("startsWith", Function::StartsWith, 1, 1),
    method("endsWith", Function::EndsWith, 1, 1),
    method("lowerAscii", Function::LowerAscii, 0, 0),
    method("upperAscii", Function::UpperAscii, 0, 0),
    method("trim", Function::Trim, 0, 0),
    method("reverse", Function::Reverse, 0, 0),
    method("charAt", Function::CharAt, 1, 1),
    method("substring", Function::Substring, 1, 2),
    method("indexOf", Function::IndexOf, 1, 2),
    method("lastIndexOf", Function::LastIndexOf, 1, 2),
    method("replace", Function::Replace, 2, 3),
    method("split", Function::Split, 1, 2),
    method("join", Function::Join, 0, 1),
];

/// The entry of that name.
pub(super) fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// Every name that can stand before parentheses, macros too, for did-you-mean.
pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    ENTRIES.iter().map(|entry| entry.name).chain(["has", "all", "exists", "exists_one", "filter", "map"])
}

impl Function {
    /// Its name.
    pub fn name(self) -> &'static str {
        ENTRIES.iter().find(|entry| entry.function == self).map_or("", |entry| entry.name)
    }

    /// What it asks of the argument with that number; the receiver of a method is number 0.
    pub fn takes(self, argument: usize) -> Wanted {
        match (self, argument) {
            (Self::Size, _) => Wanted::Sized,
            (Self::Int | Self::Double, _) => Wanted::NumberOrText,
            (Self::String, _) => Wanted::Scalar,
            (Self::Bool, _) => Wanted::BoolOrText,
            (Self::Type | Self::Dyn, _) => Wanted::Anything,
            (Self::Join, 0) => Wanted::Texts,
            (Self::CharAt | Self::Substring, 1..) => Wanted::Int,
            (Self::Split | Self::IndexOf | Self::LastIndexOf, 2) | (Self::Replace, 3) => Wanted::Int,
            (
                Self::Matches
                | Self::Contains
                | Self::StartsWith
                | Self::EndsWith
                | Self::LowerAscii
                | Self::UpperAscii
                | Self::Trim
                | Self::Reverse
                | Self::CharAt
                | Self::Substring
                | Self::IndexOf
                | Self::LastIndexOf
                | Self::Replace
                | Self::Split
                | Self::Join,
                _,
            ) => Wanted::Text,
        }
    }

    /// The type of its result.
    pub fn gives(self) -> Type {
        match self {
            Self::Size | Self::Int | Self::IndexOf | Self::LastIndexOf => Type::Int,
            Self::Double => Type::Double,
            Self::Bool | Self::Matches | Self::Contains | Self::StartsWith | Self::EndsWith => Type::Bool,
            Self::Dyn => Type::Any,
            Self::Split => Type::list(Type::String),
            Self::String
            | Self::Type
            | Self::LowerAscii
            | Self::UpperAscii
            | Self::Trim
            | Self::Reverse
            | Self::CharAt
            | Self::Substring
            | Self::Replace
            | Self::Join => Type::String,
        }
    }
}

/// What a function asks of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Anything,
    Int,
    Text,
    /// A list of strings.
    Texts,
    NumberOrText,
    BoolOrText,
    Scalar,
    Sized,
}

impl Wanted {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Anything => "any value",
            Self::Int => "an int",
            Self::Text => "a string",
            Self::Texts => "a list of strings",
            Self::NumberOrText => "an int, a double or a string",
            Self::BoolOrText => "a bool or a string",
            Self::Scalar => "a string, a number or a bool",
            Self::Sized => "a string, a list or a map",
        }
    }

    /// Whether a value of that type may be it.
    pub fn fits(self, kind: &Type) -> bool {
        let is_list = matches!(kind, Type::List(_));
        let is_text = *kind == Type::String;
        *kind == Type::Any
            || match self {
                Self::Anything => true,
                Self::Int => *kind == Type::Int,
                Self::Text => is_text,
                Self::Texts => matches!(kind, Type::List(element) if matches!(**element, Type::Any | Type::String)),
                Self::NumberOrText => kind.is_number() || is_text,
                Self::BoolOrText => *kind == Type::Bool || is_text,
                Self::Scalar => *kind == Type::Bool || kind.is_number() || is_text,
                Self::Sized => is_text || is_list || kind.is_map(),
            }
    }
}
