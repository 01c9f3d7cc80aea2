//! From a record to a task, or to the reason why it cannot be done.

use crate::dispatch::LeaseKey;
use crate::dispatch::kafka::{Received, decode, is_expired, lease_key, now_ms};
use crate::proto::{Undecodable, v1};
use crate::task::Task;

/// How often a message is tried before it goes to the dead letters.
pub(super) const TRIES: u32 = 3;

/// What a record turned out to be.
pub(super) enum Taken {
    Task(Box<Task>),
    /// It came too late to be of use.
    Expired,
    /// It cannot be done here. With its key, if that could be read: then the scheduler is told.
    Dead {
        reason: String,
        key: Option<LeaseKey>,
    },
}

/// Reads a record. What cannot be read is tried again, since a reader may stand on something that comes and goes.
pub(super) fn take(record: &Received) -> Taken {
    let mut dead = Taken::Expired;
    for _ in 0..TRIES {
        match read(record) {
            Ok(taken) => return taken,
            Err((error, key)) => dead = Taken::Dead { reason: error.to_string(), key },
        }
    }
    dead
}

fn read(record: &Received) -> Result<Taken, (Undecodable, Option<LeaseKey>)> {
    let envelope = decode(record).map_err(|error| (error, None))?;
    if is_expired(&envelope, now_ms()) {
        return Ok(Taken::Expired);
    }
    let key = lease_key(envelope.key).ok();
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
        ) => return Err((Undecodable::new("the payload is no task"), key)),
        None => return Err((Undecodable::missing("payload"), key)),
    };
    let key = key.or_else(|| lease_key(task.key.clone()).ok());
    match Task::try_from(task) {
        Ok(task) => Ok(Taken::Task(Box::new(task))),
        Err(error) => Err((error, key)),
    }
}
