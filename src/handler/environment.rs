//! What a program finds when it starts: its environment, and its own file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::handler::context::WorkerContext;
use crate::handler::folders;
use crate::handler::process::Program;
use crate::handler::secrets::VARIABLE_PREFIX;
use crate::task::{Failure, Task, Text};

/// What every program gets of the caller's environment.
const ALWAYS_INHERITED: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];
/// Where programs are looked for if the caller has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";
/// The largest single argument or variable that Linux takes, in bytes.
const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// The environment of one attempt. What the task names goes over what is inherited, and `TOL_…` over both.
///
/// # Errors
/// A permanent failure for a secret that is not set and for a name or value that no environment can hold; a transient
/// one if the step's folder for artifacts cannot be made.
pub fn environment(
    task: &Task,
    named: &[(String, Text)],
    inherited: &[String],
    context: &WorkerContext,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]);
    for name in ALWAYS_INHERITED.into_iter().chain(inherited.iter().map(String::as_str)) {
        if let Some(value) = context.caller_env.get(name) {
            if name.starts_with(VARIABLE_PREFIX) {
                context.secrets.remember(value);
            }
            env.insert(name.to_owned(), value.clone());
        }
    }
    for (name, text) in named {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Failure::permanent(format!("`{name}` cannot be the name of an environment variable")));
        }
        env.insert(name.clone(), context.secrets.fill(text)?);
    }
    let artifacts = folders::artifacts_folder(&context.state_folder, &task.run, &task.unit);
    folders::ensure_folder(&artifacts).map_err(|error| folder_failure(&artifacts, &error))?;
    let (step, item) = task.unit.split_item();
    env.insert("TOL_RUN_ID".to_owned(), task.run.to_string());
    env.insert("TOL_STEP".to_owned(), step.to_owned());
    if let Some(item) = item {
        env.insert("TOL_ITEM".to_owned(), item.to_string());
    }
    env.insert("TOL_ATTEMPT".to_owned(), task.attempt.to_string());
    env.insert("TOL_IDEMPOTENCY_KEY".to_owned(), task.idempotency_key.clone());
    env.insert("TOL_ARTIFACTS".to_owned(), artifacts.to_string_lossy().into_owned());
    for (name, value) in &env {
        if value.contains('\0') {
            return Err(Failure::permanent(format!(
                "the value of `{name}` holds a NUL character, which no environment variable can"
            )));
        }
    }
    Ok(env)
}

/// The failure of a folder or file of the run that cannot be made: another try may find room.
pub fn folder_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::transient(format!("cannot write {}: {error}", path.display()))
}

/// Finds a program by its name: relative to the working folder if the name has a slash, else along `PATH`.
///
/// # Errors
/// A permanent failure that names the program or the folder.
pub fn find_program(name: &str, folder: &Path, env: &BTreeMap<String, String>) -> Result<PathBuf, Failure> {
    if !folder.is_dir() {
        let what = if folder.exists() { "is not a folder" } else { "does not exist" };
        return Err(Failure::permanent(format!("the working folder `{}` {what}", folder.display())));
    }
    if name.is_empty() || name.contains('\0') {
        return Err(Failure::permanent(format!("`{name}` cannot be the name of a program")));
    }
    if name.contains('/') {
        let file = folder.join(name);
        return match kind_of(&file) {
            Kind::Program => Ok(file),
            Kind::Other(why) => Err(Failure::permanent(format!("cannot start `{name}`: it {why}"))),
            Kind::Absent => {
                Err(Failure::permanent(format!("cannot start `{name}`: there is no such file in {}", folder.display())))
            }
        };
    }
    let mut other = None;
    for entry in env.get("PATH").map(String::as_str).unwrap_or_default().split(':') {
        let file = folder.join(entry).join(name);
        match kind_of(&file) {
            Kind::Program => return Ok(file),
            Kind::Other(why) => {
                other.get_or_insert_with(|| format!("cannot start `{name}`: {} {why}", file.display()));
            }
            Kind::Absent => {}
        }
    }
    Err(Failure::permanent(
        other.unwrap_or_else(|| format!("cannot start `{name}`: there is no program of this name in PATH")),
    ))
}

enum Kind {
    Program,
    Other(&'static str),
    Absent,
}

fn kind_of(file: &Path) -> Kind {
    match std::fs::metadata(file) {
        Ok(about) if about.is_dir() => Kind::Other("is a folder"),
        Ok(about) if !about.is_file() => Kind::Other("is not a file"),
        Ok(_) if rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_err() => {
            Kind::Other("is not executable; `chmod +x` makes it so")
        }
        Ok(_) => Kind::Program,
        Err(_) => Kind::Absent,
    }
}

/// The failure of a program that was found but could not be started.
pub fn start_failure(error: &io::Error, program: &Program) -> Failure {
    use rustix::io::Errno;
    let name = &program.name;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::TOOBIG) => Failure::permanent(too_long_message(program)),
        Some(Errno::NOEXEC) => Failure::permanent(format!(
            "cannot start `{name}`: it is not a program that this system can run; a script needs a first line such as \
             `#!/bin/sh`"
        )),
        Some(Errno::NOENT) => Failure::permanent(format!(
            "cannot start `{name}`: the file, its working folder, or the interpreter that its first line names is gone"
        )),
        Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::TXTBSY) => {
            Failure::transient(format!("cannot start `{name}` now: {error}"))
        }
        Some(_) | None => Failure::permanent(format!("cannot start `{name}`: {error}")),
    }
}

fn too_long_message(program: &Program) -> String {
    let variables =
        program.env.iter().map(|(name, value)| (format!("the value of `{name}`"), name.len() + value.len() + 1));
    let arguments = program.arguments.iter().enumerate();
    let arguments = arguments.map(|(index, argument)| (format!("argument {}", index + 1), argument.len()));
    let (what, length) = variables.chain(arguments).max_by_key(|(_, length)| *length).unwrap_or_default();
    let name = &program.name;
    if length > ARGUMENT_BYTES_MAX {
        format!(
            "cannot start `{name}`: {what} is too long ({length} bytes; the system takes 128 KiB): hand large data over \
             in a file"
        )
    } else {
        format!(
            "cannot start `{name}`: its arguments and environment together are too long for the system: hand large \
             data over in a file"
        )
    }
}
