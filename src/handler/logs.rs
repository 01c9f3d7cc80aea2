//! What programs printed, kept with the run: one file for each attempt at each unit, both streams in the order of
//! arrival.
//!
//! A file is JSON Lines. The first line tells what it is: `{"tol_log":1,"unit":"fetch","attempt":1,"t":…}`. Every
//! other is a piece of output: `{"t":…,"s":"out","d":"text\n"}`; `t` is milliseconds since 1970, `s` is `out`, `err` or
//! `note` (words of `tol` itself), and `d` is whole lines, or a part of a very long one. Nothing is written for a
//! program that prints nothing. A line that was cut short by a crash is passed over when the file is read.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::handler::context::{LogLine, WorkerContext};
use crate::handler::folders;
use crate::handler::process::Stream;
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::task::Task;
use crate::time::Timestamp;

/// The most that is kept of one attempt, in bytes of output.
pub(super) const ATTEMPT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A line longer than this is written in parts.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// A head stands on the first line, or behind one that a crash cut short.
const HEAD_LINES_MAX: usize = 3;
/// The version of the files' form.
pub(super) const VERSION: u32 = 1;

/// Where a piece of a log comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    Out,
    Err,
    /// Said by `tol` itself.
    Note,
}

impl From<Stream> for Source {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Out => Self::Out,
            Stream::Err => Self::Err,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) tol_log: u32,
    pub(super) unit: String,
    pub(super) attempt: u32,
    pub(super) t: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Record<'a> {
    pub(super) t: u64,
    pub(super) s: Source,
    pub(super) d: std::borrow::Cow<'a, str>,
}

/// Writes the log of one attempt, and tells who watches. Losing a log never fails a step: after an error of the file
/// system the writer keeps quiet.
pub struct Writer {
    run: RunId,
    unit: UnitPath,
    attempt: u32,
    path: PathBuf,
    file: Option<File>,
    broken: bool,
    written: u64,
    out: Vec<u8>,
    err: Vec<u8>,
    token: LeaseToken,
    live: Option<mpsc::Sender<LogLine>>,
    waits: bool,
    /// Lines for who watches that the channel had no room for, if they are waited for.
    unsent: VecDeque<LogLine>,
}

impl Writer {
    /// A writer that makes its file when there is something to write.
    pub fn new(task: &Task, context: &WorkerContext) -> Self {
        Self {
            run: task.run.clone(),
            unit: task.unit.clone(),
            attempt: task.attempt,
            path: folders::log_file(&context.state_folder, &task.run, &task.unit, task.attempt),
            file: None,
            broken: false,
            written: 0,
            out: Vec::new(),
            err: Vec::new(),
            token: task.token,
            live: context.live.clone(),
            waits: context.live_waits,
            unsent: VecDeque::new(),
        }
    }

    /// False while lines wait for who watches; then no more should be pushed before [`Writer::flush`] is done.
    pub fn is_ready(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Waits until who watches has room for every line. Nothing is lost if the wait is given up and begun again.
    pub async fn flush(&mut self) {
        let Some(live) = &self.live else { return };
        while !self.unsent.is_empty() {
            let Ok(room) = live.reserve().await else {
                // Nobody watches any more.
                self.unsent.clear();
                return;
            };
            if let Some(line) = self.unsent.pop_front() {
                room.send(line);
            }
        }
    }

    /// Takes a piece of output; a line is written when its end has come.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) {
        let mut held = std::mem::take(self.held(stream));
        if held.is_empty() {
            let whole = whole_bytes(bytes);
            self.write(stream, bytes.get(..whole).unwrap_or_default());
            held.extend_from_slice(bytes.get(whole..).unwrap_or_default());
        } else {
            held.extend_from_slice(bytes);
            let whole = whole_bytes(&held);
            self.write(stream, held.get(..whole).unwrap_or_default());
            held.drain(..whole.min(held.len()));
        }
        *self.held(stream) = held;
    }

