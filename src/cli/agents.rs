//! `tol agents`: the catalogue, as the pipelines of a folder or one pipeline see it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::{StateArgs, TextFormat};
use super::context::Context;
use super::exit::{DONE, Failure, INVALID};
use super::run::compile;
use crate::compile::Sources;
use crate::diagnostic::{Files, Severity, nearest, render_human};
use crate::model::{Agent, ProviderKind, ReadContext, Settings, read_agents};
use crate::schema::{self, DocumentKind};
use crate::yaml;

/// The names that a catalogue may have.
const CATALOGUES: [&str; 2] = ["agents.yaml", "agents.yml"];

/// `tol agents`.
#[derive(Clone, Debug, Args)]
pub struct AgentsArgs {
    #[command(subcommand)]
    pub command: Option<AgentsCommand>,
    /// The agents that this pipeline may name, its includes' too [default: the nearest agents.yaml from here up]
    #[arg(long, global = true, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: TextFormat,
}

/// The subcommands of `tol agents`.
#[derive(Clone, Debug, Subcommand)]
pub enum AgentsCommand {
    /// All agents, one a line; what `tol agents` does by itself
    List,
    /// Everything about one agent
    Show {
        /// The agent's name in the catalogue
        name: String,
    },
}

struct Found {
    agents: BTreeMap<Box<str>, Arc<Agent>>,
    places: BTreeMap<Box<str>, String>,
    settings: Arc<Settings>,
}

/// Prints the agents, or one.
pub fn run(arguments: &AgentsArgs) -> Result<u8, Failure> {
    let found = match &arguments.pipeline {
        Some(file) => of_pipeline(file)?,
        None => of_folder()?,
    };
    let Some(found) = found else { return Ok(INVALID) };
    match &arguments.command {
        Some(AgentsCommand::Show { name }) => show(&found, name, arguments.format),
        Some(AgentsCommand::List) | None => {
            list(&found, arguments.format);
            Ok(DONE)
        }
    }
}

fn stateless() -> StateArgs {
    StateArgs { state_dir: None }
}

/// The agents that a pipeline may name; none if it does not compile.
fn of_pipeline(file: &std::path::Path) -> Result<Option<Found>, Failure> {
    if !file.is_file() {
        return Err(Failure::invalid(format!("{}: there is no such file", file.display())));
    }
    let context = Context::around(Some(file), &stateless())?;
    let path = context.within(file)?;
    let Some(program) = compile(&context, &path, None)? else { return Ok(None) };
    let mut places = BTreeMap::new();
    // Spans speak of the files of the compilation, which are gone; the texts are looked through for the place instead.
    for agent in program.root.agents.values() {
        let catalogue = &program.root.catalogue;
        let include = program.sources.0.iter().find(|(path, _)| {
            **path != *catalogue.path
                && crate::compile::folder_of(path) == &*agent.base
                && path.as_str() != &*program.root.pipeline.path
        });
        let path = if catalogue.agents.contains_key(&agent.id.value) {
            Some(catalogue.path.to_string())
        } else {
            include.map(|(path, _)| path.clone())
        };
        if let Some(path) = path
            && let Some(text) = program.sources.0.get(&path)
        {
            let before = text.get(..agent.id.span.start as usize).unwrap_or_default();
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            places.insert(agent.id.value.clone(), format!("{path}:{line}"));
        }
    }
    Ok(Some(Found { agents: (*program.root.agents).clone(), places, settings: program.settings.clone() }))
}

/// The nearest catalogue from the working folder up to the project's root; none if it has mistakes.
fn of_folder() -> Result<Option<Found>, Failure> {
    let context = Context::around(None, &stateless())?;
    let here = std::env::current_dir()?;
    let here = here.canonicalize().unwrap_or(here);
    let folders = here.ancestors().take_while(|folder| folder.starts_with(&context.root));
    let file = folders.flat_map(|folder| CATALOGUES.map(|name| folder.join(name))).find(|file| file.is_file());
    let Some(file) = file else {
        return Err(Failure::invalid(format!(
            "there is no agents.yaml from here up to {}; `tol schema agents` says what stands in one, `tol init` writes an example",
            context.root.display()
        )));
    };
    let path = context.within(&file)?;
    let text = context.sources.read(&path).map_err(|problem| Failure::failed(format!("{path}: {problem}")))?;
    let (mut files, mut diagnostics) = (Files::default(), Vec::new());
    let id = files.add(&path, text.clone());
    let (tree, mut found) = yaml::load(id, &text, &yaml::Limits::default());
    diagnostics.append(&mut found);
    let catalogue = tree.map(|tree| {
        schema::check(DocumentKind::Agents, &tree, &mut diagnostics);
        read_agents(&tree, id, &path, &mut ReadContext::new(&files, &mut diagnostics))
    });
    if !diagnostics.is_empty() {
        eprint!("{}", render_human(&files, &diagnostics, super::progress::colour_of_stderr()));
    }
    let Some(catalogue) = catalogue.filter(|_| diagnostics.iter().all(|found| found.severity == Severity::Warning))
    else {
        return Ok(None);
    };
    let place = |agent: &Agent| format!("{path}:{}", files.place(agent.id.span).line);
    let places = catalogue.agents.iter().map(|(name, agent)| (name.clone(), place(agent))).collect();
    let agents = catalogue.agents.into_iter().map(|(name, agent)| (name, Arc::new(agent))).collect();
    Ok(Some(Found { agents, places, settings: crate::compile::settings(&context.sources) }))
}

