//! Events to text, JSON lines, a summary. It formats; it does not print.

mod lines;
mod summary;
mod text;

pub use lines::{note_line, run_line};
pub use summary::summary;
pub use text::{note_text, questions_text, summary_text};
