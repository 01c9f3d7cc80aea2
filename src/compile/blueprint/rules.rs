//! What one plan may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Agent, PlanSource, PlanStep, Tool, WritePolicy};

/// The bounds that a plan's blueprint is held against.
#[derive(Clone, Debug, Default)]
pub struct PlanRules {
    /// The tools that the blueprint may call.
    pub tools: BTreeMap<Box<str>, Arc<Tool>>,
    /// All tools that there are, so that a refusal can say that a tool exists and is not allowed.
    pub declared: Arc<BTreeMap<Box<str>, Arc<Tool>>>,
    /// The agents that the blueprint may call.
    pub agents: Arc<BTreeMap<Box<str>, Arc<Agent>>>,
    pub max_steps: Option<u32>,
    pub write: WritePolicy,
}

impl PlanRules {
    /// The rules of a plan step, given all tools and agents of its pipeline: the plan's allow-list, narrowed by the
    /// planner's own `tools` and `deny_tools`.
    pub fn of(
        plan: &PlanStep,
        declared: &Arc<BTreeMap<Box<str>, Arc<Tool>>>,
        agents: &Arc<BTreeMap<Box<str>, Arc<Agent>>>,
    ) -> Self {
        let planner = match &plan.source {
            PlanSource::Agent { agent, .. } => agents.get(&agent.value),
            PlanSource::Static(_) | PlanSource::File(_) => None,
        };
        let allowed = |name: &str| {
            let listed = plan.tools.as_ref().is_none_or(|tools| tools.iter().any(|tool| &*tool.value == name));
            listed
                && planner.is_none_or(|agent| {
                    let offered =
                        agent.tools.as_ref().is_none_or(|tools| tools.iter().any(|tool| &*tool.value == name));
                    offered && !agent.deny_tools.iter().any(|tool| &*tool.value == name)
                })
        };
        let tools = declared.iter().filter(|(name, _)| allowed(name));
        Self {
            tools: tools.map(|(name, tool)| (name.clone(), Arc::clone(tool))).collect(),
            declared: Arc::clone(declared),
            agents: Arc::clone(agents),
            max_steps: plan.max_steps,
            write: plan.write,
        }
    }
}
