//! Models made by hand, for tests that need no file.

use indexmap::IndexMap;
use serde_json::Value;

use crate::diagnostic::{FileId, Span, Spanned};
use crate::model::{Action, Hooks, Limits, Pipeline, Priority, RunStep, ScriptSource, Step, Tool, ToolEffect};
use crate::task::Shell;

/// A name without a place.
pub fn name(text: &str) -> Spanned<Box<str>> {
    Spanned::new(text.into(), Span::default())
}

/// A step that runs a script.
pub fn script(id: &str, depends: &[&str]) -> Step {
    let run = RunStep {
        source: ScriptSource::Script(name("true")),
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: None,
        shell: Shell::Sh,
        json: false,
        permanent_exit_codes: Vec::new(),
        max_output: None,
    };
    Step {
        place: None,
        id: name(id),
        span: Span::default(),
        label: None,
        depends: depends.iter().map(|id| name(id)).collect(),
        condition: None,
        fan: None,
        action: Action::Run(Box::new(run)),
        timeout: None,
        attempt_timeout: None,
        retry: None,
        continue_on_error: false,
        fallback: None,
        cache: None,
        priority: Priority::Medium,
    }
}

/// A pipeline of these steps.
pub fn pipeline(steps: Vec<Step>) -> Pipeline {
    Pipeline {
        file: FileId::default(),
        path: "made.yaml".into(),
        name: name("made"),
        description: None,
        params: IndexMap::new(),
        timeout: None,
        fail_fast: false,
        limits: Limits::default(),
        inherit_env: Vec::new(),
        steps,
        finally: Vec::new(),
        outputs: Vec::new(),
        hooks: Hooks::default(),
        tools: IndexMap::new(),
        agents: IndexMap::new(),
        triggers: Vec::new(),
        profiles: IndexMap::new(),
    }
}

/// A tool that runs a script.
pub fn tool(id: &str, effect: ToolEffect, input_schema: Value) -> Tool {
    Tool {
        name: name(id),
        description: "Does it.".into(),
        input_schema,
        effect,
        step: script(id, &[]),
        base: Box::default(),
    }
}
