//! All checks of a blueprint, and the calls that it comes to.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use jsonschema::Validator;

use super::{PlanRules, hash};
use crate::compile::input::{InputTemplate, ParsedInput};
use crate::compile::report::did_you_mean;
use crate::compile::{Call, CallTarget, CompiledBlueprint, codes, input_check};
use crate::diagnostic::nearest;
use crate::graph::{Edge, EdgeSource, GraphBuilder, StepGraph};
use crate::model::{Blueprint, BlueprintStep, Callee, OnError, Tool, ToolEffect, WritePolicy};

/// No blueprint has more steps than this, whatever its plan allows: a planner that writes more has lost its way.
const MOST_STEPS: u32 = 10_000;

/// How many tools a message lists at most.
const LISTED_TOOLS: usize = 20;

/// One mistake in a blueprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlueprintFault {
    pub code: &'static str,
    pub place: FaultPlace,
    pub message: String,
    pub help: Option<String>,
}

/// The place of a mistake; steps by their position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultPlace {
    Whole,
    Step(usize),
    Id(usize),
    Callee(usize),
    Depends(usize, usize),
    Input {
        step: usize,
        /// JSON pointer within the input.
        pointer: String,
        /// A part of the string at the pointer.
        range: Option<Range<usize>>,
        /// The key of a property below the pointer.
        property: Option<String>,
    },
}

impl FaultPlace {
    /// The position of the step, if it is in one.
    pub fn step(&self) -> Option<usize> {
        match self {
            Self::Whole => None,
            Self::Step(step)
            | Self::Id(step)
            | Self::Callee(step)
            | Self::Depends(step, _)
            | Self::Input { step, .. } => Some(*step),
        }
    }
}

struct Checker<'a> {
    blueprint: &'a Blueprint,
    rules: &'a PlanRules,
    /// Names of tools and agents that are wrong elsewhere, so that nothing is said about them here.
    excused: &'a dyn Fn(&str) -> bool,
    validators: BTreeMap<&'a str, Option<Validator>>,
    faults: Vec<BlueprintFault>,
}

/// Checks a blueprint against the rules of its plan. What comes back can be run only if there are no faults.
pub fn compile(
    blueprint: Blueprint,
    rules: &PlanRules,
    excused: &dyn Fn(&str) -> bool,
) -> (CompiledBlueprint, Vec<BlueprintFault>) {
    let mut checker =
        Checker { blueprint: &blueprint, rules, excused, validators: BTreeMap::new(), faults: Vec::new() };
    checker.size();
    if checker.blueprint.steps.len() > MOST_STEPS as usize {
        let faults = checker.faults;
        let nothing = CompiledBlueprint {
            graph: StepGraph::default(),
            calls: Vec::new(),
            hash: Box::default(),
            json: Arc::default(),
            blueprint,
        };
        return (nothing, faults);
    }
    let builder = checker.ids();
    let mut ids: Vec<&str> = blueprint.steps.iter().map(|step| &*step.id.value).collect();
    ids.sort_unstable();
    let inputs: Vec<ParsedInput> =
        blueprint.steps.iter().map(|step| InputTemplate::parse(&step.input.value, &ids)).collect();
    let graph = checker.graph(builder, &inputs);
    let targets: Vec<Option<CallTarget>> = (0..blueprint.steps.len()).map(|step| checker.target(step)).collect();
    for (step, (input, target)) in inputs.iter().zip(&targets).enumerate() {
        checker.input(step, input, target.as_ref());
        checker.effects(step, target.as_ref());
    }
    let faults = std::mem::take(&mut checker.faults);
    let contents = contents(&blueprint, &graph);
    let calls = blueprint.steps.iter().zip(inputs).zip(targets).zip(contents).filter_map(
        |(((step, input), target), content)| {
            let target = target?;
            let writes = step.writes || target_writes(&target);
            Some(Call {
                target,
                input: input.template,
                on_error: step.on_error,
                default: step.default.clone().map(Arc::new),
                writes,
                content,
            })
        },
    );
    let calls = calls.collect();
    let json = hash::to_json(&blueprint);
    let compiled = CompiledBlueprint { graph, calls, hash: hash::of_plan(&json), json: Arc::new(json), blueprint };
    (compiled, faults)
}

fn target_writes(target: &CallTarget) -> bool {
    match target {
        CallTarget::Tool(tool) => tool.effect == ToolEffect::Write,
        CallTarget::Agent(_) => false,
    }
}

