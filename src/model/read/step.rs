//! Steps, with the defaults of their pipeline laid under them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Spanned};
use crate::expr::Template;
use crate::model::action::{Action, CacheRule, PlanSource, RunStep, ScriptSource};
use crate::model::limits::Retry;
use crate::model::read::retry::{read_retry, read_timeouts};
use crate::model::read::{ReadContext, action, codes, fan, scalar};
use crate::model::step::{Condition, EnvEntry, Priority, Step, StepPlace};
use crate::task::{DEFAULT_QUEUE, Shell};
use crate::yaml::{Node, Yaml};

/// What a pipeline says for all its steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Defaults {
    pub(super) retry: Option<Retry>,
    pub(super) timeout: Option<Duration>,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) env: Vec<EnvEntry>,
    pub(super) shell: Option<Shell>,
    pub(super) dir: Option<Spanned<Template>>,
    /// Those of `defaults` and those of the pipeline itself.
    pub(super) inherit_env: Vec<Box<str>>,
    /// `queue` of `defaults`, else that of the pipeline itself: one value that all its steps share.
    pub(super) place: Option<Arc<StepPlace>>,
}

/// Reads `defaults:` of a pipeline.
pub(super) fn read_defaults(pipeline: &Node, context: &mut ReadContext<'_>) -> Defaults {
    let mut inherit_env = scalar::texts(pipeline, "inherit_env");
    let queue = |node: &Node| scalar::text(node, "queue").map(|queue| place(&queue, Vec::new()));
    let own = queue(pipeline);
    let Some(node) = pipeline.get("defaults") else {
        return Defaults { inherit_env, place: own, ..Defaults::default() };
    };
    inherit_env.extend(scalar::texts(node, "inherit_env"));
    let (timeout, attempt_timeout) = read_timeouts(node, None, None, context);
    Defaults {
        retry: node.get("retry").and_then(|retry| read_retry(retry, None, context)),
        timeout,
        attempt_timeout,
        env: read_env(node, "env", context),
        shell: node.get("shell").and_then(Node::as_str).and_then(shell),
        dir: node.get("dir").and_then(|dir| context.template(dir)),
        inherit_env,
        place: queue(node).or(own),
    }
}

fn place(queue: &str, capabilities: Vec<Box<str>>) -> Arc<StepPlace> {
    Arc::new(StepPlace { queue: Arc::from(queue), capabilities })
}

/// Where the work of a step is done; nothing for an action that no worker does.
fn read_place(
    node: &Node,
    action: &Action,
    defaults: &Defaults,
    context: &mut ReadContext<'_>,
) -> Option<Arc<StepPlace>> {
    match action {
        Action::Plan(plan) if !matches!(plan.source, PlanSource::Agent { .. }) => {
            for entry in ["queue", "capabilities"].into_iter().filter_map(|key| node.entry(key)) {
                let message = format!("`{}` has no effect: no worker makes this plan, it stands in a file", entry.key);
                let help = "put it on the `execute` step: the calls of the plan go there";
                context.report(Diagnostic::error(codes::OTHER_ACTION, entry.key_span, message).help(help));
            }
            return None;
        }
        Action::Run(_)
        | Action::Http(_)
        | Action::Agent(_)
        | Action::Plan(_)
        | Action::Execute(_)
        | Action::Synthesize(_) => {}
        Action::Transform(_) | Action::Pipeline(_) | Action::Wait(_) | Action::Approve(_) => return None,
    }
    let queue = scalar::text(node, "queue");
    let capabilities = scalar::texts(node, "capabilities");
    if queue.is_none() && capabilities.is_empty() {
        return defaults.place.clone();
    }
    let queue = match (&queue, &defaults.place) {
        (Some(own), _) => own,
        (None, Some(default)) => &*default.queue,
        (None, None) => DEFAULT_QUEUE,
    };
    Some(place(queue, capabilities))
}

/// The shell that a word names.
pub(super) fn shell(text: &str) -> Option<Shell> {
    match text {
        "sh" => Some(Shell::Sh),
        "bash" => Some(Shell::Bash),
        _ => None,
    }
}

/// The pairs of a mapping of texts, each a template.
pub(super) fn read_env(node: &Node, key: &str, context: &mut ReadContext<'_>) -> Vec<EnvEntry> {
    let entries = scalar::entries(node, key).iter();
    entries
        .filter_map(|entry| {
            let value = context.template(&entry.node)?;
            Some((Spanned::new(entry.key.clone(), entry.key_span), value))
        })
        .collect()
}

