//! The codes of the diagnostics that compiling gives. Each has a page under `docs/errors`.

/// Two steps have one id.
pub const DUPLICATE_ID: &str = "TOL0201";
/// Steps wait for each other in a circle.
pub const CYCLE: &str = "TOL0202";
/// A step waits for itself, or reads its own outputs.
pub const SELF_REFERENCE: &str = "TOL0203";
/// A name is not a step of this pipeline.
pub const UNKNOWN_STEP: &str = "TOL0204";
/// A step reads a `finally` step, which runs after it.
pub const READS_FINALLY: &str = "TOL0205";
/// The `as` name of a `foreach` hides another name.
pub const HIDDEN_NAME: &str = "TOL0206";
/// A `foreach` over run-time values has no `max_items`.
pub const UNBOUNDED_FOREACH: &str = "TOL0207";
/// An action that cannot stand where it stands.
pub const MISPLACED_ACTION: &str = "TOL0208";
/// A file cannot be read.
pub const UNREADABLE_FILE: &str = "TOL0209";
/// A path leads outside the project.
pub const OUTSIDE_PROJECT: &str = "TOL0210";
/// A file that another one names cannot be read.
pub const MISSING_FILE: &str = "TOL0211";
/// A pipeline runs itself, directly or through others.
pub const RECURSIVE_PIPELINE: &str = "TOL0212";
/// Pipelines within pipelines go too deep.
pub const DEEP_PIPELINES: &str = "TOL0213";
/// `with` leaves out a parameter that has no default.
pub const MISSING_PARAM: &str = "TOL0214";
/// `with` or a profile names a parameter that does not exist.
pub const UNKNOWN_PARAM: &str = "TOL0215";
/// A value for a parameter does not match the parameter's schema.
pub const MISTYPED_PARAM: &str = "TOL0216";
/// The profile that was asked for does not exist.
pub const UNKNOWN_PROFILE: &str = "TOL0217";
/// A step names a template that is not declared; reading reports it.
pub const UNKNOWN_TEMPLATE: &str = "TOL0116";
/// `include` names a pipeline.
pub const INCLUDED_PIPELINE: &str = "TOL0218";

/// A condition is not a boolean.
pub const NOT_BOOLEAN: &str = "TOL0360";
/// `items` is not a list.
pub const NOT_A_LIST: &str = "TOL0361";
/// A secret is read where it would be seen.
pub const SECRET_NOT_ALLOWED: &str = "TOL0362";
/// A variable of the environment is read that `inherit_env` does not list.
pub const ENV_NOT_LISTED: &str = "TOL0363";
/// A name is read where it does not exist, such as `matrix` outside a matrix.
pub const NAME_NOT_HERE: &str = "TOL0364";

/// There is no such agent.
pub const UNKNOWN_AGENT: &str = "TOL0401";
/// An agent is named, and there is no catalogue.
pub const NO_CATALOGUE: &str = "TOL0402";
/// There is no such tool, or the plan may not call it.
pub const UNKNOWN_TOOL: &str = "TOL0403";
/// `execute` names a step that makes no blueprint.
pub const NOT_A_PLAN: &str = "TOL0404";
/// Two steps of a blueprint have one id.
pub const BLUEPRINT_DUPLICATE_ID: &str = "TOL0405";
/// A blueprint refers to a step that it does not have.
pub const BLUEPRINT_UNKNOWN_STEP: &str = "TOL0406";
/// Steps of a blueprint wait for themselves or for each other.
pub const BLUEPRINT_CYCLE: &str = "TOL0407";
/// A blueprint has no step, or more than its plan allows.
pub const BLUEPRINT_SIZE: &str = "TOL0408";
/// The input of a call does not match the tool's `input_schema`.
pub const BLUEPRINT_INPUT: &str = "TOL0409";
/// A call writes, and the plan does not allow it.
pub const BLUEPRINT_WRITES: &str = "TOL0410";
/// A key of a blueprint's step is missing; in a file the schema has said so already.
pub const BLUEPRINT_FORM: &str = "TOL0102";

/// A limit is above the ceiling that the settings set.
pub const ABOVE_CEILING: &str = "TOL0511";

/// A condition is always false.
pub const NEVER_RUNS: &str = "TOL0611";
/// A step waits for one that never runs.
pub const UNREACHABLE: &str = "TOL0612";
/// A time limit that cannot be met, or that another one makes void.
pub const IMPOSSIBLE_TIME: &str = "TOL0613";
/// Two agents have one display name.
pub const SAME_AGENT_NAME: &str = "TOL0614";
/// More cycles are asked for than the settings allow.
pub const CYCLES_ABOVE_CEILING: &str = "TOL0615";
/// A parameter that nothing reads.
pub const UNUSED_PARAM: &str = "TOL0616";
/// Outputs that nothing reads, of a step that does nothing else.
pub const UNUSED_OUTPUTS: &str = "TOL0617";
/// An agent lists a tool that is not there.
pub const UNKNOWN_AGENT_TOOL: &str = "TOL0618";
/// An agent has no provider that this version can call.
pub const NO_PROVIDER: &str = "TOL0619";
/// A bound on a queue that no step of the file names.
pub const UNUSED_QUEUE: &str = "TOL0620";
