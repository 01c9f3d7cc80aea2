//! Finds the folders of a task on the machine of its worker, where the project may lie elsewhere.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use crate::dispatch::{Perform, StopSignal};
use crate::task::{Failure, Outcome, Provider, Task, Work};
use crate::worker::Worker;

/// Does tasks of a scheduler on another machine.
pub struct Elsewhere {
    worker: Worker,
    /// Where the project lies here, if not at the same path as there.
    root: Option<Arc<Path>>,
}

impl Elsewhere {
    /// A worker that looks for the folders of the scheduler's project below `root`.
    pub fn new(worker: Worker, root: Option<PathBuf>) -> Self {
        Self { worker, root: root.map(Arc::from) }
    }
}

impl Perform for Elsewhere {
    fn perform(&self, mut task: Task, stop: StopSignal) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let (worker, root) = (self.worker.clone(), self.root.clone());
        // A folder may lie on a disk far away: nobody but the task waits for it.
        Box::pin(async move {
            match settle(&mut task, root.as_deref()) {
                Ok(()) => worker.perform(task, stop).await,
                Err(failure) => Outcome::failed(failure),
            }
        })
    }
}

/// Puts the folder of this machine into a task that has one.
fn settle(task: &mut Task, root: Option<&Path>) -> Result<(), Failure> {
    let theirs = task.place.root.clone();
    let dir = match &mut task.work {
        Work::Run(script) => &mut script.dir,
        Work::Agent(call) => match &mut call.provider {
            Provider::Command { dir, .. } => dir,
        },
        Work::Http(_) => return Ok(()),
    };
    let below = Path::new(dir.as_str()).strip_prefix(&*theirs).ok().filter(|_| !theirs.is_empty());
    let here = match (root, below) {
        (Some(root), Some(below)) => root.join(below),
        (Some(_) | None, _) => PathBuf::from(dir.as_str()),
    };
    if !here.is_dir() {
        let what = if here.exists() { "is not a folder" } else { "is not there" };
        let how = match (root, below) {
            (Some(root), Some(_)) => format!(
                "the scheduler's project {theirs} is looked for in {} (--root): check the project out there",
                root.display()
            ),
            (None, Some(_)) => {
                format!(
                    "check the project {theirs} out at the same place, or start the worker with --root DIR, where DIR is where it lies here"
                )
            }
            (_, None) => format!("it lies outside the project {theirs}, so it must be at the same place here"),
        };
        return Err(Failure::permanent(format!("the folder {} {what} on this worker: {how}", here.display())));
    }
    let Some(text) = here.to_str() else {
        return Err(Failure::permanent(format!("the folder {} has a name that is not UTF-8", here.display())));
    };
    text.clone_into(dir);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LeaseToken, RunId, UnitPath};
    use crate::task::{Command, Placement, Script};

    fn check(theirs: &str, dir: &str, root: Option<&Path>, expect: Result<&Path, &str>) {
        let script = Script {
            command: Command::Argv(Vec::new()),
            env: Vec::new(),
            inherit_env: Vec::new(),
            dir: dir.to_owned(),
            json: false,
            permanent_exit_codes: Vec::new(),
            max_output: 1,
        };
        let mut task = Task {
            run: RunId::new("r"),
            pipeline: Arc::from("p"),
            unit: UnitPath::new("u"),
            attempt: 1,
            token: LeaseToken(1),
            idempotency_key: String::new(),
            deadline: None,
            place: Placement { root: Arc::from(theirs), ..Placement::default() },
            work: Work::Run(script),
        };
        match (settle(&mut task, root), expect) {
            (Ok(()), Ok(folder)) => {
                let Work::Run(script) = task.work else { panic!("it was a script") };
                assert_eq!(Path::new(&script.dir), folder);
            }
            (Err(failure), Err(words)) => assert!(failure.message.contains(words), "{}", failure.message),
            (found, expect) => panic!("{found:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn folders_are_looked_for_below_the_workers_root() {
        let here = tempfile::tempdir().unwrap();
        let (root, sub) = (here.path(), here.path().join("a/b"));
        std::fs::create_dir_all(&sub).unwrap();
        check("/theirs", "/theirs", Some(root), Ok(root));
        check("/theirs", "/theirs/a/b", Some(root), Ok(&sub));
        check("/theirs", "/theirs/c", Some(root), Err("(--root): check the project out there"));
        check("/theirs", "/theirs/a", None, Err("start the worker with --root DIR"));
        check("/theirs", "/theirsandmore", Some(root), Err("outside the project /theirs"));
        check("/theirs", sub.to_str().unwrap(), Some(root), Ok(&sub));
        check("", sub.to_str().unwrap(), Some(root), Ok(&sub));
        let file = root.join("file");
        std::fs::write(&file, "").unwrap();
        check("/theirs", "/theirs/file", Some(root), Err("is not a folder"));
    }
}
