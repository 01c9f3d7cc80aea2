//! What compiling yields: every pipeline that a run can enter, its graph, and what its steps name, resolved.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::MemorySources;
use super::input::InputTemplate;
use crate::graph::StepGraph;
use crate::model::{Agent, Blueprint, Catalogue, Limits, OnError, Pipeline, Settings, Step, Tool};

/// A pipeline and all that it can call, checked.
#[derive(Clone, Debug)]
pub struct Program {
    pub root: Arc<CompiledPipeline>,
    /// Every pipeline by its path within the project, the root included.
    pub pipelines: HashMap<Box<str>, Arc<CompiledPipeline>>,
    pub settings: Arc<Settings>,
    /// Every text that was read, so that a run can be compiled again from what it started with.
    pub sources: MemorySources,
    /// BLAKE3 of the sources and their paths, in hexadecimal.
    pub hash: Box<str>,
}

/// One pipeline with its graph.
#[derive(Clone, Debug)]
pub struct CompiledPipeline {
    pub pipeline: Pipeline,
    pub graph: StepGraph,
    /// Tools that its plans and agents may name: its own, its includes', its catalogue's.
    pub tools: Arc<BTreeMap<Box<str>, Arc<Tool>>>,
    /// Agents likewise.
    pub agents: Arc<BTreeMap<Box<str>, Arc<Agent>>>,
    pub catalogue: Arc<Catalogue>,
    /// By number of a `pipeline:` step (its fallback under `u32::MAX - number`): the path of the pipeline it runs.
    pub children: HashMap<u32, Box<str>>,
    /// By number of an `execute:` step: the number of its plan step.
    pub plans: HashMap<u32, u32>,
    /// By number of a plan step with a static blueprint or a file.
    pub blueprints: HashMap<u32, Arc<CompiledBlueprint>>,
}

impl CompiledPipeline {
    /// A step by its number: `steps` first, then `finally`.
    pub fn step(&self, number: u32) -> &Step {
        let steps = &self.pipeline.steps;
        let number = number as usize;
        if number < steps.len() { &steps[number] } else { &self.pipeline.finally[number - steps.len()] }
    }

    /// How many steps there are, `finally` included.
    pub fn len(&self) -> usize {
        self.pipeline.steps.len() + self.pipeline.finally.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The limits of the pipeline itself.
    pub fn limits(&self) -> &Limits {
        &self.pipeline.limits
    }
}

/// A checked blueprint.
#[derive(Clone, Debug)]
pub struct CompiledBlueprint {
    pub blueprint: Blueprint,
    pub graph: StepGraph,
    pub calls: Vec<Call>,
    /// BLAKE3 over what was planned: equal plans have equal hashes.
    pub hash: Box<str>,
    /// The blueprint as the JSON that a plan step yields.
    pub json: Arc<Value>,
}

/// One call of a blueprint, resolved.
#[derive(Clone, Debug)]
pub struct Call {
    pub target: CallTarget,
    pub input: InputTemplate,
    pub on_error: OnError,
    pub default: Option<Arc<Value>>,
    /// True if the tool or the blueprint says that the call writes.
    pub writes: bool,
    /// BLAKE3 over the call and, through its dependencies, all that it builds on: equal content, equal hash.
    pub content: Box<str>,
}

/// What a call reaches.
#[derive(Clone, Debug)]
pub enum CallTarget {
    Tool(Arc<Tool>),
    Agent(Arc<Agent>),
}
