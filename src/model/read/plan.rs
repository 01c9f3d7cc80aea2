//! `plan:` and `synthesize:`.

use crate::model::action::{OnUnaccepted, PlanSource, PlanStep, Synthesize, WritePolicy};
use crate::model::read::action::read_answer_schema;
use crate::model::read::blueprint::read_blueprint;
use crate::model::read::step::{Defaults, read_env_over};
use crate::model::read::{ReadContext, scalar};
use crate::yaml::Node;

/// How often a faulty answer of a planner is sent back when `repair` says nothing.
const REPAIR_TURNS: u32 = 1;

/// How many drafts a `synthesize` may make when `max_cycles` says nothing.
const CYCLES: u32 = 3;

/// Reads `plan:`.
pub(super) fn read_plan(value: &Node, context: &mut ReadContext<'_>) -> Option<PlanStep> {
    let source = if let Some(blueprint) = value.get("blueprint") {
        PlanSource::Static(Box::new(read_blueprint(blueprint)))
    } else if let Some(file) = scalar::spanned(value, "file") {
        PlanSource::File(file)
    } else {
        PlanSource::Agent { agent: scalar::spanned(value, "agent")?, goal: context.template(value.get("goal")?)? }
    };
    let write = match value.get("write").and_then(Node::as_str) {
        Some("ask") => WritePolicy::Ask,
        Some("allow") => WritePolicy::Allow,
        Some(_) | None => WritePolicy::Refuse,
    };
    Some(PlanStep {
        source,
        tools: value.get("tools").map(|_| scalar::spanned_texts(value, "tools")),
        max_steps: scalar::unsigned_small(value, "max_steps"),
        write,
        repair: scalar::unsigned_small(value, "repair").unwrap_or(REPAIR_TURNS),
    })
}

/// Reads `synthesize:`.
pub(super) fn read_synthesize(
    step: &Node,
    value: &Node,
    defaults: &Defaults,
    context: &mut ReadContext<'_>,
) -> Option<Synthesize> {
    let on_unaccepted = match value.get("on_unaccepted").and_then(Node::as_str) {
        Some("keep") => OnUnaccepted::Keep,
        Some(_) | None => OnUnaccepted::Fail,
    };
    Some(Synthesize {
        agent: scalar::spanned(value, "agent")?,
        critic: scalar::spanned(value, "critic"),
        from: scalar::spanned_texts(value, "from"),
        prompt: value.get("prompt").and_then(|prompt| context.template(prompt)),
        verify: scalar::spanned(value, "verify"),
        accept: value.get("accept").and_then(|accept| context.expression(accept)),
        max_cycles: scalar::unsigned_small(value, "max_cycles").unwrap_or(CYCLES),
        on_unaccepted,
        schema: read_answer_schema(step),
        env: read_env_over(step, defaults, context),
    })
}
