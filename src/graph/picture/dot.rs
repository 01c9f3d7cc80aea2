//! A graph for Graphviz.

use std::fmt::Write;

use super::View;

/// A `digraph`: solid arrows are declared, dashed ones come from references, bold ones are the critical path.
pub fn dot(view: &View) -> String {
    let mut lines = String::new();
    let _ = writeln!(lines, "digraph \"{}\" {{", escape(&view.title));
    lines.push_str("  rankdir=TB;\n  node [shape=box, fontname=\"sans-serif\"];\n");
    for (number, node) in view.nodes.iter().enumerate() {
        let mut label = format!("{}\\n{}", escape(&node.label), escape(&node.action));
        if let Some(status) = &node.status {
            let _ = write!(label, "\\n{}", escape(status));
        }
        let mut style = Vec::new();
        if node.critical {
            style.push("bold");
        }
        if node.finally {
            style.push("rounded");
        }
        let style = if style.is_empty() { String::new() } else { format!(", style=\"{}\"", style.join(",")) };
        let _ = writeln!(lines, "  n{number} [label=\"{label}\"{style}];");
    }
    for arrow in &view.arrows {
        let mut style = vec![if arrow.declared { "solid" } else { "dashed" }];
        if arrow.critical {
            style.push("bold");
        }
        let _ = writeln!(lines, "  n{} -> n{} [style=\"{}\"];", arrow.from, arrow.to, style.join(","));
    }
    lines.push_str("}\n");
    lines
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")
}
