//! Parameters from the command line, read by each parameter's type.

use std::path::Path;

use serde_json::{Map, Value};

use super::exit::Failure;
use crate::compile::{CompiledPipeline, read_params};

/// All parameters of a run: those of the file, then those of the flags, then the defaults.
///
/// # Errors
/// Exit code 2 with every parameter that is unknown, missing or of the wrong form, named.
pub fn read(pipeline: &CompiledPipeline, flags: &[String], file: Option<&Path>) -> Result<Map<String, Value>, Failure> {
    let given = match file {
        Some(file) => read_file(file)?,
        None => Map::new(),
    };
    read_params(pipeline, flags, given)
        .map_err(|problems| Failure::invalid(format!("{}: {}", pipeline.pipeline.path, problems.join("\n       "))))
}

/// The parameters that a file gives.
///
/// # Errors
/// If it cannot be read, or is no mapping.
pub fn read_file(file: &Path) -> Result<Map<String, Value>, Failure> {
    let text =
        std::fs::read_to_string(file).map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))?;
    let value: Value =
        serde_yaml::from_str(&text).map_err(|error| Failure::invalid(format!("{}: {error}", file.display())))?;
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(Failure::invalid(format!("{}: expected a mapping of parameters", file.display()))),
    }
}
