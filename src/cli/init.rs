//! `tol init`: writes a small project that works, and never over what is there.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::{DONE, Failure};
use super::output;

/// What is written: path within the folder, and text.
const FILES: [(&str, &str); 4] = [
    ("hello.yaml", include_str!("init/hello.yaml")),
    ("hello.test.yaml", include_str!("init/hello.test.yaml")),
    ("agents.yaml", include_str!("init/agents.yaml")),
    ("agents/greeter.sh", include_str!("init/greeter.sh")),
];
/// Marks the root of a project that is in no git repository.
const SETTINGS: (&str, &str) = ("duo-agent.config.yaml", include_str!("init/duo-agent.config.yaml"));
/// What git is to leave alone.
const IGNORED: &str = ".tol/";

/// `tol init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// The folder; it is made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Write over files that are there
    #[arg(long)]
    pub force: bool,
}

/// Writes the project and says what to do next.
pub fn run(arguments: &InitArgs) -> Result<u8, Failure> {
    let folder = &arguments.folder;
    if folder.exists() && !folder.is_dir() {
        return Err(Failure::invalid(format!("{}: is a file, not a folder", folder.display())));
    }
    let full = std::env::current_dir()?.join(folder);
    let is_marked = full.ancestors().any(|folder| folder.join(".git").exists() || folder.join(SETTINGS.0).exists());
    let files: Vec<(&str, &str)> = FILES.into_iter().chain((!is_marked).then_some(SETTINGS)).collect();
    let there: Vec<String> = files
        .iter()
        .filter(|(path, _)| folder.join(path).symlink_metadata().is_ok())
        .map(|(path, _)| (*path).to_owned())
        .collect();
    if !there.is_empty() && !arguments.force {
        let names = there.join(", ");
        return Err(Failure::failed(format!(
            "{}: {names} {} there already, and nothing was written; name another folder, or write over with --force",
            folder.display(),
            if there.len() == 1 { "is" } else { "are" }
        )));
    }
    for (path, text) in &files {
        output::write_file(&folder.join(path), text.as_bytes())?;
        println!("wrote {}", shown(folder, path));
    }
    if ignore(folder)? {
        println!("wrote {} (`{IGNORED}` holds the journal of runs)", shown(folder, ".gitignore"));
    }
    let enter = if folder.as_os_str() == "." { String::new() } else { format!("  cd {}\n", folder.display()) };
    print!(
        "\nNow try:\n{enter}  tol validate             # checks every file\n  tol test                 # runs hello.test.yaml, starts nothing\n  \
         tol run hello.yaml -p who=Ada\n  tol graph hello.yaml     # which step waits for which\n"
    );
    Ok(DONE)
}

/// A path as it is shown.
fn shown(folder: &Path, path: &str) -> String {
    if folder.as_os_str() == "." { path.to_owned() } else { folder.join(path).display().to_string() }
}

/// Adds the state folder to what git ignores; true if it was not there yet.
fn ignore(folder: &Path) -> Result<bool, Failure> {
    let file = folder.join(".gitignore");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(Failure::failed(format!("{}: {error}", file.display()))),
    };
    if text.lines().any(|line| matches!(line.trim(), ".tol" | ".tol/" | "/.tol" | "/.tol/")) {
        return Ok(false);
    }
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    output::write_file(&file, format!("{text}{gap}{IGNORED}\n").as_bytes())?;
    Ok(true)
}
