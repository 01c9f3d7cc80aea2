//! Types before anything has run. A mistake has the type `Any`, so that nothing follows from it.

use serde_json::Value;

use super::functions::Function;
use super::tree::{Call, Comprehension, Form, Kind, Node, Operator};
use super::{FUNCTION, OPERANDS};
use crate::expr::lookup::{field_type, root_type};
use crate::expr::nearest::shortened;
use crate::expr::problem::Problem;
use crate::expr::types::{Type, TypeNames};

/// The type of a tree and its mistakes, in the order of the text.
pub(super) fn check(source: &str, root: &Node, names: &dyn TypeNames) -> (Type, Vec<Problem>) {
    let mut checker = Checker { source, names, variables: Vec::new(), problems: Vec::new() };
    let found = checker.infer(root);
    checker.problems.sort_by_key(|problem| problem.range.start);
    (found, checker.problems)
}

struct Checker<'c> {
    source: &'c str,
    names: &'c dyn TypeNames,
    /// Types of the comprehensions' variables, outermost first.
    variables: Vec<Type>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn words(&self, node: &Node) -> String {
        shortened(self.source.get(node.range()).unwrap_or_default())
    }

    fn wrong(&mut self, code: &'static str, node: &Node, message: String) -> Type {
        self.problems.push(Problem::new(code, node.range(), message));
        Type::Any
    }

    fn infer(&mut self, node: &Node) -> Type {
        match &node.kind {
            Kind::Literal(value) => Type::of_value(value),
            Kind::List(items) => {
                let types: Vec<Type> = items.iter().map(|item| self.infer(item)).collect();
                Type::list(Type::joined(types))
            }
            Kind::Map(entries) => self.map(entries),
            Kind::Name(name) => root_type(self.names, name, node.range(), &mut self.problems),
            Kind::Variable(outwards) => {
                let index = self.variables.len().checked_sub(1 + usize::from(*outwards));
                index.and_then(|index| self.variables.get(index)).cloned().unwrap_or(Type::Any)
            }
            Kind::Field { of, name } => {
                let base = self.infer(of);
                let text = self.words(of);
                let end = node.end as usize;
                field_type(&base, &text, name, end - name.len()..end, &mut self.problems)
            }
            Kind::Index { of, index } => self.index(of, index),
            Kind::Not(of) => {
                self.need_bool(of, "`!`");
                Type::Bool
            }
            Kind::Negate(of) => {
                let found = self.infer(of);
                if found == Type::Any || found.is_number() {
                    return found;
                }
                self.wrong(OPERANDS, of, format!("`-` needs a number (int or double), this is of type {found}"))
            }
            Kind::All(parts) => self.logical(parts, "`&&`"),
            Kind::Any(parts) => self.logical(parts, "`||`"),
            Kind::Binary { operator, left, right } => self.binary(*operator, left, right, node),
            Kind::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                self.need_bool(condition, "the condition of `?`");
                let types = [self.infer(then), self.infer(otherwise)];
                Type::joined(types)
            }
            Kind::Has(of) => {
                self.infer(of);
                Type::Bool
            }
            Kind::Call(call) => self.call(call),
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    fn map(&mut self, entries: &[(Node, Node)]) -> Type {
        let mut fields = Vec::new();
        let mut constant = true;
        for (key, value) in entries {
            let kind = self.infer(key);
            if kind != Type::Any && kind != Type::String {
                self.wrong(OPERANDS, key, format!("a map's key is a string here, this is of type {kind}"));
            }
            let value = self.infer(value);
            match &key.kind {
                Kind::Literal(Value::String(name)) => fields.push((name.clone(), value)),
                _ => constant = false,
            }
        }
        if constant { Type::closed(fields) } else { Type::map(Type::Any) }
    }

    fn index(&mut self, of: &Node, index: &Node) -> Type {
        let base = self.infer(of);
        if let (Kind::Literal(Value::String(name)), false) = (&index.kind, matches!(base, Type::List(_))) {
            let text = self.words(of);
            return field_type(&base, &text, name, index.range(), &mut self.problems);
        }
        let at = self.infer(index);
        let (fits, found) = match &base {
            Type::Any => (true, Type::Any),
            Type::List(element) => (matches!(at, Type::Int | Type::Any), (**element).clone()),
            Type::Map(value) => (matches!(at, Type::String | Type::Any), (**value).clone()),
            Type::Object { .. } => (matches!(at, Type::String | Type::Any), Type::Any),
            Type::Null | Type::Bool | Type::Int | Type::Double | Type::String => (false, Type::Any),
        };
        if fits {
            return found;
        }
        let message = format!("`{}` is of type {base}: it has no element by an index of type {at}", self.words(of));
        self.wrong(OPERANDS, index, message)
    }

    fn need_bool(&mut self, node: &Node, who: &str) {
        let found = self.infer(node);
        if found != Type::Any && found != Type::Bool {
            self.wrong(OPERANDS, node, format!("{who} needs a bool, this is of type {found}"));
        }
    }

    fn logical(&mut self, parts: &[Node], who: &str) -> Type {
        for part in parts {
            self.need_bool(part, who);
        }
        Type::Bool
    }

    fn binary(&mut self, operator: Operator, left: &Node, right: &Node, node: &Node) -> Type {
        let (one, two) = (self.infer(left), self.infer(right));
        let (fits, found) = match operator {
            Operator::Equal | Operator::NotEqual => (one.is_comparable(&two), Type::Bool),
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                (is_ordered(&one, &two), Type::Bool)
            }
            Operator::In => {
                let fits = match &two {
                    Type::Any => true,
                    Type::List(element) => one.is_comparable(element),
                    Type::Map(_) | Type::Object { .. } => matches!(one, Type::Any | Type::String),
                    Type::Null | Type::Bool | Type::Int | Type::Double | Type::String => false,
                };
                (fits, Type::Bool)
            }
            Operator::Add => sum(&one, &two),
            Operator::Subtract | Operator::Multiply | Operator::Divide => number(&one, &two, false),
            Operator::Remainder => number(&one, &two, true),
        };
        if fits {
            return found;
        }
        let sign = operator.text();
        let comparison = found == Type::Bool;
        let message = match operator {
            Operator::Equal | Operator::NotEqual => {
                format!("`{sign}` compares a value of type {one} with one of type {two}: they are never equal")
            }
            _ if comparison => format!("`{sign}` does not compare a value of type {one} with one of type {two}"),
            _ => format!("`{sign}` does not take a value of type {one} and one of type {two}"),
        };
        let problem = Problem::new(OPERANDS, node.range(), message);
        let help = match (&one, &two) {
            (Type::Int, Type::Double) | (Type::Double, Type::Int) => Some("write `double(…)` around the int"),
            (Type::String, Type::Int | Type::Double | Type::Bool) if operator == Operator::Add => {
                Some("write `string(…)` around the other value")
            }
            (Type::Int | Type::Double | Type::Bool, Type::String) if operator == Operator::Add => {
                Some("write `string(…)` around the other value")
            }
            _ => None,
        };
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
        if comparison { Type::Bool } else { Type::Any }
    }

    fn call(&mut self, call: &Call) -> Type {
        for (index, argument) in call.arguments.iter().enumerate() {
            let found = self.infer(argument);
            let wanted = call.function.takes(index);
            if !wanted.fits(&found) {
                let message = format!("`{}` takes {}, this is of type {found}", call.function.name(), wanted.words());
                self.wrong(FUNCTION, argument, message);
            }
        }
        match call.function {
            Function::Dyn => Type::Any,
            function => function.gives(),
        }
    }

    fn comprehension(&mut self, it: &Comprehension) -> Type {
        let range = self.infer(&it.range);
        let element = match &range {
            Type::Any => Type::Any,
            Type::List(element) => (**element).clone(),
            Type::Map(_) | Type::Object { .. } => Type::String,
            Type::Null | Type::Bool | Type::Int | Type::Double | Type::String => {
                let message = format!("a list or a map is needed here, this is of type {range}");
                self.wrong(OPERANDS, &it.range, message)
            }
        };
        self.variables.push(element.clone());
        let found = match it.form {
            Form::All | Form::Exists | Form::ExistsOne => {
                self.need_bool(&it.body, "the condition");
                Type::Bool
            }
            Form::Filter => {
                self.need_bool(&it.body, "the condition");
                Type::list(element)
            }
            Form::Map => match &it.then {
                Some(then) => {
                    self.need_bool(&it.body, "the condition");
                    Type::list(self.infer(then))
                }
                None => Type::list(self.infer(&it.body)),
            },
        };
        self.variables.pop();
        found
    }
}

