//! Keys, answers and log lines in the messages of the protocol and back.

use crate::dispatch::{LeaseKey, LogStream, Verdict, WorkerLine};
use crate::id::{LeaseToken, RunId, UnitPath};
use crate::proto::v1;

impl From<&LeaseKey> for v1::LeaseKey {
    fn from(key: &LeaseKey) -> Self {
        Self { run_id: key.run.to_string(), unit: key.unit.to_string(), token: key.token.0 }
    }
}

impl From<v1::LeaseKey> for LeaseKey {
    fn from(key: v1::LeaseKey) -> Self {
        Self { run: RunId::new(&key.run_id), unit: UnitPath::new(&key.unit), token: LeaseToken(key.token) }
    }
}

impl From<Verdict> for v1::Verdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Recorded => Self::Recorded,
            Verdict::Stale => Self::Stale,
            Verdict::Unknown => Self::Unknown,
        }
    }
}

impl From<v1::Verdict> for Verdict {
    /// A verdict of a later version is none that a worker may forget its outcome for.
    fn from(verdict: v1::Verdict) -> Self {
        match verdict {
            v1::Verdict::Recorded => Self::Recorded,
            v1::Verdict::Stale => Self::Stale,
            v1::Verdict::Unknown | v1::Verdict::Unspecified => Self::Unknown,
        }
    }
}

impl From<&WorkerLine> for v1::LogLine {
    fn from(line: &WorkerLine) -> Self {
        let stream = match line.stream {
            LogStream::Out => v1::Stream::Out,
            LogStream::Err => v1::Stream::Err,
            LogStream::Note => v1::Stream::Note,
        };
        Self {
            key: Some((&line.key).into()),
            attempt: line.attempt,
            stream: stream.into(),
            text: line.text.clone(),
            at_ms: line.at_ms,
        }
    }
}

impl WorkerLine {
    /// A line out of a message; none if it does not say what it belongs to.
    pub fn from_message(line: v1::LogLine) -> Option<Self> {
        let stream = match line.stream() {
            v1::Stream::Out => LogStream::Out,
            v1::Stream::Err => LogStream::Err,
            v1::Stream::Note | v1::Stream::Unspecified => LogStream::Note,
        };
        let key = LeaseKey::from(line.key?);
        Some(Self { key, attempt: line.attempt, stream, text: line.text, at_ms: line.at_ms })
    }
}
