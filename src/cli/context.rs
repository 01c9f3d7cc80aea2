//! What every command needs to know of where it runs: the project's root, its state folder, the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::StateArgs;
use super::exit::Failure;
use crate::database::DatabaseUrl;
use crate::journal::{FaultHook, Journal, OpenMode, Options, PostgresJournal, PostgresOptions, RunRow, SqliteJournal};
use crate::project::{FolderSources, find_root};
use crate::server::find_run;

/// The folder in the project's root that holds the journal.
const STATE_FOLDER: &str = ".tol";

/// A project and its state.
pub struct Context {
    /// Absolute.
    pub root: PathBuf,
    pub state_dir: PathBuf,
    pub sources: FolderSources,
}

impl Context {
    /// The project around a folder or file (the working folder if none is named).
    pub fn around(place: Option<&Path>, state: &StateArgs) -> Result<Self, Failure> {
        let here = std::env::current_dir()?;
        let start = match place.and_then(Path::parent) {
            Some(folder) => here.join(folder),
            None => here.clone(),
        };
        let start = start.canonicalize().unwrap_or(start);
        let mut root = find_root(&start, &here);
        if place.is_some() && !start.starts_with(&root) {
            root = start;
        }
        let state_dir = match &state.state_dir {
            Some(dir) => here.join(dir),
            // What is wrong with the file is told by whoever needs the rest of it.
            None => {
                let named = dot_env(&root).unwrap_or_default().into_iter().find(|(name, _)| name == "TOL_STATE_DIR");
                root.join(named.map_or_else(|| STATE_FOLDER.to_owned(), |(_, dir)| dir))
            }
        };
        let sources = FolderSources::new(&root);
        Ok(Self { root, state_dir, sources })
    }

    /// A file's path within the project, with `/`.
    pub fn within(&self, file: &Path) -> Result<String, Failure> {
        let here = std::env::current_dir()?;
        let folder = here.join(file.parent().unwrap_or(Path::new("")));
        let folder = folder.canonicalize().unwrap_or(folder);
        let name = file.file_name().ok_or_else(|| Failure::invalid(format!("{}: is no file", file.display())))?;
        let whole = folder.join(name);
        let inside = whole.strip_prefix(&self.root).map_err(|_| {
            Failure::invalid(format!("{}: lies outside the project {}", file.display(), self.root.display()))
        })?;
        let parts: Vec<&str> = inside
            .iter()
            .map(|part| part.to_str())
            .collect::<Option<_>>()
            .ok_or_else(|| Failure::invalid(format!("{}: the path is not UTF-8", file.display())))?;
        Ok(parts.join("/"))
    }

    /// The database that DATABASE_URL names, in the environment or in `.env`; none if the journal lies in a folder.
    pub fn database(&self) -> Result<Option<DatabaseUrl>, Failure> {
        let url = match std::env::var("DATABASE_URL") {
            Ok(url) => Some(url),
            // What is wrong with the file is told by whoever needs the rest of it.
            Err(_) => {
                let variables = dot_env(&self.root).unwrap_or_default();
                variables.into_iter().find(|(name, _)| name == "DATABASE_URL").map(|(_, url)| url)
            }
        };
        match url.filter(|url| !url.is_empty()) {
            Some(url) => Ok(Some(DatabaseUrl::parse(&url).map_err(|error| Failure::invalid(error.to_string()))?)),
            None => Ok(None),
        }
    }

    /// The journal in the database, to write in; none if the journal lies in a folder.
    pub fn shared_journal(&self) -> Result<Option<PostgresJournal>, Failure> {
        let Some(url) = self.database()? else { return Ok(None) };
        let options = PostgresOptions { fault: fault(), ..PostgresOptions::default() };
        Ok(Some(PostgresJournal::open_with(&url, OpenMode::ReadWrite, options)?))
    }

    /// The journal, to write in.
    pub fn journal(&self) -> Result<Arc<dyn Journal>, Failure> {
        if let Some(journal) = self.shared_journal()? {
            return Ok(Arc::new(journal));
        }
        let options = Options { fault: fault(), ..Options::default() };
        Ok(Arc::new(SqliteJournal::open_with(&self.state_dir, OpenMode::ReadWrite, options)?))
    }

    /// The journal, to read; none if nothing has run here yet.
    pub fn journal_to_read(&self) -> Result<Option<Arc<dyn Journal>>, Failure> {
        if let Some(url) = self.database()? {
            return match PostgresJournal::open(&url, OpenMode::ReadOnly) {
                Ok(journal) => Ok(Some(Arc::new(journal))),
                Err(crate::journal::JournalError::Absent { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        match SqliteJournal::open(&self.state_dir, OpenMode::ReadOnly) {
            Ok(journal) => Ok(Some(Arc::new(journal))),
            Err(crate::journal::JournalError::Absent { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The run that an id or the beginning of one names.
    pub fn find(&self, journal: Option<&dyn Journal>, text: &str) -> Result<RunRow, Failure> {
        let none = || Failure::failed(format!("there is no run `{text}`; `tol runs list` shows those that there are"));
        Ok(find_run(journal.ok_or_else(none)?, text)?)
    }

    /// The caller's environment, with what `.env` in the root adds: a variable that is set wins.
    pub fn environment(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        for (name, value) in dot_env(&self.root)? {
            env.entry(name).or_insert(value);
        }
        Ok(env)
    }
}

/// What tests do to a journal.
fn fault() -> Option<Arc<dyn FaultHook>> {
    super::signals::fault_hook().map(|hook| hook as Arc<dyn FaultHook>)
}

/// The variables of the file `.env` in the root, in its order; none if there is no such file.
fn dot_env(root: &Path) -> Result<Vec<(String, String)>, Failure> {
    let file = root.join(".env");
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::invalid(format!("{}: {error}", file.display()))),
    };
    let mut variables = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let assignment = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(Failure::invalid(format!("{}:{}: expected NAME=VALUE", file.display(), number + 1)));
        };
        let value = value.trim();
        let quoted = |quote: char| value.len() >= 2 && value.starts_with(quote) && value.ends_with(quote);
        let value = if quoted('"') || quoted('\'') { &value[1..value.len() - 1] } else { value };
        variables.push((name.trim().to_owned(), value.to_owned()));
    }
    Ok(variables)
}

/// Who gives a command, for the record.
pub fn user(given: Option<&str>) -> String {
    given
        .map(str::to_owned)
        .or_else(|| std::env::var("TOL_USER").ok())
        .or_else(|| std::env::var("USER").ok())
        .or_else(|| std::env::var("LOGNAME").ok())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
