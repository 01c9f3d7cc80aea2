//! The runs service: what callers ask over the network, in the words of `proto/tol/v1/runs.proto`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::Stream;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::gateway::Caller;
use crate::handler::LogLine;
use crate::handler::process::Stream as Printed;
use crate::id::UnitPath;
use crate::journal::{ListFilter, RunRow};
use crate::proto::v1;
use crate::proto::v1::runs_server::Runs;
use crate::proto::v1::steer_request::Command;
use crate::runtime::{ControlCommand, RuntimeError};
use crate::scheduler::{Decision, Settlement};
use crate::server::core::Core;
use crate::server::error::status_of;
use crate::server::hall::End;
use crate::server::kept::{Kept, Place};
use crate::server::submit::submit;
use crate::server::tail::{Line, Tail};
use crate::server::views::{LogsFound, each_log_line, find_run, history_text, row_object, show_object, show_text};
use crate::time::Timestamp;

/// How many lines wait for a caller who reads slowly.
const STREAM_LINES: usize = 64;
/// How many runs one list has at most.
const MOST_LISTED: u64 = 10_000;
/// Log lines go in pieces of about this size.
const LOG_PIECE_BYTES: usize = 64 * 1024;
/// Longer names of callers are cut.
const LONGEST_NAME: usize = 200;

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service over a server's core.
#[derive(Clone)]
pub struct RunsService {
    pub core: Arc<Core>,
    /// Ends the streams when the server goes away.
    pub ending: CancellationToken,
}

impl RunsService {
    /// Asks the journal away from the threads that serve connections.
    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Core) -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, Status> {
        let core = self.core.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&core)).await;
        answer
            .map_err(|_| Status::internal("the request ended by a fault of tol itself"))?
            .map_err(|error| status_of(&error))
    }

    async fn find(&self, run: String) -> Result<RunRow, Status> {
        self.ask(move |core| find_run(&*core.journal, &run)).await
    }
}

