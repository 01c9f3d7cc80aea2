//! Reads the files of a project, and nothing else: no path and no link leads outside its root.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::compile::{SourceProblem, Sources};
use crate::yaml::{self, Limits};

/// The files under one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderSources {
    root: PathBuf,
    limit_bytes: u64,
}

impl FolderSources {
    /// The project with this root. A larger file than YAML's limit is not read.
    pub fn new(root: impl AsRef<Path>) -> Self {
        let root = root.as_ref();
        let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        Self { root, limit_bytes: Limits::default().max_bytes as u64 }
    }

    /// The root, absolute and without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The real path of a file within the root.
    fn locate(&self, path: &str) -> Result<PathBuf, SourceProblem> {
        let relative = Path::new(path);
        let is_plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
        if !is_plain || path.is_empty() {
            return Err(SourceProblem::Outside);
        }
        let real = self.root.join(relative).canonicalize().map_err(|error| problem(&error))?;
        if real.starts_with(&self.root) { Ok(real) } else { Err(SourceProblem::Outside) }
    }

    fn bytes(&self, path: &str) -> Result<Vec<u8>, SourceProblem> {
        let real = self.locate(path)?;
        let metadata = real.metadata().map_err(|error| problem(&error))?;
        check_type(&metadata)?;
        self.check_size(metadata.len())?;
        // Should the file have become a pipe since it was looked at, then opening it must not wait for a writer.
        let no_wait = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(no_wait).open(&real).map_err(|error| problem(&error))?;
        check_type(&file.metadata().map_err(|error| problem(&error))?)?;
        self.read_bounded(file, metadata.len())
    }

    fn check_size(&self, bytes: u64) -> Result<(), SourceProblem> {
        if bytes > self.limit_bytes { Err(SourceProblem::TooLarge { bytes, limit: self.limit_bytes }) } else { Ok(()) }
    }

    /// Reads up to the limit, whatever size the file said that it has.
    fn read_bounded(&self, file: File, expected: u64) -> Result<Vec<u8>, SourceProblem> {
        let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default() + 1);
        file.take(self.limit_bytes + 1).read_to_end(&mut bytes).map_err(|error| problem(&error))?;
        self.check_size(bytes.len() as u64)?;
        Ok(bytes)
    }
}

impl Sources for FolderSources {
    fn read(&self, path: &str) -> Result<Arc<str>, SourceProblem> {
        text_of(&self.bytes(path)?)
    }

    fn exists(&self, path: &str) -> bool {
        self.locate(path).is_ok_and(|real| real.is_file())
    }
}

/// Bytes as a text.
///
/// # Errors
/// Where they are not UTF-8.
pub fn text_of(bytes: &[u8]) -> Result<Arc<str>, SourceProblem> {
    match yaml::decode(bytes) {
        Ok(text) => Ok(Arc::from(text)),
        Err(offset) => Err(SourceProblem::NotUtf8 { offset, text: Arc::from(yaml::lossy(bytes)) }),
    }
}

fn check_type(metadata: &std::fs::Metadata) -> Result<(), SourceProblem> {
    if metadata.is_dir() {
        return Err(SourceProblem::Folder);
    }
    if metadata.is_file() { Ok(()) } else { Err(SourceProblem::Unreadable("it is not a regular file".to_owned())) }
}

fn problem(error: &std::io::Error) -> SourceProblem {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => SourceProblem::Missing,
        _ => SourceProblem::Unreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::FolderSources;
    use crate::compile::{SourceProblem, Sources};

    fn check(sources: &FolderSources, path: &str, expect: &Result<&str, SourceProblem>) {
        let got = sources.read(path);
        assert_eq!(&got.as_deref().map_err(Clone::clone), expect, "for {path:?}");
        let is_text = matches!(got, Ok(_) | Err(SourceProblem::NotUtf8 { .. } | SourceProblem::TooLarge { .. }));
        assert_eq!(sources.exists(path), is_text, "for {path:?}");
    }

    #[test]
    fn reads_only_regular_files_of_the_project() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path();
        let root = top.join("project");
        std::fs::create_dir_all(root.join("sub")).expect("folders");
        std::fs::write(top.join("outside.yaml"), "secret").expect("a file");
        std::fs::write(root.join("sub/ok.yaml"), "größe").expect("a file");
        std::fs::write(root.join("bad.yaml"), b"a\xff").expect("a file");
        symlink("sub/ok.yaml", root.join("inside.yaml")).expect("a link");
        symlink("../outside.yaml", root.join("outside.yaml")).expect("a link");
        symlink("..", root.join("up")).expect("a link");
        symlink("nowhere", root.join("gone.yaml")).expect("a link");
        symlink("loop.yaml", root.join("loop.yaml")).expect("a link");
        symlink("/dev/zero", root.join("zero.yaml")).expect("a link");
        let _listener = std::os::unix::net::UnixListener::bind(root.join("socket.yaml")).expect("a socket");
        let sources = FolderSources { limit_bytes: 10, ..FolderSources::new(&root) };
        std::fs::write(root.join("large.yaml"), "12345678901").expect("a file");
        check(&sources, "sub/ok.yaml", &Ok("größe"));
        check(&sources, "inside.yaml", &Ok("größe"));
        check(&sources, "missing.yaml", &Err(SourceProblem::Missing));
        check(&sources, "gone.yaml", &Err(SourceProblem::Missing));
        check(&sources, "sub", &Err(SourceProblem::Folder));
        check(&sources, "large.yaml", &Err(SourceProblem::TooLarge { bytes: 11, limit: 10 }));
        check(&sources, "bad.yaml", &Err(SourceProblem::NotUtf8 { offset: 1, text: "a\u{fffd}".into() }));
        check(&sources, "socket.yaml", &Err(SourceProblem::Unreadable("it is not a regular file".into())));
        for path in ["outside.yaml", "up/outside.yaml", "../outside.yaml", "zero.yaml", "", "/etc/passwd", "sub/../x"] {
            check(&sources, path, &Err(SourceProblem::Outside));
        }
        assert!(matches!(sources.read("loop.yaml"), Err(SourceProblem::Unreadable(_))));
    }
}
