//! Profiles: their values held against the parameters, and the one that was asked for laid over the pipeline.

use super::report::{Report, did_you_mean};
use super::{codes, input_check};
use crate::diagnostic::{Diagnostic, nearest};
use crate::model::{Action, Limits, Pipeline, RunStep, Step};

/// Checks what every profile says about parameters.
pub fn check(pipeline: &Pipeline, report: &mut Report<'_>) {
    for (profile_name, profile) in &pipeline.profiles {
        for (name, value) in &profile.params {
            let Some(param) = pipeline.params.get(name) else {
                let message = format!("profile `{profile_name}` sets the parameter `{name}`, which does not exist");
                let near = nearest(name, pipeline.params.keys().map(|name| &**name));
                report
                    .push(Diagnostic::error(codes::UNKNOWN_PARAM, value.span, message).maybe_help(did_you_mean(near)));
                continue;
            };
            for fault in input_check::faults(&param.schema, &value.value) {
                let message = format!("parameter `{name}` in profile `{profile_name}`: {}", fault.message);
                report.push(Diagnostic::error(codes::MISTYPED_PARAM, value.span, message).maybe_help(fault.help));
            }
        }
    }
}

/// Lays a profile over the pipeline; one that does not exist is an error at the pipeline's name.
pub fn apply(pipeline: &mut Pipeline, name: &str, report: &mut Report<'_>) {
    let Some(profile) = pipeline.profiles.get(name).cloned() else {
        let message = format!("this pipeline has no profile `{name}`");
        let near = nearest(name, pipeline.profiles.keys().map(|name| &**name));
        let help = did_you_mean(near).unwrap_or_else(|| match pipeline.profiles.is_empty() {
            true => "it has no `profiles` at all".to_owned(),
            false => {
                let names: Vec<String> = pipeline.profiles.keys().map(|name| format!("`{name}`")).collect();
                format!("it has {}", names.join(", "))
            }
        });
        report.push(Diagnostic::error(codes::UNKNOWN_PROFILE, pipeline.name.span, message).help(help));
        return;
    };
    for (name, value) in &profile.params {
        if let Some(param) = pipeline.params.get_mut(name) {
            param.default = Some(value.clone());
        }
    }
    overlay(&mut pipeline.limits, &profile.limits);
    pipeline.timeout = profile.timeout.or(pipeline.timeout);
    for step in pipeline.steps.iter_mut().chain(&mut pipeline.finally) {
        if let (None, Some(retry)) = (&step.retry, &profile.retry) {
            step.retry = Some(Box::new(retry.clone()));
        }
    }
    let hooks = &mut pipeline.hooks;
    let hooks = [&mut hooks.success, &mut hooks.failure, &mut hooks.cancel, &mut hooks.exit].into_iter().flatten();
    for step in pipeline.steps.iter_mut().chain(&mut pipeline.finally).chain(hooks) {
        scripts(step, &mut |run| {
            for (name, text) in &profile.env {
                if !run.env.iter().any(|(own, _)| own.value == name.value) {
                    run.env.push((name.clone(), text.clone()));
                }
            }
        });
    }
}

/// Calls for the script of a step and of its fallback.
fn scripts(step: &mut Step, visit: &mut dyn FnMut(&mut RunStep)) {
    if let Action::Run(run) = &mut step.action {
        visit(run);
    }
    if let Some(fallback) = &mut step.fallback {
        scripts(fallback, visit);
    }
}

fn overlay(limits: &mut Limits, over: &Limits) {
    limits.max_tokens = over.max_tokens.or(limits.max_tokens);
    limits.max_cost = over.max_cost.or(limits.max_cost);
    limits.max_runtime = over.max_runtime.or(limits.max_runtime);
    limits.max_parallel = over.max_parallel.or(limits.max_parallel);
    for (name, most) in &over.queues {
        match limits.queues.iter_mut().find(|(own, _)| own.value == name.value) {
            Some(own) => own.1 = *most,
            None => limits.queues.push((name.clone(), *most)),
        }
    }
    limits.error_rate = over.error_rate.or(limits.error_rate);
}
