//! Which made-up outcome stands for a call, in the form in which a worker would report it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::model::{Mock, MockOutcome, Mocked, TestCase};
use crate::task::{AgentPhase, ErrorClass, Outcome, Usage, Work};

/// What a mock says of a call.
#[derive(Debug)]
pub(super) enum Answer {
    /// It ends so, after this time.
    Ends(Duration, Outcome),
    /// It does not end by itself.
    Hangs,
}

/// The mocks of one case.
pub(super) struct Mocks<'c> {
    by_path: BTreeMap<&'c str, &'c Mock>,
    default_succeeds: bool,
}

impl<'c> Mocks<'c> {
    pub fn of(case: &'c TestCase) -> Self {
        let by_path = case.mocks.iter().map(|mock| (&*mock.step.value, mock)).collect();
        Self { by_path, default_succeeds: case.default_succeeds }
    }

    /// The mock of a unit: its own, that of its step, or that of the step in any item of what is around it.
    fn find(&self, path: &str) -> Option<&'c Mock> {
        let whole = path.strip_suffix(']').and_then(|stem| stem.rsplit_once('[')).map(|(step, _)| step);
        let own = self.by_path.get(path).or_else(|| self.by_path.get(whole?));
        own.or_else(|| self.by_path.get(without_items(path).as_str())).copied()
    }

    /// The answer to call number `call` (from 0) of a unit.
    ///
    /// # Errors
    /// Why the case cannot go on.
    pub fn answer(&self, path: &str, work: &Work, call: usize) -> Result<Answer, String> {
        let Some(mock) = self.find(path) else {
            if path.contains("hooks:") || self.default_succeeds {
                return empty(path, work).map(|outputs| Answer::Ends(Duration::ZERO, Outcome::success(outputs)));
            }
            return Err(format!(
                "step `{path}` ({}) was started and has no mock; add `{path}: {{ outputs: … }}` to `mocks`, or `default: succeed` to the case",
                noun(work)
            ));
        };
        let calls = mock.outcomes.iter().filter(|outcome| !matches!(outcome.what, Mocked::Decide { .. }));
        let Some(outcome) = calls.clone().nth(call).or_else(|| calls.clone().next_back()) else {
            return Err(format!(
                "step `{path}` ({}) needs an outcome, not only a decision: mock it with `outputs`, `fail` or `hang`",
                noun(work)
            ));
        };
        let takes = outcome.takes.unwrap_or_default();
        Ok(match &outcome.what {
            Mocked::Hang | Mocked::Decide { .. } => Answer::Hangs,
            Mocked::Fail { failure, class_given, tokens } => {
                let mut failure = failure.clone();
                if let (false, Some(code), Work::Run(script)) = (class_given, failure.exit_code, work) {
                    let is_permanent = script.permanent_exit_codes.contains(&code);
                    failure.class = if is_permanent { ErrorClass::Permanent } else { ErrorClass::Transient };
                }
                Answer::Ends(takes, Outcome::Failed { failure, usage: usage(*tokens) })
            }
            Mocked::Outputs { outputs, exit_code, stderr, tokens } => {
                let outputs = Arc::new(reported(path, work, outputs)?);
                let code = exit_code.or(matches!(work, Work::Run(_)).then_some(0));
                let stderr = stderr.as_deref().map(str::to_owned);
                let usage = usage(*tokens);
                Answer::Ends(takes, Outcome::Succeeded { outputs, exit_code: code, stderr, usage, cached: false })
            }
        })
    }

    /// The answer to an approval, if the case has one.
    pub fn decision(&self, path: &str) -> Option<&'c MockOutcome> {
        self.find(path)?.outcomes.iter().find(|outcome| matches!(outcome.what, Mocked::Decide { .. }))
    }
}

/// A path without the numbers of items.
fn without_items(path: &str) -> String {
    let parts = path.split('/').map(|part| part.split_once('[').map_or(part, |(step, _)| step));
    parts.collect::<Vec<_>>().join("/")
}

fn usage(tokens: Option<u64>) -> Option<Usage> {
    tokens.map(|output_tokens| Usage { input_tokens: 0, output_tokens })
}

/// What a step does, for messages.
fn noun(work: &Work) -> &'static str {
    match work {
        Work::Run(_) => "run",
        Work::Http(_) => "http",
        Work::Agent(call) => match call.phase {
            AgentPhase::Plan => "a call of a planner",
            AgentPhase::Execute => "a call of an agent",
            AgentPhase::Synthesize => "a draft",
            AgentPhase::Critique => "a critique",
        },
    }
}

/// Empty outputs of a call that nobody mocked.
fn empty(path: &str, work: &Work) -> Result<Value, String> {
    match work {
        Work::Run(_) | Work::Http(_) => reported(path, work, &json!({})),
        Work::Agent(call) => match call.phase {
            AgentPhase::Plan => {
                Err(format!("step `{path}` is planned by an agent, and no empty plan can stand for it; mock it"))
            }
            AgentPhase::Critique => Ok(json!({ "text": null, "output": { "score": 1.0, "accepted": true } })),
            AgentPhase::Execute | AgentPhase::Synthesize if call.schema.is_some() => {
                Err(format!("step `{path}` answers by a schema, which empty outputs would not fit; mock it"))
            }
            AgentPhase::Execute | AgentPhase::Synthesize => Ok(json!({ "text": "", "output": null })),
        },
    }
}

/// A step's outputs as its worker would report them.
fn reported(path: &str, work: &Work, outputs: &Value) -> Result<Value, String> {
    match work {
        Work::Run(script) if script.json => Ok(outputs.clone()),
        Work::Run(_) => filled(path, outputs, "{ text: … }", &[("text", json!(""))]),
        Work::Http(_) => {
            let defaults = [("status", json!(200)), ("headers", json!({})), ("body", Value::Null)];
            filled(path, outputs, "{ status: …, headers: …, body: … }", &defaults)
        }
        Work::Agent(call) => Ok(match outputs {
            Value::String(text) => json!({ "text": text, "output": null }),
            Value::Object(map) if call.schema.is_none() && map.len() == 1 && map.contains_key("text") => {
                json!({ "text": map.get("text"), "output": null })
            }
            other => json!({ "text": null, "output": other }),
        }),
    }
}

fn filled(path: &str, outputs: &Value, form: &str, defaults: &[(&str, Value)]) -> Result<Value, String> {
    let Value::Object(map) = outputs else {
        return Err(format!("the outputs of step `{path}` are a mapping, `{form}`; its mock gives {outputs}"));
    };
    let mut map = map.clone();
    for (key, value) in defaults {
        map.entry(*key).or_insert_with(|| value.clone());
    }
    Ok(Value::Object(map))
}
