//! A pipeline as a whole.

use indexmap::IndexMap;

use crate::diagnostic::{FileId, Spanned};
use crate::model::limits::Limits;
use crate::model::pipeline::{Hooks, Param, Pipeline, Profile};
use crate::model::read::agents::read_agent_map;
use crate::model::read::retry::read_retry;
use crate::model::read::step::{Defaults, read_defaults, read_env, read_step, read_steps};
use crate::model::read::tool::read_tools;
use crate::model::read::trigger::read_triggers;
use crate::model::read::{ReadContext, scalar};
use crate::model::step::Step;
use crate::yaml::Node;

/// Reads a pipeline whose includes and step templates are merged in already.
///
/// `path` is the file's path within the project; a pipeline without `name` goes by the name of its file.
pub fn read_pipeline(node: &Node, file: FileId, path: &str, context: &mut ReadContext<'_>) -> Pipeline {
    let defaults = read_defaults(node, context);
    let name = scalar::spanned(node, "name").unwrap_or_else(|| Spanned::new(stem(path), node.span));
    Pipeline {
        file,
        path: Box::from(path),
        name,
        description: scalar::text(node, "description"),
        params: scalar::entries(node, "params").iter().map(|entry| (entry.key.clone(), read_param(entry))).collect(),
        timeout: context.duration(node, "timeout"),
        fail_fast: scalar::boolean(node, "fail_fast").unwrap_or_default(),
        limits: node.get("limits").map(|limits| read_limits(limits, context)).unwrap_or_default(),
        inherit_env: scalar::spanned_texts(node, "inherit_env"),
        steps: read_steps(scalar::items(node, "steps"), &defaults, context),
        finally: read_steps(scalar::items(node, "finally"), &defaults, context),
        outputs: read_outputs(node, context),
        hooks: read_hooks(node, &defaults, context),
        tools: read_tools(node, context),
        agents: read_agent_map(node, context),
        triggers: read_triggers(node, context),
        profiles: scalar::entries(node, "profiles")
            .iter()
            .map(|entry| (entry.key.clone(), read_profile(&entry.node, &defaults, context)))
            .collect(),
    }
}

/// `shared/publish.yaml` is `publish`.
fn stem(path: &str) -> Box<str> {
    let file = path.rsplit('/').next().unwrap_or(path);
    Box::from(file.rsplit_once('.').map_or(file, |(stem, _)| stem))
}

fn read_param(entry: &crate::yaml::Entry) -> Param {
    let node = &entry.node;
    Param {
        name_span: entry.key_span,
        schema: node.to_json(),
        default: node.get("default").map(|default| Spanned::new(default.to_json(), default.span)),
        description: scalar::text(node, "description"),
    }
}

fn read_limits(node: &Node, context: &mut ReadContext<'_>) -> Limits {
    Limits {
        max_tokens: scalar::unsigned(node, "max_tokens"),
        max_cost: scalar::number(node, "max_cost"),
        max_runtime: context.duration(node, "max_runtime"),
        max_parallel: scalar::unsigned_small(node, "max_parallel"),
        queues: scalar::entries(node, "queues")
            .iter()
            .filter_map(|entry| {
                let most = u32::try_from(scalar::whole(&entry.node)?).unwrap_or(u32::MAX);
                Some((Spanned::new(entry.key.clone(), entry.key_span), most))
            })
            .collect(),
        error_rate: scalar::number(node, "error_rate"),
    }
}

fn read_outputs(
    node: &Node,
    context: &mut ReadContext<'_>,
) -> Vec<(Spanned<Box<str>>, Spanned<crate::expr::ValueTemplate>)> {
    scalar::entries(node, "outputs")
        .iter()
        .map(|entry| {
            let value = context.value_template(&entry.node);
            (Spanned::new(entry.key.clone(), entry.key_span), Spanned::new(value, entry.node.span))
        })
        .collect()
}

fn read_hooks(node: &Node, defaults: &Defaults, context: &mut ReadContext<'_>) -> Hooks {
    let Some(hooks) = node.get("hooks") else { return Hooks::default() };
    let mut list = |name: &str| -> Vec<Step> {
        scalar::items(hooks, name)
            .iter()
            .enumerate()
            .map(|(index, hook)| {
                let id = Spanned::new(format!("{name}_{index}").into_boxed_str(), hook.span);
                read_step(hook, id, defaults, context)
            })
            .collect()
    };
    Hooks { success: list("success"), failure: list("failure"), cancel: list("cancel"), exit: list("exit") }
}

fn read_profile(node: &Node, defaults: &Defaults, context: &mut ReadContext<'_>) -> Profile {
    let params: IndexMap<_, _> = scalar::entries(node, "params")
        .iter()
        .map(|entry| (entry.key.clone(), Spanned::new(entry.node.to_json(), entry.node.span)))
        .collect();
    Profile {
        params,
        limits: node.get("limits").map(|limits| read_limits(limits, context)).unwrap_or_default(),
        timeout: context.duration(node, "timeout"),
        retry: node.get("retry").and_then(|retry| read_retry(retry, defaults.retry.as_ref(), context)),
        env: read_env(node, "env", context),
    }
}
