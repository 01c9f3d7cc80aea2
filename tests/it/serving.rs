//! A `tol serve` of a test, and the commands that reach it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Project, Ran};

/// A test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server over a project of its own.
pub struct Serving {
    pub project: Project,
    pub child: Child,
    pub address: String,
    pub said: Arc<Mutex<Vec<String>>>,
}

impl Serving {
    pub fn new(files: &[(&str, &str)]) -> Self {
        Self::over(Project::new(files), &[])
    }

    pub fn over(project: Project, flags: &[&str]) -> Self {
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let child = spawn(&project, flags, &said);
        let mut serving = Self { project, child, address: String::new(), said };
        serving.address = serving.listening();
        serving
    }

    /// The address that it says it listens on.
    pub fn listening(&self) -> String {
        let line = self.until_said("listening on ");
        let url = line.split_whitespace().find(|word| word.contains("://")).expect("an address");
        url.trim_end_matches(';').to_owned()
    }

    #[track_caller]
    pub fn until_said(&self, words: &str) -> String {
        let mut found = None;
        self.until(&format!("it says `{words}`"), || {
            found = self.said().into_iter().find(|line| line.contains(words));
            found.is_some()
        });
        found.expect("it was found")
    }

    #[track_caller]
    pub fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            assert!(started.elapsed() < PATIENCE, "waited in vain until {what}; the server said {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn said(&self) -> Vec<String> {
        self.said.lock().expect("no reader has failed").clone()
    }

    /// A command with `--server`.
    pub fn tol(&self, arguments: &[&str]) -> Ran {
        self.project.tol(&[arguments, &["--server", self.address.as_str()]].concat())
    }

    /// A command that goes on beside the test.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        program()
            .args([arguments, &["--server", self.address.as_str()]].concat())
            .current_dir(self.project.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tol starts")
    }

    /// Starts a run and gives its id.
    #[track_caller]
    pub fn submit(&self, arguments: &[&str]) -> String {
        let ran = self.tol(&[&["run"], arguments, &["--detach"]].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.said());
        ran.stdout.trim().to_owned()
    }

    pub fn status(&self, run: &str) -> String {
        let ran = self.tol(&["runs", "show", run, "--format", "json"]);
        let object: Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        object["status"].as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn until_status(&self, run: &str, status: &str) {
        self.until(&format!("the run is {status}"), || self.status(run) == status);
    }

    pub fn marks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.project.path().join("marks")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for its end; gives its exit code.
    #[track_caller]
    pub fn ended(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it does not end; it said {:#?}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it again over the same folder.
    pub fn again(&mut self, flags: &[&str]) {
        self.said.lock().expect("no reader has failed").clear();
        self.child = spawn(&self.project, flags, &self.said);
        self.address = self.listening();
    }

    pub fn marks_file(&self) -> PathBuf {
        self.project.path().join("marks")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn spawn(project: &Project, flags: &[&str], said: &Arc<Mutex<Vec<String>>>) -> Child {
    read_from(program().args(["serve", "."]), project, flags, said)
}

/// The program, on this machine and with a journal of its own.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tol"));
    command.env_remove("DATABASE_URL").env_remove("TOL_SERVER").env_remove("TOL_TOKEN");
    command
}

pub fn read_from(command: &mut Command, project: &Project, flags: &[&str], said: &Arc<Mutex<Vec<String>>>) -> Child {
    let mut child = command
        .args(if flags.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] })
        .args(flags)
        .current_dir(project.path())
        .env("MARKS", project.path().join("marks"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tol starts");
    let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let said = said.clone();
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            said.lock().expect("no reader has failed").push(line);
        }
    });
    child
}
