//! `tol diff`: which steps differ between two versions of a pipeline, and which runs go on with the old one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::args::{StateArgs, TextFormat};
use super::context::Context;
use super::diff_trees::{Change, compare};
use super::exit::{DONE, FAILED, Failure};
use super::{diff_report, output};
use crate::compile::{CheckOptions, SourceProblem, Sources, check, folder_of, join};
use crate::diagnostic::{Files, Severity, render_human};
use crate::journal::{ListFilter, RunRow};
use crate::model::{apply_templates, merge_includes};
use crate::project::{git, text_of};
use crate::yaml::{self, Node};

/// `tol diff`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Exit codes: 0 the same, 1 different, 2 misuse.\n\nExamples:\n  tol diff old.yaml new.yaml\n  \
                        tol diff HEAD~1:pipeline.yaml pipeline.yaml\n  tol diff --git v1 v2 pipeline.yaml")]
pub struct DiffArgs {
    /// Two pipelines, each a file or REVISION:FILE; with --git two revisions and a file
    #[arg(value_names = ["OLD", "NEW"], num_args = 2..=3, required = true)]
    pub versions: Vec<String>,
    /// Compare one file at two git revisions: tol diff --git OLDREV NEWREV FILE
    #[arg(long)]
    pub git: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: TextFormat,
    #[command(flatten)]
    pub state: StateArgs,
}

/// One version of a pipeline.
struct Version {
    /// As it is shown.
    name: String,
    /// Path within the project.
    path: String,
    texts: Texts,
}

/// Where the texts of a version come from.
enum Texts {
    Folder(Arc<Context>),
    Revision { root: PathBuf, revision: String },
}

impl Sources for Texts {
    fn read(&self, path: &str) -> Result<Arc<str>, SourceProblem> {
        match self {
            Self::Folder(context) => context.sources.read(path),
            Self::Revision { root, revision } => {
                let bytes = git::show(root, revision, path).map_err(|_| SourceProblem::Missing)?;
                text_of(&bytes)
            }
        }
    }

    fn exists(&self, path: &str) -> bool {
        match self {
            Self::Folder(context) => context.sources.exists(path),
            Self::Revision { root, revision } => git::show(root, revision, path).is_ok(),
        }
    }
}

/// A run that has not ended, of the pipeline that is compared.
pub struct InFlight {
    pub row: RunRow,
    /// Which of the two definitions it runs on.
    pub on: On,
}

/// A definition, as seen from a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Old,
    New,
    Other,
}

/// Compares two versions.
pub fn run(arguments: &DiffArgs) -> Result<u8, Failure> {
    let (old, new) = versions(arguments)?;
    let (old_tree, new_tree) = (tree(&old)?, tree(&new)?);
    let changes = compare(&old_tree.to_json(), &new_tree.to_json());
    let runs = in_flight(&old, &new, &arguments.state, &changes)?;
    let text = match arguments.format {
        TextFormat::Text => diff_report::text(&old.name, &new.name, &changes, &runs),
        TextFormat::Json => diff_report::json(&old.name, &new.name, &changes, &runs),
    };
    output::print(&text);
    Ok(if changes.is_empty() { DONE } else { FAILED })
}

fn versions(arguments: &DiffArgs) -> Result<(Version, Version), Failure> {
    match (arguments.git, arguments.versions.as_slice()) {
        (false, [old, new]) => Ok((version(old, &arguments.state)?, version(new, &arguments.state)?)),
        (true, [old, new, file]) => {
            Ok((revision(old, file, &arguments.state)?, revision(new, file, &arguments.state)?))
        }
        (true, _) => Err(Failure::invalid("--git takes two revisions and a file: tol diff --git OLDREV NEWREV FILE")),
        (false, _) => Err(Failure::invalid("two versions are compared: tol diff OLD NEW; three words belong to --git")),
    }
}