/// The content hash of every step, dependencies first. On a cycle, which is a fault, they are incomplete.
fn contents(blueprint: &Blueprint, graph: &StepGraph) -> Vec<Box<str>> {
    let mut contents: Vec<Box<str>> = vec![Box::default(); blueprint.steps.len()];
    for number in graph.topological_order() {
        let Some(step) = blueprint.steps.get(number as usize) else { continue };
        let mut before: Vec<(&str, &str)> = graph
            .dependencies(number)
            .filter_map(|(from, _)| {
                let id = blueprint.steps.get(from as usize)?;
                Some((&*id.id.value, &**contents.get(from as usize)?))
            })
            .collect();
        before.sort_unstable();
        let content = hash::of_call(step, &before);
        if let Some(slot) = contents.get_mut(number as usize) {
            *slot = content;
        }
    }
    contents
}

impl<'a> Checker<'a> {
    fn fault(&mut self, code: &'static str, place: FaultPlace, message: String, help: Option<String>) {
        self.faults.push(BlueprintFault { code, place, message, help });
    }

    fn size(&mut self) {
        let count = self.blueprint.steps.len();
        let most = self.rules.max_steps.unwrap_or(MOST_STEPS).min(MOST_STEPS);
        if count == 0 {
            let help = Some("give at least one step".to_owned());
            self.fault(codes::BLUEPRINT_SIZE, FaultPlace::Whole, "the blueprint has no step".to_owned(), help);
        } else if count > most as usize {
            let message = format!("the blueprint has {count} steps, and the plan allows {most} (`max_steps`)");
            self.fault(codes::BLUEPRINT_SIZE, FaultPlace::Whole, message, None);
        }
    }

    fn ids(&mut self) -> GraphBuilder {
        let names = self.blueprint.steps.iter().map(|step| step.id.value.clone()).collect();
        let builder = GraphBuilder::new(names, self.blueprint.steps.len() as u32);
        for (number, step) in self.blueprint.steps.iter().enumerate() {
            if builder.number(&step.id.value) != Some(number as u32) {
                let message = format!("there is already a step `{}` in this blueprint", step.id.value);
                self.fault(codes::BLUEPRINT_DUPLICATE_ID, FaultPlace::Id(number), message, None);
            }
        }
        builder
    }

    /// The arrows, and what is wrong with them.
    fn graph(&mut self, mut builder: GraphBuilder, inputs: &[ParsedInput]) -> StepGraph {
        let blueprint = self.blueprint;
        let mut waits = Vec::new();
        for (number, (step, input)) in blueprint.steps.iter().zip(inputs).enumerate() {
            waits.clear();
            for (at, id) in step.depends.iter().enumerate() {
                match builder.number(&id.value) {
                    None => {
                        let near = nearest(&id.value, blueprint.steps.iter().map(|step| &*step.id.value));
                        let message = format!("`{}` is not a step of this blueprint", id.value);
                        let place = FaultPlace::Depends(number, at);
                        self.fault(codes::BLUEPRINT_UNKNOWN_STEP, place, message, did_you_mean(near));
                    }
                    Some(found) if found as usize == number => {
                        let message = format!("`{}` waits for itself", id.value);
                        self.fault(codes::BLUEPRINT_CYCLE, FaultPlace::Depends(number, at), message, None);
                    }
                    Some(found) => waits.push((found, Edge { source: EdgeSource::Declared, reads_status: false })),
                }
            }
            for reference in &input.references {
                let place = || FaultPlace::Input {
                    step: number,
                    pointer: reference.pointer.clone(),
                    range: Some(reference.range.clone()),
                    property: None,
                };
                match builder.number(&reference.id) {
                    Some(found) if *reference.id == *step.id.value => {
                        let _ = found;
                        let message = format!("`{}` reads its own outputs", reference.id);
                        self.fault(codes::BLUEPRINT_CYCLE, place(), message, None);
                    }
                    Some(found) => waits.push((found, Edge { source: EdgeSource::Referenced, reads_status: false })),
                    None => {}
                }
            }
            builder.wait_for(number as u32, &mut waits);
        }
        let graph = builder.finish();
        for cycle in graph.cycles() {
            let Some(&first) = cycle.first() else { continue };
            let names = cycle.iter().chain(cycle.first()).filter_map(|number| blueprint.steps.get(*number as usize));
            let names: Vec<String> = names.map(|step| format!("`{}`", step.id.value)).collect();
            let message = format!("these steps wait for each other in a cycle: {}", names.join(" → "));
            self.fault(codes::BLUEPRINT_CYCLE, FaultPlace::Id(first as usize), message, None);
        }
        graph
    }

