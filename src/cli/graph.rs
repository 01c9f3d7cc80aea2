//! `tol graph`: draws the steps of a pipeline or of a run, and which waits for which.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::StateArgs;
use super::context::Context;
use super::exit::{DONE, Failure, INVALID};
use super::{output, run};
use crate::compile::CompiledPipeline;
use crate::graph::picture::{View, dot, mermaid, svg, text};
use crate::journal::Journal;
use crate::runtime::rebuild;
use crate::scheduler::{State, UnitKey};

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
        let row = context.find(journal.as_ref().map(|journal| journal as &dyn Journal), &arguments.what).map_err(missing)?;
        let Some(journal) = journal else { return Ok(DONE) };
        let state = rebuild(&journal, &row.run)?.state;
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

fn view(pipeline: &CompiledPipeline, state: Option<&State>) -> View {
    let name = &*pipeline.pipeline.name.value;
    let title = match state {
        Some(state) => format!("{name}: run {} ({})", state.run, state.status().as_str()),
        None => name.to_owned(),
    };
    let action = |number: u32| pipeline.step(number).action.key().to_owned();
    let status = |number: u32| {
        let unit = state?.unit(UnitKey::whole(0, number))?;
        Some(unit.status.as_str().to_owned())
    };
    View::of(&title, &pipeline.graph, &action, &status)
}