    /// Writes the last lines, which need not have an end.
    pub fn finish(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            let held = std::mem::take(self.held(stream));
            self.write(stream, &held);
        }
    }

    /// Writes words of `tol` itself.
    pub fn note(&mut self, words: &str) {
        let line = format!("{words}\n");
        let _ = self.record(Source::Note, &line);
    }

    fn held(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let text = String::from_utf8_lossy(bytes);
        let before = self.written;
        self.written = self.written.saturating_add(bytes.len() as u64);
        // It is kept before it is shown: who is shown a line finds it, and all before it, in the log.
        let kept_to = if self.written <= ATTEMPT_BYTES_MAX {
            self.record(stream.into(), &text)
        } else {
            if before <= ATTEMPT_BYTES_MAX {
                self.written = ATTEMPT_BYTES_MAX + 1;
                self.note("(more than 64 MiB were printed; the rest is not kept)");
            }
            None
        };
        self.show(stream, &text, kept_to);
    }

    fn show(&mut self, stream: Stream, text: &str, kept_to: Option<u64>) {
        let Some(live) = &self.live else { return };
        let at = now();
        for line in text.lines() {
            let line = LogLine {
                run: self.run.clone(),
                unit: self.unit.clone(),
                attempt: self.attempt,
                stream,
                text: line.to_owned(),
                token: self.token,
                at,
                kept_to,
            };
            let refused =
                if self.unsent.is_empty() { live.try_send(line).err() } else { Some(TrySendError::Full(line)) };
            match refused {
                None => {}
                Some(TrySendError::Full(line)) if self.waits => self.unsent.push_back(line),
                Some(TrySendError::Full(_) | TrySendError::Closed(_)) => break,
            }
        }
    }

    /// Gives where the record ends in the file.
    fn record(&mut self, source: Source, text: &str) -> Option<u64> {
        if self.broken {
            return None;
        }
        let end = self.append(source, text).ok();
        self.broken = end.is_none();
        end
    }

    fn append(&mut self, source: Source, text: &str) -> io::Result<u64> {
        let now = now().0;
        let mut bytes = Vec::with_capacity(text.len() + 64);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                if let Some(folder) = self.path.parent() {
                    folders::ensure_folder(folder)?;
                }
                // Appending keeps what a crashed hand-out of the same attempt wrote; its last line may lack an end.
                let file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                if file.metadata()?.len() > 0 {
                    bytes.push(b'\n');
                }
                let head = Head { tol_log: VERSION, unit: self.unit.to_string(), attempt: self.attempt, t: now };
                serde_json::to_writer(&mut bytes, &head)?;
                bytes.push(b'\n');
                file
            }
        };
        serde_json::to_writer(&mut bytes, &Record { t: now, s: source, d: text.into() })?;
        bytes.push(b'\n');
        // One write for each record: a crash leaves whole lines behind, but for the last one.
        file.write_all(&bytes)?;
        let end = file.stream_position()?;
        self.file = Some(file);
        Ok(end)
    }
}

/// How much of the bytes can be written: whole lines, and of a very long line what ends with a whole character.
fn whole_bytes(bytes: &[u8]) -> usize {
    let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let rest = bytes.get(lines..).unwrap_or_default();
    if rest.len() <= LINE_BYTES_MAX {
        return lines;
    }
    bytes.len() - unfinished_character(rest)
}

/// How many bytes at the end are the beginning of a character in UTF-8.
fn unfinished_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let Some(byte) = bytes.len().checked_sub(back).and_then(|at| bytes.get(at)) else {
            return 0;
        };
        let length = match byte {
            0xC0..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF7 => 4,
            0x80..=0xBF => continue,
            0x00..=0x7F | 0xF8..=0xFF => 1,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// The log of one attempt at one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub unit: UnitPath,
    /// From 1.
    pub attempt: u32,
    /// When the first of it was printed.
    pub started_at: Timestamp,
    pub path: PathBuf,
}

/// A piece of a log: whole lines, or a part of a very long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub time: Timestamp,
    pub source: Source,
    /// With its newlines.
    pub text: String,
}

/// The logs of a run, by the time at which they begin. A run that printed nothing has none.
///
/// # Errors
/// The system's, if the folder is there but cannot be read.
pub fn list(state_folder: &Path, run: &RunId) -> io::Result<Vec<Log>> {
    let folder = folders::logs_folder(state_folder, run);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut logs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let mut lines = BufReader::new(File::open(&path)?).lines().take(HEAD_LINES_MAX);
        // A file without a readable head was cut short by a crash before anything else was in it.
        if let Some(head) = lines.find_map(|line| serde_json::from_str::<Head>(&line.ok()?).ok()) {
            let unit = UnitPath::new(&head.unit);
            logs.push(Log { unit, attempt: head.attempt, started_at: Timestamp(head.t), path });
        }
    }
    logs.sort_by(|left, right| {
        (left.started_at, &left.unit, left.attempt).cmp(&(right.started_at, &right.unit, right.attempt))
    });
    Ok(logs)
}

