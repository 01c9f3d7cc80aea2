//! The project folder: finds its root, reads its files, confined.

mod folder;

pub use folder::{FolderSources, find_root};
