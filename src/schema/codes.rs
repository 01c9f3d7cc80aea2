//! The codes of mistakes of form. Their pages are `docs/errors/TOL01xx.md` and `docs/errors/TOL05xx.md`.

/// More mistakes in one document than are listed.
pub const TOO_MANY: &str = "TOL0100";
/// A key that this mapping does not have.
pub const UNKNOWN_KEY: &str = "TOL0101";
/// A key that this mapping must have.
pub const MISSING_KEY: &str = "TOL0102";
/// A value of another type.
pub const WRONG_TYPE: &str = "TOL0103";
/// A value that is none of the allowed ones.
pub const NOT_ALLOWED: &str = "TOL0104";
/// A number, a length or a count outside its range.
pub const OUT_OF_RANGE: &str = "TOL0105";
/// No action in a step, or more than one.
pub const ONE_ACTION: &str = "TOL0106";
/// A key that belongs to another action than the one that is there.
pub const OTHER_ACTION: &str = "TOL0107";
/// A text that does not have its form.
pub const WRONG_FORM: &str = "TOL0108";
/// An `apiVersion` that this engine does not read.
pub const API_VERSION: &str = "TOL0109";
/// An id that is not lower-case letters, digits and `_`.
pub const BAD_ID: &str = "TOL0110";
/// An id that is a word of the language.
pub const RESERVED_ID: &str = "TOL0111";
/// Two keys that exclude each other.
pub const EXCLUSIVE_KEYS: &str = "TOL0112";
/// A JSON Schema that is none.
pub const BAD_SCHEMA: &str = "TOL0113";
/// A default that does not fit its own schema.
pub const BAD_DEFAULT: &str = "TOL0114";
/// A pattern that cannot be matched in linear time, or is no pattern.
pub const BAD_PATTERN: &str = "TOL0115";
/// A key of a JSON Schema that means nothing there (a warning).
pub const UNKNOWN_KEYWORD: &str = "TOL0601";
/// A text that is no duration.
pub const BAD_DURATION: &str = "TOL0501";
