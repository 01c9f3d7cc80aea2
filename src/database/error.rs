//! What can go wrong on the way to the database, said so that a person knows what to do next. No password is in it.

use std::error::Error;
use std::path::PathBuf;

use tokio_postgres::error::SqlState;

/// Why the database did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// The address cannot be used.
    #[error(
        "DATABASE_URL cannot be used: {what}; write postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE"
    )]
    Url {
        /// What is wrong with it.
        what: String,
    },
    /// The file with the certificates to trust cannot be used.
    #[error("{}: the certificates to trust cannot be read: {what}; name a PEM file with sslrootcert in DATABASE_URL", file.display())]
    Certificates {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The server is there and refuses: wrong password, no such database, no permission.
    #[error("{place}: the database refuses: {what}; look at the user, the password and the database in DATABASE_URL")]
    Refused {
        /// The database.
        place: String,
        /// What the server said.
        what: String,
    },
    /// Whoever answers shows a certificate that is not trusted.
    #[error(
        "{place}: the certificate of the database is not trusted: {what}; name the authority that signed it with sslrootcert in DATABASE_URL, and the host as the certificate does"
    )]
    Untrusted {
        /// The database.
        place: String,
        /// What is wrong with the certificate.
        what: String,
    },
    /// The server cannot be reached, or the connection broke.
    #[error("{place}: the database cannot be reached: {what}; see that it runs and that the way to it is open")]
    Away {
        /// The database.
        place: String,
        /// What the system said.
        what: String,
    },
    /// A statement failed.
    #[error("{place}: the database cannot do it: {what}; its own log may tell more")]
    Failed {
        /// The database.
        place: String,
        /// The server's code of five characters; empty if the failure is not the server's.
        code: String,
        /// What the server said.
        what: String,
    },
}

impl DatabaseError {
    /// What the client library reported.
    pub(crate) fn of(place: &str, error: &tokio_postgres::Error) -> Self {
        let place = place.to_owned();
        let what = describe(error);
        let Some(code) = error.code() else {
            return if let Some(what) = distrust(error) {
                Self::Untrusted { place, what }
            } else if is_away(error) {
                Self::Away { place, what }
            } else {
                Self::Failed { place, code: String::new(), what }
            };
        };
        if is_refusal(code) {
            return Self::Refused { place, what };
        }
        if is_away(error) {
            return Self::Away { place, what };
        }
        Self::Failed { place, code: code.code().to_owned(), what }
    }

    /// Whether the same may succeed when the server is there again.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Away { .. })
    }
}

/// The whole chain of causes; the library's first word alone says little.
fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        let mut text = format!("{} ({})", error.message(), error.code().code());
        if let Some(detail) = error.detail() {
            text.push_str(": ");
            text.push_str(detail);
        }
        return text;
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// What is wrong with the server's certificate, if that is what ended the connection.
fn distrust(error: &tokio_postgres::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(error @ rustls::Error::InvalidCertificate(_)) = inner {
            return Some(error.to_string());
        }
        cause = error.source();
    }
    None
}

/// Codes with which a server that is there sends a client away for good.
fn is_refusal(code: &SqlState) -> bool {
    code.code().starts_with("28")
        || [SqlState::INVALID_CATALOG_NAME, SqlState::INSUFFICIENT_PRIVILEGE, SqlState::INVALID_SCHEMA_NAME]
            .contains(code)
}

/// Whether the connection is gone, or the server for now takes none.
pub(crate) fn is_away(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        return code.code().starts_with("08")
            || [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::TOO_MANY_CONNECTIONS,
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            ]
            .contains(code);
    }
    if error.is_closed() {
        return true;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<std::io::Error>() {
            return true;
        }
        cause = error.source();
    }
    // A failure to connect has no cause that tells more; waiting for the server is all there is to do.
    error.to_string().starts_with("error connecting")
}

/// Whether the server has undone the statement for a reason that passes: a deadlock, a lock or time limit.
pub(crate) fn is_passing(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::QUERY_CANCELED,
        ]
        .contains(code)
    })
}
