//! What can go wrong with a journal, said so that a person knows what to do next.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::database::DatabaseError;
use crate::id::RunId;

/// Why a journal did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// There is no journal to read.
    #[error("there is no journal in {}; start a run there first, or name another folder", folder.display())]
    Absent {
        /// The state folder.
        folder: PathBuf,
    },
    /// Acknowledged writes are gone: the database ends before the high-water mark, or is not the one it was set on.
    #[error(
        "{}: recorded events are lost: {what}; restore the whole folder from a backup, or go on without them with \
         `tol doctor --accept-loss`",
        file.display()
    )]
    Lost {
        /// The file that is short.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// A file holds what no `tol` wrote.
    #[error("{}: the journal is damaged: {what}; restore the whole folder from a backup and look at the disk", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// What was found.
        what: String,
    },
    /// The journal has a later format than this program knows.
    #[error("{}: the journal was written by a newer tol (format {found}, this one reads up to {supported}); update tol", file.display())]
    Newer {
        /// The database.
        file: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that can be read here.
        supported: i64,
    },
    /// The disk refused: full, read-only, no permission, or failing.
    #[error("{}: the journal cannot be written or read: {what}; see that the folder is writable and the disk neither full nor failing, then `tol resume` the runs", file.display())]
    Disk {
        /// The file at which it happened.
        file: PathBuf,
        /// What the system said.
        what: String,
    },
    /// Other processes kept the database for too long.
    #[error("{}: another process holds the journal: {what}; look which `tol` still runs in this folder, then try again", file.display())]
    Busy {
        /// The database.
        file: PathBuf,
        /// For how long it was tried.
        what: String,
    },
    /// Another process has written to this run.
    #[error("run {run} in {}: {what}; another process has taken the run over, so nothing was written here; see `tol runs show {run}`", file.display())]
    Fenced {
        /// The run.
        run: RunId,
        /// The database.
        file: PathBuf,
        /// What was expected and found.
        what: String,
    },
    /// The journal does not know that run.
    #[error("{} knows no run {run}; `tol runs list` shows the runs", file.display())]
    NoSuchRun {
        /// The name that was asked for.
        run: RunId,
        /// The database.
        file: PathBuf,
    },
    /// More than one batch can hold.
    #[error("run {run} in {}: {bytes} bytes are too many for one write (at most {limit}); store large results as files", file.display())]
    TooLarge {
        /// The run.
        run: RunId,
        /// The database.
        file: PathBuf,
        /// The size of the batch.
        bytes: u64,
        /// The largest size.
        limit: u64,
    },
    /// A write was asked of a journal that was opened for reading.
    #[error("{} is open for reading only; open it for writing first", file.display())]
    ReadOnly {
        /// The database.
        file: PathBuf,
    },
    /// The database of the journal does not do what is asked.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The database was away for longer than writes wait.
    #[error(
        "{place}: the database has been away for {seconds} s: {what}; see that it runs and that the way to it is open, then `tol resume` the runs"
    )]
    Away {
        /// The database.
        place: String,
        /// For how long it was waited for.
        seconds: u64,
        /// What the system said.
        what: String,
    },
    /// The journal was closed before.
    #[error("{}: the journal is closed; open it again", file.display())]
    Closed {
        /// The database.
        file: PathBuf,
    },
}

impl JournalError {
    /// A failed system call on a file.
    pub(crate) fn disk(file: &Path, doing: &str, error: &io::Error) -> Self {
        Self::Disk { file: file.to_owned(), what: format!("cannot {doing}: {error}") }
    }

    /// Something in a file that cannot be.
    pub(crate) fn corrupt(file: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), what: what.into() }
    }

    /// What SQLite reported about its file.
    pub(crate) fn sqlite(file: &Path, error: &rusqlite::Error) -> Self {
        let file = file.to_owned();
        let what = error.to_string();
        let Some(code) = error.sqlite_error_code() else {
            return Self::Corrupt { file, what };
        };
        match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed => {
                Self::Busy { file, what }
            }
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory
            | ErrorCode::NoLargeFileSupport => Self::Disk { file, what },
            // Every statement here is fixed and was tried, so that any other answer comes from the file.
            _ => Self::Corrupt { file, what },
        }
    }

    /// Whether the error concerns one run and leaves the journal alive.
    pub fn is_of_one_run(&self) -> bool {
        match self {
            Self::Fenced { .. } | Self::NoSuchRun { .. } | Self::TooLarge { .. } => true,
            Self::Absent { .. }
            | Self::Lost { .. }
            | Self::Corrupt { .. }
            | Self::Newer { .. }
            | Self::Disk { .. }
            | Self::Busy { .. }
            | Self::ReadOnly { .. }
            | Self::Database(_)
            | Self::Away { .. }
            | Self::Closed { .. } => false,
        }
    }
}
