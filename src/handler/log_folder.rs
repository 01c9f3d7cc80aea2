//! Keeps what programs on other machines printed where `tol runs logs` reads it.

use std::fs::OpenOptions;
use std::io::{self, Seek, Write};
use std::path::PathBuf;

use crate::dispatch::{LogSink, LogStream, WorkerLine};
use crate::handler::folders;
use crate::handler::logs::{ATTEMPT_BYTES_MAX, Head, Record, Source, VERSION};

/// The logs of all runs below a state folder.
pub struct LogFolder {
    state_folder: PathBuf,
}

impl LogFolder {
    /// The logs below a state folder.
    pub fn new(state_folder: PathBuf) -> Self {
        Self { state_folder }
    }

    /// Keeps lines, and gives them attempt by attempt, each time with where they end in the attempt's log: nowhere, if
    /// they are not kept. Losing a log never fails a step, wherever the step runs.
    pub fn keep<'l>(&self, lines: &'l [WorkerLine]) -> impl Iterator<Item = (&'l [WorkerLine], Option<u64>)> {
        let same = |one: &WorkerLine, other: &WorkerLine| {
            one.attempt == other.attempt && one.key.unit == other.key.unit && one.key.run == other.key.run
        };
        lines.chunk_by(same).map(|lines| (lines, self.append(lines).ok().flatten()))
    }

    /// Appends lines that all belong to one attempt.
    fn append(&self, lines: &[WorkerLine]) -> io::Result<Option<u64>> {
        let Some(first) = lines.first() else { return Ok(None) };
        let path = folders::log_file(&self.state_folder, &first.key.run, &first.key.unit, first.attempt);
        if let Some(folder) = path.parent() {
            folders::ensure_folder(folder)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
        let before = file.metadata()?.len();
        let mut bytes = Vec::new();
        if before == 0 {
            let head =
                Head { tol_log: VERSION, unit: first.key.unit.to_string(), attempt: first.attempt, t: first.at_ms };
            serde_json::to_writer(&mut bytes, &head)?;
            bytes.push(b'\n');
        }
        for same in lines.chunk_by(|one, other| one.stream == other.stream && one.at_ms == other.at_ms) {
            let Some(line) = same.first() else { continue };
            let source = match line.stream {
                LogStream::Out => Source::Out,
                LogStream::Err => Source::Err,
                LogStream::Note => Source::Note,
            };
            let text: String = same.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
            serde_json::to_writer(&mut bytes, &Record { t: line.at_ms, s: source, d: text.into() })?;
            bytes.push(b'\n');
        }
        // A worker keeps to the same bound, and says so in its last line.
        if before.saturating_add(bytes.len() as u64) > ATTEMPT_BYTES_MAX.saturating_mul(2) {
            return Ok(None);
        }
        // One write: a crash leaves whole lines behind, but for the last one.
        file.write_all(&bytes)?;
        file.stream_position().map(Some)
    }
}

impl LogSink for LogFolder {
    fn write(&self, _worker: &str, lines: &[WorkerLine]) {
        self.keep(lines).for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::LeaseKey;
    use crate::handler::logs;
    use crate::id::{LeaseToken, RunId, UnitPath};

    fn line(unit: &str, stream: LogStream, text: &str, at_ms: u64) -> WorkerLine {
        let key = LeaseKey { run: RunId::new("r"), unit: UnitPath::new(unit), token: LeaseToken(1) };
        WorkerLine { key, attempt: 1, stream, text: text.to_owned(), at_ms }
    }

    #[test]
    fn lines_of_workers_are_read_like_all_others() {
        let folder = tempfile::tempdir().unwrap();
        let sink = LogFolder::new(folder.path().to_owned());
        sink.write("w", &[line("a", LogStream::Out, "one", 5), line("a", LogStream::Out, "two", 5)]);
        sink.write("w", &[line("a", LogStream::Err, "oops", 6), line("b", LogStream::Note, "noted", 7)]);
        let logs = logs::list(folder.path(), &RunId::new("r")).unwrap();
        let units: Vec<(&str, u64)> = logs.iter().map(|log| (log.unit.as_str(), log.started_at.0)).collect();
        assert_eq!(units, [("a", 5), ("b", 7)]);
        let pieces: Vec<_> = logs::read(&logs[0]).unwrap().map(Result::unwrap).collect();
        let pieces: Vec<(Source, &str)> = pieces.iter().map(|piece| (piece.source, piece.text.as_str())).collect();
        assert_eq!(pieces, [(Source::Out, "one\ntwo\n"), (Source::Err, "oops\n")]);
    }
}
