//! A connection to PostgreSQL: its address, TLS, connecting anew, and calls from code that is not asynchronous.
//!
//! Nothing here knows a table. Whoever keeps something in the database brings the statements.

mod error;
mod lane;
mod link;
mod shared;
mod tls;
mod url;

#[cfg(test)]
mod tests;

pub use error::DatabaseError;
pub(crate) use error::{is_away, is_passing};
pub use lane::Lane;
pub use link::{Link, Session};
pub use shared::Database;
pub use url::DatabaseUrl;
