//! The kinds of documents and the published schema of each, read once.

use std::sync::LazyLock;

use serde_json::Value;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    Pipeline,
    /// The catalogue, `agents.yaml`.
    Agents,
    /// The project's settings, `duo-agent.config.yaml`.
    Settings,
    /// What a plan yields.
    Blueprint,
    /// `*.test.yaml`.
    Test,
    /// What `include:` of a pipeline names.
    Include,
}

impl DocumentKind {
    /// All kinds, for lists and tests.
    pub const ALL: [Self; 6] =
        [Self::Pipeline, Self::Agents, Self::Settings, Self::Blueprint, Self::Test, Self::Include];

    /// The name of the kind as messages say it, behind "the".
    pub fn noun(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Agents => "agents file",
            Self::Settings => "settings file",
            Self::Blueprint => "blueprint",
            Self::Test => "test file",
            Self::Include => "included file",
        }
    }
}

/// The text of the published schema of a kind, `schemas/KIND.schema.json`.
pub fn schema_text(kind: DocumentKind) -> &'static str {
    match kind {
        DocumentKind::Pipeline => include_str!("../../schemas/pipeline.schema.json"),
        DocumentKind::Agents => include_str!("../../schemas/agents.schema.json"),
        DocumentKind::Settings => include_str!("../../schemas/settings.schema.json"),
        DocumentKind::Blueprint => include_str!("../../schemas/blueprint.schema.json"),
        DocumentKind::Test => include_str!("../../schemas/test.schema.json"),
        DocumentKind::Include => include_str!("../../schemas/include.schema.json"),
    }
}

/// The schema of a kind as a value. It is parsed when it is first asked for, about 0.8 ms for the largest.
pub(super) fn schema(kind: DocumentKind) -> &'static Value {
    static PIPELINE: LazyLock<Value> = LazyLock::new(|| parse(DocumentKind::Pipeline));
    static AGENTS: LazyLock<Value> = LazyLock::new(|| parse(DocumentKind::Agents));
    static SETTINGS: LazyLock<Value> = LazyLock::new(|| parse(DocumentKind::Settings));
    static BLUEPRINT: LazyLock<Value> = LazyLock::new(|| parse(DocumentKind::Blueprint));
    static TEST: LazyLock<Value> = LazyLock::new(|| parse(DocumentKind::Test));
    static INCLUDE: LazyLock<Value> = LazyLock::new(|| parse(DocumentKind::Include));
    match kind {
        DocumentKind::Pipeline => &PIPELINE,
        DocumentKind::Agents => &AGENTS,
        DocumentKind::Settings => &SETTINGS,
        DocumentKind::Blueprint => &BLUEPRINT,
        DocumentKind::Test => &TEST,
        DocumentKind::Include => &INCLUDE,
    }
}

/// The shipped text is JSON, as a test says; were it not, `false` would refuse every document rather than let one pass.
fn parse(kind: DocumentKind) -> Value {
    serde_json::from_str(schema_text(kind)).unwrap_or(Value::Bool(false))
}
