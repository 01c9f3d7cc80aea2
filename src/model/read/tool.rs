//! Tools: what a blueprint or an agent may call by name.

use indexmap::IndexMap;

use crate::diagnostic::Spanned;
use crate::model::pipeline::{Tool, ToolEffect};
use crate::model::read::step::{Defaults, read_step};
use crate::model::read::{ReadContext, scalar};
use crate::yaml::Node;

/// Reads `tools:` of a pipeline, an include or a catalogue. A tool's action goes by the tool's name.
pub(super) fn read_tools(document: &Node, context: &mut ReadContext<'_>) -> IndexMap<Box<str>, Tool> {
    let defaults = Defaults::default();
    let mut tools = IndexMap::new();
    for entry in scalar::entries(document, "tools") {
        let name = Spanned::new(entry.key.clone(), entry.key_span);
        let node = &entry.node;
        // What writes is guarded: without a readable `effect` a tool counts as one that does.
        let effect = match node.get("effect").and_then(Node::as_str) {
            Some("read") => ToolEffect::Read,
            Some(_) | None => ToolEffect::Write,
        };
        let tool = Tool {
            description: scalar::text(node, "description").unwrap_or_default(),
            input_schema: node.get("input_schema").map_or(serde_json::Value::Bool(true), Node::to_json),
            effect,
            step: read_step(node, name.clone(), &defaults, context),
            base: context.folder(entry.key_span),
            name,
        };
        tools.insert(entry.key.clone(), tool);
    }
    tools
}
