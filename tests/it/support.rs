//! Runs the built `tol` in a folder of its own, and reads what it says.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The root of the checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A text file of the checkout, by its path from the root.
pub fn read(path: impl AsRef<Path>) -> String {
    let file = root().join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// All files below a folder of the checkout with this ending, sorted, as paths from the root.
pub fn files_below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries.map(|entry| entry.expect("a readable folder")) {
            let path = entry.path();
            if entry.file_type().expect("a type").is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path.strip_prefix(root()).expect("it is below the root").to_owned());
            }
        }
    }
    found.sort();
    found
}

/// A project in a folder that goes when this does.
pub struct Project {
    folder: TempDir,
}

impl Project {
    /// A project of these files: path and text.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        // A settings file marks the root, so that nothing above the folder counts.
        project.write("duo-agent.config.yaml", "apiVersion: tol/v1\n");
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file, and the folders that it needs.
    pub fn write(&self, path: &str, text: &str) {
        let file = self.path().join(path);
        std::fs::create_dir_all(file.parent().expect("a file has a folder")).expect("a folder can be made");
        std::fs::write(file, text).expect("a file can be written");
    }

    /// Copies a file or a folder of the checkout to the same place here.
    pub fn copy(&self, path: &str) {
        let from = root().join(path);
        let to = self.path().join(path);
        if from.is_dir() {
            std::fs::create_dir_all(&to).expect("a folder can be made");
            for entry in std::fs::read_dir(&from).expect("a readable folder") {
                let name = entry.expect("an entry").file_name();
                self.copy(&format!("{path}/{}", name.to_str().expect("a plain name")));
            }
        } else {
            std::fs::copy(&from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
        }
    }

    /// Runs `tol` here with these arguments, to its end.
    pub fn tol(&self, arguments: &[&str]) -> Ran {
        Ran::of(command(env!("CARGO_BIN_EXE_tol"), self.path()).args(arguments))
    }

    /// Starts `tol` here, to go on beside the test.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = command(env!("CARGO_BIN_EXE_tol"), self.path());
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tol starts")
    }

    /// Runs a script in `sh -eu` here; it finds the built `tol` under its name.
    pub fn sh(&self, script: &str) -> Ran {
        Ran::of(command("sh", self.path()).args(["-euc", script]))
    }
}

/// A command in a folder with the built binary first in its PATH.
fn command(program: &str, folder: &Path) -> Command {
    let binary = Path::new(env!("CARGO_BIN_EXE_tol"));
    let mut path = binary.parent().expect("a file has a folder").as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    // What points the tests at a database is for those that ask for one.
    command.current_dir(folder).env("PATH", path).env_remove("DATABASE_URL").stdin(Stdio::null());
    command
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    /// None after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The last line of `--format json`.
    pub fn summary(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_else(|| panic!("no output\n{}", self.said()));
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last}\n{}", self.said()))
    }

    /// All that it said, for a message.
    pub fn said(&self) -> String {
        format!("exit code {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Fails with all findings at once, one a line.
pub fn check_none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}

/// Builds a library of this folder that stands before libc: the value of `LD_PRELOAD`.
pub fn preloaded(source: &str, folder: &Path) -> String {
    let library = folder.join("before_libc.so");
    // The C compiler is there: the build of SQLite needs it.
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(root().join("tests/it").join(source))
        .arg("-ldl")
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "cc cannot build tests/it/{source}");
    library.to_str().expect("a plain path").to_owned()
}
