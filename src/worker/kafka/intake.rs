//! From a record to a task, or to the reason why it cannot be done.

use crate::artifact::{Store, load_task};
use crate::dispatch::LeaseKey;
use crate::dispatch::kafka::{Received, decode, now};
use crate::proto::{EnvelopeError, Undecodable, expired, key_from_wire, v1};
use crate::task::Task;

/// How often a message is tried before it goes to the dead letters.
pub(super) const TRIES: u32 = 3;

/// The code of a task whose message can be read and whose work cannot.
const UNREADABLE_WORK: &str = "UNDECODABLE";

/// What a record turned out to be.
pub(super) enum Taken {
    /// A task, and the name of the message that it came in.
    Task(Box<Task>, String),
    /// It came too late to be of use.
    Expired,
    /// It cannot be done here. With its key, if that could be read: then the scheduler is told.
    Dead { reason: String, code: &'static str, key: Option<LeaseKey>, command: String },
}

/// Reads a record. What cannot be read is tried again: its work may lie in a store that comes and goes. It may wait for
/// that store.
pub(super) fn take(record: &Received, store: Option<&dyn Store>) -> Taken {
    let mut dead = Taken::Expired;
    for _ in 0..TRIES {
        match read(record, store) {
            Ok(taken) => return taken,
            Err(Unread { reason, code, about }) => {
                let (key, command) = about.map_or((None, String::new()), |(key, command)| (Some(key), command));
                dead = Taken::Dead { reason, code, key, command };
            }
        }
    }
    dead
}

/// Why a record cannot be read, and what it was about if that is known.
struct Unread {
    reason: String,
    /// The name of it that programs may rely on.
    code: &'static str,
    about: Option<(LeaseKey, String)>,
}

impl Unread {
    fn envelope(error: &EnvelopeError) -> Self {
        Self { reason: error.to_string(), code: error.code(), about: None }
    }
}

fn read(record: &Received, store: Option<&dyn Store>) -> Result<Taken, Unread> {
    let envelope = decode(record).map_err(|error| Unread::envelope(&error))?;
    if expired(&envelope, now()) {
        return Ok(Taken::Expired);
    }
    let command = envelope.id;
    let task = match envelope.payload {
        Some(v1::envelope::Payload::Task(task)) => task,
        Some(
            v1::envelope::Payload::Outcome(_)
            | v1::envelope::Payload::Heartbeat(_)
            | v1::envelope::Payload::Stop(_)
            | v1::envelope::Payload::Error(_)
            | v1::envelope::Payload::Log(_)
            | v1::envelope::Payload::Receipt(_)
            | v1::envelope::Payload::Json(_),
        ) => return Err(Unread::envelope(&Undecodable::new("the payload is no task").into())),
        None => return Err(Unread::envelope(&Undecodable::missing("payload").into())),
    };
    let key = key_from_wire(task.key.clone().or(envelope.key)).ok();
    match load_task(task, store) {
        Ok(task) => Ok(Taken::Task(Box::new(task), command)),
        Err(error) => {
            let about = key.map(|(run, unit, token)| (LeaseKey { run, unit, token }, command));
            Err(Unread { reason: error.to_string(), code: UNREADABLE_WORK, about })
        }
    }
}
