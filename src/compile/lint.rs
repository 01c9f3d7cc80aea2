//! What is allowed and hardly meant: steps that never run, times that cannot be met, names that nobody reads.

use std::collections::BTreeSet;
use std::time::Duration;

use super::codes;
use super::links::Links;
use super::pipeline::{Surroundings, hooks, numbered, step_of};
use super::report::Report;
use super::typing::never_true;
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::model::{Action, Limits, Pipeline, Step, Wait};
use crate::time::format_duration;

/// Adds all warnings, and the errors of limits above the settings' ceilings.
///
/// `sound` says that there are no errors elsewhere: what a misspelt name fails to read is else not called unused.
pub fn lint(pipeline: &Pipeline, around: Surroundings<'_>, links: &Links, sound: bool, report: &mut Report<'_>) {
    never_runs(pipeline, links, report);
    times(pipeline, around, links, report);
    ceilings(pipeline, around, report);
    cycles_ceiling(pipeline, around, report);
    bounded_queues(pipeline, report);
    for hook in hooks(pipeline) {
        match &hook.action {
            Action::Pipeline(_) | Action::Plan(_) | Action::Execute(_) | Action::Synthesize(_) | Action::Approve(_) => {
                let message = format!("a hook cannot be a `{}`", hook.action.key());
                report.push(
                    Diagnostic::error(codes::MISPLACED_ACTION, hook.span, message)
                        .help("make it a `finally` step, or let the hook run a script"),
                );
            }
            Action::Run(_) | Action::Http(_) | Action::Transform(_) | Action::Wait(_) | Action::Agent(_) => {}
        }
    }
    if sound && !super::report::has_errors(&report.diagnostics) {
        unused(pipeline, links, report);
    }
}

/// Conditions that are always false, and the steps that wait for such a step.
fn never_runs(pipeline: &Pipeline, links: &Links, report: &mut Report<'_>) {
    let mut never: Vec<Option<u32>> = vec![None; links.graph.names.len()];
    let mut any = false;
    for (number, step) in numbered(pipeline) {
        if never_true(step) {
            any = true;
            if let Some(slot) = never.get_mut(number as usize) {
                *slot = Some(number);
            }
            let span = step.condition.as_ref().map_or(step.span, |condition| condition.span);
            let message = format!("the condition is always false: step `{}` never runs", step.id.value);
            report.push(Diagnostic::warning(codes::NEVER_RUNS, span, message).help("take the step or its `if` out"));
        }
    }
    if !any {
        return;
    }
    for number in links.graph.topological_order() {
        if never.get(number as usize).is_none_or(Option::is_some) {
            continue;
        }
        let blocked = links
            .graph
            .dependencies(number)
            .filter(|(_, edge)| !edge.reads_status)
            .find_map(|(dependency, _)| never.get(dependency as usize).copied().flatten());
        let (Some(cause), Some(step)) = (blocked, step_of(pipeline, number)) else { continue };
        if let Some(slot) = never.get_mut(number as usize) {
            *slot = Some(cause);
        }
        if let Some(origin) = step_of(pipeline, cause) {
            let message = format!("step `{}` never runs, for it waits for `{}`", step.id.value, origin.id.value);
            let place = origin.condition.as_ref().map_or(origin.span, |condition| condition.span);
            report.push(
                Diagnostic::warning(codes::UNREACHABLE, step.id.span, message).related(place, "this is always false"),
            );
        }
    }
}

/// The time that a step takes at least, where the file says so.
fn least_time(step: &Step) -> Duration {
    match &step.action {
        Action::Wait(wait) => match wait.as_ref() {
            Wait::For(length) => *length,
            Wait::UntilTime(_) | Wait::Until(_) => Duration::ZERO,
        },
        Action::Run(_)
        | Action::Http(_)
        | Action::Transform(_)
        | Action::Pipeline(_)
        | Action::Approve(_)
        | Action::Agent(_)
        | Action::Plan(_)
        | Action::Execute(_)
        | Action::Synthesize(_) => Duration::ZERO,
    }
}

/// Waits that take longer than the time that there is.
fn times(pipeline: &Pipeline, around: Surroundings<'_>, links: &Links, report: &mut Report<'_>) {
    let total = match (pipeline.limits.max_runtime, pipeline.timeout) {
        (Some(limit), Some(timeout)) => Some(limit.min(timeout)),
        (limit, timeout) => limit.or(timeout),
    };
    let mut waits = false;
    for (_, step) in numbered(pipeline) {
        let least = least_time(step);
        waits |= !least.is_zero();
        if let Some(timeout) = step.timeout.filter(|timeout| least > *timeout) {
            let message = format!(
                "step `{}` waits {}, longer than its timeout of {}: it always times out",
                step.id.value,
                format_duration(least),
                format_duration(timeout)
            );
            let span = key_span(around, step.span, &["timeout"]);
            report.push(Diagnostic::warning(codes::IMPOSSIBLE_TIME, span, message));
        }
    }
    let Some(total) = total.filter(|_| waits) else { return };
    let mut ends = vec![Duration::ZERO; links.graph.names.len()];
    for number in links.graph.topological_order() {
        let Some(step) = step_of(pipeline, number) else { continue };
        let start = links.graph.dependencies(number).filter_map(|(from, _)| ends.get(from as usize)).max().copied();
        let start = start.unwrap_or_default();
        let end = start.saturating_add(least_time(step));
        if start <= total && end > total && (number as usize) < pipeline.steps.len() {
            let message = format!(
                "the waits on the way to the end of step `{}` take {}, and the run may take {}",
                step.id.value,
                format_duration(end),
                format_duration(total)
            );
            report.push(
                Diagnostic::warning(codes::IMPOSSIBLE_TIME, step.id.span, message)
                    .help("raise `limits.max_runtime` or `timeout`, or wait for less"),
            );
        }
        if let Some(slot) = ends.get_mut(number as usize) {
            *slot = end;
        }
    }
}

