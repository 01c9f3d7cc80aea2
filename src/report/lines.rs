//! One JSON line per note, for programs that watch a run.

use serde_json::{Map, Value, json};

use crate::id::RunId;
use crate::scheduler::{About, Note};
use crate::time::Timestamp;

/// The line of a note, without its newline.
pub fn note_line(run: &RunId, at: Timestamp, note: &Note) -> String {
    let mut object = Map::new();
    match &note.about {
        About::Run(word) => {
            object.insert("type".to_owned(), json!("run"));
            head(&mut object, run, at, note.seq);
            object.insert("status".to_owned(), json!(word));
        }
        About::Unit { path, status, attempt, cached, duration_ms, message } => {
            let (step, item) = path.split_item();
            object.insert("type".to_owned(), json!("step"));
            head(&mut object, run, at, note.seq);
            object.insert("step".to_owned(), json!(step));
            object.insert("status".to_owned(), json!(status.as_str()));
            object.insert("attempt".to_owned(), json!(attempt));
            if let Some(item) = item {
                object.insert("item".to_owned(), json!(item));
            }
            if *cached {
                object.insert("cached".to_owned(), json!(true));
            }
            if let Some(length) = duration_ms {
                object.insert("duration_ms".to_owned(), json!(length));
            }
            if let Some(message) = message {
                object.insert("message".to_owned(), json!(message));
            }
        }
    }
    Value::Object(object).to_string()
}

/// A line about the run that no note carries, such as that it waits.
pub fn run_line(run: &RunId, at: Timestamp, seq: u64, status: &str, waiting: &[String]) -> String {
    let mut object = Map::new();
    object.insert("type".to_owned(), json!("run"));
    head(&mut object, run, at, seq);
    object.insert("status".to_owned(), json!(status));
    if !waiting.is_empty() {
        object.insert("waiting".to_owned(), json!(waiting));
    }
    Value::Object(object).to_string()
}

fn head(object: &mut Map<String, Value>, run: &RunId, at: Timestamp, seq: u64) {
    object.insert("run_id".to_owned(), json!(run.as_str()));
    object.insert("seq".to_owned(), json!(seq));
    object.insert("time".to_owned(), json!(at.to_string()));
}
