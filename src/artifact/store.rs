//! What every artifact store does.

use std::time::Duration;

use crate::artifact::ArtifactError;
use crate::proto::v1::ArtifactRef;

/// The largest artifact, in bytes. Who puts or gets one holds it in memory as a whole.
pub const ARTIFACT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub artifacts: u64,
    pub bytes: u64,
}

/// Keeps bytes by their content. Calls wait for the disk or the database.
pub trait Store: Send + Sync {
    /// Keeps these bytes durably. To put what is there already makes it young again.
    ///
    /// # Errors
    /// If they are more than [`ARTIFACT_BYTES_MAX`], or the disk or the database does not take them.
    fn put(&self, bytes: &[u8]) -> Result<ArtifactRef, ArtifactError>;

    /// The bytes, held against their hash and length.
    ///
    /// # Errors
    /// If they would be more than [`ARTIFACT_BYTES_MAX`], if there are none, or if they are damaged. No more is read
    /// than the reference says.
    fn get(&self, reference: &ArtifactRef) -> Result<Vec<u8>, ArtifactError>;

    /// Whether there is an artifact of that hash; its content is not read.
    ///
    /// # Errors
    /// If the disk or the database cannot be asked.
    fn exists(&self, hash: &str) -> Result<bool, ArtifactError>;

    /// Removes an artifact; true if it was there.
    ///
    /// # Errors
    /// If the disk or the database refuses.
    fn remove(&self, hash: &str) -> Result<bool, ArtifactError>;

    /// Removes what was last put longer ago than that.
    ///
    /// # Errors
    /// If the disk or the database refuses.
    fn sweep(&self, older_than: Duration) -> Result<Swept, ArtifactError>;
}

/// The reference of these bytes.
pub fn reference_of(bytes: &[u8]) -> ArtifactRef {
    ArtifactRef { hash: blake3::hash(bytes).to_hex().to_string(), bytes: bytes.len() as u64 }
}

/// Refuses a name that could lead out of the store.
pub(super) fn check_name(hash: &str) -> Result<(), ArtifactError> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if hash.len() == 64 && hash.bytes().all(is_digit) {
        return Ok(());
    }
    Err(ArtifactError::Name(hash.to_owned()))
}

/// Refuses what is too large to be held in memory.
pub(super) fn check_size(bytes: u64) -> Result<(), ArtifactError> {
    if bytes > ARTIFACT_BYTES_MAX as u64 {
        return Err(ArtifactError::Oversized { bytes, limit: ARTIFACT_BYTES_MAX });
    }
    Ok(())
}

/// What is kept under the name is something else.
pub(super) fn damaged(meant: &ArtifactRef, place: &str) -> ArtifactError {
    ArtifactError::Damaged { place: place.to_owned(), hash: meant.hash.clone() }
}

/// The bytes if they are the ones that were meant.
pub(super) fn verified(bytes: Vec<u8>, meant: &ArtifactRef, place: &str) -> Result<Vec<u8>, ArtifactError> {
    if reference_of(&bytes) == *meant {
        return Ok(bytes);
    }
    Err(damaged(meant, place))
}