/// The place of a key's value below a mapping that was read, or the mapping.
fn key_span(around: Surroundings<'_>, parent: Span, keys: &[&str]) -> Span {
    let Some(mut node) = around.tree.and_then(|tree| super::report::node_at(tree, parent)) else { return parent };
    for key in keys {
        let Some(next) = node.get(key) else { return parent };
        node = next;
    }
    node.span
}

/// Parameters and outputs that nobody reads.
fn unused(pipeline: &Pipeline, links: &Links, report: &mut Report<'_>) {
    for (name, param) in &pipeline.params {
        if !links.all_params_used && !links.used_params.contains(&**name) {
            let message = format!("nothing reads the parameter `{name}`");
            report.push(
                Diagnostic::warning(codes::UNUSED_PARAM, param.name_span, message)
                    .help(format!("read it as `params.{name}`, or take it out")),
            );
        }
    }
    for (number, step) in numbered(pipeline) {
        let read = links.read.get(number as usize).copied().unwrap_or(true);
        let waited_for = || links.graph.dependants(number).next().is_some();
        let message = match &step.action {
            Action::Transform(_) if !read && !waited_for() => {
                format!("nothing reads what `{}` computes", step.id.value)
            }
            Action::Plan(_) if !read && !waited_for() => format!("nothing executes the plan of `{}`", step.id.value),
            _ => continue,
        };
        report.push(Diagnostic::warning(codes::UNUSED_OUTPUTS, step.id.span, message));
    }
}

/// A pipeline's own limits may not be above the settings'.
fn ceilings(pipeline: &Pipeline, around: Surroundings<'_>, report: &mut Report<'_>) {
    let (own, ceilings) = (&pipeline.limits, &around.settings.ceilings);
    if *ceilings == Limits::default() {
        return;
    }
    let mut above = |keys: &[&str], own: String, ceiling: String| {
        let node = around.tree.and_then(|tree| keys.iter().try_fold(tree, |node, key| node.get(key)));
        let span = node.map_or(pipeline.name.span, |node| node.span);
        let message = format!("`{}: {own}` is above the {ceiling} that the settings allow", keys.join("."));
        report.push(
            Diagnostic::error(codes::ABOVE_CEILING, span, message)
                .help("lower it, or raise the ceiling in `duo-agent.config.yaml`"),
        );
    };
    if let (Some(own), Some(most)) = (own.max_tokens, ceilings.max_tokens)
        && own > most
    {
        above(&["limits", "max_tokens"], own.to_string(), most.to_string());
    }
    if let (Some(own), Some(most)) = (own.max_cost, ceilings.max_cost)
        && own > most
    {
        above(&["limits", "max_cost"], own.to_string(), most.to_string());
    }
    if let (Some(own), Some(most)) = (own.max_parallel, ceilings.max_parallel)
        && own > most
    {
        above(&["limits", "max_parallel"], own.to_string(), most.to_string());
    }
    if let (Some(own), Some(most)) = (own.error_rate, ceilings.error_rate)
        && own > most
    {
        above(&["limits", "error_rate"], own.to_string(), most.to_string());
    }
    if let (Some(own), Some(most)) = (own.max_runtime, ceilings.max_runtime)
        && own > most
    {
        above(&["limits", "max_runtime"], format_duration(own), format_duration(most));
    }
    if let (Some(own), Some(most)) = (pipeline.timeout, ceilings.max_runtime)
        && own > most
    {
        above(&["timeout"], format_duration(own), format_duration(most));
    }
}

/// More cycles of `synthesize` than the settings allow. They are made all the same, so this is only a warning.
fn cycles_ceiling(pipeline: &Pipeline, around: Surroundings<'_>, report: &mut Report<'_>) {
    let Some(most) = around.settings.max_improvement_cycles else { return };
    for (_, step) in numbered(pipeline) {
        let Action::Synthesize(answer) = &step.action else { continue };
        if answer.max_cycles > most {
            let message = format!("`max_cycles: {}` is above the {most} that the settings allow", answer.max_cycles);
            let span = key_span(around, step.span, &["synthesize", "max_cycles"]);
            report.push(Diagnostic::warning(codes::CYCLES_ABOVE_CEILING, span, message));
        }
    }
}

/// Bounds on queues that nothing here goes to. A sub-pipeline may name any queue, so that only a name that is close to
/// one in this file counts as a slip there.
fn bounded_queues(pipeline: &Pipeline, report: &mut Report<'_>) {
    if pipeline.limits.queues.is_empty() {
        return;
    }
    let own = numbered(pipeline).map(|(_, step)| step).chain(hooks(pipeline));
    let steps: Vec<&Step> = own.flat_map(|step| std::iter::once(step).chain(step.fallback.as_deref())).collect();
    let used: BTreeSet<&str> = steps.iter().map(|step| step.queue()).collect();
    let calls = steps.iter().any(|step| matches!(step.action, Action::Pipeline(_)));
    for (name, _) in &pipeline.limits.queues {
        let near = nearest(&name.value, used.iter().copied());
        if used.contains(&*name.value) || (calls && near.is_none()) {
            continue;
        }
        let message = format!("no step goes to the queue `{}`, so this bounds nothing", name.value);
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("give a step `queue: {}`, or take this out", name.value),
        };
        report.push(Diagnostic::warning(codes::UNUSED_QUEUE, name.span, message).help(help));
    }
}
