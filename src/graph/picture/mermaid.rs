//! A graph for Mermaid, as Markdown pages show it.

use std::fmt::Write;

use super::View;

/// A `flowchart`: solid arrows are declared, dotted ones come from references, thick ones are the critical path.
pub fn mermaid(view: &View) -> String {
    let mut lines = String::new();
    let _ = writeln!(lines, "---\ntitle: \"{}\"\n---\nflowchart TD", escape(&view.title));
    for (number, node) in view.nodes.iter().enumerate() {
        let (open, close) = if node.finally { ("([", "])") } else { ("[", "]") };
        let _ = write!(lines, "  n{number}{open}\"{}<br/><small>{}", escape(&node.label), escape(&node.action));
        if let Some(status) = &node.status {
            let _ = write!(lines, " · {}", escape(status));
        }
        let _ = writeln!(lines, "</small>\"{close}");
    }
    let mut thick = Vec::new();
    for (number, arrow) in view.arrows.iter().enumerate() {
        let line = if arrow.declared { "-->" } else { "-.->" };
        let _ = writeln!(lines, "  n{} {line} n{}", arrow.from, arrow.to);
        if arrow.critical {
            thick.push(number.to_string());
        }
    }
    if !thick.is_empty() {
        let _ = writeln!(lines, "  linkStyle {} stroke-width:4px", thick.join(","));
    }
    let critical: Vec<String> = view
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| node.critical)
        .map(|(number, _)| format!("n{number}"))
        .collect();
    if !critical.is_empty() {
        let _ = writeln!(lines, "  classDef critical stroke-width:4px\n  class {} critical", critical.join(","));
    }
    lines
}

/// Mermaid takes entities where a character would end the text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "#quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace(['\n', '\r'], " ")
}
