//! Payloads too large for a message, kept by their content: in a folder, or in PostgreSQL.

mod error;
mod folder;
mod offload;
mod postgres;
mod store;

#[cfg(test)]
mod tests;

pub use error::ArtifactError;
pub use folder::FolderStore;
pub use offload::{INLINE_LIMIT, load_outcome, load_task, offload_outcome, offload_task};
pub use postgres::PostgresStore;
pub use store::{ARTIFACT_BYTES_MAX, Store, Swept, reference_of};
