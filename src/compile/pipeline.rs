//! One pipeline from its model to its graph: in which order the checks run, and what they share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::blueprint::PlanRules;
use super::report::Report;
use super::scope::Names;
use super::{CompiledBlueprint, CompiledPipeline, actions, blueprint, codes, links, lint, typing};
use crate::diagnostic::{Diagnostic, Files, Spanned};
use crate::expr::Type;
use crate::graph::GraphBuilder;
use crate::model::{Action, Agent, Blueprint, Catalogue, Pipeline, PlanSource, Settings, Step, Tool};
use crate::yaml::Node;

/// What lies around a pipeline and decides what its names mean.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    pub files: &'a Files,
    /// The tree that the pipeline was read from, for the places of what the model holds without one.
    pub tree: Option<&'a Node>,
    /// `None` if there is no catalogue.
    pub catalogue: Option<&'a CatalogueView>,
    pub settings: &'a Settings,
    /// The pipelines that its steps run, by number of the step; a fallback's under `u32::MAX - number`.
    pub children: &'a BTreeMap<u32, Child>,
    /// The blueprints that were read from files, by number of the plan step.
    pub blueprints: &'a BTreeMap<u32, Blueprint>,
}

/// A catalogue, ready to be looked up in by many pipelines.
#[derive(Clone, Debug, Default)]
pub struct CatalogueView {
    pub catalogue: Arc<Catalogue>,
    pub tools: Arc<BTreeMap<Box<str>, Arc<Tool>>>,
    pub agents: Arc<BTreeMap<Box<str>, Arc<Agent>>>,
    /// Agents and tools that are in the file but too broken to be read.
    pub broken: BTreeSet<Box<str>>,
    /// True if nothing could be read, so that no name can be called unknown.
    pub unreadable: bool,
    /// True if it has an error, so that nothing that uses it can be run.
    pub faulty: bool,
}

/// A pipeline that another one runs.
#[derive(Clone, Debug)]
pub struct Child {
    pub path: Box<str>,
    /// `None` if it has errors of its own, or if there is no such file; that is said elsewhere.
    pub compiled: Option<Compiled>,
}

/// A checked pipeline and the type of its outputs.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub pipeline: Arc<CompiledPipeline>,
    pub outputs: Type,
}

/// The number under which what a fallback names is kept.
pub fn fallback_number(step: u32) -> u32 {
    u32::MAX - step
}

/// Checks a pipeline that was made in memory and stands alone: no catalogue, no other files. Warnings are left out.
///
/// # Errors
/// Every mistake that was found.
pub fn compile_pipeline(pipeline: Pipeline) -> Result<CompiledPipeline, Vec<Diagnostic>> {
    let around = Surroundings {
        files: &Files::default(),
        tree: None,
        catalogue: None,
        settings: &Settings::default(),
        children: &BTreeMap::new(),
        blueprints: &BTreeMap::new(),
    };
    let mut diagnostics = Vec::new();
    let (compiled, _) = compile(pipeline, around, true, &mut diagnostics);
    if super::report::has_errors(&diagnostics) { Err(diagnostics) } else { Ok(compiled) }
}

