//! The words of [`crate::task`] in the messages of the protocol and back.

use std::sync::Arc;

use serde_json::Value;

use crate::id::{LeaseToken, RunId, UnitPath};
use crate::proto::v1;
use crate::task::{
    AgentCall, AgentPhase, Body, Command, ErrorClass, Failure, HttpRequest, Outcome, Part, Phase, Placement, Provider,
    Script, Shell, Task, Text, ToolCard, Usage, Work,
};
use crate::time::Timestamp;

/// A task as a message.
pub fn task_to_v1(task: &Task) -> v1::Task {
    v1::Task {
        key: Some(v1::LeaseKey {
            run_id: task.run.to_string(),
            unit: task.unit.to_string(),
            token: task.token.0,
        }),
        pipeline: task.pipeline.to_string(),
        attempt: task.attempt,
        idempotency_key: task.idempotency_key.clone(),
        deadline_ms: task.deadline.map(|deadline| deadline.0),
        queue: task.place.queue.to_string(),
        phase: match task.place.phase {
            Phase::Plan => v1::Phase::Plan,
            Phase::Execute => v1::Phase::Execute,
            Phase::Synthesize => v1::Phase::Synthesize,
        } as i32,
        once: task.place.once,
        root: task.place.root.to_string(),
        requires: task.place.capabilities.iter().map(|one| one.to_string()).collect(),
        traceparent: String::new(),
        work: Some(match &task.work {
            Work::Run(script) => v1::task::Work::Run(script_to_v1(script)),
            Work::Http(request) => v1::task::Work::Http(http_to_v1(request)),
            Work::Agent(call) => v1::task::Work::Agent(agent_to_v1(call)),
        }),
    }
}

fn text_to_v1(text: &Text) -> v1::Text {
    let part = |part: &Part| match part {
        Part::Plain(words) => v1::part::Part::Plain(words.clone()),
        Part::Secret(name) => v1::part::Part::Secret(name.clone()),
    };
    v1::Text { parts: text.0.iter().map(|one| v1::Part { part: Some(part(one)) }).collect() }
}

fn text_from_v1(text: Option<v1::Text>) -> Text {
    let parts = text.map(|text| text.parts).unwrap_or_default();
    let part = |part: v1::Part| match part.part? {
        v1::part::Part::Plain(words) => Some(Part::Plain(words)),
        v1::part::Part::Secret(name) => Some(Part::Secret(name)),
    };
    Text(parts.into_iter().filter_map(part).collect())
}

fn named_to_v1(named: &[(String, Text)]) -> Vec<v1::NamedText> {
    let one = |(name, text): &(String, Text)| v1::NamedText { name: name.clone(), value: Some(text_to_v1(text)) };
    named.iter().map(one).collect()
}

fn named_from_v1(named: Vec<v1::NamedText>) -> Vec<(String, Text)> {
    named.into_iter().map(|one| (one.name, text_from_v1(one.value))).collect()
}

fn script_to_v1(script: &Script) -> v1::Script {
    v1::Script {
        command: Some(match &script.command {
            Command::Shell { shell, script } => v1::script::Command::Shell(v1::ShellScript {
                shell: match shell {
                    Shell::Sh => "sh",
                    Shell::Bash => "bash",
                }
                .to_owned(),
                script: script.clone(),
            }),
            Command::Argv(words) => v1::script::Command::Argv(v1::Argv { words: words.clone() }),
        }),
        env: named_to_v1(&script.env),
        inherit_env: script.inherit_env.clone(),
        dir: script.dir.clone(),
        json: script.json,
        permanent_exit_codes: script.permanent_exit_codes.clone(),
        max_output: script.max_output,
    }
}

fn http_to_v1(request: &HttpRequest) -> v1::HttpRequest {
    let pair = |(name, value): &(String, String)| v1::Pair { name: name.clone(), value: value.clone() };
    v1::HttpRequest {
        method: request.method.clone(),
        url: request.url.clone(),
        headers: named_to_v1(&request.headers),
        query: request.query.iter().map(pair).collect(),
        body: request.body.as_ref().map(|body| match body {
            Body::Text(text) => v1::http_request::Body::Text(text_to_v1(text)),
            Body::Json(value) => v1::http_request::Body::BodyJson(value.to_string()),
        }),
        follow_redirects: request.follow_redirects,
        max_bytes: request.max_bytes,
    }
}