/// Reads a log piece by piece, in the order of arrival.
///
/// # Errors
/// The system's, if the file cannot be read.
pub fn read(log: &Log) -> io::Result<impl Iterator<Item = io::Result<Piece>>> {
    let mut lines = BufReader::new(File::open(&log.path)?);
    let mut line = Vec::new();
    Ok(std::iter::from_fn(move || {
        loop {
            line.clear();
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if let Ok(record) = serde_json::from_slice::<Record>(&line) {
                let text = record.d.into_owned();
                return Some(Ok(Piece { time: Timestamp(record.t), source: record.s, text }));
            }
        }
    }))
}

/// A part of a log.
#[derive(Debug, Default)]
pub struct Part {
    /// Each with the byte at which its record ends.
    pub pieces: Vec<(Piece, u64)>,
    /// The byte at which the next part begins.
    pub end: u64,
    /// True if there was no more when it was read.
    pub is_last: bool,
}

/// Reads about so many bytes of a log, from where an earlier part ended. A line that is still being written is left to
/// the next part.
///
/// # Errors
/// The system's, if the file is there but cannot be read.
pub fn read_part(path: &Path, start: u64, bytes: u64) -> io::Result<Part> {
    let mut part = Part { end: start, ..Part::default() };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Part { is_last: true, ..part }),
        Err(error) => return Err(error),
    };
    file.seek(SeekFrom::Start(start))?;
    let mut lines = BufReader::new(file);
    let mut line = Vec::new();
    while part.end - start < bytes {
        line.clear();
        lines.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            part.is_last = true;
            break;
        }
        part.end += line.len() as u64;
        if let Ok(record) = serde_json::from_slice::<Record>(&line) {
            let text = record.d.into_owned();
            part.pieces.push((Piece { time: Timestamp(record.t), source: record.s, text }, part.end));
        }
    }
    Ok(part)
}

