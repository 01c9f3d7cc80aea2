//! The types that names and expressions have before anything has run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// A type. `Any` is what nobody knows yet; it fits everywhere.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Any,
    Null,
    Bool,
    Int,
    Double,
    String,
    List(Arc<Type>),
    /// Any keys, one type of value.
    Map(Arc<Type>),
    /// Known keys; `open` means that there may be others, of type `Any`.
    Object {
        fields: Arc<BTreeMap<String, Type>>,
        open: bool,
    },
}

/// The types behind root names.
pub trait TypeNames {
    /// The type of a root name; `None` if there is no such name.
    fn type_of(&self, root: &str) -> Option<Type>;
    /// All root names, for did-you-mean.
    fn root_names(&self) -> Vec<String>;
}

/// The type that a JSON Schema's instances have, as far as it can be told; `Any` where it cannot.
pub fn type_of_schema(schema: &Value) -> Type {
    let _ = schema;
    todo!()
}
