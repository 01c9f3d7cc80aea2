//! The value of a tree. Work and memory are counted, so that every evaluation ends.

use std::cell::Cell;

use serde_json::{Map, Value};

use super::operand::{Operand, View, weight};
use super::tree::{Comprehension, Form, Kind, Node, Operator};
use crate::expr::names::{Found, Names};
use crate::expr::nearest::{listed, shortened, suggestion};
use crate::expr::problem::EvaluationError;

/// Elementary steps of one evaluation: nodes, elements and chunks of text. About half a second at the most.
const MOST_WORK: u64 = 5_000_000;

/// Bytes that one evaluation may make, all intermediate values together, by the estimate of `weight`.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// One elementary step pays for so many bytes of text.
const BYTES_PER_STEP: u64 = 64;

/// Why there is no value.
pub(super) enum Fail {
    /// A mistake that `||`, `&&` and the like may absorb.
    Error(String),
    /// The bound on work or memory; nothing absorbs it.
    Exhausted(&'static str),
}

pub(super) type Outcome<T> = Result<T, Fail>;

/// An error in these words.
pub(super) fn error<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Fail::Error(message.into()))
}

/// Evaluates a tree over names.
pub(super) fn evaluate(source: &str, root: &Node, names: &dyn Names) -> Result<Value, EvaluationError> {
    let machine = Machine { names, source, work: Cell::new(0), bytes: Cell::new(0) };
    let outcome = machine.eval(root, None).and_then(|operand| machine.owned(operand));
    outcome.map_err(|fail| match fail {
        Fail::Error(message) => EvaluationError::new(message),
        Fail::Exhausted(what) => EvaluationError::new(format!("`{}` {what}", shortened(source.trim()))),
    })
}

/// One evaluation: where names come from, and what it has used.
pub(super) struct Machine<'n> {
    names: &'n dyn Names,
    source: &'n str,
    work: Cell<u64>,
    bytes: Cell<u64>,
}

/// The variables of the comprehensions around a node.
pub(super) struct Scope<'v> {
    value: &'v Value,
    outer: Option<&'v Scope<'v>>,
}

