//! The token that callers of the runs service show: from the environment, or made at the first start and kept in the
//! state folder, for its owner alone.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file in the state folder.
const FILE: &str = "token";
/// A shorter one can be guessed.
const SHORTEST: usize = 16;
/// A longer one is no token.
const LONGEST: u64 = 4096;

/// A token; it is never printed.
#[derive(Clone)]
pub struct Token(Box<str>);

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("{}: other users may read the token; run `chmod 600` on it, or delete it and a new one is made", .0.display())]
    Open(PathBuf),
    #[error(
        "{0}: a token has at least {SHORTEST} printable ASCII characters and no blanks; `openssl rand -hex 32` makes one"
    )]
    Unfit(String),
}

impl Token {
    /// Takes a token from somewhere, which is named in the error.
    ///
    /// # Errors
    /// If it is too short, or cannot stand in a header.
    pub fn new(text: &str, from: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() < SHORTEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Unfit(from.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// Reads the token of a state folder; none if there is no such file.
    ///
    /// # Errors
    /// If it cannot be read, others may read it, or it is unfit.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, TokenError> {
        let path = state_dir.join(FILE);
        let failed = |error| TokenError::File { path: path.clone(), error };
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(TokenError::Open(path));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
        Self::new(&text, &path.to_string_lossy()).map(Some)
    }

    /// Reads the token of a state folder, or makes one.
    ///
    /// # Errors
    /// As [`Self::read`]; or if it cannot be written.
    pub fn read_or_make(state_dir: &Path) -> Result<Self, TokenError> {
        if let Some(token) = Self::read(state_dir)? {
            return Ok(token);
        }
        let path = state_dir.join(FILE);
        let failed = |error| TokenError::File { path: path.clone(), error };
        let text = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        // The file appears whole: another server that starts at the same time reads it, or makes it first.
        let fresh = state_dir.join(format!("{FILE}.{}", uuid::Uuid::new_v4().simple()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
        let made = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        let linked = made.and_then(|()| std::fs::hard_link(&fresh, &path));
        let _ = std::fs::remove_file(&fresh);
        match linked {
            Ok(()) => Self::new(&text, FILE),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Self::read(state_dir)?.ok_or_else(|| failed(ErrorKind::NotFound.into()))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The value of the header `authorization`.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// The token itself, for whoever compares it.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{Token, TokenError};

    #[test]
    fn is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Token::read(folder.path()).unwrap().is_none());
        let made = Token::read_or_make(folder.path()).unwrap();
        let path = folder.path().join("token");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let again = Token::read_or_make(folder.path()).unwrap();
        assert_eq!(made.header(), again.header());
        assert_eq!(format!("{made:?}"), "Token(…)");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Token::read_or_make(folder.path()), Err(TokenError::Open(_))));
    }

    #[test]
    fn what_can_be_guessed_or_not_be_sent_is_refused() {
        let token = Token::new("0123456789abcdef\n", "TOL_TOKEN").unwrap();
        assert_eq!(token.header(), "Bearer 0123456789abcdef");
        for unfit in ["", "short", "with blanks in the middle of it", "0123456789abcdeö"] {
            assert!(Token::new(unfit, "TOL_TOKEN").is_err(), "{unfit}");
        }
    }
}
