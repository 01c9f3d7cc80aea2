//! `tol run`: check, accept, drive.

use crate::cli::print::{err_text, out, out_text};
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::args::{ResumeArgs, RunArgs};
use super::context::Context;
use super::drive::{Start, Surroundings, drive};
use super::exit::{DONE, Failure, INVALID};
use super::remote::Remote;
use super::{dry_run, follow, params, rerun, resume};
use crate::compile::{CheckOptions, Program, Sources, check};
use crate::diagnostic::{Files, Severity, render_human};
use crate::id::RunId;
use crate::journal::NewRun;
use crate::project::git;
use crate::runtime::{Clock, StartRun, SystemClock};
use crate::scheduler::{Accepted, Options, ReusedStep};
use crate::server::Retention;

/// Runs a pipeline file.
pub fn run(arguments: &RunArgs) -> Result<u8, Failure> {
    if let Some(remote) = Remote::of(&arguments.remote, &arguments.state)? {
        return run_there(arguments, &remote);
    }
    if arguments.again {
        return rerun::run(arguments);
    }
    if arguments.resume {
        let run = arguments.file.to_string_lossy().into_owned();
        return resume::run(&ResumeArgs { run, watch: arguments.watch.clone(), state: arguments.state.clone() });
    }
    if !arguments.file.is_file() {
        let why = if arguments.file.is_dir() { "is a folder, not a pipeline file" } else { "there is no such file" };
        return Err(Failure::invalid(format!("{}: {why}", arguments.file.display())));
    }
    let context = Context::around(Some(&arguments.file), &arguments.state)?;
    run_once(arguments, &context, &context.sources)
}

/// Runs a pipeline of a server's.
fn run_there(arguments: &RunArgs, remote: &Remote) -> Result<u8, Failure> {
    if arguments.dry_run || arguments.resume {
        let which = if arguments.dry_run { "--dry-run" } else { "--resume" };
        return Err(Failure::invalid(format!("{which} works on this machine only: leave out --server and TOL_SERVER")));
    }
    let run = remote.submit(arguments)?;
    if arguments.detach {
        out!("{run}");
        return Ok(DONE);
    }
    follow::remote_run(remote, &run, 0, &arguments.watch)
}

/// Runs a pipeline file as its texts are now.
pub fn run_once(arguments: &RunArgs, context: &Context, sources: &dyn Sources) -> Result<u8, Failure> {
    let path = context.within(&arguments.file)?;
    let environment = context.environment()?;
    let profile = arguments.env.clone().or_else(|| environment.get("TOL_ENV").cloned());
    let max_parallel =
        match (arguments.max_parallel, environment.get("TOL_MAX_PARALLEL")) {
            (Some(given), _) => Some(given),
            (None, Some(text)) => Some(text.parse().ok().filter(|most| *most > 0).ok_or_else(|| {
                Failure::invalid(format!("TOL_MAX_PARALLEL in .env: `{text}` is no number from 1 on"))
            })?),
            (None, None) => None,
        };
    let Some(program) = compile_from(sources, &path, profile.clone()) else { return Ok(INVALID) };
    let params = params::read(&program.root, &arguments.params, arguments.params_file.as_deref())?;
    let options = Options { max_parallel, profile };
    let new = NewRunOf { program, params, options, parent: None, reused: Vec::new() };
    if arguments.dry_run {
        let json = arguments.watch.format == Some(super::args::RunFormat::Json);
        out_text!("{}", dry_run::text(&new.program, new.accepted(RunId::new("dry-run"), &environment), json));
        return Ok(DONE);
    }
    start(context, new, environment, &arguments.watch)
}

/// A run that is to be accepted.
pub struct NewRunOf {
    pub program: Arc<Program>,
    pub params: Map<String, Value>,
    pub options: Options,
    pub parent: Option<RunId>,
    pub reused: Vec<ReusedStep>,
}

impl NewRunOf {
    fn accepted(&self, run: RunId, environment: &BTreeMap<String, String>) -> Accepted {
        let listed = self.program.pipelines.values().flat_map(|pipeline| &pipeline.pipeline.inherit_env);
        let mut names: Vec<&str> = listed.map(|name| &*name.value).collect();
        names.sort_unstable();
        names.dedup();
        let env =
            names.into_iter().filter_map(|name| Some((name.to_owned(), Value::String(environment.get(name)?.clone()))));
        Accepted {
            run,
            definition_hash: self.program.hash.to_string(),
            params: self.params.clone(),
            env: env.collect(),
            options: self.options.clone(),
            parent: self.parent.clone(),
            reused: self.reused.clone(),
        }
    }
}

/// Accepts a run and drives it.
pub fn start(
    context: &Context,
    new: NewRunOf,
    environment: BTreeMap<String, String>,
    watch: &super::args::WatchArgs,
) -> Result<u8, Failure> {
    let program = new.program.clone();
    let files: Vec<String> = program.sources.0.keys().cloned().collect();
    let root = context.root.clone();
    let asked = std::thread::spawn(move || git::state_of(&root, &files));
    let journal = context.journal()?;
    let definition = serde_json::to_vec(&program.sources).map_err(|error| Failure::failed(error.to_string()))?;
    let git = asked.join().unwrap_or_default();
    let accepted = new.accepted(RunId::new(&uuid::Uuid::now_v7().to_string()), &environment);
    let row = NewRun {
        pipeline: program.root.pipeline.name.value.to_string(),
        path: program.root.pipeline.path.to_string(),
        definition_hash: program.hash.to_string(),
        definition: Arc::from(definition),
        git_commit: git.commit,
        git_dirty: git.dirty,
        parent: new.parent.clone(),
        started_at: SystemClock.now(),
    };
    let settings = program.settings.clone();
    let start = StartRun { program, accepted, row, watcher: None };
    let surroundings = Surroundings {
        root: &context.root,
        state_dir: &context.state_dir,
        journal,
        environment,
        watch,
        retention: Retention::of(&settings),
    };
    drive(Start::New(Box::new(start)), surroundings)
}

/// Checks a pipeline and all that it names. What is wrong goes to stderr; none if it cannot run.
pub fn compile(context: &Context, path: &str, profile: Option<String>) -> Result<Option<Arc<Program>>, Failure> {
    Ok(compile_from(&context.sources, path, profile))
}

fn compile_from(sources: &dyn Sources, path: &str, profile: Option<String>) -> Option<Arc<Program>> {
    let mut files = Files::default();
    let mut diagnostics = Vec::new();
    let program = check(path, sources, &mut files, &mut diagnostics, &CheckOptions { profile });
    if program.is_some() {
        diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Warning);
    }
    if !diagnostics.is_empty() {
        err_text!("{}", render_human(&files, &diagnostics, super::progress::colour_of_stderr()));
    }
    program.map(Arc::new)
}
