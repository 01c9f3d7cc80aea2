//! Artifacts in a folder: one file each, in 256 folders by the first two digits of their names.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::artifact::store::{check_name, check_size, damaged, verified};
use crate::artifact::{ArtifactError, Store, Swept, reference_of};
use crate::proto::v1::ArtifactRef;

/// The mark of a file that is not written to its end yet.
const UNFINISHED: &str = ".tmp";

/// Artifacts in a folder that scheduler and workers share.
#[derive(Clone, Debug)]
pub struct FolderStore {
    folder: PathBuf,
}

impl FolderStore {
    /// Uses this folder; it is made with the first artifact.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, hash: &str) -> Result<PathBuf, ArtifactError> {
        check_name(hash)?;
        Ok(self.folder.join(&hash[..2]).join(hash))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ArtifactError> {
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(at(parent))?;
        let draft = path.with_extension(format!("{}{UNFINISHED}", uuid::Uuid::now_v7().simple()));
        let written = (|| {
            let mut file = File::create_new(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, path)
        })();
        if written.is_err() {
            // What is left over is swept later; the first error is the one to tell.
            let _ = fs::remove_file(&draft);
        }
        written.map_err(at(path))?;
        for folder in [parent, &self.folder] {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
        }
        Ok(())
    }
}

impl Store for FolderStore {
    fn put(&self, bytes: &[u8]) -> Result<ArtifactRef, ArtifactError> {
        check_size(bytes.len() as u64)?;
        let reference = reference_of(bytes);
        let path = self.path(&reference.hash)?;
        // A damaged file is written anew.
        if self.get(&reference).is_ok() {
            let young = File::options().append(true).open(&path);
            match young.and_then(|file| file.set_modified(SystemTime::now())) {
                Ok(()) => return Ok(reference),
                // A sweep was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(at(&path)(error)),
            }
        }
        self.write(&path, bytes)?;
        Ok(reference)
    }

    fn get(&self, reference: &ArtifactRef) -> Result<Vec<u8>, ArtifactError> {
        check_size(reference.bytes)?;
        let path = self.path(&reference.hash)?;
        let place = path.display().to_string();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(ArtifactError::Missing { place, hash: reference.hash.clone() });
            }
            Err(error) => return Err(at(&path)(error)),
        };
        if file.metadata().map_err(at(&path))?.len() != reference.bytes {
            return Err(damaged(reference, &place));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(reference.bytes).unwrap_or_default());
        file.take(reference.bytes).read_to_end(&mut bytes).map_err(at(&path))?;
        verified(bytes, reference, &place)
    }

    fn exists(&self, hash: &str) -> Result<bool, ArtifactError> {
        let path = self.path(hash)?;
        path.try_exists().map_err(at(&path))
    }

    fn remove(&self, hash: &str) -> Result<bool, ArtifactError> {
        let path = self.path(hash)?;
        removed(&path)
    }

    fn sweep(&self, older_than: Duration) -> Result<Swept, ArtifactError> {
        let mut swept = Swept::default();
        let Some(limit) = SystemTime::now().checked_sub(older_than) else { return Ok(swept) };
        for folder in entries(&self.folder)? {
            let is_ours = folder.file_name().is_some_and(|name| name.len() == 2);
            if !is_ours || !folder.is_dir() {
                continue;
            }
            for path in entries(&folder)? {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if check_name(&name).is_err() && !name.ends_with(UNFINISHED) {
                    continue;
                }
                let about = match fs::metadata(&path) {
                    Ok(about) => about,
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(at(&path)(error)),
                };
                if about.modified().map_err(at(&path))? < limit && removed(&path)? {
                    swept.artifacts += 1;
                    swept.bytes += about.len();
                }
            }
        }
        Ok(swept)
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> ArtifactError {
    let path = path.to_owned();
    move |error| ArtifactError::File { path: path.clone(), error }
}

fn removed(path: &Path) -> Result<bool, ArtifactError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(at(path)(error)),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(folder)(error)),
    };
    list.map(|entry| entry.map(|entry| entry.path()).map_err(at(folder))).collect()
}
