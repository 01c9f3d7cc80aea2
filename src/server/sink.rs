//! What programs print: the lines of workers elsewhere are kept with the run, and all lines are told to who watches.

use std::path::PathBuf;
use std::sync::Arc;

use crate::dispatch::{LogSink, LogStream, WorkerLine};
use crate::handler::LogLine;
use crate::handler::logs::{self, Source};
use crate::handler::process::Stream;
use crate::server::core::Say;
use crate::server::hall::Hall;

/// Keeps the lines of workers.
pub struct Sink {
    pub state_dir: PathBuf,
    pub hall: Arc<Hall>,
    pub say: Say,
}

impl LogSink for Sink {
    fn write(&self, worker: &str, lines: &[WorkerLine]) {
        for of_attempt in lines.chunk_by(|left, right| (&left.key, left.attempt) == (&right.key, right.attempt)) {
            let Some(first) = of_attempt.first() else { continue };
            let pieces: Vec<(Source, u64, &str)> =
                of_attempt.iter().map(|line| (source_of(line.stream), line.at_ms, line.text.as_str())).collect();
            let key = &first.key;
            if let Err(error) = logs::keep(&self.state_dir, &key.run, &key.unit, first.attempt, &pieces) {
                (self.say)(&format!("the log of {} of run {} from worker {worker}: {error}", key.unit, key.run));
            }
            for line in of_attempt {
                let stream = match line.stream {
                    LogStream::Out => Stream::Out,
                    LogStream::Err => Stream::Err,
                    // Words of the worker itself are for the log.
                    LogStream::Note => continue,
                };
                self.hall.log(LogLine {
                    run: key.run.clone(),
                    unit: key.unit.clone(),
                    attempt: line.attempt,
                    stream,
                    text: line.text.clone(),
                });
            }
        }
    }
}

fn source_of(stream: LogStream) -> Source {
    match stream {
        LogStream::Out => Source::Out,
        LogStream::Err => Source::Err,
        LogStream::Note => Source::Note,
    }
}
