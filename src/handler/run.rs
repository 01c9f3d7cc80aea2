//! The `run` action: a script for a shell, or a program with arguments.

use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::dispatch::StopSignal;
use crate::handler::capture::{Capture, Captured, Tail};
use crate::handler::context::WorkerContext;
use crate::handler::environment::{environment, find_program, folder_failure, start_failure};
use crate::handler::process::{End, Program, Sink, Stream};
use crate::handler::redact::{Redactor, StreamRedactor};
use crate::handler::{folders, logs, outputs, process};
use crate::task::{Command, Failure, Outcome, Script, Shell, Task};

/// A longer script is handed to its shell as a file: Linux takes no argument of 128 KiB.
const SCRIPT_ARGUMENT_BYTES_MAX: usize = 100 * 1000;

/// Runs a script to its end.
pub async fn run(task: &Task, script: &Script, context: &WorkerContext, stop: &mut StopSignal) -> Outcome {
    match attempt(task, script, context, stop).await {
        Ok(outcome) => outcome,
        Err(failure) => Outcome::failed(failure),
    }
}

async fn attempt(
    task: &Task,
    script: &Script,
    context: &WorkerContext,
    stop: &mut StopSignal,
) -> Result<Outcome, Failure> {
    let mut env = environment(task, &script.env, &script.inherit_env, context)?;
    let mut files = Files::new(task, context)?;
    env.insert("TOL_OUTPUT".to_owned(), files.pairs.to_string_lossy().into_owned());
    let program = program_of(script, env, &mut files)?;
    let redactor = context.secrets.redactor();
    let stdout_file = folders::stdout_file(&context.state_folder, &task.run, &task.unit, task.attempt);
    let capture = if script.json {
        Capture::dropping(outputs::JSON_BYTES_MAX)
    } else {
        Capture::spilling(usize::try_from(script.max_output).unwrap_or(usize::MAX), stdout_file)
    };
    let mut record = Record::new(capture, logs::Writer::new(task, context), redactor.clone());
    let end = process::perform(&program, &mut record, stop).await;
    record.finish();
    record.log.flush().await;
    let status = match end {
        Ok(End::Exited(status)) => status,
        Ok(End::Stopped | End::Refused) => return Ok(Outcome::Stopped),
        Err(error) => return Err(start_failure(&error, &program)),
    };
    let stderr = record.stderr.text();
    if let Some(mut failure) = exit_failure(status, &script.permanent_exit_codes) {
        failure.stderr = stderr;
        return Err(failure);
    }
    let value = value_of(script, record.capture, &files, &redactor).map_err(|mut failure| {
        failure.stderr.clone_from(&stderr);
        failure.exit_code = status.code();
        failure
    })?;
    Ok(Outcome::Succeeded { outputs: Arc::new(value), exit_code: status.code(), stderr, usage: None, cached: false })
}

/// The failure that an exit code or a signal stands for; none for exit code 0.
pub fn exit_failure(status: ExitStatus, permanent_exit_codes: &[i32]) -> Option<Failure> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => {
            let message = format!("exit code {code}");
            let mut failure = if permanent_exit_codes.contains(&code) {
                Failure::permanent(message)
            } else {
                Failure::transient(message)
            };
            failure.exit_code = Some(code);
            Some(failure)
        }
        (None, Some(signal)) => Some(Failure::transient(format!("killed by signal {signal}{}", signal_name(signal)))),
        (None, None) => Some(Failure::transient("ended without an exit code")),
    }
}

fn signal_name(signal: i32) -> &'static str {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, " (SIGHUP)"),
        (Signal::INT, " (SIGINT)"),
        (Signal::QUIT, " (SIGQUIT)"),
        (Signal::ILL, " (SIGILL)"),
        (Signal::TRAP, " (SIGTRAP)"),
        (Signal::ABORT, " (SIGABRT)"),
        (Signal::BUS, " (SIGBUS)"),
        (Signal::FPE, " (SIGFPE)"),
        (Signal::KILL, " (SIGKILL)"),
        (Signal::USR1, " (SIGUSR1)"),
        (Signal::SEGV, " (SIGSEGV)"),
        (Signal::USR2, " (SIGUSR2)"),
        (Signal::PIPE, " (SIGPIPE)"),
        (Signal::ALARM, " (SIGALRM)"),
        (Signal::TERM, " (SIGTERM)"),
        (Signal::XCPU, " (SIGXCPU)"),
        (Signal::XFSZ, " (SIGXFSZ)"),
        (Signal::SYS, " (SIGSYS)"),
    ];
    names.into_iter().find(|(known, _)| known.as_raw() == signal).map_or("", |(_, name)| name)
}

