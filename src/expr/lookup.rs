//! The types behind paths, and the words for a name or key that is not there. Shared by conditions and templates.

use std::ops::Range;

use super::nearest::{shortened, suggestion};
use super::problem::Problem;
use super::types::{Type, TypeNames};
use crate::diagnostic::may_compare;

/// A root name is unknown.
pub(super) const UNKNOWN_NAME: &str = "TOL0303";
/// A key of a closed map is unknown, or the value has no keys at all.
pub(super) const UNKNOWN_FIELD: &str = "TOL0304";

/// The type of a root name; an unknown one is a mistake, and `Any` from there on.
pub(super) fn root_type(names: &dyn TypeNames, name: &str, range: Range<usize>, problems: &mut Vec<Problem>) -> Type {
    if let Some(found) = names.type_of(name) {
        return found;
    }
    let roots = names.root_names();
    let problem = Problem::new(UNKNOWN_NAME, range, format!("`{}` is not a name that is known here", shortened(name)));
    problems.push(match suggestion(name, roots.iter().map(String::as_str)) {
        Some(help) => problem.help(help),
        None => problem,
    });
    Type::Any
}

/// The type of a field; `of_text` is how the text names the value that has the field.
pub(super) fn field_type(
    of: &Type,
    of_text: &str,
    name: &str,
    range: Range<usize>,
    problems: &mut Vec<Problem>,
) -> Type {
    let (message, help) = match of {
        Type::Any => return Type::Any,
        Type::Map(value) => return (**value).clone(),
        Type::Object { fields, open } => match fields.get(name) {
            Some(found) => return found.clone(),
            None if *open => return Type::Any,
            None => {
                let help =
                    if may_compare(fields.len()) { suggestion(name, fields.keys().map(String::as_str)) } else { None };
                (format!("`{}` has no key `{}`", shortened(of_text), shortened(name)), help)
            }
        },
        Type::List(_) => {
            let message = format!("`{}` is a {of}: it has no key `{}`", shortened(of_text), shortened(name));
            (message, Some("name an element by its index".to_owned()))
        }
        Type::Null | Type::Bool | Type::Int | Type::Double | Type::String => {
            (format!("`{}` is of type {of}: it has no key `{}`", shortened(of_text), shortened(name)), None)
        }
    };
    let problem = Problem::new(UNKNOWN_FIELD, range, message);
    problems.push(match help {
        Some(help) => problem.help(help),
        None => problem,
    });
    Type::Any
}