impl Machine<'_> {
    /// Counts work.
    pub fn charge(&self, steps: u64) -> Outcome<()> {
        let work = self.work.get().saturating_add(steps);
        self.work.set(work);
        if work > MOST_WORK { Err(Fail::Exhausted("does too much work: more than 5,000,000 steps")) } else { Ok(()) }
    }

    /// Counts text that is looked through.
    pub fn charge_text(&self, text: &str) -> Outcome<()> {
        self.charge(1 + text.len() as u64 / BYTES_PER_STEP)
    }

    /// Counts bytes that are made.
    pub fn charge_bytes(&self, bytes: u64) -> Outcome<()> {
        let made = self.bytes.get().saturating_add(bytes);
        self.bytes.set(made);
        if made > MOST_BYTES {
            return Err(Fail::Exhausted("makes too much data: more than 64 MiB"));
        }
        self.charge(1 + bytes / BYTES_PER_STEP)
    }

    /// A new string as an operand, paid for.
    pub fn text(&self, text: String) -> Outcome<Operand<'static>> {
        self.charge_bytes(text.len() as u64)?;
        Ok(Operand::Owned(Value::String(text)))
    }

    /// The value itself; a borrowed one is copied and paid for.
    pub fn owned(&self, operand: Operand<'_>) -> Outcome<Value> {
        match operand {
            Operand::Owned(value) => Ok(value),
            Operand::Borrowed(value) => {
                self.charge_bytes(weight(value))?;
                Ok(value.clone())
            }
            Operand::Fields(fields) => {
                let mut whole = Map::new();
                for name in fields.field_names() {
                    if let Some(value) = fields.field(&name) {
                        self.charge_bytes(weight(&value))?;
                        whole.insert(name, value.into_owned());
                    }
                }
                Ok(Value::Object(whole))
            }
        }
    }

    /// The operand with a root's fields gathered into a map.
    pub fn settled<'v>(&self, operand: Operand<'v>) -> Outcome<Settled<'v>> {
        Ok(match operand {
            Operand::Borrowed(value) => Settled::Borrowed(value),
            Operand::Owned(value) => Settled::Owned(value),
            Operand::Fields(_) => Settled::Owned(self.owned(operand)?),
        })
    }

    /// The text of a node, for messages.
    pub fn words(&self, node: &Node) -> String {
        shortened(self.source.get(node.range()).unwrap_or_default())
    }

    /// The value of a node.
    pub fn eval<'v>(&'v self, node: &'v Node, scope: Option<&'v Scope<'v>>) -> Outcome<Operand<'v>> {
        self.charge(1)?;
        match &node.kind {
            Kind::Literal(value) => Ok(Operand::Borrowed(value)),
            Kind::Name(name) => self.name(name),
            Kind::Variable(outwards) => {
                let mut scope = scope;
                for _ in 0..*outwards {
                    scope = scope.and_then(|scope| scope.outer);
                }
                scope.map_or_else(|| error("a variable has no value"), |scope| Ok(Operand::Borrowed(scope.value)))
            }
            Kind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for item in items {
                    list.push(self.owned(self.eval(item, scope)?)?);
                }
                self.charge_bytes(16 * list.len() as u64)?;
                Ok(Operand::Owned(Value::Array(list)))
            }
            Kind::Map(entries) => self.map(entries, scope),
            Kind::Field { of, name } => match self.select(self.eval(of, scope)?, name, of)? {
                Some(found) => Ok(found),
                None => self.missing(of, name, scope),
            },
            Kind::Index { of, index } => self.index(of, index, scope),
            Kind::Not(of) => Ok(boolean(!self.truth(of, scope)?)),
            Kind::Negate(of) => self.negate(of, scope),
            Kind::All(parts) => self.logical(parts, scope, false),
            Kind::Any(parts) => self.logical(parts, scope, true),
            Kind::Binary { operator, left, right } => self.binary(*operator, left, right, scope),
            Kind::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                self.eval(if self.truth(condition, scope)? { then } else { otherwise }, scope)
            }
            Kind::Has(of) => self.has(of, scope),
            Kind::Call(call) => self.call(call, scope),
            Kind::Comprehension(comprehension) => self.comprehension(comprehension, scope),
        }
    }

    fn name<'v>(&'v self, name: &str) -> Outcome<Operand<'v>> {
        match self.names.lookup(name) {
            Some(Found::Value(std::borrow::Cow::Borrowed(value))) => Ok(Operand::Borrowed(value)),
            Some(Found::Value(std::borrow::Cow::Owned(value))) => Ok(Operand::Owned(value)),
            Some(Found::Fields(fields)) => Ok(Operand::Fields(fields)),
            None => error(format!("there is no `{name}` here")),
        }
    }

    fn map<'v>(&'v self, entries: &'v [(Node, Node)], scope: Option<&'v Scope<'v>>) -> Outcome<Operand<'v>> {
        let mut map = Map::new();
        for (key, value) in entries {
            let name = match self.settled(self.eval(key, scope)?)?.view() {
                View::Text(text) => text.to_owned(),
                other => return error(format!("a map's key is a string, not a value of type {}", other.type_name())),
            };
            self.charge_bytes(16 + name.len() as u64)?;
            let value = self.owned(self.eval(value, scope)?)?;
            if map.insert(name, value).is_some() {
                return error(format!("the key `{}` is in this map twice", self.words(key)));
            }
        }
        Ok(Operand::Owned(Value::Object(map)))
    }

    /// A field of a map; `None` if it is not there. `node` is what the operand was evaluated from.
    fn select<'v>(&self, of: Operand<'v>, name: &str, node: &Node) -> Outcome<Option<Operand<'v>>> {
        let kind = match of {
            Operand::Borrowed(Value::Object(fields)) => return Ok(fields.get(name).map(Operand::Borrowed)),
            Operand::Owned(Value::Object(mut fields)) => return Ok(fields.remove(name).map(Operand::Owned)),
            Operand::Fields(fields) => {
                return Ok(fields.field(name).map(|found| match found {
                    std::borrow::Cow::Borrowed(value) => Operand::Borrowed(value),
                    std::borrow::Cow::Owned(value) => Operand::Owned(value),
                }));
            }
            Operand::Borrowed(value) => View::of(value).type_name(),
            Operand::Owned(value) => View::of(&value).type_name(),
        };
        let what = self.words(node);
        error(format!("`{what}` is of type {kind}: it has no key `{}`", shortened(name)))
    }

    /// The error for a key that is not there; it names those that are.
    fn missing<'v, T>(&'v self, of: &'v Node, name: &str, scope: Option<&'v Scope<'v>>) -> Outcome<T> {
        let names: Vec<String> = match self.eval(of, scope)? {
            Operand::Fields(fields) => fields.field_names(),
            Operand::Borrowed(Value::Object(fields)) => fields.keys().cloned().collect(),
            Operand::Owned(Value::Object(fields)) => fields.into_iter().map(|(key, _)| key).collect(),
            Operand::Borrowed(_) | Operand::Owned(_) => Vec::new(),
        };
        error(missing_key(&self.words(of), name, &names))
    }

    fn index<'v>(&'v self, of: &'v Node, index: &'v Node, scope: Option<&'v Scope<'v>>) -> Outcome<Operand<'v>> {
        let base = self.eval(of, scope)?;
        let at = self.settled(self.eval(index, scope)?)?;
        if let View::Text(name) = at.view() {
            return match self.select(base, name, of)? {
                Some(found) => Ok(found),
                None => self.missing(of, name, scope),
            };
        }
        let base = self.settled(base)?;
        let (View::List(items), View::Int(number)) = (base.view(), at.view()) else {
            let (base, at) = (base.view().type_name(), at.view().type_name());
            return error(format!(
                "`{}` is of type {base}: it has no element by an index of type {at}",
                self.words(of)
            ));
        };
        let length = items.len();
        let found = usize::try_from(number).ok().filter(|number| *number < length);
        match (found, base) {
            (Some(at), Settled::Borrowed(Value::Array(items))) => items.get(at).map(Operand::Borrowed),
            (Some(at), Settled::Owned(Value::Array(mut items))) => Some(Operand::Owned(items.swap_remove(at))),
            (Some(_) | None, Settled::Borrowed(_) | Settled::Owned(_)) => None,
        }
        .map_or_else(|| error(format!("`{}` has {length} element(s), none at index {number}", self.words(of))), Ok)
    }

    /// The bool that a node must give.
    fn truth<'v>(&'v self, node: &'v Node, scope: Option<&'v Scope<'v>>) -> Outcome<bool> {
        match self.settled(self.eval(node, scope)?)?.view() {
            View::Bool(value) => Ok(value),
            other => error(format!("`{}` is of type {}: a bool is needed here", self.words(node), other.type_name())),
        }
    }

    /// `&&` and `||`: the deciding value wins over an error on its left or right.
    fn logical<'v>(&'v self, parts: &'v [Node], scope: Option<&'v Scope<'v>>, deciding: bool) -> Outcome<Operand<'v>> {
        let mut absorbed = None;
        for part in parts {
            match self.truth(part, scope) {
                Ok(value) if value == deciding => return Ok(boolean(deciding)),
                Ok(_) => {}
                Err(Fail::Error(message)) => absorbed = absorbed.or(Some(message)),
                Err(fail @ Fail::Exhausted(_)) => return Err(fail),
            }
        }
        absorbed.map_or_else(|| Ok(boolean(!deciding)), error)
    }

    fn has<'v>(&'v self, of: &'v Node, scope: Option<&'v Scope<'v>>) -> Outcome<Operand<'v>> {
        let (base, name) = match &of.kind {
            Kind::Field { of, name } => (of, &**name),
            Kind::Index { of, index } => match &index.kind {
                Kind::Literal(Value::String(name)) => (of, name.as_str()),
                _ => return error("`has` asks for one field"),
            },
            _ => return error("`has` asks for one field"),
        };
        Ok(boolean(match self.eval(base, scope)? {
            Operand::Borrowed(Value::Object(fields)) => fields.contains_key(name),
            Operand::Owned(Value::Object(fields)) => fields.contains_key(name),
            Operand::Fields(fields) => fields.field(name).is_some(),
            Operand::Borrowed(_) | Operand::Owned(_) => false,
        }))
    }

    fn negate<'v>(&'v self, of: &'v Node, scope: Option<&'v Scope<'v>>) -> Outcome<Operand<'v>> {
        match self.settled(self.eval(of, scope)?)?.view() {
            View::Int(value) => match value.checked_neg() {
                Some(value) => Ok(Operand::Owned(Value::from(value))),
                None => error(format!("-({value}) does not fit in 64 bits")),
            },
            View::Double(value) => Ok(Operand::Owned(Value::from(-value))),
            other => error(format!("`-` needs a number, `{}` is of type {}", self.words(of), other.type_name())),
        }
    }

    fn binary<'v>(
        &'v self,
        operator: Operator,
        left: &'v Node,
        right: &'v Node,
        scope: Option<&'v Scope<'v>>,
    ) -> Outcome<Operand<'v>> {
        let one = self.settled(self.eval(left, scope)?)?;
        let two = self.settled(self.eval(right, scope)?)?;
        match operator {
            Operator::Equal => Ok(boolean(self.equal(one.value(), two.value())?)),
            Operator::NotEqual => Ok(boolean(!self.equal(one.value(), two.value())?)),
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
                self.ordered(operator, one.view(), two.view())
            }
            Operator::In => self.contained(one.value(), two.view()),
            Operator::Add | Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Remainder => {
                self.arithmetic(operator, one, two)
            }
        }
    }

    fn comprehension<'v>(&'v self, it: &'v Comprehension, scope: Option<&'v Scope<'v>>) -> Outcome<Operand<'v>> {
        let range = self.settled(self.eval(&it.range, scope)?)?;
        let keys: Vec<Value>;
        let items = match range.view() {
            View::List(items) => items,
            View::Map(fields) => {
                self.charge_bytes(fields.keys().map(|key| 16 + key.len() as u64).sum())?;
                keys = fields.keys().map(|key| Value::String(key.clone())).collect();
                &keys
            }
            other => {
                let what = self.words(&it.range);
                return error(format!("`{what}` is of type {}: a list or a map is needed here", other.type_name()));
            }
        };
        match it.form {
            Form::All => self.quantified(it, items, scope, false),
            Form::Exists => self.quantified(it, items, scope, true),
            Form::ExistsOne => {
                let mut count = 0_u32;
                for value in items {
                    count += u32::from(self.truth(&it.body, Some(&Scope { value, outer: scope }))?);
                }
                Ok(boolean(count == 1))
            }
            Form::Filter => {
                let mut kept = Vec::new();
                for value in items {
                    if self.truth(&it.body, Some(&Scope { value, outer: scope }))? {
                        kept.push(self.owned(Operand::Borrowed(value))?);
                    }
                }
                Ok(Operand::Owned(Value::Array(kept)))
            }
            Form::Map => {
                let mut made = Vec::new();
                for value in items {
                    let inner = Scope { value, outer: scope };
                    let result = match &it.then {
                        None => &it.body,
                        Some(then) if self.truth(&it.body, Some(&inner))? => then,
                        Some(_) => continue,
                    };
                    self.charge_bytes(16)?;
                    made.push(self.owned(self.eval(result, Some(&inner))?)?);
                }
                Ok(Operand::Owned(Value::Array(made)))
            }
        }
    }

    /// `all` and `exists`: as `&&` and `||` over the elements.
    fn quantified(
        &self,
        it: &Comprehension,
        items: &[Value],
        scope: Option<&Scope<'_>>,
        deciding: bool,
    ) -> Outcome<Operand<'static>> {
        let mut absorbed = None;
        for value in items {
            match self.truth(&it.body, Some(&Scope { value, outer: scope })) {
                Ok(found) if found == deciding => return Ok(boolean(deciding)),
                Ok(_) => {}
                Err(Fail::Error(message)) => absorbed = absorbed.or(Some(message)),
                Err(fail @ Fail::Exhausted(_)) => return Err(fail),
            }
        }
        absorbed.map_or_else(|| Ok(boolean(!deciding)), error)
    }
}

