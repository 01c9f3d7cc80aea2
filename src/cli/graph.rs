//! `tol graph`: draws the steps of a pipeline or of a run, and which waits for which.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::StateArgs;
use super::context::Context;
use super::exit::{DONE, Failure, INVALID};
use super::{output, run};
use crate::compile::CompiledPipeline;
use crate::graph::EdgeSource;
use crate::graph::picture::{View, ViewArrow, ViewNode, dot, mermaid, svg, text};
use crate::runtime::rebuild;
use crate::scheduler::{Body, State, UnitKey};

/// `tol graph`.
#[derive(Clone, Debug, Args)]
pub struct GraphArgs {
    /// A pipeline file, or a run's id: then the picture shows how its steps stand
    #[arg(value_name = "FILE|RUN")]
    pub what: String,
    /// How it is drawn
    #[arg(long, value_enum, default_value_t)]
    pub format: GraphFormat,
    /// Write to a file instead of standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The profile to lay over the file
    #[arg(long, env = "TOL_ENV", value_name = "PROFILE")]
    pub env: Option<String>,
    #[command(flatten)]
    pub state: StateArgs,
}

/// Forms of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum GraphFormat {
    /// Lines of text; `*` marks the critical path
    #[default]
    Text,
    /// Mermaid, as GitHub and GitLab draw it in Markdown
    Mermaid,
    /// Graphviz
    Dot,
    /// A picture for browsers
    Svg,
}

/// Draws a graph.
pub fn run(arguments: &GraphArgs) -> Result<u8, Failure> {
    let file = PathBuf::from(&arguments.what);
    let view = if file.is_file() {
        let context = Context::around(Some(&file), &arguments.state)?;
        let path = context.within(&file)?;
        let Some(program) = run::compile(&context, &path, arguments.env.clone())? else { return Ok(INVALID) };
        view(&program.root, None)
    } else if file.is_dir() {
        return Err(Failure::invalid(format!("{}: is a folder, not a pipeline file", arguments.what)));
    } else {
        let looks_like_file = arguments.what.contains(['/', '.']);
        let context = Context::around(None, &arguments.state)?;
        let missing = |failure: Failure| {
            if looks_like_file {
                Failure::invalid(format!("{}: there is no such file", arguments.what))
            } else {
                Failure::invalid(format!("`{}` is neither a file nor a run: {}", arguments.what, failure.message))
            }
        };
        let journal = context.journal_to_read()?;
        let row = context.find(journal.as_deref(), &arguments.what).map_err(missing)?;
        let Some(journal) = journal else { return Ok(DONE) };
        let state = rebuild(&*journal, &row.run)?.state;
        view(&state.program.root.clone(), Some(&state))
    };
    let drawn = match arguments.format {
        GraphFormat::Text => text(&view),
        GraphFormat::Mermaid => mermaid(&view),
        GraphFormat::Dot => dot(&view),
        GraphFormat::Svg => svg(&view),
    };
    output::deliver(&drawn, arguments.output.as_deref())?;
    Ok(DONE)
}

/// The steps of the root pipeline, and in the picture of a run those of the sub-pipelines and blueprints that it has
/// come to, each behind the step that runs them.
fn view(pipeline: &CompiledPipeline, state: Option<&State>) -> View {
    let name = &*pipeline.pipeline.name.value;
    let title = match state {
        Some(state) => format!("{name}: run {} ({})", state.run, state.status().as_str()),
        None => name.to_owned(),
    };
    let action = |number: u32| pipeline.step(number).action.key().to_owned();
    let status = |number: u32| Some(standing(state?, UnitKey::whole(0, number)));
    let mut view = View::of(&title, &pipeline.graph, &action, &status);
    if let Some(state) = state {
        add_children(&mut view, state);
    }
    view
}

/// The status of a step, and of a fan-out how many items ended how.
fn standing(state: &State, key: UnitKey) -> String {
    let Some(unit) = state.unit(key) else { return "pending".to_owned() };
    let mut text = unit.status.as_str().to_owned();
    let step = state.scopes.get(key.scope as usize).and_then(|scope| scope.steps.get(key.step as usize));
    if let Some(fan) = step.and_then(|step| step.fan.as_deref()) {
        let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
        fan.items.iter().for_each(|item| *by_status.entry(item.status.as_str()).or_default() += 1);
        let items: Vec<String> = by_status.iter().map(|(status, number)| format!("{number} {status}")).collect();
        text.push_str(&format!(": {}", if items.is_empty() { "no items".to_owned() } else { items.join(", ") }));
    }
    text
}

fn add_children(view: &mut View, state: &State) {
    // Where the nodes of each scope begin; hooks and what another plan has replaced are left out.
    let mut first: BTreeMap<usize, usize> = BTreeMap::from([(0, 0)]);
    for (number, scope) in state.scopes.iter().enumerate().skip(1) {
        let Some(parent) = scope.parent.filter(|_| !scope.superseded) else { continue };
        let graph = match &scope.body {
            Body::Pipeline => &scope.pipeline.graph,
            Body::Blueprint(blueprint) => &blueprint.graph,
            Body::Hooks { .. } => continue,
        };
        let Some(begin) = first.get(&(parent.scope as usize)) else { continue };
        let owner = begin + parent.step as usize;
        let base = view.nodes.len();
        first.insert(number, base);
        for (step, name) in (0u32..).zip(&graph.names) {
            let action = scope.action(step).map_or("call", |action| action.key());
            view.nodes.push(ViewNode {
                label: format!("{}{name}", scope.prefix),
                action: action.to_owned(),
                status: Some(standing(state, UnitKey::whole(number as u32, step))),
                finally: step >= graph.first_finally,
                critical: false,
            });
            let before = view.arrows.len();
            let inner = graph.dependencies(step).map(|(from, edge)| ViewArrow {
                from: base + from as usize,
                to: base + step as usize,
                declared: edge.source == EdgeSource::Declared,
                critical: false,
            });
            view.arrows.extend(inner);
            if view.arrows.len() == before {
                let to = base + step as usize;
                view.arrows.push(ViewArrow { from: owner, to, declared: false, critical: false });
            }
        }
    }
}
