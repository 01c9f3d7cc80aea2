//! The long-running scheduler behind `tol serve`: it takes runs in over the network, drives them, takes up those that an
//! earlier process left, and lets go of them in good order.
//!
//! It decides nothing about a run; the scheduler does. What is served is for `watch` to keep.

mod core;
mod division;
mod error;
mod figures;
mod hall;
mod kept;
mod looks;
mod own_work;
mod parcels;
mod retention;
mod service;
mod sink;
mod start;
mod submit;
mod tail;
mod token;
mod views;

pub use error::ServerError;
pub use hall::{End, Told};
pub use kept::{Kept, Place, Reading};
pub use retention::{Removed, Retention};
pub use start::{LocalWorker, Server, ServerConfig, Signalled};
pub use tail::{Line, Tail};
pub use token::{Token, TokenError};
pub use views::{LogsFound, each_log_line, find_run, history_text, row_object, show_object, show_text};
