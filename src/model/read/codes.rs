//! The codes of mistakes that reading finds. `TOL0102`, `TOL0106`, `TOL0107` and `TOL0501` are shared with `schema`,
//! which finds the same mistakes before templates are merged in.

/// A key that is still missing after the step's template was merged in.
pub const MISSING_KEY: &str = "TOL0102";
/// No action in a step, its template included.
pub const ONE_ACTION: &str = "TOL0106";
/// A key that belongs to another action than the one that the template brings.
pub const OTHER_ACTION: &str = "TOL0107";
/// A step template that nobody declares.
pub const UNKNOWN_TEMPLATE: &str = "TOL0116";
/// A text that is no duration.
pub const BAD_DURATION: &str = "TOL0501";
/// A duration of nothing, or one that is too long.
pub const DURATION_RANGE: &str = "TOL0502";
/// `attempt_timeout` above `timeout`.
pub const ATTEMPT_ABOVE_TIMEOUT: &str = "TOL0503";
/// A backoff whose longest pause is below its first.
pub const BACKOFF_ORDER: &str = "TOL0504";
/// A cron expression that cannot be read.
pub const BAD_CRON: &str = "TOL0505";
/// A time zone that does not exist.
pub const BAD_TIMEZONE: &str = "TOL0506";
/// A matrix with too many combinations, or with none.
pub const MATRIX_SIZE: &str = "TOL0507";
/// An `exclude` that can exclude nothing.
pub const MATRIX_EXCLUDE: &str = "TOL0508";
/// Weights that do not add up to 1.
pub const WEIGHTS: &str = "TOL0509";
/// `degraded` that is not below `healthy`.
pub const HEALTH_ORDER: &str = "TOL0510";
/// A `{{ }}` in a script.
pub const TEMPLATE_IN_SCRIPT: &str = "TOL0390";
