//! What every handler needs beside its task: folders, the caller's environment, secrets, and who watches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokio::sync::mpsc;

use crate::handler::breaker::Breakers;
use crate::handler::http::Client;
use crate::handler::process::Stream;
use crate::handler::secrets::Secrets;
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::time::Timestamp;

/// One line that a program printed, for who watches. Secrets are taken out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub run: RunId,
    pub unit: UnitPath,
    /// From 1.
    pub attempt: u32,
    pub stream: Stream,
    /// Without its newline.
    pub text: String,
    /// The hand-out that printed it.
    pub token: LeaseToken,
    pub at: Timestamp,
    /// Where the record that it is in ends in the attempt's log; none if it is not kept, or kept elsewhere.
    pub kept_to: Option<u64>,
}

/// What every handler needs beside its task. One serves all tasks of a process.
pub struct WorkerContext {
    /// Absolute path of the folder that holds `runs/`.
    pub state_folder: PathBuf,
    /// The environment that `tol` itself was started with, taken once.
    pub caller_env: BTreeMap<String, String>,
    pub secrets: Secrets,
    /// Who watches what programs print. A line is dropped, not waited for, when the channel is full.
    pub live: Option<mpsc::Sender<LogLine>>,
    /// True if programs wait for who watches instead, so that no line is dropped.
    pub live_waits: bool,
    pub breakers: Breakers,
    /// Made when the first request is sent, because reading the system's certificates takes milliseconds.
    pub(crate) client: OnceLock<Client>,
}

impl WorkerContext {
    /// A context whose secrets come from the caller's environment.
    ///
    /// A relative state folder is taken from the working folder of now, since programs are told paths inside it.
    pub fn new(state_folder: &Path, caller_env: BTreeMap<String, String>, live: Option<mpsc::Sender<LogLine>>) -> Self {
        let state_folder = std::path::absolute(state_folder).unwrap_or_else(|_| state_folder.to_owned());
        let secrets = Secrets::from_env(&caller_env);
        Self {
            state_folder,
            caller_env,
            secrets,
            live,
            live_waits: false,
            breakers: Breakers::default(),
            client: OnceLock::new(),
        }
    }

    /// The same, but programs wait for who watches: every line reaches the channel.
    pub fn waiting(mut self) -> Self {
        self.live_waits = true;
        self
    }
}