/// The time of the system's clock.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expect: usize) {
        assert_eq!(unfinished_character(bytes), expect, "{bytes:?}");
    }

    #[test]
    fn characters_are_not_cut() {
        check(b"abc", 0);
        check("ż".as_bytes(), 0);
        check(&"ż".as_bytes()[..1], 1);
        check(&"🌳".as_bytes()[..3], 3);
        check(&"🌳".as_bytes()[..2], 2);
        check("🌳".as_bytes(), 0);
        check(&[0x80, 0x80, 0x80, 0x80], 0);
        check(&[0xFF], 0);
        check(b"", 0);
    }

    fn writer(folder: &Path, live: Option<mpsc::Sender<LogLine>>) -> Writer {
        let context = WorkerContext::new(folder, std::collections::BTreeMap::new(), live);
        let script = crate::task::Script {
            command: crate::task::Command::Argv(Vec::new()),
            env: Vec::new(),
            inherit_env: Vec::new(),
            dir: String::new(),
            json: false,
            permanent_exit_codes: Vec::new(),
            max_output: 0,
        };
        let task = Task {
            run: RunId::new("r"),
            pipeline: std::sync::Arc::from("p"),
            unit: UnitPath::new("a/b[1]"),
            attempt: 3,
            token: crate::id::LeaseToken(1),
            idempotency_key: String::new(),
            deadline: None,
            place: Default::default(),
            work: crate::task::Work::Run(script),
        };
        Writer::new(&task, &context)
    }

    fn read_all(folder: &Path) -> Vec<(Source, String)> {
        let logs = list(folder, &RunId::new("r")).unwrap();
        let pieces = logs.iter().flat_map(|log| read(log).unwrap());
        pieces.map(|piece| piece.map(|piece| (piece.source, piece.text)).unwrap()).collect()
    }

    #[test]
    fn lines_stay_whole_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path(), None);
        writer.push(Stream::Out, b"one\ntw");
        writer.push(Stream::Err, b"oops\n");
        writer.push(Stream::Out, b"o\nlast");
        writer.finish();
        let expect = [(Source::Out, "one\n"), (Source::Err, "oops\n"), (Source::Out, "two\n"), (Source::Out, "last")];
        assert_eq!(read_all(folder.path()), expect.map(|(source, text)| (source, text.to_owned())));
        let log = list(folder.path(), &RunId::new("r")).unwrap().remove(0);
        assert_eq!((log.unit.as_str(), log.attempt), ("a/b[1]", 3));
        assert_eq!(list(folder.path(), &RunId::new("other")).unwrap(), []);
    }

    #[test]
    fn a_long_line_is_parted_between_characters() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path(), None);
        let line = "ż".repeat(LINE_BYTES_MAX);
        for piece in line.as_bytes().chunks(1001) {
            writer.push(Stream::Out, piece);
        }
        writer.finish();
        let pieces = read_all(folder.path());
        assert!(pieces.len() > 1);
        assert_eq!(pieces.into_iter().map(|(_, text)| text).collect::<String>(), line);
    }

    #[test]
    fn what_is_beyond_the_bound_is_dropped_with_a_note() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path(), None);
        let megabyte = [vec![b'x'; 1024 * 1024 - 1], b"\n".to_vec()].concat();
        for _ in 0..70 {
            writer.push(Stream::Out, &megabyte);
        }
        writer.finish();
        let pieces = read_all(folder.path());
        assert_eq!(pieces.iter().filter(|(source, _)| *source == Source::Out).count(), 64);
        assert!(matches!(pieces.last(), Some((Source::Note, note)) if note.contains("64 MiB")));
    }

    #[test]
    fn a_file_that_a_crash_cut_short_is_read_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = writer(folder.path(), None);
        first.push(Stream::Out, b"before\n");
        let path = list(folder.path(), &RunId::new("r")).unwrap().remove(0).path;
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"t\":1,\"s\":\"ou").unwrap();
        let mut second = writer(folder.path(), None);
        second.push(Stream::Out, b"after\n");
        let texts: Vec<String> = read_all(folder.path()).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["before\n", "after\n"]);
        std::fs::write(&path, b"{\"tol_log\":1,\"un").unwrap();
        let mut third = writer(folder.path(), None);
        third.push(Stream::Out, b"again\n");
        assert_eq!(read_all(folder.path()), [(Source::Out, "again\n".to_owned())]);
    }

    #[test]
    fn a_log_is_read_in_parts_while_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut lines) = mpsc::channel(9);
        let mut writer = writer(folder.path(), Some(sender));
        writer.push(Stream::Out, b"one\n");
        writer.push(Stream::Err, b"two\nthree\n");
        let path = list(folder.path(), &RunId::new("r")).unwrap().remove(0).path;
        let first = read_part(&path, 0, 100).unwrap();
        assert_eq!((first.pieces.len(), first.is_last), (1, false));
        assert_eq!(lines.try_recv().unwrap().kept_to, Some(first.end), "what is shown is in the log by then");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"t\":1,\"s\":\"ou").unwrap();
        let second = read_part(&path, first.end, 1000).unwrap();
        let texts: Vec<(&str, u64)> = second.pieces.iter().map(|(piece, end)| (piece.text.as_str(), *end)).collect();
        assert_eq!((&texts[..], second.is_last), (&[("two\nthree\n", second.end)][..], true));
        assert_eq!(lines.try_recv().unwrap().kept_to, Some(second.end));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"t\",\"d\":\"four\\n\"}\n").unwrap();
        let third = read_part(&path, second.end, 1000).unwrap();
        assert_eq!(third.pieces[0].0.text, "four\n");
        assert!(read_part(&path, third.end, 1000).unwrap().pieces.is_empty());
        assert!(read_part(&folder.path().join("none"), 7, 1000).unwrap().is_last);
    }

    #[test]
    fn who_watches_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut lines) = mpsc::channel(2);
        let mut writer = writer(folder.path(), Some(sender));
        writer.push(Stream::Err, b"1\n2\n3\n4\n");
        assert_eq!(lines.try_recv().unwrap().text, "1");
        assert_eq!(lines.try_recv().unwrap().text, "2");
        assert!(lines.try_recv().is_err());
        assert_eq!(read_all(folder.path()).len(), 1);
    }
}
