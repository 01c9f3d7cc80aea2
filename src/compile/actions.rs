//! What actions name beside steps: agents, tools, plans, and the parameters of sub-pipelines.

use std::collections::HashMap;

use super::pipeline::{Callables, Child, Surroundings, step_of};
use super::report::{Report, did_you_mean};
use super::{codes, input_check};
use crate::diagnostic::{Diagnostic, Spanned, nearest};
use crate::expr::ValueTemplate;
use crate::model::{Action, Agent, Pipeline, PlanSource, PlanStep, ProviderKind, Step, SubPipeline};

/// What checking an action needs to know.
pub struct ActionCheck<'a> {
    pub pipeline: &'a Pipeline,
    pub around: Surroundings<'a>,
    pub callables: &'a Callables<'a>,
    pub index: &'a HashMap<Box<str>, u32>,
}

/// Calls for every agent that an action names.
pub fn agents_of<'s>(action: &'s Action, visit: &mut dyn FnMut(&'s Spanned<Box<str>>)) {
    match action {
        Action::Agent(agent) => visit(&agent.agent),
        Action::Plan(plan) => match &plan.source {
            PlanSource::Agent { agent, .. } => visit(agent),
            PlanSource::Static(_) | PlanSource::File(_) => {}
        },
        Action::Synthesize(answer) => {
            visit(&answer.agent);
            answer.critic.iter().for_each(visit);
        }
        Action::Run(_)
        | Action::Http(_)
        | Action::Transform(_)
        | Action::Pipeline(_)
        | Action::Wait(_)
        | Action::Approve(_)
        | Action::Execute(_) => {}
    }
}

