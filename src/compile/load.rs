//! Texts and trees of files, each read once, with everything that was read kept for the program.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MemorySources, SourceProblem, Sources, codes};
use crate::diagnostic::{Diagnostic, FileId, Files, Span};
use crate::yaml::{self, Node};

/// The files of one check.
pub struct Loader<'s> {
    sources: &'s dyn Sources,
    pub files: Files,
    pub texts: MemorySources,
    trees: BTreeMap<String, Loaded>,
}

/// A file as it was read.
#[derive(Clone)]
pub struct Loaded {
    pub file: FileId,
    pub tree: Option<Arc<Node>>,
    /// What reading it as YAML found.
    pub diagnostics: Arc<Vec<Diagnostic>>,
}

impl<'s> Loader<'s> {
    /// A loader that has read nothing.
    pub fn new(sources: &'s dyn Sources, files: Files) -> Self {
        Self { sources, files, texts: MemorySources::default(), trees: BTreeMap::new() }
    }

    /// True if there is such a file.
    pub fn exists(&self, path: &str) -> bool {
        self.trees.contains_key(path) || self.sources.exists(path)
    }

    /// Reads a file and makes a tree of it.
    ///
    /// # Errors
    /// Why there is no text.
    pub fn load(&mut self, path: &str) -> Result<Loaded, SourceProblem> {
        if let Some(loaded) = self.trees.get(path) {
            return Ok(loaded.clone());
        }
        let loaded = match self.sources.read(path) {
            Ok(text) => {
                self.texts.0.insert(path.to_owned(), Arc::clone(&text));
                let file = self.files.add(path, Arc::clone(&text));
                let (tree, diagnostics) = yaml::load(file, &text, &yaml::Limits::default());
                Loaded { file, tree: tree.map(Arc::new), diagnostics: Arc::new(diagnostics) }
            }
            Err(SourceProblem::NotUtf8 { offset, text }) => {
                let file = self.files.add(path, text);
                Loaded { file, tree: None, diagnostics: Arc::new(vec![yaml::not_utf8(file, offset)]) }
            }
            Err(problem) => return Err(problem),
        };
        self.trees.insert(path.to_owned(), loaded.clone());
        Ok(loaded)
    }

    /// Takes a tree out, so that a large one does not stay after its file was compiled.
    pub fn forget(&mut self, path: &str) {
        self.trees.remove(path);
    }

    /// Reports that a file which was named from outside cannot be read.
    pub fn unreadable(&mut self, path: &str, problem: &SourceProblem) -> Diagnostic {
        let file = self.files.add(path, Arc::from(""));
        Diagnostic::error(codes::UNREADABLE_FILE, Span { file, start: 0, end: 0 }, format!("`{path}`: {problem}"))
    }
}

/// Reports that a file which another file names cannot be read.
pub fn not_readable(path: &str, problem: &SourceProblem, span: Span) -> Diagnostic {
    let (code, help) = match problem {
        SourceProblem::Outside => (codes::OUTSIDE_PROJECT, "files stay within the project's root folder"),
        SourceProblem::Missing
        | SourceProblem::Folder
        | SourceProblem::TooLarge { .. }
        | SourceProblem::NotUtf8 { .. }
        | SourceProblem::Unreadable(_) => {
            (codes::MISSING_FILE, "the path goes from the folder of the file that names it")
        }
    };
    Diagnostic::error(code, span, format!("`{path}`: {problem}")).help(help)
}
