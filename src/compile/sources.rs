//! Where the texts of a project come from: a folder, a journal, a test's memory.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Gives texts by their path within the project root, with `/` between parts and without `.` or `..`.
pub trait Sources {
    /// The text of a file.
    fn read(&self, path: &str) -> Result<Arc<str>, SourceProblem>;
    /// True if there is such a file.
    fn exists(&self, path: &str) -> bool;
}

impl<S: Sources + ?Sized> Sources for &S {
    fn read(&self, path: &str) -> Result<Arc<str>, SourceProblem> {
        (**self).read(path)
    }

    fn exists(&self, path: &str) -> bool {
        (**self).exists(path)
    }
}

/// Why a text cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceProblem {
    #[error("there is no such file")]
    Missing,
    #[error("it is a folder, not a file")]
    Folder,
    #[error("it leads outside the project")]
    Outside,
    #[error("it has {bytes} bytes, more than the {limit} that are read")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("byte {offset} is not UTF-8")]
    NotUtf8 { offset: usize, text: Arc<str> },
    #[error("it cannot be read: {0}")]
    Unreadable(String),
}

/// Texts that are there already: those that a run was started with, or a test's.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemorySources(pub BTreeMap<String, Arc<str>>);

impl Sources for MemorySources {
    fn read(&self, path: &str) -> Result<Arc<str>, SourceProblem> {
        self.0.get(path).cloned().ok_or(SourceProblem::Missing)
    }

    fn exists(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}
