//! Which outer names an expression reads.

use serde_json::Value;

use super::tree::{Kind, Node};
use crate::expr::reference::{Reference, Segment};

/// All references below a node, in the order of the text.
pub(super) fn references(root: &Node) -> Vec<Reference> {
    let mut found = Vec::new();
    gather(root, &mut found);
    found
}

/// Whether no outer name is read at all.
pub(super) fn is_closed(node: &Node) -> bool {
    let mut closed = !matches!(node.kind, Kind::Name(_));
    node.each_child(&mut |child| closed = closed && is_closed(child));
    closed
}

fn gather(node: &Node, found: &mut Vec<Reference>) {
    if let Some(segments) = chain(node) {
        found.push(Reference { segments });
        return;
    }
    node.each_child(&mut |child| gather(child, found));
}

/// The segments of a name with constant fields; `None` for anything else.
pub(super) fn chain(node: &Node) -> Option<Vec<Segment>> {
    match &node.kind {
        Kind::Name(name) => Some(vec![Segment { name: name.to_string(), range: node.range() }]),
        Kind::Field { of, name } => {
            let mut segments = chain(of)?;
            let end = node.end as usize;
            segments.push(Segment { name: name.to_string(), range: end - name.len()..end });
            Some(segments)
        }
        Kind::Index { of, index } => {
            let Kind::Literal(Value::String(name)) = &index.kind else { return None };
            let mut segments = chain(of)?;
            segments.push(Segment { name: name.clone(), range: index.range() });
            Some(segments)
        }
        Kind::Literal(_)
        | Kind::List(_)
        | Kind::Map(_)
        | Kind::Variable(_)
        | Kind::Not(_)
        | Kind::Negate(_)
        | Kind::All(_)
        | Kind::Any(_)
        | Kind::Binary { .. }
        | Kind::Conditional(_)
        | Kind::Has(_)
        | Kind::Call(_)
        | Kind::Comprehension(_) => None,
    }
}