fn is_ordered(one: &Type, two: &Type) -> bool {
    let has_order = |kind: &Type| kind.is_number() || matches!(kind, Type::Any | Type::String | Type::Bool);
    has_order(one)
        && has_order(two)
        && (*one == Type::Any || *two == Type::Any || (one.is_number() && two.is_number()) || one == two)
}

/// `+`: numbers of one kind, strings, lists.
fn sum(one: &Type, two: &Type) -> (bool, Type) {
    match (one, two) {
        (Type::Any, Type::List(_)) | (Type::List(_), Type::Any) => (true, Type::list(Type::Any)),
        (Type::List(one), Type::List(two)) => (true, Type::list(Type::joined([(**one).clone(), (**two).clone()]))),
        (Type::String, Type::String | Type::Any) | (Type::Any, Type::String) => (true, Type::String),
        _ => number(one, two, false),
    }
}

fn number(one: &Type, two: &Type, whole: bool) -> (bool, Type) {
    match (one, two) {
        (Type::Any, Type::Any) => (true, if whole { Type::Int } else { Type::Any }),
        (Type::Int, Type::Int | Type::Any) | (Type::Any, Type::Int) => (true, Type::Int),
        (Type::Double, Type::Double | Type::Any) | (Type::Any, Type::Double) => (!whole, Type::Double),
        _ => (false, Type::Any),
    }
}
