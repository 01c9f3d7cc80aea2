//! A file's tree as typed values: pipelines, agents, settings, blueprints, tests.
//!
//! A value here has the right form; whether its names mean something is `compile`'s to say. Reading is lenient: what
//! `schema` has reported already is left out without a second word.

mod action;
mod agents;
mod blueprint;
mod limits;
mod pipeline;
mod read;
mod settings;
mod step;
mod test;

pub use action::{
    Action, AgentStep, Approve, ApproveMode, CacheRule, HttpBody, HttpStep, OnTimeout, OnUnaccepted, PlanSource,
    PlanStep, RunStep, ScriptSource, SubPipeline, Synthesize, TransformValue, Wait, WritePolicy,
};
pub use agents::{Agent, Catalogue, Price, ProviderKind};
pub use blueprint::{Blueprint, BlueprintStep, Callee, OnError};
pub use limits::{Backoff, Jitter, Limits, Retry};
pub use pipeline::{Hooks, Param, Pipeline, Profile, Tool, ToolEffect, Trigger, WebhookSignature};
pub use read::{
    ReadContext, apply_templates, blueprint_from_json, merge_includes, node_from_json, read_agents, read_blueprint,
    read_pipeline, read_settings, read_test,
};
pub use settings::{EngineSettings, Settings};
pub use step::{Condition, EnvEntry, Fan, Priority, Step, StepPlace};
pub use test::{Expectation, ExpectedInput, ExpectedStep, Mock, MockOutcome, Mocked, TestCase, TestFile};