fn agent_to_v1(call: &AgentCall) -> v1::AgentCall {
    let tool = |tool: &ToolCard| v1::ToolCard {
        name: tool.name.clone(),
        description: tool.description.clone(),
        input_schema_json: tool.input_schema.to_string(),
    };
    v1::AgentCall {
        agent: call.agent.clone(),
        phase: match call.phase {
            AgentPhase::Plan => "plan",
            AgentPhase::Execute => "execute",
            AgentPhase::Synthesize => "synthesize",
            AgentPhase::Critique => "critique",
        }
        .to_owned(),
        system_prompt: call.system_prompt.clone(),
        prompt: call.prompt.clone(),
        input_json: call.input.to_string(),
        schema_json: call.schema.as_ref().map(Value::to_string),
        tools: call.tools.iter().map(tool).collect(),
        max_tokens: call.max_tokens,
        temperature: call.temperature,
        model: call.model.clone(),
        env: named_to_v1(&call.env),
        provider: Some(match &call.provider {
            Provider::Command { argv, dir } => {
                v1::agent_call::Provider::Command(v1::CommandProvider { argv: argv.clone(), dir: dir.clone() })
            }
        }),
    }
}

fn json(text: &str, what: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{what} is no JSON: {error}"))
}

/// A task out of a message.
///
/// # Errors
/// With words that name what is missing.
pub fn task_from_v1(task: v1::Task) -> Result<Task, String> {
    let key = task.key.clone().ok_or("the task has no key")?;
    let phase = match task.phase() {
        v1::Phase::Plan => Phase::Plan,
        v1::Phase::Execute | v1::Phase::Unspecified => Phase::Execute,
        v1::Phase::Synthesize => Phase::Synthesize,
    };
    let work = match task.work.ok_or("the task has no work")? {
        v1::task::Work::Run(script) => Work::Run(script_from_v1(script)?),
        v1::task::Work::Http(request) => Work::Http(http_from_v1(request)?),
        v1::task::Work::Agent(call) => Work::Agent(agent_from_v1(call)?),
        v1::task::Work::WorkRef(_) => return Err("the work lies in the artifact store".to_owned()),
    };
    Ok(Task {
        run: RunId::new(&key.run_id),
        pipeline: Arc::from(task.pipeline),
        unit: UnitPath::new(&key.unit),
        attempt: task.attempt,
        token: LeaseToken(key.token),
        idempotency_key: task.idempotency_key,
        deadline: task.deadline_ms.map(Timestamp),
        place: Placement {
            queue: Arc::from(task.queue),
            capabilities: task.requires.into_iter().map(Into::into).collect(),
            phase,
            once: task.once,
            root: Arc::from(task.root),
        },
        work,
    })
}

fn script_from_v1(script: v1::Script) -> Result<Script, String> {
    let command = match script.command.ok_or("the script has no command")? {
        v1::script::Command::Shell(shell) => Command::Shell {
            shell: if shell.shell == "bash" { Shell::Bash } else { Shell::Sh },
            script: shell.script,
        },
        v1::script::Command::Argv(argv) => Command::Argv(argv.words),
    };
    Ok(Script {
        command,
        env: named_from_v1(script.env),
        inherit_env: script.inherit_env,
        dir: script.dir,
        json: script.json,
        permanent_exit_codes: script.permanent_exit_codes,
        max_output: script.max_output,
    })
}

fn http_from_v1(request: v1::HttpRequest) -> Result<HttpRequest, String> {
    let body = match request.body {
        None => None,
        Some(v1::http_request::Body::Text(text)) => Some(Body::Text(text_from_v1(Some(text)))),
        Some(v1::http_request::Body::BodyJson(text)) => Some(Body::Json(json(&text, "the body")?)),
    };
    Ok(HttpRequest {
        method: request.method,
        url: request.url,
        headers: named_from_v1(request.headers),
        query: request.query.into_iter().map(|pair| (pair.name, pair.value)).collect(),
        body,
        follow_redirects: request.follow_redirects,
        max_bytes: request.max_bytes,
    })
}

