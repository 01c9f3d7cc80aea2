//! Diagnostics for people.

use super::{Diagnostic, Files};

/// Renders diagnostics for a terminal.
pub fn render_human(_files: &Files, _diagnostics: &[Diagnostic], _colour: bool) -> String {
    String::new()
}
