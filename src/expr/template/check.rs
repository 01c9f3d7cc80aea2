//! Types of a template's paths before anything has run.

use super::OPERANDS;
use super::helper::Helper;
use super::resolve::joined;
use super::tree::{Argument, Block, BlockKind, Item, Path, Start};
use crate::expr::lookup::{field_type, root_type};
use crate::expr::problem::Problem;
use crate::expr::types::{Type, TypeNames};

/// The type that filling gives, and the mistakes in the order of the text.
pub(super) fn check(items: &[Item], whole: Option<&Argument>, names: &dyn TypeNames) -> (Type, Vec<Problem>) {
    let mut checker = Checker { names, items: Vec::new(), parameters: Vec::new(), problems: Vec::new() };
    let found = match whole {
        Some(argument) => checker.argument(argument),
        None => {
            checker.items(items);
            Type::String
        }
    };
    checker.problems.sort_by_key(|problem| problem.range.start);
    (found, checker.problems)
}

struct Checker<'c> {
    names: &'c dyn TypeNames,
    /// Types of `this`, outermost first.
    items: Vec<Type>,
    /// Types of the names behind `as`, outermost first.
    parameters: Vec<Type>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn items(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Text(_) => {}
                Item::Value(argument) => {
                    self.argument(argument);
                }
                Item::Block(block) => self.block(block),
            }
        }
    }

    fn block(&mut self, block: &Block) {
        let found = self.argument(&block.argument);
        let this = match (block.kind, &found) {
            (BlockKind::If | BlockKind::Unless, _) => None,
            (BlockKind::With, _) => Some((found.clone(), Type::Any)),
            (BlockKind::Each, Type::List(element)) => Some(((**element).clone(), Type::Int)),
            (BlockKind::Each, Type::Map(value)) => Some(((**value).clone(), Type::String)),
            (BlockKind::Each, Type::Any) => Some((Type::Any, Type::Any)),
            (BlockKind::Each, Type::Object { .. }) => Some((Type::Any, Type::String)),
            (BlockKind::Each, Type::Null | Type::Bool | Type::Int | Type::Double | Type::String) => {
                let message = format!("`#each` needs a list or a map, this is of type {found}");
                if let Some(range) = range_of(&block.argument) {
                    self.problems.push(Problem::new(OPERANDS, range, message));
                }
                Some((Type::Any, Type::Any))
            }
        };
        let before = self.parameters.len();
        let has_this = this.is_some();
        if let Some((item, key)) = this {
            let types = [item.clone(), key];
            self.parameters.extend(block.parameters.iter().zip(types).map(|(_, kind)| kind));
            self.items.push(item);
        }
        self.items(&block.body);
        self.parameters.truncate(before);
        if has_this {
            self.items.pop();
        }
        self.items(block.otherwise.as_deref().unwrap_or_default());
    }

    fn argument(&mut self, argument: &Argument) -> Type {
        match argument {
            Argument::Literal(value) => Type::of_value(value),
            Argument::Path(path) => self.path(path),
            Argument::Call(call) => {
                let types: Vec<Type> = call.arguments.iter().map(|argument| self.argument(argument)).collect();
                let wrong = match (call.helper, types.as_slice()) {
                    (Helper::Len, [kind @ (Type::Null | Type::Bool | Type::Int | Type::Double)]) => {
                        Some(format!("`len` takes a string, a list or a map, this is of type {kind}"))
                    }
                    (
                        Helper::Lookup,
                        [kind @ (Type::Null | Type::Bool | Type::Int | Type::Double | Type::String), _],
                    ) => Some(format!("`lookup` takes a list or a map, this is of type {kind}")),
                    (Helper::Gt | Helper::Gte | Helper::Lt | Helper::Lte, [one, two]) if !one.is_comparable(two) => {
                        let name = call.helper.name();
                        Some(format!("`{name}` does not compare a value of type {one} with one of type {two}"))
                    }
                    _ => None,
                };
                if let Some(message) = wrong {
                    self.problems.push(Problem::new(OPERANDS, call.range.clone(), message));
                }
                call.helper.gives()
            }
        }
    }

    fn path(&mut self, path: &Path) -> Type {
        let mut rest = path.segments.as_slice();
        let mut text = String::from("this");
        let mut found = match &path.start {
            Start::Root => {
                let Some((root, fields)) = rest.split_first() else { return Type::Any };
                rest = fields;
                text = joined(std::slice::from_ref(root));
                let before = self.problems.len();
                let found = root_type(self.names, &root.name, root.range.clone(), &mut self.problems);
                let in_block = !self.items.is_empty();
                if let (true, Some(problem)) = (in_block, self.problems.get_mut(before)) {
                    let near = problem.help.take().filter(|help| help.starts_with("did"));
                    let name = &root.name;
                    problem.help = near.or_else(|| Some(format!("a field of the item is written `this.{name}`")));
                }
                found
            }
            Start::This => self.items.last().cloned().unwrap_or(Type::Any),
            Start::Parameter(index) => self.parameters.get(*index).cloned().unwrap_or(Type::Any),
            Start::Local("key") => Type::Any,
            Start::Local("index") => Type::Int,
            Start::Local(_) => Type::Bool,
        };
        for segment in rest {
            found = match &found {
                // An index of a list stands among the fields here.
                Type::List(element) if segment.name.parse::<usize>().is_ok() => (**element).clone(),
                other => field_type(other, &text, &segment.name, segment.range.clone(), &mut self.problems),
            };
            text = format!("{text}.{}", segment.name);
        }
        found
    }
}

fn range_of(argument: &Argument) -> Option<std::ops::Range<usize>> {
    match argument {
        Argument::Literal(_) => None,
        Argument::Path(path) => Some(path.range.clone()),
        Argument::Call(call) => Some(call.range.clone()),
    }
}
