//! Project settings, `duo-agent.config.yaml`.

use super::Limits;
use super::agents::ProviderKind;

/// What the engine reads of a settings file. Blocks that other parts of the product own are checked and kept whole.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub project_name: Option<Box<str>>,
    pub engine: EngineSettings,
    /// Ceilings: a pipeline's own limit may not be above them.
    pub ceilings: Limits,
    /// The most cycles that a `synthesize` may ask for.
    pub max_improvement_cycles: Option<u32>,
    /// The provider of agents that name none.
    pub provider: Option<ProviderKind>,
    /// `retention:` of finished runs.
    pub retention_days: Option<u32>,
    pub retention_runs: Option<u32>,
}

/// `engine:`.
#[derive(Clone, Debug, Default)]
pub struct EngineSettings {
    /// The most actions that one process runs at once over all its runs, 1 to 32.
    pub workers: Option<u32>,
    /// `max_parallel` of pipelines that set none.
    pub max_parallel: Option<u32>,
}