/// Checks a pipeline. What comes back is whole only if no error was added. `sound` says that no other file that it
/// uses has an error.
pub fn compile(
    pipeline: Pipeline,
    around: Surroundings<'_>,
    sound: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> (CompiledPipeline, Type) {
    let mut report = Report::new(around.files);
    let callables = Callables::of(&pipeline, around.catalogue);
    let broken = around.tree.map(|tree| broken_ids(tree, &pipeline)).unwrap_or_default();
    let builder = start_graph(&pipeline, &mut report);
    let links = links::link(&pipeline, builder, &broken, &mut report);
    let mut plans = Plans::default();
    for (number, step) in numbered(&pipeline) {
        check_actions(number, step, &pipeline, around, &callables, &links.graph.index, &mut plans, &mut report);
    }
    let mut names = Names::new(&pipeline, &links.graph.index, &broken);
    let typing = typing::Typing { pipeline: &pipeline, around, plans: &plans };
    let outputs = typing.check(&mut names, &links, &mut report);
    let sound = sound && !super::report::has_errors(diagnostics);
    lint::lint(&pipeline, around, &links, sound, &mut report);
    callables.check_agent_tools(&pipeline, &mut report);
    diagnostics.append(&mut report.diagnostics);
    let graph = links.graph;
    let compiled = CompiledPipeline {
        graph,
        tools: callables.tools,
        agents: callables.agents,
        catalogue: around.catalogue.map(|view| Arc::clone(&view.catalogue)).unwrap_or_default(),
        children: around.children.iter().map(|(number, child)| (*number, child.path.clone())).collect(),
        plans: plans.executed,
        blueprints: plans.blueprints,
        pipeline,
    };
    (compiled, outputs)
}

/// What `execute` steps and plan steps come to.
#[derive(Default)]
pub struct Plans {
    /// By number of an `execute` step: its plan step.
    pub executed: HashMap<u32, u32>,
    /// By number of a plan step with a blueprint of its own.
    pub blueprints: HashMap<u32, Arc<CompiledBlueprint>>,
}

/// All steps with their numbers, `finally` last.
pub fn numbered(pipeline: &Pipeline) -> impl DoubleEndedIterator<Item = (u32, &Step)> {
    let count = pipeline.steps.len() + pipeline.finally.len();
    (0..count).map(|number| {
        let step = match pipeline.steps.get(number) {
            Some(step) => step,
            None => &pipeline.finally[number - pipeline.steps.len()],
        };
        (number as u32, step)
    })
}

/// All hooks.
pub fn hooks(pipeline: &Pipeline) -> impl Iterator<Item = &Step> {
    let hooks = &pipeline.hooks;
    hooks.success.iter().chain(&hooks.failure).chain(&hooks.cancel).chain(&hooks.exit)
}

/// A step by its number.
pub fn step_of(pipeline: &Pipeline, number: u32) -> Option<&Step> {
    let number = number as usize;
    let steps = pipeline.steps.len();
    if number < steps { pipeline.steps.get(number) } else { pipeline.finally.get(number - steps) }
}

/// Names and numbers of the steps; two of one name are an error at the second.
fn start_graph(pipeline: &Pipeline, report: &mut Report<'_>) -> GraphBuilder {
    let names: Vec<Box<str>> = numbered(pipeline).map(|(_, step)| step.id.value.clone()).collect();
    let builder = GraphBuilder::new(names, pipeline.steps.len() as u32);
    for (number, step) in numbered(pipeline) {
        let first = builder.number(&step.id.value).filter(|first| *first != number);
        if let Some(first) = first.and_then(|first| step_of(pipeline, first)) {
            let message = format!("there is already a step `{}`", step.id.value);
            report.push(
                Diagnostic::error(codes::DUPLICATE_ID, step.id.span, message)
                    .help("every step of `steps` and `finally` needs an id of its own")
                    .related(first.id.span, "the first one"),
            );
        }
    }
    builder
}

/// Ids that stand in the tree but did not make it into the model, so that no reference to them is called unknown.
fn broken_ids(tree: &Node, pipeline: &Pipeline) -> BTreeSet<Box<str>> {
    let lists = || ["steps", "finally"].into_iter().filter_map(|key| tree.get(key)).flat_map(|list| list.items());
    if lists().count() == pipeline.steps.len() + pipeline.finally.len() {
        return BTreeSet::new();
    }
    let known: BTreeSet<&str> = numbered(pipeline).map(|(_, step)| &*step.id.value).collect();
    let ids = lists().filter_map(|step| step.get("id")).filter_map(Node::as_str);
    ids.filter(|id| !known.contains(id)).map(Into::into).collect()
}

/// The agents and tools that a pipeline may name.
pub struct Callables<'a> {
    pub tools: Arc<BTreeMap<Box<str>, Arc<Tool>>>,
    pub agents: Arc<BTreeMap<Box<str>, Arc<Agent>>>,
    pub view: Option<&'a CatalogueView>,
    /// True once the missing catalogue was reported.
    pub missing_reported: std::cell::Cell<bool>,
    /// The agents that were said to be beyond reach.
    pub uncallable: std::cell::RefCell<BTreeSet<Box<str>>>,
}

