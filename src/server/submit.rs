//! Takes a run in: finds the pipeline, reads the parameters, and answers once the acceptance is durable.

use std::sync::{Arc, PoisonError};

use serde_json::{Map, Value};
use tonic::Status;

use crate::compile::{CheckOptions, Program, check, read_params};
use crate::diagnostic::{Files, Severity, render_human};
use crate::id::RunId;
use crate::journal::NewRun;
use crate::project::git::{self, GitState};
use crate::proto::v1::{SubmitRequest, SubmitResponse};
use crate::runtime::{RuntimeError, StartRun};
use crate::scheduler::{Accepted, Options};
use crate::server::core::Core;
use crate::server::error::{status_of, status_of_journal};
use crate::watch::Set;

/// Longer keys are refused.
const LONGEST_KEY: usize = 256;

/// Starts a run.
///
/// # Errors
/// As `proto/tol/v1/runs.proto` says.
pub async fn submit(core: &Arc<Core>, request: SubmitRequest) -> Result<SubmitResponse, Status> {
    core.ready().map_err(Status::unavailable)?;
    let Some(set) = core.served.get().and_then(|served| served.set()) else {
        return Err(Status::unavailable("no pipelines are served yet"));
    };
    if request.idempotency_key.len() > LONGEST_KEY {
        return Err(Status::invalid_argument(format!("an idempotency key has at most {LONGEST_KEY} bytes")));
    }
    let _one = match request.idempotency_key.as_str() {
        "" => None,
        _ => Some(core.keyed.lock().await),
    };
    let is_keyed = !request.idempotency_key.is_empty();
    let run = run_of(core, &request.idempotency_key)?;
    if is_keyed && core.journal.run(&run).map_err(status_of_journal)?.is_some() {
        return Ok(SubmitResponse { run_id: run.to_string(), existed: true });
    }
    let program = find(&set, &request.pipeline)?;
    let profile = request.profile.clone().or_else(|| core.environment.get("TOL_ENV").cloned());
    let program = match &profile {
        Some(profile) => with_profile(&program, profile)?,
        None => program,
    };
    let params = params(&program, &request)?;
    let git = git_of(core, &set, &program).await;
    let accepted = Accepted {
        run: run.clone(),
        definition_hash: program.hash.to_string(),
        params,
        env: inherited(core, &program),
        options: Options { max_parallel: request.max_parallel.filter(|most| *most > 0), profile },
        parent: None,
        reused: Vec::new(),
    };
    let definition =
        serde_json::to_vec(&program.sources).map_err(|error| Status::internal(format!("the definition: {error}")))?;
    let row = NewRun {
        pipeline: program.root.pipeline.name.value.to_string(),
        path: program.root.pipeline.path.to_string(),
        definition_hash: program.hash.to_string(),
        definition: Arc::from(definition),
        git_commit: git.commit,
        git_dirty: git.dirty,
        parent: None,
        started_at: core.now(),
    };
    let Some((watcher, accepted_news)) = core.hall.enter(&run) else {
        return Ok(SubmitResponse { run_id: run.to_string(), existed: true });
    };
    core.engine.run(StartRun { program, accepted, row, watcher: Some(watcher) });
    match accepted_news.await.unwrap_or(Err(RuntimeError::Stopped)) {
        Ok(()) => Ok(SubmitResponse { run_id: run.to_string(), existed: false }),
        // Whoever comes second to the database with a key finds the run of the first.
        Err(error) if is_keyed => match core.journal.run(&run) {
            Ok(Some(_)) => Ok(SubmitResponse { run_id: run.to_string(), existed: true }),
            Ok(None) | Err(_) => Err(status_of(&error)),
        },
        Err(error) => Err(status_of(&error)),
    }
}

/// A fresh name, or the one that belongs to a key: two requests with one key name one run, whichever server gets them.
/// A run of a key may belong to a partition of another server; then this one holds it by itself, and the other takes it
/// up if this one dies.
fn run_of(core: &Core, key: &str) -> Result<RunId, Status> {
    if !key.is_empty() {
        return Ok(keyed(key));
    }
    match &core.division {
        None => Ok(RunId::new(&uuid::Uuid::now_v7().to_string())),
        Some(division) => division.partitions.new_run_id().ok_or_else(|| {
            Status::unavailable(
                "this server holds no partition yet: other servers have them all; try again in a moment",
            )
        }),
    }
}

