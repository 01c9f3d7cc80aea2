//! What a run may spend: tokens and money, set aside before a call and settled after it; and how much of it may fail.

use super::state::{State, StopReason, UnitKey};
use super::status::StepStatus;
use crate::compile::CallTarget;
use crate::model::{Action, Agent};
use crate::task::Usage;

/// From this many ended steps on, the share of failed ones counts.
const ERROR_RATE_FROM: u64 = 5;

impl State {
    /// The agent that a unit's next call goes to.
    pub(super) fn agent_of(&self, key: UnitKey) -> Option<std::sync::Arc<Agent>> {
        let definition = self.definition(key);
        let agents = &definition.pipeline().agents;
        let find = |name: &str| agents.get(name).cloned();
        match definition.action() {
            Some(Action::Agent(agent)) => find(&agent.agent.value),
            Some(Action::Plan(plan)) => match &plan.source {
                crate::model::PlanSource::Agent { agent, .. } => find(&agent.value),
                crate::model::PlanSource::Static(_) | crate::model::PlanSource::File(_) => None,
            },
            Some(Action::Execute(_)) => {
                let plan = *definition.pipeline().plans.get(&key.step)?;
                self.agent_of(UnitKey::whole(key.scope, plan))
            }
            Some(Action::Synthesize(synthesize)) => {
                let critic = synthesize.critic.as_ref().filter(|_| self.is_critiquing(key));
                find(&critic.unwrap_or(&synthesize.agent).value)
            }
            Some(
                Action::Run(_)
                | Action::Http(_)
                | Action::Transform(_)
                | Action::Pipeline(_)
                | Action::Wait(_)
                | Action::Approve(_),
            ) => None,
            None => match &definition.call()?.target {
                CallTarget::Agent(agent) => Some(agent.clone()),
                CallTarget::Tool(_) => None,
            },
        }
    }

    /// Tokens that the run may still use, if it has a limit.
    pub(super) fn tokens_left(&self) -> Option<u64> {
        let limit = self.program.root.limits().max_tokens?;
        Some(limit.saturating_sub(self.tokens_used.saturating_add(self.tokens_reserved)))
    }

    fn money_is_spent(&self) -> bool {
        self.program.root.limits().max_cost.is_some_and(|limit| self.cost_used >= limit)
    }

    /// True if a unit's call may be made with what is left.
    pub(super) fn affordable(&self, key: UnitKey) -> bool {
        let limits = self.program.root.limits();
        if limits.max_tokens.is_none() && limits.max_cost.is_none() {
            return true;
        }
        self.agent_of(key).is_none() || (self.tokens_left() != Some(0) && !self.money_is_spent())
    }

    /// The limit that keeps calls from being made.
    pub(super) fn exhausted_limit(&self) -> String {
        if self.tokens_left() == Some(0) { "max_tokens" } else { "max_cost" }.to_owned()
    }

    /// Sets tokens aside for a call that goes out: what its agent may use, or what is left.
    pub(super) fn reserve(&mut self, key: UnitKey) {
        let Some(left) = self.tokens_left() else { return };
        let Some(agent) = self.agent_of(key) else { return };
        let reserved = agent.max_tokens.min(left);
        self.tokens_reserved += reserved;
        self.unit_mut(key).more_mut().reserved = reserved;
    }

    /// Gives back what was set aside and counts what was used.
    pub(super) fn settle_usage(&mut self, key: UnitKey, usage: Option<Usage>) {
        let reserved = self.unit_mut(key).more.as_deref_mut().map_or(0, |more| std::mem::take(&mut more.reserved));
        self.tokens_reserved = self.tokens_reserved.saturating_sub(reserved);
        let Some(usage) = usage else { return };
        self.tokens_used = self.tokens_used.saturating_add(usage.total());
        if let Some(price) = self.agent_of(key).and_then(|agent| agent.price) {
            let millions = |tokens: u64| tokens as f64 / 1_000_000.0;
            self.cost_used += millions(usage.input_tokens) * price.input_per_million
                + millions(usage.output_tokens) * price.output_per_million;
        }
    }

    /// Counts a step's final outcome against `limits.error_rate`.
    pub(super) fn count_step(&mut self, status: StepStatus) {
        match status {
            StepStatus::Succeeded => self.steps_ended += 1,
            StepStatus::Failed | StepStatus::TimedOut => {
                self.steps_ended += 1;
                self.steps_failed += 1;
            }
            StepStatus::Pending
            | StepStatus::Running
            | StepStatus::Waiting
            | StepStatus::Skipped
            | StepStatus::Cancelled
            | StepStatus::Unknown => return,
        }
        let Some(limit) = self.program.root.limits().error_rate else { return };
        if self.steps_ended >= ERROR_RATE_FROM && self.steps_failed as f64 > limit * self.steps_ended as f64 {
            self.stop_run(StopReason::Budget("error_rate".to_owned()));
        }
    }
}
