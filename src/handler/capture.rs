//! Keeps what a program printed, within bounds.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use crate::handler::environment::folder_failure;
use crate::handler::folders;
use crate::task::Failure;

/// How much is kept of what a program said on standard error, in bytes.
const STDERR_BYTES: usize = 4 * 1024;
/// How much standard output may go to a file, in bytes; more is dropped, so that a run cannot fill the disk.
const STDOUT_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The last 4 KiB of what a program said on standard error.
#[derive(Default)]
pub struct Tail(Vec<u8>);

impl Tail {
    /// Takes a piece.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        // Cut at twice the size, so that a byte is moved once and not with every piece.
        if self.0.len() > 2 * STDERR_BYTES {
            self.0.drain(..self.0.len() - STDERR_BYTES);
        }
    }

    /// The tail as text, begun at a whole character; none if nothing was said.
    pub fn text(&self) -> Option<String> {
        let start = self.0.len().saturating_sub(STDERR_BYTES);
        let mut tail = self.0.get(start..).unwrap_or_default();
        if start > 0 {
            let cut = tail.iter().take(3).take_while(|byte| (0x80..=0xBF).contains(*byte)).count();
            tail = tail.get(cut..).unwrap_or_default();
        }
        (!tail.is_empty()).then(|| String::from_utf8_lossy(tail).into_owned())
    }
}

/// Keeps standard output in memory, and what is too large in a file or not at all.
pub struct Capture {
    bytes_max: usize,
    bytes: Vec<u8>,
    spill: Option<Spill>,
    over: bool,
}

struct Spill {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    error: Option<io::Error>,
}

/// What became of standard output.
pub enum Captured {
    /// It was small enough to be kept.
    Whole(Vec<u8>),
    /// It is in this file.
    File(PathBuf),
    /// It was too large, and is gone.
    Dropped,
}

impl Capture {
    /// Keeps so many bytes, and nothing if there are more.
    pub fn dropping(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: Vec::new(), spill: None, over: false }
    }

    /// Keeps so many bytes, and puts all of them into a file if there are more.
    pub fn spilling(bytes_max: usize, path: PathBuf) -> Self {
        let spill = Some(Spill { path, file: None, written: 0, error: None });
        Self { bytes_max, bytes: Vec::new(), spill, over: false }
    }

    /// Takes a piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.over && self.bytes.len() + bytes.len() <= self.bytes_max {
            self.bytes.extend_from_slice(bytes);
            return;
        }
        self.over = true;
        let before = std::mem::take(&mut self.bytes);
        if let Some(spill) = &mut self.spill {
            spill.write(&before);
            spill.write(bytes);
        }
    }

    /// What became of it all.
    ///
    /// # Errors
    /// A transient failure if the file could not be written.
    pub fn end(self) -> Result<Captured, Failure> {
        if !self.over {
            return Ok(Captured::Whole(self.bytes));
        }
        match self.spill {
            Some(Spill { path, error: Some(error), .. }) => Err(folder_failure(&path, &error)),
            Some(Spill { path, .. }) => Ok(Captured::File(path)),
            None => Ok(Captured::Dropped),
        }
    }
}

impl Spill {
    fn write(&mut self, bytes: &[u8]) {
        if self.error.is_some() || self.written >= STDOUT_FILE_BYTES_MAX {
            return;
        }
        self.written += bytes.len() as u64;
        self.error = self.try_write(bytes).err();
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    folders::ensure_folder(folder)?;
                }
                self.file.insert(File::create(&self.path)?)
            }
        };
        file.write_all(bytes)
    }
}
