//! The names that a text may use where it stands, with their types.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::sites::Spot;
use crate::expr::{Type, TypeNames, type_of_schema};
use crate::model::{Fan, Pipeline};

/// How many names may be offered for did-you-mean in one compilation. A file of 100,000 steps with 100,000 wrong
/// names would otherwise be compared 10 billion times over.
const MOST_OFFERED_NAMES: u64 = 2_000_000;

/// The names that all texts of one pipeline share.
pub struct Names<'a> {
    pub params: Type,
    run: Type,
    env: Type,
    pub index: &'a HashMap<Box<str>, u32>,
    /// By number of a step: what stands under its id. `Any` until it is known.
    pub steps: Vec<Type>,
    /// Ids of steps that are in the file but too broken to be read.
    pub broken: &'a BTreeSet<Box<str>>,
    offered: Cell<u64>,
}

/// What stands under the id of a step whose outputs have this type.
pub fn step_type(outputs: Type) -> Type {
    Type::closed([
        ("outputs", outputs),
        ("status", Type::String),
        ("exit_code", Type::Any),
        ("stderr", Type::String),
        ("duration", Type::Any),
        ("error", Type::Any),
    ])
}

impl<'a> Names<'a> {
    /// The names of a pipeline whose steps have these numbers; the steps' types are filled in later.
    pub fn new(pipeline: &Pipeline, index: &'a HashMap<Box<str>, u32>, broken: &'a BTreeSet<Box<str>>) -> Self {
        let params: BTreeMap<String, Type> =
            pipeline.params.iter().map(|(name, param)| (name.to_string(), type_of_schema(&param.schema))).collect();
        let steps = vec![Type::Any; pipeline.steps.len() + pipeline.finally.len()];
        Self { steps, ..Self::bare(Type::Object { fields: Arc::new(params), open: false }, index, broken) }
    }

    /// Names without steps.
    pub fn bare(params: Type, index: &'a HashMap<Box<str>, u32>, broken: &'a BTreeSet<Box<str>>) -> Self {
        Self {
            params,
            run: Type::closed([("id", Type::String), ("attempt", Type::Int), ("started_at", Type::String)]),
            env: Type::Map(Arc::new(Type::String)),
            index,
            steps: Vec::new(),
            broken,
            offered: Cell::new(0),
        }
    }

    /// The ids of all steps in order of their numbers, or none if too many were offered already.
    fn step_names(&self) -> Vec<String> {
        let offered = self.offered.get() + self.index.len() as u64;
        if offered > MOST_OFFERED_NAMES {
            return Vec::new();
        }
        self.offered.set(offered);
        let mut names: Vec<(u32, &str)> = self.index.iter().map(|(name, number)| (*number, &**name)).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name.to_owned()).chain(self.broken.iter().map(ToString::to_string)).collect()
    }
}

/// What an item of a fan-out is called, and its type.
pub struct ItemNames<'a> {
    alias: Option<&'a str>,
    value: Type,
    item: Type,
    /// The fields of `matrix`, in a matrix.
    matrix: Option<Type>,
}

impl<'a> ItemNames<'a> {
    /// The names of a step's items; `items` is the type of what a `foreach` goes over.
    pub fn of(fan: &'a Fan, items: &Type) -> Self {
        let value = match (fan, items) {
            (Fan::Matrix { combinations, keys, .. }, _) => {
                let fields = keys
                    .iter()
                    .map(|key| {
                        let values = combinations.iter().filter_map(|combination| combination.get(&*key.value));
                        (key.value.to_string(), Type::joined(values.map(Type::of_value)))
                    })
                    .collect::<BTreeMap<_, _>>();
                Type::Object { fields: Arc::new(fields), open: false }
            }
            (Fan::Static { .. } | Fan::Dynamic { .. }, Type::List(element)) => element.as_ref().clone(),
            (Fan::Static { .. } | Fan::Dynamic { .. }, _) => Type::Any,
        };
        let matrix = match fan {
            Fan::Matrix { .. } => Some(value.clone()),
            Fan::Static { .. } | Fan::Dynamic { .. } => None,
        };
        Self {
            alias: fan.alias().map(|alias| &*alias.value),
            item: Type::closed([("index", Type::Int), ("value", value.clone())]),
            value,
            matrix,
        }
    }
}

/// The names at one place.
pub struct Scope<'a> {
    pub names: &'a Names<'a>,
    pub items: Option<&'a ItemNames<'a>>,
    /// The type of `input`, in a tool.
    pub input: Option<&'a Type>,
    /// The names that only `accept` has.
    pub accept: Option<&'a BTreeMap<&'static str, Type>>,
    pub spot: Spot,
}

impl Scope<'_> {
    fn items_here(&self) -> Option<&ItemNames<'_>> {
        self.items.filter(|_| self.spot.sees_item())
    }
}

impl TypeNames for Scope<'_> {
    fn type_of(&self, root: &str) -> Option<Type> {
        if let Some(kind) = self.accept.filter(|_| self.spot == Spot::Accept).and_then(|names| names.get(root)) {
            return Some(kind.clone());
        }
        if let Some(items) = self.items_here() {
            if items.alias == Some(root) {
                return Some(items.value.clone());
            }
            match (root, &items.matrix) {
                ("item", _) => return Some(items.item.clone()),
                ("matrix", Some(matrix)) => return Some(matrix.clone()),
                _ => {}
            }
        }
        match root {
            "params" => Some(self.names.params.clone()).filter(|_| self.input.is_none()),
            "env" | "secrets" => Some(self.names.env.clone()),
            "run" => Some(self.names.run.clone()),
            // Where one of these is not, our own words have said so.
            "input" => Some(self.input.cloned().unwrap_or(Type::Any)),
            "item" | "matrix" => Some(Type::Any),
            _ => match self.names.index.get(root) {
                Some(number) => Some(self.names.steps.get(*number as usize).cloned().unwrap_or(Type::Any)),
                None => self.names.broken.contains(root).then_some(Type::Any),
            },
        }
    }

    fn root_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        if let Some(accept) = self.accept.filter(|_| self.spot == Spot::Accept) {
            names.extend(accept.keys().map(|name| (*name).to_owned()));
        }
        if let Some(items) = self.items_here() {
            names.extend(items.alias.map(str::to_owned));
            names.push("item".to_owned());
            names.extend(items.matrix.as_ref().map(|_| "matrix".to_owned()));
        }
        if self.input.is_some() {
            names.push("input".to_owned());
        } else {
            names.push("params".to_owned());
        }
        names.extend(["env", "run"].map(str::to_owned));
        if self.spot.allows_secrets() {
            names.push("secrets".to_owned());
        }
        names.extend(self.names.step_names());
        names
    }
}
