//! What an expression or template refers to.

use std::ops::Range;

/// A name with the fields behind it, such as `fetch.outputs.body`, as far as they are constant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The root first, then the fields.
    pub segments: Vec<Segment>,
}

/// One part of a reference and its place in bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub name: String,
    pub range: Range<usize>,
}

impl Reference {
    /// The root name.
    pub fn root(&self) -> &str {
        self.segments.first().map_or("", |segment| &segment.name)
    }

    /// The name of the field at a depth; 1 is the first behind the root.
    pub fn field(&self, depth: usize) -> Option<&str> {
        self.segments.get(depth).map(|segment| segment.name.as_str())
    }
}
