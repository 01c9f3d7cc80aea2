//! A tree held against `schemas/*.json`.
//!
//! The published schemas are the contract, and they are read here as they are published: a small evaluator walks
//! schema and tree together, so that every mistake is found at its own span and told in the words of the language.
//! It implements the keywords that the published schemas use, costs nothing to start but reading the schema's text,
//! and a test holds it to the `jsonschema` crate: both accept the same documents. Schemas that users write
//! (parameters, tool inputs, answers of agents) are compiled by that crate, with patterns matched in linear time.
//!
//! Whether names mean something is not known here.

mod codes;
mod documents;
mod embedded;
mod forms;
mod keys;
mod keywords;
mod presence;
mod types;
mod values;
mod vocabulary;
mod walk;

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;

pub use documents::{DocumentKind, schema_text};
pub use embedded::{SchemaFault, compile_schema};

use std::collections::BTreeSet;

use crate::diagnostic::{Diagnostic, Span};
use crate::yaml::Node;

/// Holds a document against the schema of its kind, and every JSON Schema inside it against draft 2020-12.
///
/// All mistakes are added to `diagnostics`, each once, in the order of the file. What stands there already (found while
/// the file was loaded) is not said a second time of the same place.
pub fn check(kind: DocumentKind, node: &Node, diagnostics: &mut Vec<Diagnostic>) {
    let mut found = Vec::new();
    walk::check_document(kind, node, &mut found);
    embedded::check_embedded(kind, node, &mut found);
    found.sort_by_key(|diagnostic| diagnostic.span);
    let known: BTreeSet<Span> = diagnostics.iter().map(|diagnostic| diagnostic.span).collect();
    found.retain(|diagnostic| !known.contains(&diagnostic.span));
    diagnostics.append(&mut found);
}
