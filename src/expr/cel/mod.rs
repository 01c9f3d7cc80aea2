//! Conditions in CEL: a parser, a type checker and an evaluator over JSON values.
//!
//! `docs/decisions/0002-cel-evaluator.md` says why they are written here. Integers are 64 bits with a sign, doubles
//! are finite, and every evaluation has a bound on its work.

mod call;
mod check;
mod evaluate;
mod functions;
mod lexer;
mod operand;
mod operators;
mod parser;
mod references;
mod tree;

use std::sync::Arc;

use serde_json::Value;

pub(super) use self::evaluate::missing_key;
pub(super) use self::operand::{View, compare, double_text};

use self::tree::Node;
use super::names::Names;
use super::problem::{EvaluationError, Problem};
use super::reference::Reference;
use super::types::{Type, TypeNames};

/// The form of an expression is wrong.
const SYNTAX: &str = "TOL0301";
/// An expression is too long, too deep or too high.
const TOO_LARGE: &str = "TOL0302";
/// The operands of an operator have types that never fit.
const OPERANDS: &str = "TOL0305";
/// A function is unknown or wrongly called.
const FUNCTION: &str = "TOL0306";
/// A regular expression cannot be used.
const PATTERN: &str = "TOL0307";

/// A parsed CEL expression. Cheap to copy.
#[derive(Clone, Debug)]
pub struct Expression(Arc<Parsed>);

#[derive(Debug)]
struct Parsed {
    source: Box<str>,
    root: Node,
}

impl Expression {
    /// Parses a text; every mistake has its place in it. Functions are known from here on, names are not.
    pub fn parse(source: &str) -> Result<Self, Vec<Problem>> {
        let root = parser::parse(source)?;
        Ok(Self(Arc::new(Parsed { source: source.into(), root })))
    }

    /// The text.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// Free names with their constant fields (not the variables of `map`, `filter`, …), in the order of the text.
    pub fn references(&self) -> Vec<Reference> {
        references::references(&self.0.root)
    }

    /// The type of the whole and all mistakes of names, fields and types. Asking for a bool is for the caller.
    pub fn check(&self, names: &dyn TypeNames) -> (Type, Vec<Problem>) {
        check::check(&self.0.source, &self.0.root, names)
    }

    /// The value, if the expression needs no names at all and has one.
    pub fn constant(&self) -> Option<Value> {
        if !references::is_closed(&self.0.root) {
            return None;
        }
        self.evaluate(&serde_json::Map::new()).ok()
    }

    /// The value. Overflow, division by zero, a missing key, a wrong type or too much work give an error.
    pub fn evaluate(&self, names: &dyn Names) -> Result<Value, EvaluationError> {
        evaluate::evaluate(&self.0.source, &self.0.root, names)
    }
}

#[cfg(test)]
mod tests;
