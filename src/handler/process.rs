//! Starts a program in a process group of its own, streams what it prints, and ends the whole group when it must.
//!
//! What a program is and what its output means is not known here. A program has ended when its own process has; what
//! it left running in the background lives on, unless the work was stopped.

use std::future::{Future, pending};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::dispatch::{Stop, StopSignal};

/// How long a group may clean up between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// How long the kernel may take to clear a killed group away before it is no longer waited for.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// How long output is waited for that a child of an ended program may still write, such as a `tee`.
const LATE_OUTPUT: Duration = Duration::from_millis(100);
/// The most that is read at once after the end: what a pipe can hold, and not what a busy child goes on writing.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// The most that is read in one call: most programs print less, and large buffers make the heap grow and shrink.
const READ_BYTES: usize = 16 * 1024;

/// Which of its two outputs a program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Out,
    Err,
}

/// A program that is found and whose secrets are filled in.
#[derive(Clone, Debug)]
pub struct Program {
    /// Absolute path.
    pub file: PathBuf,
    /// What the program is told that it is called.
    pub name: String,
    pub arguments: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Absolute path of the working folder.
    pub folder: PathBuf,
    /// What it may read; nothing at all if this is none.
    pub input: Option<Vec<u8>>,
}

/// Takes what a program prints, as it comes.
pub trait Sink: Send {
    /// Takes a piece; `Break` ends the program.
    fn take(&mut self, stream: Stream, bytes: &[u8]) -> ControlFlow<()>;

    /// False while the program should wait before it prints more.
    fn is_ready(&self) -> bool {
        true
    }

