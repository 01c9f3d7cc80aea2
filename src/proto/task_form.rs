//! Tasks in the published form and back.

use std::sync::Arc;

use serde_json::Value;

use crate::id::{LeaseToken, RunId, UnitPath};
use crate::proto::Undecodable;
use crate::proto::v1;
use crate::task::{
    AgentCall, AgentPhase, Body, Command, HttpRequest, Part, Phase, Placement, Provider, Script, Shell, Task, Text,
    ToolCard, Work,
};
use crate::time::Timestamp;

/// The key of a hand-out in the published form.
pub fn key_to_wire(run: &RunId, unit: &UnitPath, token: LeaseToken) -> v1::LeaseKey {
    v1::LeaseKey { run_id: run.to_string(), unit: unit.to_string(), token: token.0 }
}

/// The key of a hand-out.
///
/// # Errors
/// If a part of it is missing.
pub fn key_from_wire(key: Option<v1::LeaseKey>) -> Result<(RunId, UnitPath, LeaseToken), Undecodable> {
    let key = key.ok_or_else(|| Undecodable::missing("key"))?;
    if key.run_id.is_empty() || key.unit.is_empty() || key.token == 0 {
        return Err(Undecodable::new("`key` needs a run_id, a unit and a token from 1 on"));
    }
    Ok((RunId::new(&key.run_id), UnitPath::new(&key.unit), LeaseToken(key.token)))
}

impl From<&Task> for v1::Task {
    fn from(task: &Task) -> Self {
        let Task { run, pipeline, unit, attempt, token, idempotency_key, deadline, place, work } = task;
        Self {
            key: Some(key_to_wire(run, unit, *token)),
            pipeline: pipeline.to_string(),
            attempt: *attempt,
            idempotency_key: idempotency_key.clone(),
            deadline_ms: deadline.map(|at| at.0),
            queue: place.queue.to_string(),
            phase: match place.phase {
                Phase::Plan => v1::Phase::Plan,
                Phase::Execute => v1::Phase::Execute,
                Phase::Synthesize => v1::Phase::Synthesize,
            }
            .into(),
            once: place.once,
            root: place.root.to_string(),
            requires: place.capabilities.iter().map(ToString::to_string).collect(),
            work: Some(work.into()),
        }
    }
}

impl TryFrom<v1::Task> for Task {
    type Error = Undecodable;

    fn try_from(task: v1::Task) -> Result<Self, Undecodable> {
        let (run, unit, token) = key_from_wire(task.key)?;
        let phase = match v1::Phase::try_from(task.phase) {
            Ok(v1::Phase::Plan) => Phase::Plan,
            Ok(v1::Phase::Execute) => Phase::Execute,
            Ok(v1::Phase::Synthesize) => Phase::Synthesize,
            Ok(v1::Phase::Unspecified) => return Err(Undecodable::missing("phase")),
            Err(_) => return Err(Undecodable::new(format!("`phase` {} is not known here", task.phase))),
        };
        if task.queue.is_empty() {
            return Err(Undecodable::missing("queue"));
        }
        Ok(Self {
            run,
            pipeline: Arc::from(task.pipeline),
            unit,
            attempt: task.attempt,
            token,
            idempotency_key: task.idempotency_key,
            deadline: task.deadline_ms.map(Timestamp),
            place: Placement {
                queue: Arc::from(task.queue),
                capabilities: task.requires.into_iter().map(Box::from).collect(),
                phase,
                once: task.once,
                root: Arc::from(task.root),
            },
            work: work_from_wire(task.work.ok_or_else(|| Undecodable::missing("work"))?)?,
        })
    }
}

impl From<&Work> for v1::task::Work {
    fn from(work: &Work) -> Self {
        match work {
            Work::Run(script) => Self::Run(script_to_wire(script)),
            Work::Http(request) => Self::Http(request_to_wire(request)),
            Work::Agent(call) => Self::Agent(call_to_wire(call)),
        }
    }
}

fn work_from_wire(work: v1::task::Work) -> Result<Work, Undecodable> {
    Ok(match work {
        v1::task::Work::Run(script) => Work::Run(script_from_wire(script)?),
        v1::task::Work::Http(request) => Work::Http(request_from_wire(request)?),
        v1::task::Work::Agent(call) => Work::Agent(call_from_wire(call)?),
        v1::task::Work::WorkRef(_) => {
            return Err(Undecodable::new("`work_ref` must be fetched from the artifact store first"));
        }
    })
}