/// The pairs of `env:` over those of the defaults.
pub(super) fn read_env_over(node: &Node, defaults: &Defaults, context: &mut ReadContext<'_>) -> Vec<EnvEntry> {
    let own = read_env(node, "env", context);
    if defaults.env.is_empty() {
        return own;
    }
    let names: BTreeSet<&str> = own.iter().map(|(name, _)| &*name.value).collect();
    let mut env: Vec<EnvEntry> =
        defaults.env.iter().filter(|(name, _)| !names.contains(&*name.value)).cloned().collect();
    env.extend(own);
    env
}

/// Reads a list of steps; one without an id is left out, since it has been reported and has no name to go by.
pub(super) fn read_steps(list: &[Node], defaults: &Defaults, context: &mut ReadContext<'_>) -> Vec<Step> {
    let mut steps = Vec::with_capacity(list.len());
    for node in list {
        if let Some(id) = scalar::spanned(node, "id") {
            steps.push(read_step(node, id, defaults, context));
        }
    }
    steps
}

/// Reads one step under an id.
pub(super) fn read_step(
    node: &Node,
    id: Spanned<Box<str>>,
    defaults: &Defaults,
    context: &mut ReadContext<'_>,
) -> Step {
    let action = action::read_action(node, defaults, context).unwrap_or_else(unreadable);
    // A person's answer and a plain wait take the time that they take; a default timeout is meant for work.
    let waits = matches!(action, Action::Approve(_) | Action::Wait(_));
    let (timeout_default, attempt_default) =
        if waits { (None, None) } else { (defaults.timeout, defaults.attempt_timeout) };
    let (timeout, attempt_timeout) = read_timeouts(node, timeout_default, attempt_default, context);
    let retry = match node.get("retry") {
        Some(retry) => read_retry(retry, defaults.retry.as_ref(), context),
        None => defaults.retry.clone(),
    };
    let mut depends = scalar::spanned_texts(node, "depends");
    depends.extend(scalar::spanned_texts(node, "needs"));
    let fallback = node.get("fallback").map(|fallback| {
        let plain = Defaults { retry: None, timeout: None, attempt_timeout: None, ..defaults.clone() };
        Box::new(read_step(fallback, id.clone(), &plain, context))
    });
    Step {
        place: read_place(node, &action, defaults, context),
        span: node.span,
        label: scalar::text(node, "name"),
        depends,
        condition: read_condition(node, context),
        fan: fan::read_fan(node, context),
        action,
        timeout,
        attempt_timeout,
        retry: retry.map(Box::new),
        continue_on_error: scalar::boolean(node, "continue_on_error").unwrap_or_default(),
        fallback,
        cache: read_cache(node, context),
        priority: node.get("priority").and_then(Node::as_str).and_then(priority).unwrap_or_default(),
        id,
    }
}

/// What stands for an action that cannot be read: one whose outputs may be anything, so that nothing else is blamed.
fn unreadable() -> Action {
    Action::Run(Box::new(RunStep {
        source: ScriptSource::Script(Spanned::default()),
        env: Vec::new(),
        inherit_env: Vec::new(),
        dir: None,
        shell: Shell::Sh,
        json: true,
        permanent_exit_codes: Vec::new(),
        max_output: None,
    }))
}

fn read_condition(node: &Node, context: &mut ReadContext<'_>) -> Option<Box<Spanned<Condition>>> {
    let value = node.get("if")?;
    let condition = match &value.value {
        Yaml::Bool(constant) => Condition::Constant(*constant),
        Yaml::String(_) => Condition::Expression(context.expression(value)?.value),
        Yaml::Null | Yaml::Int(_) | Yaml::Float(_) | Yaml::List(_) | Yaml::Map(_) => return None,
    };
    Some(Box::new(Spanned::new(condition, value.span)))
}

fn read_cache(node: &Node, context: &mut ReadContext<'_>) -> Option<Box<CacheRule>> {
    let cache = node.get("cache")?;
    let key = context.template(cache.get("key")?)?;
    Some(Box::new(CacheRule { key, ttl: context.duration(cache, "ttl") }))
}

fn priority(text: &str) -> Option<Priority> {
    match text {
        "critical" => Some(Priority::Critical),
        "high" => Some(Priority::High),
        "medium" => Some(Priority::Medium),
        "low" => Some(Priority::Low),
        _ => None,
    }
}
