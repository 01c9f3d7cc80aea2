//! Whether a path of a test can name a step of a pipeline at all: a misspelt one would pass in silence otherwise.

use crate::compile::{CompiledPipeline, Program};
use crate::diagnostic::nearest;
use crate::model::Action;

/// Says what is wrong with a path; nothing if it may name a step.
pub(super) fn problem_of(program: &Program, path: &str) -> Option<String> {
    let mut pipeline: &CompiledPipeline = &program.root;
    let mut walked = String::new();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        if part.starts_with("hooks:") {
            return hook_problem(pipeline, part);
        }
        let name = part.split_once('[').map_or(part, |(name, _)| name);
        let Some(number) = pipeline.graph.index.get(name).copied() else {
            let names = pipeline.graph.names.iter().map(|name| &**name);
            let hint = nearest(name, names).map_or(String::new(), |near| format!("; did you mean `{walked}{near}`?"));
            let place = if name == path { String::new() } else { format!("`{path}`: ") };
            return Some(format!("{place}`{name}` is not a step of `{}`{hint}", pipeline.pipeline.name.value));
        };
        let step = pipeline.step(number);
        if name != part && step.fan.is_none() {
            return Some(format!("`{path}`: `{name}` has no items: it has neither `foreach` nor `matrix`"));
        }
        parts.peek()?;
        walked.push_str(part);
        walked.push('/');
        let child = pipeline.children.get(&number).and_then(|path| program.pipelines.get(path));
        match (&step.action, child) {
            // Which calls a blueprint has may be known only when it is there.
            (Action::Execute(_), _) => return None,
            (_, Some(child)) => pipeline = child,
            (_, None) => {
                return Some(format!(
                    "`{path}`: `{name}` is no sub-pipeline and no blueprint: it has no steps of its own"
                ));
            }
        }
    }
    None
}

/// Says why a mock of this path can never stand for anything.
pub(super) fn mock_problem(program: &Program, path: &str) -> Option<String> {
    if let Some(problem) = problem_of(program, path) {
        return Some(problem);
    }
    if path.contains('/') || path.contains(':') {
        return None;
    }
    let name = path.split_once('[').map_or(path, |(name, _)| name);
    let number = *program.root.graph.index.get(name)?;
    let step = program.root.step(number);
    if step.fallback.is_some() {
        return None;
    }
    match &step.action {
        Action::Pipeline(_) => Some(format!("`{name}` is a sub-pipeline: mock its steps, as in `{name}/STEP`")),
        Action::Transform(_) => Some(format!("`{name}` is a transform: it is computed, not mocked")),
        Action::Wait(_) => Some(format!("`{name}` is a wait: no real time passes, so it needs no mock")),
        Action::Run(_)
        | Action::Http(_)
        | Action::Agent(_)
        | Action::Approve(_)
        | Action::Plan(_)
        | Action::Execute(_)
        | Action::Synthesize(_) => None,
    }
}

fn hook_problem(pipeline: &CompiledPipeline, part: &str) -> Option<String> {
    let hooks = &pipeline.pipeline.hooks;
    let lists =
        [("success", &hooks.success), ("failure", &hooks.failure), ("cancel", &hooks.cancel), ("exit", &hooks.exit)];
    let known: Vec<String> = lists
        .iter()
        .flat_map(|(kind, list)| (0..list.len()).map(move |number| format!("hooks:{kind}_{number}")))
        .collect();
    if known.iter().any(|name| name == part) {
        return None;
    }
    let listed = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
    Some(format!("`{part}` is not a hook of `{}`; {listed}", pipeline.pipeline.name.value))
}
