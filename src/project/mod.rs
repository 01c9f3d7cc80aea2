//! The project folder: finds its root, lists and reads its files, confined.

pub mod git;
mod glob;
mod list;
mod root;
mod sources;

pub use glob::{expand_glob, is_glob};
pub use list::{Listed, is_skipped, list_folder};
pub use root::find_root;
pub use sources::{FolderSources, text_of};
