//! The types that names and expressions have before anything has run.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// How deep a schema is followed; below, everything is `Any`.
const SCHEMA_DEPTH: usize = 64;

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

impl Type {
    /// A list of values of one type.
    pub fn list(element: Type) -> Self {
        Self::List(Arc::new(element))
    }

    /// A map with any keys and values of one type.
    pub fn map(value: Type) -> Self {
        Self::Map(Arc::new(value))
    }

    /// A map with known keys and no others.
    pub fn closed<K: Into<String>>(fields: impl IntoIterator<Item = (K, Type)>) -> Self {
        Self::object(fields, false)
    }

    /// A map with known keys, and perhaps others of type `Any`.
    pub fn open<K: Into<String>>(fields: impl IntoIterator<Item = (K, Type)>) -> Self {
        Self::object(fields, true)
    }

    fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Type)>, open: bool) -> Self {
        let fields = fields.into_iter().map(|(name, kind)| (name.into(), kind)).collect();
        Self::Object { fields: Arc::new(fields), open }
    }

    /// The type of a value that is at hand. Lists and maps are looked into only as far as one kind of element.
    pub fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_f64() => Self::Double,
            Value::Number(_) => Self::Int,
            Value::String(_) => Self::String,
            Value::Array(items) => Self::list(Self::joined(items.iter().map(Self::of_value))),
            Value::Object(fields) => {
                Self::closed(fields.iter().map(|(name, value)| (name.clone(), Self::of_value(value))))
            }
        }
    }

    /// The one type that all of them have, else `Any`.
    pub fn joined(types: impl IntoIterator<Item = Type>) -> Self {
        let mut types = types.into_iter();
        let Some(first) = types.next() else { return Self::Any };
        if types.all(|other| other == first) { first } else { Self::Any }
    }

    /// True for a number of either kind.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Double)
    }

    /// True for a map of either kind.
    pub fn is_map(&self) -> bool {
        matches!(self, Self::Map(_) | Self::Object { .. })
    }

    /// Whether a value of this type may stand where `wanted` is asked for. What cannot be told is allowed.
    pub fn is_assignable(&self, wanted: &Type) -> bool {
        match (self, wanted) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::Null, Self::Null) | (Self::Bool, Self::Bool) | (Self::Int, Self::Int) => true,
            (Self::Double, Self::Double) | (Self::String, Self::String) | (Self::Int, Self::Double) => true,
            (Self::List(have), Self::List(want)) | (Self::Map(have), Self::Map(want)) => have.is_assignable(want),
            (Self::Object { fields, .. }, Self::Map(want)) => fields.values().all(|have| have.is_assignable(want)),
            (Self::Map(have), Self::Object { fields, .. }) => fields.values().all(|want| have.is_assignable(want)),
            (Self::Object { fields: have, open }, Self::Object { fields: want, open: more }) => {
                want.iter().all(|(name, want)| have.get(name).map_or(*open, |have| have.is_assignable(want)))
                    && (*more || have.keys().all(|name| want.contains_key(name)))
            }
            (
                Self::Null
                | Self::Bool
                | Self::Int
                | Self::Double
                | Self::String
                | Self::List(_)
                | Self::Map(_)
                | Self::Object { .. },
                _,
            ) => false,
        }
    }

    /// Whether two values of these types can ever be equal, as `==` and `in` see it: numbers compare by value.
    pub fn is_comparable(&self, other: &Type) -> bool {
        match (self, other) {
            (Self::Any | Self::Null, _) | (_, Self::Any | Self::Null) => true,
            (Self::List(one), Self::List(two)) => one.is_comparable(two),
            _ if self.is_number() && other.is_number() => true,
            _ if self.is_map() && other.is_map() => true,
            _ => self == other,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => formatter.write_str("any"),
            Self::Null => formatter.write_str("null"),
            Self::Bool => formatter.write_str("bool"),
            Self::Int => formatter.write_str("int"),
            Self::Double => formatter.write_str("double"),
            Self::String => formatter.write_str("string"),
            Self::List(element) if **element == Self::Any => formatter.write_str("list"),
            Self::List(element) => write!(formatter, "list({element})"),
            Self::Map(_) | Self::Object { .. } => formatter.write_str("map"),
        }
    }
}

/// The type that a JSON Schema's instances have, as far as it can be told; `Any` where it cannot.
///
/// `number` is `Double`, `integer` is `Int`; an object without `additionalProperties: false` is open; a `$ref` and a
/// choice of several types are `Any`.
pub fn type_of_schema(schema: &Value) -> Type {
    schema_type(schema, SCHEMA_DEPTH)
}