impl ActionCheck<'_> {
    /// Checks the action of a step or of its fallback, whose own number is used for what it names.
    pub fn step(&self, number: u32, step: &Step, report: &mut Report<'_>) {
        agents_of(&step.action, &mut |agent| self.agent(agent, report));
        match &step.action {
            Action::Agent(agent) => agent.tools.iter().for_each(|tool| self.tool(tool, report)),
            Action::Plan(plan) => self.plan(plan, report),
            Action::Execute(plan) => self.execute(plan, report),
            Action::Pipeline(child) => {
                if let Some(callee) = self.around.children.get(&number) {
                    self.with(child, callee, report);
                }
            }
            Action::Run(_)
            | Action::Http(_)
            | Action::Transform(_)
            | Action::Wait(_)
            | Action::Approve(_)
            | Action::Synthesize(_) => {}
        }
    }

    fn agent(&self, agent: &Spanned<Box<str>>, report: &mut Report<'_>) {
        let Callables { agents, view, missing_reported, .. } = self.callables;
        if let Some(known) = agents.get(&agent.value) {
            self.provider(agent, known, report);
            return;
        }
        match view {
            None if agents.is_empty() => {
                if !missing_reported.replace(true) {
                    let message = format!("there is no `agents.yaml` that could declare the agent `{}`", agent.value);
                    report.push(
                        Diagnostic::error(codes::NO_CATALOGUE, agent.span, message)
                            .help("put an `agents.yaml` beside the pipeline or in a folder above it"),
                    );
                }
            }
            Some(view) if view.unreadable || view.broken.contains(&agent.value) => {}
            Some(_) | None => {
                let place = view.map_or("this pipeline", |view| &*view.catalogue.path);
                let message = format!("there is no agent `{}` in {place}", agent.value);
                let near = nearest(&agent.value, agents.keys().map(|name| &**name));
                report
                    .push(Diagnostic::error(codes::UNKNOWN_AGENT, agent.span, message).maybe_help(did_you_mean(near)));
            }
        }
    }

    /// Warns at the first use of an agent that no run can call.
    fn provider(&self, named: &Spanned<Box<str>>, agent: &Agent, report: &mut Report<'_>) {
        let kind = agent.provider.as_ref().map(|provider| provider.value).or(self.around.settings.provider);
        let message = match kind {
            Some(ProviderKind::Command) => return,
            Some(ProviderKind::Anthropic) => format!("agent `{}` is one of `anthropic`", named.value),
            Some(ProviderKind::Openai) => format!("agent `{}` is one of `openai`", named.value),
            None => format!("agent `{}` has no provider, and the settings name none", named.value),
        };
        let is_told = self.callables.uncallable.borrow_mut().insert(named.value.clone());
        if is_told {
            let message = format!("{message}: this version cannot call it");
            report.push(
                Diagnostic::warning(codes::NO_PROVIDER, named.span, message)
                    .help("give it `provider: command` and `command: […]`")
                    .related(agent.id.span, "the agent"),
            );
        }
    }

    fn tool(&self, tool: &Spanned<Box<str>>, report: &mut Report<'_>) {
        let written =
            self.around.tree.and_then(|tree| tree.get("tools")).is_some_and(|tools| tools.get(&tool.value).is_some());
        if self.callables.knows_tool(&tool.value) || written {
            return;
        }
        let message = format!("there is no tool `{}`", tool.value);
        let near = nearest(&tool.value, self.callables.tools.keys().map(|name| &**name));
        let help = did_you_mean(near)
            .unwrap_or_else(|| "declare it under `tools` in the pipeline or in `agents.yaml`".to_owned());
        report.push(Diagnostic::error(codes::UNKNOWN_TOOL, tool.span, message).help(help));
    }

    fn plan(&self, plan: &PlanStep, report: &mut Report<'_>) {
        for tool in plan.tools.iter().flatten() {
            self.tool(tool, report);
        }
    }

    /// True if the step makes one blueprint.
    pub fn is_plan(&self, number: u32) -> bool {
        step_of(self.pipeline, number).is_some_and(|step| matches!(step.action, Action::Plan(_)) && step.fan.is_none())
    }

    fn execute(&self, plan: &Spanned<Box<str>>, report: &mut Report<'_>) {
        let Some(step) = self.index.get(&plan.value).and_then(|number| step_of(self.pipeline, *number)) else { return };
        let message = match &step.action {
            Action::Plan(_) if step.fan.is_none() => return,
            Action::Plan(_) => format!("`{}` makes a list of blueprints, and `execute` takes one", plan.value),
            other => format!("`execute` needs a `plan` step, and `{}` is a `{}` step", plan.value, other.key()),
        };
        report.push(
            Diagnostic::error(codes::NOT_A_PLAN, plan.span, message)
                .help("name a step that has `plan:`")
                .related(step.id.span, "the step"),
        );
    }

    /// The parameters that a sub-pipeline is given, against those that it has.
    fn with(&self, call: &SubPipeline, callee: &Child, report: &mut Report<'_>) {
        let Some(compiled) = &callee.compiled else { return };
        let params = &compiled.pipeline.pipeline.params;
        for (name, value) in &call.with {
            let Some(param) = params.get(&name.value) else {
                let message = format!("`{}` has no parameter `{}`", callee.path, name.value);
                let near = nearest(&name.value, params.keys().map(|name| &**name));
                report.push(Diagnostic::error(codes::UNKNOWN_PARAM, name.span, message).maybe_help(did_you_mean(near)));
                continue;
            };
            if let ValueTemplate::Constant(constant) = &value.value {
                let files = self.around.tree.and_then(|tree| super::report::node_at(tree, value.span));
                for fault in input_check::faults(&param.schema, constant) {
                    let span =
                        files.map_or(value.span, |node| super::report::node_at_pointer(node, &fault.pointer).span);
                    let message = format!("parameter `{}` of `{}`: {}", name.value, callee.path, fault.message);
                    report.push(Diagnostic::error(codes::MISTYPED_PARAM, span, message).maybe_help(fault.help));
                }
            }
        }
        for (name, _) in params.iter().filter(|(_, param)| param.default.is_none()) {
            if !call.with.iter().any(|(given, _)| given.value == *name) {
                let message = format!("`{}` needs the parameter `{name}`, which `with` does not give", callee.path);
                report.push(
                    Diagnostic::error(codes::MISSING_PARAM, call.path.span, message)
                        .help(format!("add `with: {{ {name}: … }}`, or give the parameter a default there")),
                );
            }
        }
    }
}
