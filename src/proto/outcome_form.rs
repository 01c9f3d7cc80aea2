//! Outcomes in the published form and back.

use std::sync::Arc;

use crate::proto::task_form::json;
use crate::proto::{Undecodable, v1};
use crate::task::{ErrorClass, Failure, Outcome, Usage};

impl From<&Outcome> for v1::Outcome {
    fn from(outcome: &Outcome) -> Self {
        let kind = match outcome {
            Outcome::Succeeded { outputs, exit_code, stderr, usage, cached } => {
                v1::outcome::Kind::Succeeded(v1::Succeeded {
                    outputs: Some(v1::succeeded::Outputs::OutputsJson(outputs.to_string())),
                    exit_code: *exit_code,
                    stderr: stderr.clone(),
                    usage: usage.map(usage_to_wire),
                    cached: *cached,
                })
            }
            Outcome::Failed { failure, usage } => {
                let Failure { class, message, stderr, exit_code, retry_after_ms } = failure;
                v1::outcome::Kind::Failed(v1::Failed {
                    class: class.as_str().to_owned(),
                    message: message.clone(),
                    stderr: stderr.clone(),
                    exit_code: *exit_code,
                    retry_after_ms: *retry_after_ms,
                    usage: usage.map(usage_to_wire),
                })
            }
            Outcome::Stopped => v1::outcome::Kind::Stopped(v1::Stopped {}),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Outcome> for Outcome {
    type Error = Undecodable;

    fn try_from(outcome: v1::Outcome) -> Result<Self, Undecodable> {
        Ok(match outcome.kind.ok_or_else(|| Undecodable::missing("outcome.kind"))? {
            v1::outcome::Kind::Succeeded(done) => Self::Succeeded {
                outputs: match done.outputs.ok_or_else(|| Undecodable::missing("succeeded.outputs"))? {
                    v1::succeeded::Outputs::OutputsJson(text) => Arc::new(json("succeeded.outputs_json", &text)?),
                    v1::succeeded::Outputs::OutputsRef(_) => {
                        return Err(Undecodable::new("`outputs_ref` must be fetched from the artifact store first"));
                    }
                },
                exit_code: done.exit_code,
                stderr: done.stderr,
                usage: done.usage.map(usage_from_wire),
                cached: done.cached,
            },
            v1::outcome::Kind::Failed(failed) => Self::Failed {
                failure: Failure {
                    class: class_of(&failed.class)?,
                    message: failed.message,
                    stderr: failed.stderr,
                    exit_code: failed.exit_code,
                    retry_after_ms: failed.retry_after_ms,
                },
                usage: failed.usage.map(usage_from_wire),
            },
            v1::outcome::Kind::Stopped(v1::Stopped {}) => Self::Stopped,
        })
    }
}

fn class_of(name: &str) -> Result<ErrorClass, Undecodable> {
    Ok(match name {
        "transient" => ErrorClass::Transient,
        "permanent" => ErrorClass::Permanent,
        "timeout" => ErrorClass::Timeout,
        "cancelled" => ErrorClass::Cancelled,
        "budget" => ErrorClass::Budget,
        other => return Err(Undecodable::new(format!("there is no error class `{other}`"))),
    })
}

fn usage_to_wire(usage: Usage) -> v1::Usage {
    v1::Usage { input_tokens: usage.input_tokens, output_tokens: usage.output_tokens }
}

fn usage_from_wire(usage: v1::Usage) -> Usage {
    Usage { input_tokens: usage.input_tokens, output_tokens: usage.output_tokens }
}