/// A file, or `REVISION:FILE` where there is no file of that name.
fn version(word: &str, state: &StateArgs) -> Result<Version, Failure> {
    let file = Path::new(word);
    if file.is_file() {
        let context = Arc::new(Context::around(Some(file), state)?);
        let path = context.within(file)?;
        return Ok(Version { name: word.to_owned(), path, texts: Texts::Folder(context) });
    }
    match word.split_once(':') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => revision(name, path, state),
        _ if file.is_dir() => Err(Failure::invalid(format!("{word}: is a folder, not a pipeline file"))),
        _ => Err(Failure::invalid(format!("{word}: there is no such file; a git revision is written REVISION:FILE"))),
    }
}

fn revision(revision: &str, file: &str, state: &StateArgs) -> Result<Version, Failure> {
    let context = Context::around(Some(Path::new(file)), state)?;
    let path = context.within(Path::new(file))?;
    let name = format!("{revision}:{file}");
    git::show(&context.root, revision, &path).map_err(|problem| Failure::invalid(format!("{name}: {problem}")))?;
    Ok(Version { name, path, texts: Texts::Revision { root: context.root, revision: revision.to_owned() } })
}

/// The tree of a version with its includes and step templates merged in, so that what moved there is no change.
fn tree(version: &Version) -> Result<Node, Failure> {
    let mut files = Files::default();
    let mut diagnostics = Vec::new();
    let mut load = |path: &str| -> Result<Option<Node>, Failure> {
        let text = version
            .texts
            .read(path)
            .map_err(|problem| Failure::invalid(format!("{}: `{path}`: {problem}", version.name)))?;
        let file = files.add(path, text.clone());
        let (tree, mut found) = yaml::load(file, &text, &yaml::Limits::default());
        diagnostics.append(&mut found);
        Ok(tree)
    };
    let mut tree = load(&version.path)?;
    if let Some(node) = tree.take() {
        let names: Vec<String> = node
            .get("include")
            .map(Node::items)
            .unwrap_or_default()
            .iter()
            .filter_map(|item| join(folder_of(&version.path), item.as_str()?))
            .collect();
        let mut includes = Vec::new();
        for name in names {
            includes.extend(load(&name)?);
        }
        let merged = merge_includes(node, &includes);
        tree = Some(apply_templates(merged, &mut Vec::new()));
    }
    diagnostics.retain(|diagnostic| diagnostic.severity == Severity::Error);
    let what = || format!("{}: it cannot be read as YAML", version.name);
    match tree.filter(|_| diagnostics.is_empty()) {
        Some(tree) if tree.get("steps").is_some() => Ok(tree),
        Some(_) => Err(Failure::invalid(format!("{}: this is no pipeline: it has no `steps`", version.name))),
        None => {
            eprint!("{}", render_human(&files, &diagnostics, super::progress::colour_of_stderr()));
            Err(Failure::invalid(what()))
        }
    }
}

/// The hash that runs on a version have; none if it does not compile.
fn hash_of(version: &Version) -> Option<String> {
    let program =
        check(&version.path, &version.texts, &mut Files::default(), &mut Vec::new(), &CheckOptions::default());
    program.map(|program| program.hash.to_string())
}

fn in_flight(old: &Version, new: &Version, state: &StateArgs, changes: &[Change]) -> Result<Vec<InFlight>, Failure> {
    let context = match &new.texts {
        Texts::Folder(context) => context.clone(),
        Texts::Revision { root, .. } => Arc::new(Context::around(Some(&root.join(&new.path)), state)?),
    };
    let Some(journal) = context.journal_to_read()? else { return Ok(Vec::new()) };
    let mut rows = journal.list(&ListFilter::default())?;
    rows.retain(|row| row.finished_at.is_none() && (row.path == new.path || row.path == old.path));
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (old_hash, new_hash) = (hash_of(old), hash_of(new));
    let on = |row: &RunRow| match Some(&row.definition_hash) {
        hash if hash == new_hash.as_ref() => On::New,
        hash if hash == old_hash.as_ref() => On::Old,
        // A comment changes the hash and no step: such a run stands on what both versions say.
        _ if changes.is_empty() => On::New,
        _ => On::Other,
    };
    Ok(rows.into_iter().map(|row| InFlight { on: on(&row), row }).collect())
}
