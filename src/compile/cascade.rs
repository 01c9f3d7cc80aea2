//! Takes out what only follows from another mistake: names that a misspelt or misshapen part would have declared.

use std::collections::BTreeSet;

use super::codes;
use crate::diagnostic::{Diagnostic, Files};
use crate::yaml::{Node, Yaml};

/// `schema`: a key that does not stand there.
const UNKNOWN_KEY: &str = "TOL0101";
/// `schema`: a name that has not the form of one, and an id that has not.
const WRONG_NAMES: [&str; 2] = ["TOL0108", "TOL0110"];
/// `expr`: an unknown name, and an unknown key of something known.
const UNKNOWN_NAME: &str = "TOL0303";
const UNKNOWN_FIELD: &str = "TOL0304";

/// Drops the findings of a pipeline that are gone as soon as another one is mended.
pub fn drop_followers(tree: &Node, files: &Files, found: &mut Vec<Diagnostic>) {
    let lost: BTreeSet<&str> = ["params", "steps", "finally", "inherit_env", "tools", "templates", "agents"]
        .into_iter()
        .filter(|key| is_lost(tree, key, found))
        .collect();
    let renamed: BTreeSet<String> =
        found.iter().filter(|one| WRONG_NAMES.contains(&one.code)).filter_map(offered).collect();
    let no_matrix = has_broken_matrix(tree);
    if lost.is_empty() && renamed.is_empty() && !no_matrix {
        return;
    }
    found.retain(|one| {
        let follows = match one.code {
            UNKNOWN_NAME | codes::UNKNOWN_STEP => lost.contains("steps") || lost.contains("finally"),
            UNKNOWN_FIELD => {
                (lost.contains("params") && one.message.starts_with("`params` has"))
                    || (no_matrix && one.message.starts_with("`matrix` has"))
            }
            codes::ENV_NOT_LISTED => lost.contains("inherit_env"),
            codes::UNKNOWN_TOOL => lost.contains("tools"),
            codes::UNKNOWN_TEMPLATE => lost.contains("templates"),
            codes::UNKNOWN_AGENT | codes::NO_CATALOGUE => lost.contains("agents"),
            _ => false,
        };
        let is_unknown = matches!(one.code, UNKNOWN_NAME | UNKNOWN_FIELD | codes::UNKNOWN_STEP);
        let text = || files.text(one.span.file).get(one.span.start as usize..one.span.end as usize);
        let is_renamed = is_unknown && !renamed.is_empty() && text().is_some_and(|text| renamed.contains(text));
        !(follows || is_renamed)
    });
}

/// True if a top-level key has a value of another shape, or stands there under a name that is near to it.
fn is_lost(tree: &Node, key: &str, found: &[Diagnostic]) -> bool {
    match tree.get(key).map(|node| &node.value) {
        Some(Yaml::Map(_)) => matches!(key, "steps" | "finally" | "inherit_env"),
        Some(Yaml::List(_)) => matches!(key, "params" | "tools" | "templates" | "agents"),
        Some(_) => true,
        None => {
            let quoted = format!("`{key}`");
            let is_meant = |one: &Diagnostic| one.help.as_deref().is_some_and(|help| help.contains(&quoted));
            let top = |one: &Diagnostic| tree.entries().iter().any(|entry| entry.key_span == one.span);
            found.iter().any(|one| one.code == UNKNOWN_KEY && is_meant(one) && top(one))
        }
    }
}

/// The spelling that a finding offers: "write `my_step`".
fn offered(one: &Diagnostic) -> Option<String> {
    let rest = one.help.as_deref()?.strip_prefix("write `")?;
    rest.split_once('`').map(|(name, _)| name.to_owned())
}

/// True if a matrix is no mapping, or one of its keys has no list.
fn has_broken_matrix(tree: &Node) -> bool {
    let steps = ["steps", "finally"].into_iter().filter_map(|key| tree.get(key)).flat_map(Node::items);
    steps.filter_map(|step| step.get("matrix")).any(|matrix| {
        let is_axis = |key: &str| !matches!(key, "exclude" | "max_parallel");
        let has_no_list = |node: &Node| !matches!(node.value, Yaml::List(_));
        !matches!(matrix.value, Yaml::Map(_))
            || matrix.entries().iter().any(|entry| is_axis(&entry.key) && has_no_list(&entry.node))
    })
}