fn provider(found: &Found, agent: &Agent) -> &'static str {
    match agent.provider.as_ref().map(|provider| provider.value).or(found.settings.provider) {
        Some(ProviderKind::Command) => "command",
        Some(ProviderKind::Anthropic) => "anthropic",
        Some(ProviderKind::Openai) => "openai",
        None => "none",
    }
}

fn list(found: &Found, format: TextFormat) {
    if format == TextFormat::Json {
        let all: Vec<Value> = found.agents.values().map(|agent| object(found, agent)).collect();
        return super::output::print(&format!("{}\n", Value::Array(all)));
    }
    let rows: Vec<[String; 6]> =
        std::iter::once(["AGENT", "NAME", "ROLE", "PROVIDER", "MODEL", "WHERE"].map(str::to_owned))
            .chain(found.agents.values().map(|agent| {
                let model = agent.model.as_deref().unwrap_or("-").to_owned();
                let place = found.places.get(&agent.id.value).cloned().unwrap_or_default();
                let role = if agent.role.is_empty() { "-" } else { &agent.role };
                [
                    agent.id.value.to_string(),
                    agent.name.value.to_string(),
                    role.to_owned(),
                    provider(found, agent).to_owned(),
                    model,
                    place,
                ]
            }))
            .collect();
    let width = |column: usize| {
        rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    super::output::print(&text);
}

fn object(found: &Found, agent: &Agent) -> Value {
    let names =
        |list: &[crate::diagnostic::Spanned<Box<str>>]| list.iter().map(|name| json!(name.value)).collect::<Value>();
    json!({
        "agent": agent.id.value,
        "name": agent.name.value,
        "role": agent.role,
        "provider": provider(found, agent),
        "model": agent.model,
        "command": agent.command,
        "max_tokens": agent.max_tokens,
        "temperature": agent.temperature,
        "tools": agent.tools.as_deref().map(names),
        "deny_tools": names(&agent.deny_tools),
        "capabilities": agent.capabilities,
        "price": agent.price.map(|price| json!({ "input_per_million": price.input_per_million, "output_per_million": price.output_per_million })),
        "retry_limit": agent.retry.as_ref().map(|retry| if retry.never { 0 } else { retry.limit }),
        "system_prompt": agent.system_prompt,
        "where": found.places.get(&agent.id.value),
    })
}

fn show(found: &Found, name: &str, format: TextFormat) -> Result<u8, Failure> {
    let Some(agent) = found.agents.get(name) else {
        let near = nearest(name, found.agents.keys().map(|name| &**name));
        let hint = near.map_or_else(|| "`tol agents` lists them".to_owned(), |near| format!("did you mean `{near}`?"));
        return Err(Failure::failed(format!("there is no agent `{name}`; {hint}")));
    };
    let object = object(found, agent);
    if format == TextFormat::Json {
        super::output::print(&format!("{object}\n"));
        return Ok(DONE);
    }
    let mut text = String::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        let words = match value {
            Value::Null => {
                if key == "tools" {
                    "all".to_owned()
                } else {
                    continue;
                }
            }
            Value::String(words) if words.is_empty() => continue,
            Value::String(words) => words.clone(),
            Value::Array(items) if items.is_empty() => {
                if key == "tools" {
                    "none".to_owned()
                } else {
                    continue;
                }
            }
            Value::Array(items) => items
                .iter()
                .map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(if key == "command" { " " } else { ", " }),
            other => other.to_string(),
        };
        match words.trim_end().split_once('\n') {
            None => text.push_str(&format!("{key:14}{}\n", words.trim_end())),
            Some(_) => {
                text.push_str(&format!("{key}:\n"));
                text.extend(words.trim_end().lines().map(|line| format!("  {line}\n")));
            }
        }
    }
    super::output::print(&text);
    Ok(DONE)
}
