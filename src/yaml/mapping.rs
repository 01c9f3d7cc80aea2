//! One mapping as it grows: its keys, each once, and what `<<` merges into it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::build::Built;
use super::{Entry, Yaml, codes};
use crate::diagnostic::{Diagnostic, Span};

/// Mappings up to this size look for a duplicate key by going through their keys.
const SMALL_MAPPING: usize = 16;

#[derive(Default)]
pub(super) struct Mapping {
    entries: Vec<Entry>,
    /// Position by key, once there are many.
    index: HashMap<Box<str>, usize>,
    pub pending: Option<Pending>,
    /// Where `<<` stands among the entries, its span, and what it brings.
    merge: Option<(usize, Span, Vec<Entry>)>,
    pub is_template: bool,
}

/// A key whose value is still to come.
pub(super) enum Pending {
    Key(Box<str>, Span),
    Merge(Span),
    /// The key was refused; so the value is left out.
    Refused,
}

impl Mapping {
    /// Takes a key; gives what is wrong with it.
    pub(super) fn key(&mut self, built: Built, text: &str, after_brace: bool) -> Option<Diagnostic> {
        let place = built.node.span;
        self.pending = Some(Pending::Refused);
        let key: Box<str> = match built.node.value {
            Yaml::String(key) => key,
            Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) if built.is_broken => return None,
            Yaml::Null if place.start == place.end => {
                let message = "a key is missing before this `:`";
                let help = "write the key; to use an empty one, write \"\"";
                return Some(Diagnostic::error(codes::KEY_IS_NO_SCALAR, place, message).help(help));
            }
            Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => {
                text.get(place.start as usize..place.end as usize).unwrap_or_default().into()
            }
            Yaml::Map(_) if after_brace => {
                self.is_template = true;
                return None;
            }
            Yaml::List(_) => return Some(key_is_no_scalar(place, "a list")),
            Yaml::Map(_) => return Some(key_is_no_scalar(place, "a mapping")),
        };
        let is_merge = built.is_plain && &*key == "<<";
        let first = if is_merge { self.merge.as_ref().map(|merge| merge.1) } else { self.find(&key) };
        if let Some(first) = first {
            let help = if is_merge { "give one `<<` a list: `<<: [*first, *second]`" } else { "delete one of the two" };
            let message = format!("the key `{}` stands twice in this mapping", shown(&key));
            let trouble = Diagnostic::error(codes::DUPLICATE_KEY, place, message).help(help);
            return Some(trouble.related(first, "the first one is here, and counts"));
        }
        self.pending = Some(if is_merge { Pending::Merge(place) } else { Pending::Key(key, place) });
        None
    }

    /// Takes the value of a key; gives what is wrong with it.
    pub(super) fn value(&mut self, pending: Pending, built: Built) -> Option<Diagnostic> {
        match pending {
            Pending::Refused => None,
            Pending::Key(key, key_span) => {
                if self.entries.len() >= SMALL_MAPPING {
                    if self.index.is_empty() {
                        let known = self.entries.iter().enumerate();
                        self.index.extend(known.map(|(at, entry)| (entry.key.clone(), at)));
                    }
                    self.index.insert(key.clone(), self.entries.len());
                }
                self.entries.push(Entry { key, key_span, node: built.node });
                None
            }
            Pending::Merge(key_span) => {
                let place = built.node.span;
                let merged = if built.is_broken { Some(Vec::new()) } else { merge_sources(built.node.value) };
                let refused = merged.is_none().then(|| {
                    let message = "`<<` takes a mapping, an alias of one, or a list of these";
                    let help = "write `<<: *name`, where `&name` stands before a mapping";
                    Diagnostic::error(codes::MERGE_OF_NO_MAPPING, place, message).help(help)
                });
                self.merge = Some((self.entries.len(), key_span, merged.unwrap_or_default()));
                refused
            }
        }
    }

    fn find(&self, key: &str) -> Option<Span> {
        if self.index.is_empty() {
            return self.entries.iter().find(|entry| &*entry.key == key).map(|entry| entry.key_span);
        }
        self.index.get(key).and_then(|at| self.entries.get(*at)).map(|entry| entry.key_span)
    }

    /// The pairs with those that `<<` brings in its place: own keys win, and earlier sources win over later ones.
    pub(super) fn merged(self) -> Vec<Entry> {
        let mut entries = self.entries;
        if let Some((position, _, brought)) = self.merge {
            let mut taken: HashSet<Box<str>> = entries.iter().map(|entry| entry.key.clone()).collect();
            let fresh: Vec<Entry> = brought.into_iter().filter(|entry| taken.insert(entry.key.clone())).collect();
            let position = position.min(entries.len());
            entries.splice(position..position, fresh);
        }
        entries
    }
}

/// All pairs of a mapping or of a list of mappings, in order; nothing for anything else.
fn merge_sources(value: Yaml) -> Option<Vec<Entry>> {
    match value {
        Yaml::Map(entries) => Some(entries),
        Yaml::List(items) => {
            let mut all = Vec::new();
            for item in items {
                let Yaml::Map(entries) = item.value else { return None };
                all.extend(entries);
            }
            Some(all)
        }
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::String(_) => None,
    }
}

fn key_is_no_scalar(place: Span, noun: &str) -> Diagnostic {
    let message = format!("{noun} cannot be a key; a key is a name");
    Diagnostic::error(codes::KEY_IS_NO_SCALAR, place, message).help("put the key in quotes if it is meant as text")
}

/// A key as a message shows it.
fn shown(key: &str) -> Cow<'_, str> {
    match key.char_indices().nth(60) {
        Some((cut, _)) => Cow::Owned(format!("{}…", key.get(..cut).unwrap_or_default())),
        None => Cow::Borrowed(key),
    }
}