    /// What a step calls, if it may.
    fn target(&mut self, number: usize) -> Option<CallTarget> {
        let step = self.blueprint.steps.get(number)?;
        let rules = self.rules;
        match &step.callee {
            Callee::Tool(name) => {
                if let Some(tool) = rules.tools.get(&name.value) {
                    return Some(CallTarget::Tool(Arc::clone(tool)));
                }
                if (self.excused)(&name.value) {
                    return None;
                }
                let allowed = rules
                    .tools
                    .keys()
                    .take(LISTED_TOOLS)
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                let near = nearest(&name.value, rules.tools.keys().map(|name| &**name));
                let message = if rules.declared.contains_key(&name.value) {
                    format!("the plan does not allow the tool `{}`", name.value)
                } else {
                    format!("there is no tool `{}`", name.value)
                };
                let help = match did_you_mean(near) {
                    Some(help) => help,
                    None if allowed.is_empty() => "the plan allows no tool".to_owned(),
                    None => format!("the plan allows {allowed}"),
                };
                self.fault(codes::UNKNOWN_TOOL, FaultPlace::Callee(number), message, Some(help));
                None
            }
            Callee::Agent(name) => {
                if let Some(agent) = rules.agents.get(&name.value) {
                    return Some(CallTarget::Agent(Arc::clone(agent)));
                }
                if !(self.excused)(&name.value) {
                    let near = nearest(&name.value, rules.agents.keys().map(|name| &**name));
                    let message = format!("there is no agent `{}`", name.value);
                    self.fault(codes::UNKNOWN_AGENT, FaultPlace::Callee(number), message, did_you_mean(near));
                }
                None
            }
        }
    }

    /// The input's own mistakes, and those against the tool's schema. What only a run knows is let be.
    fn input(&mut self, step: usize, input: &ParsedInput, target: Option<&CallTarget>) {
        for (pointer, problem) in &input.problems {
            let place = FaultPlace::Input {
                step,
                pointer: pointer.clone(),
                range: Some(problem.range.clone()),
                property: None,
            };
            self.fault(problem.code, place, problem.message.clone(), problem.help.clone());
        }
        let (Some(CallTarget::Tool(tool)), Some(call)) = (target, self.blueprint.steps.get(step)) else { return };
        for fault in self.schema_faults(tool, call) {
            let open = |pointer: &String| *pointer == fault.pointer;
            let below = |pointer: &String| pointer.starts_with(&fault.pointer);
            if input.open.iter().any(open) || (fault.composed && input.open.iter().any(below)) {
                continue;
            }
            if input.problems.iter().any(|(pointer, _)| *pointer == fault.pointer) {
                continue;
            }
            let place = FaultPlace::Input {
                step,
                pointer: fault.pointer.clone(),
                range: None,
                property: fault.property.clone(),
            };
            let name = fault.pointer.trim_start_matches('/');
            let message = if name.is_empty() {
                format!("the input of tool `{}`: {}", tool.name.value, fault.message)
            } else {
                format!("the input `{name}` of tool `{}`: {}", tool.name.value, fault.message)
            };
            self.fault(codes::BLUEPRINT_INPUT, place, message, fault.help);
        }
    }

    fn schema_faults(&mut self, tool: &Arc<Tool>, call: &BlueprintStep) -> Vec<input_check::Fault> {
        let Some((name, _)) = self.rules.tools.get_key_value(&tool.name.value) else {
            return input_check::faults(&tool.input_schema, &call.input.value);
        };
        let validator = self.validators.entry(name).or_insert_with(|| input_check::validator(&tool.input_schema));
        match validator {
            Some(validator) => input_check::faults_by(validator, &tool.input_schema, &call.input.value),
            None => Vec::new(),
        }
    }

    /// Whether the call writes although it may not, and whether a default is there where one is promised.
    fn effects(&mut self, number: usize, target: Option<&CallTarget>) {
        let Some(step) = self.blueprint.steps.get(number) else { return };
        if step.on_error == OnError::Default && step.default.is_none() {
            let message = "`on_error: default` needs `default`".to_owned();
            self.fault(codes::BLUEPRINT_FORM, FaultPlace::Step(number), message, None);
        }
        let writes = step.writes || target.is_some_and(target_writes);
        match self.rules.write {
            WritePolicy::Refuse if writes => {
                let name = match &step.callee {
                    Callee::Tool(name) | Callee::Agent(name) => &name.value,
                };
                let message =
                    format!("step `{}` writes by calling `{name}`, and the plan refuses writes", step.id.value);
                let help = Some("the plan may say `write: ask` or `write: allow`".to_owned());
                self.fault(codes::BLUEPRINT_WRITES, FaultPlace::Callee(number), message, help);
            }
            WritePolicy::Refuse | WritePolicy::Ask | WritePolicy::Allow => {}
        }
    }
}
