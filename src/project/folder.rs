//! A real folder as the source of texts.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::compile::{SourceProblem, Sources};

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// What marks the root of a project.
const MARKERS: [&str; 2] = [".git", "duo-agent.config.yaml"];

/// The nearest folder upwards that holds `.git` or a settings file, else the working folder.
pub fn find_root(start: &Path, working: &Path) -> PathBuf {
    let marked = start.ancestors().find(|folder| MARKERS.iter().any(|marker| folder.join(marker).exists()));
    marked.unwrap_or(working).to_owned()
}

/// Reads texts inside one folder and nowhere else, also not through links.
#[derive(Clone, Debug)]
pub struct FolderSources {
    root: PathBuf,
    canonical: PathBuf,
}

impl FolderSources {
    /// The sources under a root.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), canonical: root.canonicalize().unwrap_or_else(|_| root.to_owned()) }
    }

    fn locate(&self, path: &str) -> Result<PathBuf, SourceProblem> {
        let whole = self.root.join(path);
        let real = whole.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => SourceProblem::Missing,
            _ => SourceProblem::Unreadable(error.to_string()),
        })?;
        if real.starts_with(&self.canonical) { Ok(real) } else { Err(SourceProblem::Outside) }
    }
}

impl Sources for FolderSources {
    fn read(&self, path: &str) -> Result<Arc<str>, SourceProblem> {
        let file = self.locate(path)?;
        let unreadable = |error: std::io::Error| SourceProblem::Unreadable(error.to_string());
        let meta = fs::metadata(&file).map_err(unreadable)?;
        if meta.is_dir() {
            return Err(SourceProblem::Folder);
        }
        if !meta.is_file() {
            return Err(SourceProblem::Unreadable("it is no regular file".to_owned()));
        }
        if meta.len() > MAX_BYTES {
            return Err(SourceProblem::TooLarge { bytes: meta.len(), limit: MAX_BYTES });
        }
        let mut bytes = Vec::new();
        File::open(&file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Arc::from(text)),
            Err(error) => {
                let offset = error.utf8_error().valid_up_to();
                Err(SourceProblem::NotUtf8 { offset, text: Arc::from(String::from_utf8_lossy(error.as_bytes())) })
            }
        }
    }

    fn exists(&self, path: &str) -> bool {
        self.locate(path).is_ok_and(|file| file.is_file())
    }
}