impl<'a> Callables<'a> {
    fn of(pipeline: &Pipeline, view: Option<&'a CatalogueView>) -> Self {
        let mut tools = view.map(|view| Arc::clone(&view.tools)).unwrap_or_default();
        let mut agents = view.map(|view| Arc::clone(&view.agents)).unwrap_or_default();
        if !pipeline.tools.is_empty() {
            let own = pipeline.tools.iter().map(|(name, tool)| (name.clone(), Arc::new(tool.clone())));
            Arc::make_mut(&mut tools).extend(own);
        }
        if !pipeline.agents.is_empty() {
            let own = pipeline.agents.iter().map(|(name, agent)| (name.clone(), Arc::new(agent.clone())));
            Arc::make_mut(&mut agents).extend(own);
        }
        Self {
            tools,
            agents,
            view,
            missing_reported: std::cell::Cell::new(false),
            uncallable: std::cell::RefCell::default(),
        }
    }

    /// Warns of tools that the agents in use list and nobody declares.
    fn check_agent_tools(&self, pipeline: &Pipeline, report: &mut Report<'_>) {
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for (_, step) in numbered(pipeline) {
            actions::agents_of(&step.action, &mut |agent: &Spanned<Box<str>>| {
                if let Some((name, _)) = self.agents.get_key_value(&agent.value) {
                    used.insert(name);
                }
            });
        }
        for agent in used.into_iter().filter_map(|name| self.agents.get(name)) {
            for tool in agent.tools.iter().flatten().chain(&agent.deny_tools) {
                if !self.knows_tool(&tool.value) {
                    let message =
                        format!("agent `{}` lists the tool `{}`, which nobody declares", agent.id.value, tool.value);
                    let near = crate::diagnostic::nearest(&tool.value, self.tools.keys().map(|name| &**name));
                    report.push(
                        Diagnostic::warning(codes::UNKNOWN_AGENT_TOOL, tool.span, message)
                            .maybe_help(super::report::did_you_mean(near)),
                    );
                }
            }
        }
    }

    /// True if there is such a tool, or one too broken to be read.
    pub fn knows_tool(&self, name: &str) -> bool {
        self.tools.contains_key(name) || self.view.is_some_and(|view| view.unreadable || view.broken.contains(name))
    }
}

/// Checks what a step's action, and that of its fallback, names.
#[expect(clippy::too_many_arguments, reason = "the parts are borrowed from different owners")]
fn check_actions(
    number: u32,
    step: &Step,
    pipeline: &Pipeline,
    around: Surroundings<'_>,
    callables: &Callables<'_>,
    index: &HashMap<Box<str>, u32>,
    plans: &mut Plans,
    report: &mut Report<'_>,
) {
    let check = actions::ActionCheck { pipeline, around, callables, index };
    check.step(number, step, report);
    if let Some(fallback) = &step.fallback {
        check.step(fallback_number(number), fallback, report);
    }
    match &step.action {
        Action::Execute(plan) => {
            let found = index.get(&plan.value).copied();
            if let Some(found) = found.filter(|found| check.is_plan(*found)) {
                plans.executed.insert(number, found);
            }
        }
        Action::Plan(plan) => {
            let blueprint = match &plan.source {
                PlanSource::Static(blueprint) => Some(blueprint.as_ref()),
                PlanSource::File(_) => around.blueprints.get(&number),
                PlanSource::Agent { .. } => None,
            };
            if let Some(blueprint) = blueprint {
                let rules = PlanRules::of(plan, &callables.tools, &callables.agents);
                let known = |name: &str| {
                    callables.view.is_some_and(|view| view.unreadable || view.broken.contains(name))
                        || plan
                            .tools
                            .iter()
                            .flatten()
                            .any(|tool| &*tool.value == name && !callables.tools.contains_key(name))
                        || around
                            .tree
                            .and_then(|tree| tree.get("tools"))
                            .is_some_and(|tools| tools.get(name).is_some() && !callables.tools.contains_key(name))
                };
                let compiled = blueprint::compile_static(blueprint, &rules, &known, around.tree, report);
                plans.blueprints.insert(number, Arc::new(compiled));
            }
        }
        Action::Run(_)
        | Action::Http(_)
        | Action::Transform(_)
        | Action::Pipeline(_)
        | Action::Wait(_)
        | Action::Approve(_)
        | Action::Agent(_)
        | Action::Synthesize(_) => {}
    }
}