fn script_to_wire(script: &Script) -> v1::Script {
    let Script { command, env, inherit_env, dir, json, permanent_exit_codes, max_output } = script;
    v1::Script {
        command: Some(match command {
            Command::Shell { shell, script } => v1::script::Command::Shell(v1::ShellScript {
                shell: match shell {
                    Shell::Sh => "sh".to_owned(),
                    Shell::Bash => "bash".to_owned(),
                },
                script: script.clone(),
            }),
            Command::Argv(words) => v1::script::Command::Argv(v1::Argv { words: words.clone() }),
        }),
        env: named_to_wire(env),
        inherit_env: inherit_env.clone(),
        dir: dir.clone(),
        json: *json,
        permanent_exit_codes: permanent_exit_codes.clone(),
        max_output: *max_output,
    }
}

fn script_from_wire(script: v1::Script) -> Result<Script, Undecodable> {
    let command = match script.command.ok_or_else(|| Undecodable::missing("run.command"))? {
        v1::script::Command::Shell(shell) => Command::Shell {
            shell: match shell.shell.as_str() {
                "sh" => Shell::Sh,
                "bash" => Shell::Bash,
                other => return Err(Undecodable::new(format!("there is no shell `{other}`, only `sh` and `bash`"))),
            },
            script: shell.script,
        },
        v1::script::Command::Argv(argv) => Command::Argv(argv.words),
    };
    Ok(Script {
        command,
        env: named_from_wire(script.env)?,
        inherit_env: script.inherit_env,
        dir: script.dir,
        json: script.json,
        permanent_exit_codes: script.permanent_exit_codes,
        max_output: script.max_output,
    })
}

fn request_to_wire(request: &HttpRequest) -> v1::HttpRequest {
    let HttpRequest { method, url, headers, query, body, follow_redirects, max_bytes } = request;
    v1::HttpRequest {
        method: method.clone(),
        url: url.clone(),
        headers: named_to_wire(headers),
        query: query.iter().map(|(name, value)| v1::Pair { name: name.clone(), value: value.clone() }).collect(),
        body: body.as_ref().map(|body| match body {
            Body::Text(text) => v1::http_request::Body::Text(text_to_wire(text)),
            Body::Json(value) => v1::http_request::Body::BodyJson(value.to_string()),
        }),
        follow_redirects: *follow_redirects,
        max_bytes: *max_bytes,
    }
}

fn request_from_wire(request: v1::HttpRequest) -> Result<HttpRequest, Undecodable> {
    Ok(HttpRequest {
        method: request.method,
        url: request.url,
        headers: named_from_wire(request.headers)?,
        query: request.query.into_iter().map(|pair| (pair.name, pair.value)).collect(),
        body: match request.body {
            None => None,
            Some(v1::http_request::Body::Text(text)) => Some(Body::Text(text_from_wire(text)?)),
            Some(v1::http_request::Body::BodyJson(text)) => Some(Body::Json(json("http.body_json", &text)?)),
        },
        follow_redirects: request.follow_redirects,
        max_bytes: request.max_bytes,
    })
}

fn call_to_wire(call: &AgentCall) -> v1::AgentCall {
    let AgentCall {
        agent,
        phase,
        system_prompt,
        prompt,
        input,
        schema,
        tools,
        max_tokens,
        temperature,
        model,
        provider,
        env,
    } = call;
    let card = |tool: &ToolCard| v1::ToolCard {
        name: tool.name.clone(),
        description: tool.description.clone(),
        input_schema_json: tool.input_schema.to_string(),
    };
    v1::AgentCall {
        agent: agent.clone(),
        phase: match phase {
            AgentPhase::Plan => "plan",
            AgentPhase::Execute => "execute",
            AgentPhase::Synthesize => "synthesize",
            AgentPhase::Critique => "critique",
        }
        .to_owned(),
        system_prompt: system_prompt.clone(),
        prompt: prompt.clone(),
        input_json: input.to_string(),
        schema_json: schema.as_ref().map(Value::to_string),
        tools: tools.iter().map(card).collect(),
        max_tokens: *max_tokens,
        temperature: *temperature,
        model: model.clone(),
        env: named_to_wire(env),
        provider: Some(match provider {
            Provider::Command { argv, dir } => {
                v1::agent_call::Provider::Command(v1::CommandProvider { argv: argv.clone(), dir: dir.clone() })
            }
        }),
    }
}