fn schema_type(schema: &Value, depth: usize) -> Type {
    let Some(depth) = depth.checked_sub(1) else { return Type::Any };
    let Some(schema) = schema.as_object() else { return Type::Any };
    if schema.contains_key("$ref") || schema.contains_key("$dynamicRef") {
        return Type::Any;
    }
    let name = match schema.get("type") {
        Some(Value::String(name)) => name.as_str(),
        Some(Value::Array(names)) => match names.as_slice() {
            [Value::String(name)] => name.as_str(),
            _ => return Type::Any,
        },
        Some(_) => return Type::Any,
        None => {
            return match (schema.get("const"), schema.get("enum")) {
                (Some(value), _) => Type::of_value(value),
                (None, Some(Value::Array(values))) => Type::joined(values.iter().map(Type::of_value)),
                (None, _) => Type::Any,
            };
        }
    };
    match name {
        "null" => Type::Null,
        "boolean" => Type::Bool,
        "integer" => Type::Int,
        "number" => Type::Double,
        "string" => Type::String,
        "array" if schema.contains_key("prefixItems") => Type::list(Type::Any),
        "array" => Type::list(schema.get("items").map_or(Type::Any, |items| schema_type(items, depth))),
        "object" => object_type(schema, depth),
        _ => Type::Any,
    }
}

fn object_type(schema: &serde_json::Map<String, Value>, depth: usize) -> Type {
    let is_false = |key: &str| schema.get(key) == Some(&Value::Bool(false));
    let closed = (is_false("additionalProperties") || is_false("unevaluatedProperties"))
        && !["patternProperties", "allOf", "anyOf", "oneOf", "if"].iter().any(|key| schema.contains_key(*key));
    let properties = schema.get("properties").and_then(Value::as_object);
    match (properties, schema.get("additionalProperties")) {
        (None, Some(values @ Value::Object(_))) if !schema.contains_key("patternProperties") => {
            Type::map(schema_type(values, depth))
        }
        (None, _) if !closed => Type::open::<String>([]),
        (properties, _) => {
            let fields = properties.into_iter().flatten();
            Type::object(fields.map(|(name, schema)| (name.clone(), schema_type(schema, depth))), !closed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, expect: &Type) {
        assert_eq!(type_of_schema(&schema), *expect, "{schema}");
    }

    #[test]
    fn a_schema_gives_a_type() {
        check(json!({"type": "string", "minLength": 1}), &Type::String);
        check(json!({"type": "integer"}), &Type::Int);
        check(json!({"type": "number"}), &Type::Double);
        check(json!({"type": ["string"]}), &Type::String);
        check(json!({"type": ["string", "null"]}), &Type::Any);
        check(json!({"type": "array", "items": {"type": "boolean"}}), &Type::list(Type::Bool));
        check(json!({"type": "array"}), &Type::list(Type::Any));
        check(json!({"enum": ["a", "b"]}), &Type::String);
        check(json!({"enum": ["a", 1]}), &Type::Any);
        check(json!({"const": 3}), &Type::Int);
        check(json!({"$ref": "#/$defs/x", "type": "string"}), &Type::Any);
        check(json!(true), &Type::Any);
        check(json!({"type": "object"}), &Type::open::<String>([]));
        check(json!({"type": "object", "properties": {"a": {"type": "string"}}}), &Type::open([("a", Type::String)]));
        check(
            json!({"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": false}),
            &Type::closed([("a", Type::Null)]),
        );
        check(json!({"type": "object", "additionalProperties": {"type": "integer"}}), &Type::map(Type::Int));
    }

    #[test]
    fn assignable_is_by_what_may_be_inside() {
        let check =
            |have: Type, want: Type, expect: bool| assert_eq!(have.is_assignable(&want), expect, "{have} {want}");
        check(Type::Int, Type::Double, true);
        check(Type::Double, Type::Int, false);
        check(Type::Any, Type::Bool, true);
        check(Type::list(Type::Any), Type::list(Type::Int), true);
        check(Type::list(Type::String), Type::list(Type::Int), false);
        check(Type::closed([("a", Type::Int)]), Type::open([("a", Type::Int)]), true);
        check(Type::closed([("a", Type::Int)]), Type::closed([("b", Type::Int)]), false);
        check(Type::closed([("a", Type::Int)]), Type::map(Type::String), false);
        check(Type::open::<String>([]), Type::open([("b", Type::Int)]), true);
    }
}
