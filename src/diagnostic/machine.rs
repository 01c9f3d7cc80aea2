//! Diagnostics for programs.

use super::{Diagnostic, Files};

/// The JSON form.
pub fn render_json(_files: &Files, _diagnostics: &[Diagnostic]) -> String {
    String::new()
}

/// The SARIF form.
pub fn render_sarif(_files: &Files, _diagnostics: &[Diagnostic]) -> String {
    String::new()
}

/// The GitHub form.
pub fn render_github(_files: &Files, _diagnostics: &[Diagnostic]) -> String {
    String::new()
}
