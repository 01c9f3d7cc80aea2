//! Lines that programs print on workers, on their way to the scheduler that keeps them.

use crate::dispatch::LeaseKey;

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Out,
    Err,
    /// Words of the worker itself.
    Note,
}

/// One line that a program printed on a worker. Secrets are taken out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerLine {
    pub key: LeaseKey,
    /// From 1.
    pub attempt: u32,
    pub stream: LogStream,
    /// Without its newline.
    pub text: String,
    /// When it was printed, in milliseconds since 1970.
    pub at_ms: u64,
}

/// Keeps what workers send of the output of their programs.
pub trait LogSink: Send + Sync + 'static {
    /// Takes lines in the order in which they were printed. It may wait for the disk; who calls it expects that.
    fn write(&self, worker: &str, lines: &[WorkerLine]);
}