#[tonic::async_trait]
impl Runs for RunsService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        Ok(Response::new(submit(&self.core, request.into_inner()).await?))
    }

    async fn list(&self, request: Request<v1::ListRequest>) -> Result<Response<v1::ListResponse>, Status> {
        let asked = request.into_inner();
        let word = |text: String| (!text.is_empty()).then_some(text);
        let limit = match asked.limit {
            0 => MOST_LISTED,
            limit => u64::from(limit).min(MOST_LISTED),
        };
        let filter = ListFilter { status: word(asked.status), pipeline: word(asked.pipeline), limit: Some(limit) };
        let runs = self
            .ask(move |core| {
                let now = core.now();
                Ok(core.journal.list(&filter)?.iter().map(|row| row_object(row, now)).collect::<Vec<Value>>())
            })
            .await?;
        Ok(Response::new(v1::ListResponse { runs_json: Value::Array(runs).to_string() }))
    }

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        let v1::GetRequest { run, history } = request.into_inner();
        let row = self.find(run).await?;
        let answer = self
            .ask(move |core| {
                let rebuilt = core.rebuild(&row.run, &mut |_, _| {})?;
                Ok(v1::GetResponse {
                    run_id: row.run.to_string(),
                    run_json: show_object(&rebuilt.row, &rebuilt.state, core.now()).to_string(),
                    text: show_text(&rebuilt.row, &rebuilt.state),
                    history: if history { history_text(&rebuilt.history) } else { String::new() },
                })
            })
            .await?;
        Ok(Response::new(answer))
    }

    type WatchStream = Streamed<v1::WatchEvent>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let asked = request.into_inner();
        let run = self.find(asked.run).await?.run;
        let core = self.core.clone();
        let kept = match asked.read {
            Some(read) => {
                let place = |place: v1::LogPlace| {
                    let v1::LogPlace { unit, attempt, end, lines } = place;
                    ((UnitPath::new(&unit), attempt), Place { end, lines })
                };
                Kept::behind(core.state_dir.clone(), run.clone(), read.places.into_iter().map(place).collect())
            }
            None => Kept::since(core.state_dir.clone(), run.clone(), asked.from_seq),
        };
        let tail = Tail {
            changes: core.journal.subscribe(),
            journal: core.journal.clone(),
            hall: Some(core.hall.clone()),
            rebuild: Arc::new(move |run, see| core.rebuild(run, see)),
            run,
            from: asked.from_seq,
            logs: asked.logs.then_some(kept),
            last: Timestamp(0),
        };
        let (lines, mut inbox) = mpsc::channel(STREAM_LINES);
        let (out, stream) = mpsc::channel(1);
        let ending = self.ending.clone();
        tokio::spawn(async move {
            let follow = async {
                let told = async {
                    while let Some(line) = inbox.recv().await {
                        if out.send(Ok(watch_event(line))).await.is_err() {
                            return;
                        }
                    }
                };
                let (result, ()) = tokio::join!(tail.follow(lines), told);
                result
            };
            let fate = tokio::select! {
                result = follow => result.map_err(|error| status_of(&error)),
                () = ending.cancelled() => Err(Status::unavailable("the server is going away; the run goes on with the next one")),
            };
            if let Err(status) = fate {
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn steer(&self, request: Request<v1::SteerRequest>) -> Result<Response<v1::SteerResponse>, Status> {
        let caller = request.extensions().get::<Caller>().and_then(|caller| caller.name.clone());
        let asked = request.into_inner();
        let said = asked.by.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect::<String>();
        let by = match caller {
            Some(name) => name,
            None if said.is_empty() => "unknown".to_owned(),
            None => said,
        };
        let command = command_of(asked.command, by)?;
        let run = self.find(asked.run).await?.run;
        let reply = self.core.steer(&run, command).await.map_err(|error| status_of(&error))?;
        Ok(Response::new(v1::SteerResponse { run_id: run.to_string(), same: reply.same }))
    }

    type LogsStream = Streamed<v1::LogChunk>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let v1::LogsRequest { run, step } = request.into_inner();
        let run = self.find(run).await?.run;
        let (out, stream) = mpsc::channel(STREAM_LINES);
        let core = self.core.clone();
        tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            let send = |text: &mut String| {
                let chunk = v1::LogChunk { text: std::mem::take(text) };
                out.blocking_send(Ok(chunk)).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
            };
            let wanted = (!step.is_empty()).then_some(step.as_str());
            let found = each_log_line(&*core.journal, &core.state_dir, &run, wanted, &mut |line| {
                text.push_str(&line);
                text.push('\n');
                if text.len() < LOG_PIECE_BYTES { Ok(()) } else { send(&mut text) }
            });
            let fate = match found {
                Ok(LogsFound::Lines) if text.is_empty() => return,
                Ok(LogsFound::Lines) => return drop(send(&mut text)),
                Ok(LogsFound::Nothing) => return,
                Ok(LogsFound::NoSuchStep) => Status::not_found(format!("`{step}` is not a step of run {run}")),
                Err(error) => Status::internal(format!("the log cannot be read: {error}")),
            };
            // Who asked may have gone.
            let _ = out.blocking_send(Err(fate));
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn pipelines(&self, _: Request<v1::PipelinesRequest>) -> Result<Response<v1::PipelinesResponse>, Status> {
        let Some(served) = self.core.served.get() else {
            return Err(Status::unavailable("the pipelines are being read; try again in a moment"));
        };
        let set = served.set();
        let pipelines = set.iter().flat_map(|set| set.programs()).map(|program| v1::Served {
            name: program.root.pipeline.name.value.to_string(),
            path: program.root.pipeline.path.to_string(),
            definition_hash: program.hash.to_string(),
        });
        let pipelines = pipelines.collect();
        let problems = served.problems().map(|problems| problems.text(false)).unwrap_or_default();
        let loaded_at_ms = set.map_or(0, |set| millis(set.loaded_at));
        Ok(Response::new(v1::PipelinesResponse { pipelines, loaded_at_ms, problems }))
    }
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn command_of(command: Option<Command>, by: String) -> Result<ControlCommand, Status> {
    match command {
        Some(Command::Cancel(v1::Cancel {})) => Ok(ControlCommand::Cancel { by }),
        Some(Command::Pause(v1::Pause {})) => Ok(ControlCommand::Pause { by }),
        Some(Command::Unpause(v1::Unpause {})) => Ok(ControlCommand::Unpause { by }),
        Some(Command::Decide(v1::Decide { step, approve, comment })) => {
            let decision = if approve { Decision::Approved } else { Decision::Rejected };
            Ok(ControlCommand::Decide { unit: UnitPath::new(&step), decision, by, comment })
        }
        Some(Command::Settle(v1::Settle { step, outcome })) => {
            let settlement = match outcome.as_str() {
                "succeeded" => Settlement::Succeeded,
                "failed" => Settlement::Failed,
                "retry" => Settlement::Retry,
                other => {
                    let words = format!("`{other}` is no outcome: write succeeded, failed or retry");
                    return Err(Status::invalid_argument(words));
                }
            };
            Ok(ControlCommand::Settle { unit: UnitPath::new(&step), settlement, by })
        }
        None => Err(Status::invalid_argument("the request names no command")),
    }
}

fn watch_event(line: Line) -> v1::WatchEvent {
    let empty = v1::WatchEvent { line_json: String::new(), last: false, text: String::new(), log: None, log_end: 0 };
    match line {
        Line::Note(line) | Line::Waiting(line) => v1::WatchEvent { line_json: line, ..empty },
        Line::Log(line) => {
            v1::WatchEvent { log: Some(log_line(&line)), log_end: line.kept_to.unwrap_or_default(), ..empty }
        }
        Line::End(end) => {
            let End { summary, text } = (*end).clone();
            v1::WatchEvent { line_json: summary, last: true, text, ..empty }
        }
    }
}

fn log_line(line: &LogLine) -> v1::LogLine {
    let stream = match line.stream {
        Printed::Out => v1::Stream::Out,
        Printed::Err => v1::Stream::Err,
    };
    let key = v1::LeaseKey { run_id: line.run.to_string(), unit: line.unit.to_string(), token: 0 };
    v1::LogLine {
        key: Some(key),
        attempt: line.attempt,
        stream: stream.into(),
        text: line.text.clone(),
        at_ms: line.at.0,
    }
}
