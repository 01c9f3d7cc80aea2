//! What a file is, by its name and its top-level keys.

use crate::schema::DocumentKind;
use crate::yaml::Node;

/// The names of the catalogue, in the order in which they are looked for.
pub const AGENTS_FILES: [&str; 2] = ["agents.yaml", "agents.yml"];

/// The names of the settings file at the project's root.
pub const SETTINGS_FILES: [&str; 2] = ["duo-agent.config.yaml", "duo-agent.config.yml"];

/// What a file's name says that it is.
pub fn kind_of_name(path: &str) -> Option<DocumentKind> {
    let name = path.rsplit('/').next().unwrap_or(path);
    if AGENTS_FILES.contains(&name) {
        return Some(DocumentKind::Agents);
    }
    if SETTINGS_FILES.contains(&name) {
        return Some(DocumentKind::Settings);
    }
    let test = name.strip_suffix(".test.yaml").or_else(|| name.strip_suffix(".test.yml"));
    test.map(|_| DocumentKind::Test)
}

/// What a file is; `None` if it is nothing of this language. Without a tree, because the file cannot be read as YAML,
/// a line that begins with `apiVersion: tol/` makes it a pipeline.
pub fn kind_of(path: &str, tree: Option<&Node>, text: &str) -> Option<DocumentKind> {
    if let Some(kind) = kind_of_name(path) {
        return Some(kind);
    }
    let version = match tree {
        Some(tree) => tree.get("apiVersion").and_then(Node::as_str).is_some_and(|version| version.starts_with("tol/")),
        None => text.lines().any(|line| {
            let line = line.trim_start_matches(['\u{feff}', '{', ' ', '"', '\'']);
            let value = line.strip_prefix("apiVersion").map(|rest| rest.trim_start_matches([':', ' ', '"', '\'']));
            value.is_some_and(|value| value.starts_with("tol/"))
        }),
    };
    let shares = tree.is_some_and(is_to_be_included);
    version.then_some(if shares { DocumentKind::Include } else { DocumentKind::Pipeline })
}

/// True for what has something that pipelines share, and nothing that makes it a pipeline.
fn is_to_be_included(tree: &Node) -> bool {
    let has = |key: &str| tree.entry(key).is_some();
    !has("steps") && !has("name") && ["defaults", "templates", "tools", "agents"].into_iter().any(has)
}