fn call_from_wire(call: v1::AgentCall) -> Result<AgentCall, Undecodable> {
    let card = |tool: v1::ToolCard| {
        Ok(ToolCard {
            name: tool.name,
            description: tool.description,
            input_schema: json("agent.tools.input_schema_json", &tool.input_schema_json)?,
        })
    };
    Ok(AgentCall {
        agent: call.agent,
        phase: match call.phase.as_str() {
            "plan" => AgentPhase::Plan,
            "execute" => AgentPhase::Execute,
            "synthesize" => AgentPhase::Synthesize,
            "critique" => AgentPhase::Critique,
            other => return Err(Undecodable::new(format!("an agent has no phase `{other}`"))),
        },
        system_prompt: call.system_prompt,
        prompt: call.prompt,
        input: json("agent.input_json", &call.input_json)?,
        schema: call.schema_json.as_deref().map(schema_from_wire).transpose()?,
        tools: call.tools.into_iter().map(card).collect::<Result<_, Undecodable>>()?,
        max_tokens: call.max_tokens,
        temperature: call.temperature.map(temperature_from_wire).transpose()?,
        model: call.model,
        provider: match call.provider.ok_or_else(|| Undecodable::missing("agent.provider"))? {
            v1::agent_call::Provider::Command(command) => Provider::Command { argv: command.argv, dir: command.dir },
        },
        env: named_from_wire(call.env)?,
    })
}

/// A JSON Schema is an object, `true` or `false`. Above all it is not `null`: the JSON form could not tell that from
/// no schema at all.
fn schema_from_wire(text: &str) -> Result<Value, Undecodable> {
    let schema = json("agent.schema_json", text)?;
    if schema.is_object() || schema.is_boolean() {
        return Ok(schema);
    }
    Err(Undecodable::new("`agent.schema_json` is neither an object nor a boolean"))
}

/// JSON has no number for what is not finite.
fn temperature_from_wire(temperature: f64) -> Result<f64, Undecodable> {
    if temperature.is_finite() {
        return Ok(temperature);
    }
    Err(Undecodable::new(format!("`agent.temperature` is {temperature}")))
}

fn named_to_wire(pairs: &[(String, Text)]) -> Vec<v1::NamedText> {
    pairs.iter().map(|(name, text)| v1::NamedText { name: name.clone(), value: Some(text_to_wire(text)) }).collect()
}

fn named_from_wire(pairs: Vec<v1::NamedText>) -> Result<Vec<(String, Text)>, Undecodable> {
    pairs.into_iter().map(|pair| Ok((pair.name, text_from_wire(pair.value.unwrap_or_default())?))).collect()
}

fn text_to_wire(text: &Text) -> v1::Text {
    let part = |part: &Part| v1::Part {
        part: Some(match part {
            Part::Plain(words) => v1::part::Part::Plain(words.clone()),
            Part::Secret(name) => v1::part::Part::Secret(name.clone()),
        }),
    };
    v1::Text { parts: text.0.iter().map(part).collect() }
}

fn text_from_wire(text: v1::Text) -> Result<Text, Undecodable> {
    let part = |part: v1::Part| match part.part {
        Some(v1::part::Part::Plain(words)) => Ok(Part::Plain(words)),
        Some(v1::part::Part::Secret(name)) => Ok(Part::Secret(name)),
        // A kind of part that this program does not know: to leave it out would change the text.
        None => Err(Undecodable::new("a text has a part that is neither plain nor a secret")),
    };
    Ok(Text(text.parts.into_iter().map(part).collect::<Result<_, _>>()?))
}

pub(super) fn json(field: &str, text: &str) -> Result<Value, Undecodable> {
    serde_json::from_str(text).map_err(|error| Undecodable::new(format!("`{field}` is not JSON: {error}")))
}
