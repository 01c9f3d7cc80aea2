//! Templates and conditions: parse them, find what they refer to, type them, evaluate them.
//!
//! Nothing here does I/O, and every evaluation ends: sizes, nesting and work are bounded.

mod cel;
mod lookup;
mod names;
mod nearest;
mod problem;
mod reference;
mod template;
mod types;
mod value;

pub use cel::Expression;
pub use names::{Fields, Found, Layered, Names};
pub use problem::{EvaluationError, Problem};
pub use reference::{Reference, Segment};
pub use template::Template;
pub use types::{Type, TypeNames, type_of_schema};
pub use value::ValueTemplate;
