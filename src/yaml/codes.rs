//! The codes of the mistakes that this room finds.

pub(super) const NOT_UTF8: &str = "TOL0001";
pub(super) const SYNTAX: &str = "TOL0002";
pub(super) const EMPTY: &str = "TOL0003";
pub(super) const SECOND_DOCUMENT: &str = "TOL0004";
pub(super) const DUPLICATE_KEY: &str = "TOL0005";
pub(super) const UNKNOWN_ANCHOR: &str = "TOL0006";
pub(super) const ALIAS_IN_ITSELF: &str = "TOL0007";
pub(super) const ALIASES_EXPAND: &str = "TOL0008";
pub(super) const KEY_IS_NO_SCALAR: &str = "TOL0009";
pub(super) const MERGE_OF_NO_MAPPING: &str = "TOL0010";
pub(super) const TAG: &str = "TOL0011";
pub(super) const TOO_LARGE: &str = "TOL0012";
pub(super) const TOO_DEEP: &str = "TOL0013";
pub(super) const TOO_MANY_NODES: &str = "TOL0014";
pub(super) const CONTROL_CHARACTER: &str = "TOL0015";
pub(super) const TAB: &str = "TOL0016";
pub(super) const UNQUOTED_TEMPLATE: &str = "TOL0017";
pub(super) const UNQUOTED_COLON: &str = "TOL0018";
