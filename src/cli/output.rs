//! Where a command's text goes: standard output, or a file that appears whole or not at all.

use std::io::Write;
use std::path::Path;

use super::exit::Failure;

/// Prints a text. A reader that left, such as `head`, has seen what it wanted.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes a file; its folder is made if it is not there.
///
/// # Errors
/// What the system says, with the file.
pub fn write_file(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    if !file.exists() || file.is_file() {
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let fresh = file.with_file_name(name);
        return std::fs::write(&fresh, bytes).and_then(|()| std::fs::rename(&fresh, file)).map_err(|error| {
            let _ = std::fs::remove_file(&fresh);
            failed(error)
        });
    }
    // A pipe or a device: there is nothing to keep whole.
    std::fs::write(file, bytes).map_err(failed)
}

/// Prints a text, or writes it to a file where one is named.
///
/// # Errors
/// As [`write_file`].
pub fn deliver(text: &str, file: Option<&Path>) -> Result<(), Failure> {
    match file {
        Some(file) => write_file(file, text.as_bytes()),
        None => {
            print(text);
            Ok(())
        }
    }
}