/// A value that is there as a whole.
pub(super) enum Settled<'v> {
    Borrowed(&'v Value),
    Owned(Value),
}

impl<'v> Settled<'v> {
    /// The value.
    pub fn value(&self) -> &Value {
        match self {
            Self::Borrowed(value) => value,
            Self::Owned(value) => value,
        }
    }

    /// A look at it by its type.
    pub fn view(&self) -> View<'_> {
        View::of(self.value())
    }

    /// Back to an operand.
    pub fn into_operand(self) -> Operand<'v> {
        match self {
            Self::Borrowed(value) => Operand::Borrowed(value),
            Self::Owned(value) => Operand::Owned(value),
        }
    }
}

/// The words for a key that is not there: whose key, which, and what there is instead.
pub(in crate::expr) fn missing_key(of: &str, name: &str, names: &[String]) -> String {
    let message = format!("`{of}` has no key `{}`", shortened(name));
    let names = names.iter().map(String::as_str);
    match (suggestion(name, names.clone()), listed(names)) {
        (Some(help), Some(_)) => format!("{message}: {help}"),
        (Some(_) | None, _) => format!("{message}: it is empty"),
    }
}

/// A bool as an operand.
pub(super) fn boolean(value: bool) -> Operand<'static> {
    Operand::Owned(Value::Bool(value))
}