fn keyed(key: &str) -> RunId {
    let mut bytes = [0; 16];
    let hash = blake3::derive_key("tol 2026-11 idempotency key of a submission", key.as_bytes());
    bytes.copy_from_slice(hash.get(..16).unwrap_or(&[0; 16]));
    RunId::new(&uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string())
}

fn find(set: &Set, text: &str) -> Result<Arc<Program>, Status> {
    if let Some(program) = set.find(text) {
        return Ok(program.clone());
    }
    let hint = match set.nearest(text) {
        Some(near) => format!("; did you mean `{near}`?"),
        None if set.is_empty() => "; no pipeline is served".to_owned(),
        None => {
            let names: Vec<&str> = set.programs().take(20).map(|program| &*program.root.pipeline.name.value).collect();
            let more = if set.len() > names.len() { ", …" } else { "" };
            format!("; served are {}{more}", names.join(", "))
        }
    };
    Err(Status::not_found(format!("`{text}` is not a pipeline that is served{hint}")))
}

fn with_profile(program: &Program, profile: &str) -> Result<Arc<Program>, Status> {
    let mut files = Files::default();
    let mut found = Vec::new();
    let options = CheckOptions { profile: Some(profile.to_owned()) };
    let checked = check(&program.root.pipeline.path, &program.sources, &mut files, &mut found, &options);
    checked.map(Arc::new).ok_or_else(|| {
        found.retain(|one| one.severity == Severity::Error);
        Status::invalid_argument(render_human(&files, &found, false))
    })
}

fn params(program: &Program, request: &SubmitRequest) -> Result<Map<String, Value>, Status> {
    let mut given = match request.params_json.as_str() {
        "" => Map::new(),
        text => match serde_json::from_str(text) {
            Ok(Value::Object(given)) => given,
            Ok(_) => return Err(Status::invalid_argument("params_json is no JSON object")),
            Err(error) => return Err(Status::invalid_argument(format!("params_json is no JSON: {error}"))),
        },
    };
    // What stands in both is taken as JSON.
    let texts: Vec<String> = request
        .param_texts
        .iter()
        .filter(|text| text.split_once('=').is_none_or(|(name, _)| !given.contains_key(name)))
        .cloned()
        .collect();
    read_params(&program.root, &texts, std::mem::take(&mut given)).map_err(|problems| {
        Status::invalid_argument(format!("{}: {}", program.root.pipeline.path, problems.join("\n       ")))
    })
}

/// What the pipelines of a program take from the server's environment.
fn inherited(core: &Core, program: &Program) -> Map<String, Value> {
    let listed = program.pipelines.values().flat_map(|pipeline| &pipeline.pipeline.inherit_env);
    let mut names: Vec<&str> = listed.map(|name| &*name.value).collect();
    names.sort_unstable();
    names.dedup();
    let value = |name: &str| Some((name.to_owned(), Value::String(core.environment.get(name)?.clone())));
    names.into_iter().filter_map(value).collect()
}

/// What git knows of a program's files; it is asked once for each version of them.
async fn git_of(core: &Arc<Core>, set: &Arc<Set>, program: &Program) -> GitState {
    let key = (set.number, program.root.pipeline.path.to_string());
    if let Some(known) = core.git.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return known.clone();
    }
    let (root, files) = (set.root.clone(), program.sources.0.keys().cloned().collect::<Vec<String>>());
    let asked = tokio::task::spawn_blocking(move || git::state_of(&root, &files)).await.unwrap_or_default();
    let mut known = core.git.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|(number, _), _| *number == set.number);
    known.insert(key, asked.clone());
    asked
}

#[cfg(test)]
mod tests {
    use super::keyed;

    #[test]
    fn one_key_is_one_run() {
        assert_eq!(keyed("a"), keyed("a"));
        assert_ne!(keyed("a"), keyed("b"));
        assert_eq!(uuid::Uuid::parse_str(keyed("a").as_str()).unwrap().get_version_num(), 8);
    }
}
