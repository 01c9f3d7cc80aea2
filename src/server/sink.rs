//! What programs print: the lines of workers elsewhere are kept with the run, and all lines are told to who watches.

use std::sync::Arc;

use crate::dispatch::{LogSink, LogStream, WorkerLine};
use crate::handler::process::Stream;
use crate::handler::{LogFolder, LogLine};
use crate::server::hall::Hall;
use crate::time::Timestamp;

/// Keeps the lines of workers.
pub struct Sink {
    pub folder: LogFolder,
    pub hall: Arc<Hall>,
}

impl LogSink for Sink {
    fn write(&self, _worker: &str, lines: &[WorkerLine]) {
        let kept = self.folder.keep(lines).flat_map(|(lines, end)| lines.iter().map(move |line| (line, end)));
        for (line, kept_to) in kept {
            let stream = match line.stream {
                LogStream::Out => Stream::Out,
                LogStream::Err => Stream::Err,
                // Words of the worker itself are for the log.
                LogStream::Note => continue,
            };
            self.hall.log(LogLine {
                run: line.key.run.clone(),
                unit: line.key.unit.clone(),
                token: line.key.token,
                attempt: line.attempt,
                stream,
                text: line.text.clone(),
                at: Timestamp(line.at_ms),
                kept_to,
            });
        }
    }
}
