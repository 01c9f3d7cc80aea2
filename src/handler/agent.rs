//! Calls an agent: chooses the provider, and carries request and answer.

use std::future::Future;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::dispatch::StopSignal;
use crate::handler::capture::Tail;
use crate::handler::context::WorkerContext;
use crate::handler::environment::{environment, find_program, start_failure};
use crate::handler::process::{self, End, Program, Sink, Stream};
use crate::handler::redact::StreamRedactor;
use crate::handler::run::exit_failure;
use crate::handler::{logs, outputs};
use crate::llm::{Answer, command};
use crate::task::{AgentCall, ErrorClass, Failure, Outcome, Provider, Task, Usage};

/// Calls an agent once.
pub async fn call(task: &Task, call: &AgentCall, context: &WorkerContext, stop: &mut StopSignal) -> Outcome {
    let result = match &call.provider {
        Provider::Command { argv, dir } => by_command(task, call, argv, dir, context, stop).await,
    };
    result.unwrap_or_else(Outcome::failed)
}

async fn by_command(
    task: &Task,
    call: &AgentCall,
    argv: &[String],
    dir: &str,
    context: &WorkerContext,
    stop: &mut StopSignal,
) -> Result<Outcome, Failure> {
    let program = program_of(task, call, argv, dir, context)?;
    let redactor = context.secrets.redactor();
    let mut record = Record {
        answer: Vec::new(),
        stderr: Tail::default(),
        redact: StreamRedactor::new(redactor.clone()),
        log: logs::Writer::new(task, context),
    };
    let end = process::perform(&program, &mut record, stop).await;
    record.finish();
    record.log.flush().await;
    let status = match end {
        Ok(End::Exited(status)) => status,
        Ok(End::Stopped) => return Ok(Outcome::Stopped),
        Ok(End::Refused) => return Err(Failure::permanent("the agent's answer is larger than 10 MB")),
        Err(error) => return Err(start_failure(&error, &program)),
    };
    let stdout = redactor.bytes(&record.answer);
    let stderr = record.stderr.text();
    let failed = |mut failure: Failure, usage: Option<Usage>| {
        failure.stderr.clone_from(&stderr);
        Outcome::Failed { failure, usage }
    };
    if let Some(mut failure) = exit_failure(status, &[]) {
        if status.code().is_some_and(|code| code != command::TEMPORARY_EXIT_CODE) {
            failure.class = ErrorClass::Permanent;
        }
        // A call that failed may have cost tokens all the same.
        let usage = command::answer(&stdout).ok().and_then(|answer| answer.usage);
        return Ok(failed(failure, usage));
    }
    Ok(match command::answer(&stdout) {
        Ok(answer) => success(&answer, status.code(), stderr),
        Err(mut failure) => {
            failure.exit_code = status.code();
            failure.message =
                format!("{}; it begins `{}`", failure.message, outputs::start_of(&String::from_utf8_lossy(&stdout)));
            failed(failure, None)
        }
    })
}

fn success(answer: &Answer, exit_code: Option<i32>, stderr: Option<String>) -> Outcome {
    let outputs = Arc::new(answer.to_outputs());
    Outcome::Succeeded { outputs, exit_code, stderr, usage: answer.usage, cached: false }
}

fn program_of(
    task: &Task,
    call: &AgentCall,
    argv: &[String],
    dir: &str,
    context: &WorkerContext,
) -> Result<Program, Failure> {
    let env = environment(task, &call.env, &[], context)?;
    let folder = PathBuf::from(dir);
    let Some((name, arguments)) = argv.split_first() else {
        return Err(Failure::permanent(format!("the command of agent `{}` is empty", call.agent)));
    };
    let file = find_program(name, &folder, &env)?;
    let deadline_ms =
        task.deadline.map(|deadline| u64::try_from(deadline.since(logs::now()).as_millis()).unwrap_or(u64::MAX).max(1));
    Ok(Program {
        file,
        name: name.clone(),
        arguments: arguments.to_vec(),
        env: env.into_iter().collect(),
        folder,
        input: Some(command::request(call, &task.idempotency_key, deadline_ms)),
    })
}

/// Keeps the answer, and logs what is said beside it.
struct Record {
    answer: Vec<u8>,
    stderr: Tail,
    redact: StreamRedactor,
    log: logs::Writer,
}

impl Record {
    fn finish(&mut self) {
        let Self { stderr, redact, log, .. } = self;
        redact.finish(&mut |bytes| {
            log.push(Stream::Err, bytes);
            stderr.push(bytes);
        });
        log.finish();
    }
}

impl Sink for Record {
    fn is_ready(&self) -> bool {
        self.log.is_ready()
    }

    fn ready(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.log.flush())
    }

    fn take(&mut self, stream: Stream, bytes: &[u8]) -> ControlFlow<()> {
        let Self { answer, stderr, redact, log } = self;
        match stream {
            Stream::Out if answer.len() + bytes.len() > command::ANSWER_BYTES_MAX => return ControlFlow::Break(()),
            Stream::Out => answer.extend_from_slice(bytes),
            Stream::Err => redact.push(bytes, &mut |bytes| {
                log.push(Stream::Err, bytes);
                stderr.push(bytes);
            }),
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