fn program_of(script: &Script, env: BTreeMap<String, String>, files: &mut Files) -> Result<Program, Failure> {
    let folder = PathBuf::from(&script.dir);
    let (name, arguments) = match &script.command {
        Command::Shell { shell, script } => {
            let (name, options): (_, &[&str]) = match shell {
                Shell::Sh => ("sh", &["-eu"]),
                Shell::Bash => ("bash", &["-euo", "pipefail"]),
            };
            let mut arguments: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
            if script.len() > SCRIPT_ARGUMENT_BYTES_MAX {
                arguments.push(files.write_script(script)?);
            } else {
                arguments.extend(["-c".to_owned(), script.clone()]);
            }
            (name.to_owned(), arguments)
        }
        Command::Argv(argv) => match argv.split_first() {
            Some((name, arguments)) => (name.clone(), arguments.to_vec()),
            None => return Err(Failure::permanent("there is no program to start: the list is empty")),
        },
    };
    if let Some(index) = arguments.iter().position(|argument| argument.contains('\0')) {
        return Err(Failure::permanent(format!(
            "argument {} of `{name}` holds a NUL character, which no argument can",
            index + 1
        )));
    }
    let file = find_program(&name, &folder, &env)?;
    Ok(Program { file, name, arguments, env: env.into_iter().collect(), folder, input: None })
}

/// The files that live as long as an attempt; they are gone when this is dropped.
struct Files {
    pairs: PathBuf,
    script: Option<PathBuf>,
}

impl Files {
    fn new(task: &Task, context: &WorkerContext) -> Result<Self, Failure> {
        let folder = folders::temporary_folder(&context.state_folder, &task.run);
        let name = folders::file_name(task.unit.as_str());
        let pairs = folder.join(format!("{name}.{}.{}.output", task.attempt, task.token.0));
        // The folder is there for every script of a run but the first, so the file is tried before the folder. A
        // file that is there already is what a crash left behind, and must be empty.
        let made = File::create(&pairs).or_else(|_| {
            folders::ensure_folder(&folder)?;
            File::create(&pairs)
        });
        made.map_err(|error| folder_failure(&pairs, &error))?;
        Ok(Self { pairs, script: None })
    }

    /// Keeps a script as a file, and gives its path.
    fn write_script(&mut self, script: &str) -> Result<String, Failure> {
        let path = self.script.insert(self.pairs.with_extension("script"));
        std::fs::write(&path, script).map_err(|error| folder_failure(path, &error))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A program may have removed its file itself.
        let _ = std::fs::remove_file(&self.pairs);
        if let Some(script) = &self.script {
            let _ = std::fs::remove_file(script);
        }
    }
}

fn value_of(script: &Script, capture: Capture, files: &Files, redactor: &Redactor) -> Result<Value, Failure> {
    let pairs = read_pairs(&files.pairs, redactor)?;
    let value = match capture.end()? {
        Captured::Whole(bytes) if script.json => outputs::json_of(&bytes)?,
        Captured::Whole(bytes) => json!({"text": outputs::text_of(&bytes)}),
        Captured::File(path) => json!({"stdout_file": path.to_string_lossy()}),
        Captured::Dropped => {
            return Err(Failure::permanent(
                "`outputs: json`: more than 10 MB were printed on standard output; print less, or keep the data in a \
                 file of $TOL_ARTIFACTS and print its name",
            ));
        }
    };
    outputs::join(value, pairs)
}

fn read_pairs(path: &Path, redactor: &Redactor) -> Result<Map<String, Value>, Failure> {
    let about = match std::fs::symlink_metadata(path) {
        Ok(about) => about,
        // A script may remove its file; then it has no pairs.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(Failure::transient(format!("cannot read what was written to TOL_OUTPUT: {error}"))),
    };
    if !about.is_file() {
        return Err(Failure::permanent("TOL_OUTPUT was replaced by something that is no file"));
    }
    if about.len() == 0 {
        return Ok(Map::new());
    }
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(outputs::PAIRS_BYTES_MAX + 1).read_to_end(&mut content))
        .map_err(|error| Failure::transient(format!("cannot read what was written to TOL_OUTPUT: {error}")))?;
    if content.len() as u64 > outputs::PAIRS_BYTES_MAX {
        return Err(Failure::permanent("more than 1 MiB was written to TOL_OUTPUT"));
    }
    outputs::pairs_of(&redactor.bytes(&content))
}

/// Takes what a program prints: takes secrets out, logs, and keeps what becomes the step's outputs.
struct Record {
    out: StreamRedactor,
    err: StreamRedactor,
    log: logs::Writer,
    capture: Capture,
    stderr: Tail,
}

impl Record {
    fn new(capture: Capture, log: logs::Writer, redactor: Arc<Redactor>) -> Self {
        let (out, err) = (StreamRedactor::new(redactor.clone()), StreamRedactor::new(redactor));
        Self { out, err, log, capture, stderr: Tail::default() }
    }

    fn finish(&mut self) {
        let Self { out, err, log, capture, stderr } = self;
        out.finish(&mut |bytes| {
            log.push(Stream::Out, bytes);
            capture.push(bytes);
        });
        err.finish(&mut |bytes| {
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
        let Self { out, err, log, capture, stderr } = self;
        match stream {
            Stream::Out => out.push(bytes, &mut |bytes| {
                log.push(Stream::Out, bytes);
                capture.push(bytes);
            }),
            Stream::Err => err.push(bytes, &mut |bytes| {
                log.push(Stream::Err, bytes);
                stderr.push(bytes);
            }),
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