    /// Waits until the sink can take more. Nothing is lost if the wait is given up and begun again.
    fn ready(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exited(ExitStatus),
    /// The sink wanted no more, and the group was killed.
    Refused,
    /// The stop signal came, and the group is gone.
    Stopped,
}

/// Runs a program to its end. Dropping the future kills its process group.
///
/// # Errors
/// The system's, if the program cannot be started or watched.
pub async fn perform(program: &Program, sink: &mut dyn Sink, stop: &mut StopSignal) -> io::Result<End> {
    if stop.asked().is_some() {
        return Ok(End::Stopped);
    }
    let (mut group, mut pipes) = start(program)?;
    let status = loop {
        tokio::select! {
            biased;
            how = stop.wait(Stop::Graceful) => {
                group.stop(how, &mut pipes, sink, stop).await;
                return Ok(End::Stopped);
            }
            status = group.child.wait() => break status?,
            flow = pipes.turn(sink) => if flow.is_break() {
                group.stop(Stop::Now, &mut pipes, &mut Nowhere, stop).await;
                return Ok(End::Refused);
            },
        }
    };
    // From here on the group's number may belong to others, so it is never signalled again.
    group.ended = true;
    if pipes.drain(sink).is_break() || pipes.late_output(sink).await.is_break() {
        return Ok(End::Refused);
    }
    Ok(End::Exited(status))
}

fn start(program: &Program) -> io::Result<(Group, Pipes<'_>)> {
    let mut command = Command::new(&program.file);
    command
        .arg0(&program.name)
        .args(&program.arguments)
        .env_clear()
        .envs(program.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&program.folder)
        .stdin(if program.input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own by this call, and not by code between fork and exec, keeps the fast way to start.
        .process_group(0);
    let mut child = command.spawn()?;
    let number = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let pipes = Pipes {
        out: child.stdout.take(),
        err: child.stderr.take(),
        input: child.stdin.take().zip(program.input.as_deref()).filter(|(_, bytes)| !bytes.is_empty()),
        written: 0,
        out_buffer: Vec::new(),
        err_buffer: Vec::new(),
    };
    Ok((Group { child, number, ended: false }, pipes))
}

/// A process and its group, which carries the process's number.
struct Group {
    child: Child,
    number: Option<Pid>,
    /// True once nothing of the group is ours to signal.
    ended: bool,
}

impl Group {
    /// Ends the group, and comes back when it is gone.
    async fn stop(&mut self, how: Stop, pipes: &mut Pipes<'_>, sink: &mut dyn Sink, stop: &mut StopSignal) {
        if how == Stop::Graceful {
            self.signal(Signal::TERM);
            // A process that is held by SIGSTOP would not see the other signal.
            self.signal(Signal::CONT);
            tokio::select! {
                () = self.gone(pipes, sink) => return,
                () = tokio::time::sleep(GRACE) => {}
                _ = stop.wait(Stop::Now) => {}
            }
        }
        self.signal(Signal::KILL);
        // Time runs out only for processes that the kernel holds; the group is killed and will go.
        let _ = tokio::time::timeout(KILL_WAIT, self.gone(pipes, sink)).await;
        self.ended = true;
    }

    /// Comes back when no process of the group is left, and reads on meanwhile so that none waits for its reader.
    async fn gone(&mut self, pipes: &mut Pipes<'_>, sink: &mut dyn Sink) {
        loop {
            tokio::select! {
                _ = self.child.wait() => break,
                _ = pipes.turn(sink) => {}
            }
        }
        let _ = pipes.drain(sink);
        let mut pause = Duration::from_millis(1);
        while self.number.is_some_and(is_alive) {
            let sleep = tokio::time::sleep(pause);
            tokio::pin!(sleep);
            loop {
                tokio::select! {
                    () = &mut sleep => break,
                    _ = pipes.turn(sink) => {}
                }
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        self.ended = true;
    }

    fn signal(&self, signal: Signal) {
        if let Some(number) = self.number {
            // The only error that can come is that nobody is left to hear it.
            let _ = kill_process_group(number, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
        }
    }
}

/// True if a process of the group is left. One that has ended but that its parent has not asked for does not count:
/// in a container without an init process it may stay for ever.
fn is_alive(group: Pid) -> bool {
    test_kill_process_group(group).is_ok() && !only_ended_processes(group)
}

/// Looks the group's processes up in `/proc`; false where there is none.
fn only_ended_processes(group: Pid) -> bool {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return false;
    };
    let group = group.as_raw_nonzero().to_string();
    let mut seen = false;
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let Ok(line) = std::fs::read(entry.path().join("stat")) else {
            continue;
        };
        seen = true;
        // The program's name stands in parentheses and may hold anything: the fields begin behind the last one.
        let line = String::from_utf8_lossy(&line);
        let mut fields = line.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let state = fields.next().unwrap_or_default();
        if fields.nth(1) == Some(group.as_str()) && !matches!(state, "Z" | "X") {
            return false;
        }
    }
    seen
}

/// Our ends of a program's pipes. One that is none is closed.
struct Pipes<'a> {
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    input: Option<(ChildStdin, &'a [u8])>,
    written: usize,
    out_buffer: Vec<u8>,
    err_buffer: Vec<u8>,
}

impl Pipes<'_> {
    /// Waits until one pipe could be read from or written to; for ever if all are closed. Nothing is lost if the wait
    /// is given up.
    async fn turn(&mut self, sink: &mut dyn Sink) -> ControlFlow<()> {
        // What is not read fills the pipe, and a full pipe makes the program wait.
        if !sink.is_ready() {
            sink.ready().await;
        }
        tokio::select! {
            open = read(&mut self.out, &mut self.out_buffer) => {
                if !open {
                    self.out = None;
                }
                give(sink, Stream::Out, &mut self.out_buffer)
            }
            open = read(&mut self.err, &mut self.err_buffer) => {
                if !open {
                    self.err = None;
                }
                give(sink, Stream::Err, &mut self.err_buffer)
            }
            count = write(&mut self.input, self.written) => {
                // A program need not read what it is given: a closed pipe ends the writing and nothing else.
                self.written = self.written.saturating_add(count.unwrap_or(0));
                if count.is_none() || self.input.as_ref().is_some_and(|(_, bytes)| self.written >= bytes.len()) {
                    self.input = None;
                }
                ControlFlow::Continue(())
            }
        }
    }

    /// Reads what is in the pipes now. All that an ended process wrote is there, so this misses none of it and waits
    /// for nothing.
    fn drain(&mut self, sink: &mut dyn Sink) -> ControlFlow<()> {
        if let Some(out) = &self.out
            && drain_one(out, &mut self.out_buffer, Stream::Out, sink)?
        {
            self.out = None;
        }
        if let Some(err) = &self.err
            && drain_one(err, &mut self.err_buffer, Stream::Err, sink)?
        {
            self.err = None;
        }
        ControlFlow::Continue(())
    }

    /// Waits a short time for what children of an ended program may still write.
    async fn late_output(&mut self, sink: &mut dyn Sink) -> ControlFlow<()> {
        self.input = None;
        let late = tokio::time::sleep(LATE_OUTPUT);
        tokio::pin!(late);
        while self.out.is_some() || self.err.is_some() {
            tokio::select! {
                biased;
                () = &mut late => break,
                flow = self.turn(sink) => flow?,
            }
        }
        ControlFlow::Continue(())
    }
}

fn give(sink: &mut dyn Sink, stream: Stream, buffer: &mut Vec<u8>) -> ControlFlow<()> {
    let flow = if buffer.is_empty() { ControlFlow::Continue(()) } else { sink.take(stream, buffer) };
    buffer.clear();
    flow
}

/// Reads once; false when the pipe is at its end.
async fn read(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut Vec<u8>) -> bool {
    let Some(pipe) = pipe else {
        return pending().await;
    };
    if buffer.capacity() < READ_BYTES {
        buffer.reserve(READ_BYTES);
    }
    matches!(pipe.read_buf(buffer).await, Ok(count) if count > 0)
}

/// Writes once; none when nobody reads any more.
async fn write(input: &mut Option<(ChildStdin, &[u8])>, written: usize) -> Option<usize> {
    let Some((pipe, bytes)) = input else {
        return pending().await;
    };
    pipe.write(bytes.get(written..).unwrap_or_default()).await.ok().filter(|count| *count > 0)
}

/// Reads until the pipe holds nothing; true when it is at its end. The runtime's own read would ask the runtime's
/// memory of what is readable, which may lag behind the pipe.
fn drain_one(
    pipe: &impl std::os::fd::AsFd,
    buffer: &mut Vec<u8>,
    stream: Stream,
    sink: &mut dyn Sink,
) -> ControlFlow<(), bool> {
    let mut total = 0;
    buffer.resize(READ_BYTES, 0);
    let ended = loop {
        match rustix::io::read(pipe, buffer.as_mut_slice()) {
            Ok(0) => break true,
            Ok(count) => {
                total += count;
                sink.take(stream, buffer.get(..count).unwrap_or_default())?;
                if total >= DRAIN_BYTES_MAX {
                    break false;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => break false,
            Err(_) => break true,
        }
    };
    buffer.clear();
    ControlFlow::Continue(ended)
}

/// Takes what nobody wants.
struct Nowhere;

impl Sink for Nowhere {
    fn take(&mut self, _stream: Stream, _bytes: &[u8]) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}