fn agent_from_v1(call: v1::AgentCall) -> Result<AgentCall, String> {
    let phase = match call.phase.as_str() {
        "plan" => AgentPhase::Plan,
        "execute" => AgentPhase::Execute,
        "synthesize" => AgentPhase::Synthesize,
        "critique" => AgentPhase::Critique,
        other => return Err(format!("`{other}` is no phase of an agent")),
    };
    let Some(v1::agent_call::Provider::Command(provider)) = call.provider else {
        return Err("the agent has no provider".to_owned());
    };
    let tools = call.tools.into_iter().map(|tool| {
        let input_schema = json(&tool.input_schema_json, "a tool's schema")?;
        Ok::<_, String>(ToolCard { name: tool.name, description: tool.description, input_schema })
    });
    Ok(AgentCall {
        agent: call.agent,
        phase,
        system_prompt: call.system_prompt,
        prompt: call.prompt,
        input: json(&call.input_json, "the input")?,
        schema: call.schema_json.map(|text| json(&text, "the schema")).transpose()?,
        tools: tools.collect::<Result<_, _>>()?,
        max_tokens: call.max_tokens,
        temperature: call.temperature,
        model: call.model,
        provider: Provider::Command { argv: provider.argv, dir: provider.dir },
        env: named_from_v1(call.env),
    })
}

fn usage_to_v1(usage: &Option<Usage>) -> Option<v1::Usage> {
    usage.map(|usage| v1::Usage { input_tokens: usage.input_tokens, output_tokens: usage.output_tokens })
}

fn usage_from_v1(usage: Option<v1::Usage>) -> Option<Usage> {
    usage.map(|usage| Usage { input_tokens: usage.input_tokens, output_tokens: usage.output_tokens })
}

/// An outcome as a message.
pub fn outcome_to_v1(outcome: &Outcome) -> v1::Outcome {
    let kind = match outcome {
        Outcome::Succeeded { outputs, exit_code, stderr, usage, cached } => {
            v1::outcome::Kind::Succeeded(v1::Succeeded {
                outputs: Some(v1::succeeded::Outputs::OutputsJson(outputs.to_string())),
                exit_code: *exit_code,
                stderr: stderr.clone(),
                usage: usage_to_v1(usage),
                cached: *cached,
            })
        }
        Outcome::Failed { failure, usage } => v1::outcome::Kind::Failed(v1::Failed {
            class: failure.class.as_str().to_owned(),
            message: failure.message.clone(),
            stderr: failure.stderr.clone(),
            exit_code: failure.exit_code,
            retry_after_ms: failure.retry_after_ms,
            usage: usage_to_v1(usage),
        }),
        Outcome::Stopped => v1::outcome::Kind::Stopped(v1::Stopped {}),
    };
    v1::Outcome { kind: Some(kind) }
}

/// An outcome out of a message.
///
/// # Errors
/// With words that name what is missing.
pub fn outcome_from_v1(outcome: v1::Outcome) -> Result<Outcome, String> {
    Ok(match outcome.kind.ok_or("the outcome is of no kind that is known here")? {
        v1::outcome::Kind::Succeeded(done) => {
            let outputs = match done.outputs.ok_or("the outcome has no outputs")? {
                v1::succeeded::Outputs::OutputsJson(text) => json(&text, "what it put out")?,
                v1::succeeded::Outputs::OutputsRef(_) => return Err("the outputs lie in the artifact store".to_owned()),
            };
            Outcome::Succeeded {
                outputs: Arc::new(outputs),
                exit_code: done.exit_code,
                stderr: done.stderr,
                usage: usage_from_v1(done.usage),
                cached: done.cached,
            }
        }
        v1::outcome::Kind::Failed(failed) => {
            let class = match failed.class.as_str() {
                "transient" => ErrorClass::Transient,
                "permanent" => ErrorClass::Permanent,
                "timeout" => ErrorClass::Timeout,
                "cancelled" => ErrorClass::Cancelled,
                "budget" => ErrorClass::Budget,
                other => return Err(format!("`{other}` is no class of failures")),
            };
            let failure = Failure {
                class,
                message: failed.message,
                stderr: failed.stderr,
                exit_code: failed.exit_code,
                retry_after_ms: failed.retry_after_ms,
            };
            Outcome::Failed { failure, usage: usage_from_v1(failed.usage) }
        }
        v1::outcome::Kind::Stopped(_) => Outcome::Stopped,
    })
}
