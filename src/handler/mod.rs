//! Does one task; one file per action.
//!
//! [`run`] starts programs, [`http`] sends requests, [`agent`] calls a program that speaks for an agent. All of them
//! take a task that is filled in but for its secrets, and give its outcome; none knows of retries, timeouts or
//! dependencies: the scheduler asks for the end of an attempt through a stop signal.

pub mod agent;
pub mod breaker;
pub mod capture;
pub mod context;
pub mod environment;
pub mod folders;
pub mod http;
pub mod log_folder;
pub mod logs;
pub mod outputs;
pub mod process;
pub mod redact;
pub mod run;
pub mod secrets;

pub use context::{LogLine, WorkerContext};
pub use log_folder::LogFolder;
pub use process::Stream;
