//! Fills in the work of a unit that goes out. Nothing here changes the state: what cannot be filled in comes back as a
//! failed outcome and is recorded like any other.

use serde_json::{Map, Value, json};

use super::names::ScopeNames;
use super::state::{Stage, State, UnitKey};
use super::step::Definition;
use crate::compile::{CallTarget, check_input};
use crate::id::LeaseToken;
use crate::model::{
    Action, Agent, AgentStep, HttpBody, HttpStep, PlanSource, ProviderKind, RunStep, ScriptSource, Synthesize,
    TransformValue,
};
use crate::task::{
    AgentCall, AgentPhase, Body, Command, DEFAULT_QUEUE, Failure, HttpRequest, Outcome, Phase, Placement, Provider,
    Script, Task, Text, ToolCard, Work,
};
use crate::time::Timestamp;

/// The largest standard output that becomes `text`, in bytes, where the step does not say.
const MAX_OUTPUT: u64 = 1024 * 1024;
/// The largest response body, in bytes, where the step does not say.
const MAX_BYTES: u64 = 10 * 1000 * 1000;

/// What is to be done for a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// Where an earlier run's outputs may stand, and how long new ones are kept.
    pub cache: Option<CacheUse>,
    pub work: PreparedWork,
}

/// A task for a worker, or an outcome that needs none.
#[derive(Clone, Debug, PartialEq)]
pub enum PreparedWork {
    Task(Box<Task>),
    Outcome(Outcome),
}

/// A step's place in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUse {
    pub key: String,
    pub ttl: Option<std::time::Duration>,
}

/// Fills in the work of a unit. `root` is the project's absolute folder; `mark` must be drawn at
/// random and told to nobody: it keeps secrets apart from text.
pub fn prepare(state: &State, unit: UnitKey, token: LeaseToken, root: &str, mark: &str) -> Prepared {
    let preparation = Preparation { state, unit, root, mark, definition: state.definition(unit) };
    let work = preparation.work(token);
    match work {
        Ok(work) => {
            // A cache key that cannot be filled in must not silently cost the cache.
            match preparation.cache() {
                Ok(cache) => Prepared { cache, work },
                Err(message) => failed(message),
            }
        }
        Err(message) => failed(message),
    }
}

fn failed(message: String) -> Prepared {
    Prepared { cache: None, work: PreparedWork::Outcome(Outcome::failed(Failure::permanent(message))) }
}

struct Preparation<'a> {
    state: &'a State,
    unit: UnitKey,
    root: &'a str,
    mark: &'a str,
    definition: Definition,
}

impl Preparation<'_> {
    fn names(&self) -> Result<ScopeNames<'_>, String> {
        let names = ScopeNames::new(self.state, self.unit).with_secrets(self.mark);
        match self.definition.call() {
            Some(_) => Ok(names.with(Map::from_iter([("input".to_owned(), self.input()?)]))),
            None => Ok(names),
        }
    }

    /// The filled and checked input of a blueprint's call.
    fn input(&self) -> Result<Value, String> {
        let Some(call) = self.definition.call() else { return Ok(Value::Null) };
        let names = ScopeNames::new(self.state, self.unit).calls_only();
        let input = call.input.render(&names).map_err(|error| format!("`input` cannot be filled in: {error}"))?;
        if let CallTarget::Tool(tool) = &call.target {
            check_input(tool, &input)
                .map_err(|problem| format!("`input` does not fit `{}`: {problem}", tool.name.value))?;
        }
        Ok(input)
    }

    fn work(&self, token: LeaseToken) -> Result<PreparedWork, String> {
        let work = match self.definition.action() {
            Some(Action::Run(run)) => Work::Run(self.script(run)?),
            Some(Action::Http(http)) => Work::Http(self.request(http)?),
            Some(Action::Transform(value)) => {
                let outcome = match transform(value, &self.names()?) {
                    Ok(value) => Outcome::success(value),
                    Err(message) => Outcome::failed(Failure::permanent(message)),
                };
                return Ok(PreparedWork::Outcome(outcome));
            }
            Some(Action::Agent(agent)) => Work::Agent(self.agent_step(agent)?),
            Some(Action::Plan(_) | Action::Execute(_)) => Work::Agent(self.planner()?),
            Some(Action::Synthesize(step)) => Work::Agent(self.writer(step)?),
            Some(action @ (Action::Pipeline(_) | Action::Wait(_) | Action::Approve(_))) => {
                return Err(format!("`{}` is not done by a worker", action.key()));
            }
            None => Work::Agent(self.called_agent()?),
        };
        let unit = self.state.unit(self.unit).ok_or("the unit is gone")?;
        let path = self.state.path(self.unit);
        let iteration = match unit.more.as_deref().map(|more| &more.stage) {
            Some(Stage::Synthesize(state)) => format!("#{}{}", state.cycle, if state.critiquing { "c" } else { "d" }),
            Some(Stage::Plan(state)) => format!("#{}", state.repairs),
            Some(Stage::Single | Stage::Child(_)) | None => String::new(),
        };
        let key = blake3::hash(format!("{}\n{path}{iteration}", self.state.run).as_bytes());
        let attempt_deadline = unit.more.as_deref().and_then(|more| more.attempt_deadline);
        let deadline: Option<Timestamp> = [unit.deadline, attempt_deadline].into_iter().flatten().min();
        Ok(PreparedWork::Task(Box::new(Task {
            run: self.state.run.clone(),
            pipeline: std::sync::Arc::from(&*self.state.program.root.pipeline.name.value),
            unit: path,
            attempt: unit.attempt,
            token,
            idempotency_key: key.to_hex()[..32].to_owned(),
            deadline,
            place: self.placement(&work),
            work,
        })))
    }

    fn placement(&self, work: &Work) -> Placement {
        let phase = match work {
            Work::Agent(call) => match call.phase {
                AgentPhase::Plan => Phase::Plan,
                AgentPhase::Execute => Phase::Execute,
                AgentPhase::Synthesize | AgentPhase::Critique => Phase::Synthesize,
            },
            Work::Run(_) | Work::Http(_) => Phase::Execute,
        };
        let place = self.state.place_of(self.unit);
        Placement {
            queue: place.as_ref().map_or_else(|| std::sync::Arc::from(DEFAULT_QUEUE), |place| place.queue.clone()),
            capabilities: place.map(|place| place.capabilities.clone()).unwrap_or_default(),
            phase,
            once: self.state.retry_of(self.unit).is_some_and(|retry| retry.never),
            root: std::sync::Arc::from(self.root),
        }
    }

    fn cache(&self) -> Result<Option<CacheUse>, String> {
        let Some(step) = self.definition.step() else { return Ok(None) };
        let Some(rule) = &step.cache else { return Ok(None) };
        let names = ScopeNames::new(self.state, self.unit);
        let key =
            rule.key.value.render_text(&names).map_err(|error| format!("`cache.key` cannot be filled in: {error}"))?;
        let scope = self.state.scope(self.unit.scope);
        let mut hash = blake3::Hasher::new();
        for part in [&*scope.pipeline.pipeline.name.value, &*step.id.value, &key, &action_text(&step.action)] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Ok(Some(CacheUse { key: hash.finalize().to_hex().to_string(), ttl: rule.ttl }))
    }

    /// The folder of a file within the project, as an absolute path.
    fn folder(&self, within: &str) -> String {
        if within.is_empty() { self.root.to_owned() } else { format!("{}/{within}", self.root.trim_end_matches('/')) }
    }

    fn base(&self) -> String {
        let path = match self.definition.call().map(|call| &call.target) {
            Some(CallTarget::Tool(tool)) => return self.folder(&tool.base),
            Some(CallTarget::Agent(_)) | None => &self.definition.pipeline().pipeline.path,
        };
        self.folder(path.rsplit_once('/').map_or("", |(folder, _)| folder))
    }

    fn script(&self, run: &RunStep) -> Result<Script, String> {
        let names = self.names()?;
        let command = match &run.source {
            ScriptSource::Script(script) => Command::Shell { shell: run.shell, script: script.value.to_string() },
            ScriptSource::Argv(argv) => {
                let fill = |(number, part): (usize, &crate::diagnostic::Spanned<crate::expr::Template>)| {
                    part.value
                        .render_text(&names)
                        .map_err(|error| format!("argument {number} cannot be filled in: {error}"))
                };
                Command::Argv(argv.iter().enumerate().map(fill).collect::<Result<_, _>>()?)
            }
        };
        let mut dir = self.base();
        if let Some(template) = &run.dir {
            let inside =
                template.value.render_text(&names).map_err(|error| format!("`dir` cannot be filled in: {error}"))?;
            dir = if inside.starts_with('/') { inside } else { format!("{dir}/{inside}") };
        }
        let pipeline = &self.definition.pipeline().pipeline;
        let mut inherit_env: Vec<String> = run.inherit_env.iter().map(ToString::to_string).collect();
        inherit_env.extend(pipeline.inherit_env.iter().map(|name| name.value.to_string()));
        Ok(Script {
            command,
            env: self.env(&run.env, &names)?,
            inherit_env,
            dir,
            json: run.json,
            permanent_exit_codes: run.permanent_exit_codes.clone(),
            max_output: run.max_output.unwrap_or(MAX_OUTPUT),
        })
    }

    fn env(
        &self,
        entries: &[(crate::diagnostic::Spanned<Box<str>>, crate::diagnostic::Spanned<crate::expr::Template>)],
        names: &ScopeNames<'_>,
    ) -> Result<Vec<(String, Text)>, String> {
        entries
            .iter()
            .map(|(name, template)| {
                let filled = template
                    .value
                    .render_text(names)
                    .map_err(|error| format!("`env.{}` cannot be filled in: {error}", name.value))?;
                Ok((name.value.to_string(), names.text(&filled)))
            })
            .collect()
    }

    fn request(&self, http: &HttpStep) -> Result<HttpRequest, String> {
        let names = self.names()?;
        let text = |what: &str, template: &crate::expr::Template| {
            template.render_text(&names).map_err(|error| format!("`http.{what}` cannot be filled in: {error}"))
        };
        let body = match &http.body {
            None => None,
            Some(HttpBody::Text(template)) => Some(Body::Text(names.text(&text("body", &template.value)?))),
            Some(HttpBody::Json(value)) => Some(Body::Json(
                value.value.render(&names).map_err(|error| format!("`http.json` cannot be filled in: {error}"))?,
            )),
        };
        Ok(HttpRequest {
            method: text("method", &http.method.value)?,
            url: text("url", &http.url.value)?,
            headers: http
                .headers
                .iter()
                .map(|(name, value)| Ok((name.value.to_string(), names.text(&text("headers", &value.value)?))))
                .collect::<Result<_, String>>()?,
            query: http
                .query
                .iter()
                .map(|(name, value)| Ok((name.value.to_string(), text("query", &value.value)?)))
                .collect::<Result<_, String>>()?,
            body,
            follow_redirects: http.follow_redirects,
            max_bytes: http.max_bytes.unwrap_or(MAX_BYTES),
        })
    }

    /// One call of an agent, without its words.
    fn call(
        &self,
        agent: &Agent,
        phase: AgentPhase,
        prompt: String,
        input: Value,
        schema: Option<Value>,
        tools: Vec<ToolCard>,
    ) -> Result<AgentCall, String> {
        let reserved = self.state.unit(self.unit).and_then(|unit| unit.more.as_deref()).map_or(0, |more| more.reserved);
        let kind = agent.provider.as_ref().map(|provider| provider.value).or(self.state.program.settings.provider);
        let provider = match kind {
            Some(ProviderKind::Command) => Provider::Command {
                argv: agent.command.iter().map(ToString::to_string).collect(),
                dir: self.folder(&agent.base),
            },
            Some(ProviderKind::Anthropic | ProviderKind::Openai) | None => {
                return Err(format!(
                    "agent `{}` has no provider that this version can call; give it `provider: command` and `command: […]`",
                    agent.id.value
                ));
            }
        };
        Ok(AgentCall {
            agent: agent.id.value.to_string(),
            phase,
            system_prompt: agent.system_prompt.to_string(),
            prompt,
            input,
            schema,
            tools,
            max_tokens: if reserved > 0 { reserved } else { agent.max_tokens },
            temperature: agent.temperature,
            model: agent.model.as_deref().map(str::to_owned),
            provider,
            env: Vec::new(),
        })
    }

    fn agent(&self) -> Result<std::sync::Arc<Agent>, String> {
        self.state.agent_of(self.unit).ok_or_else(|| "its agent is not part of the run's definition".to_owned())
    }

    fn agent_step(&self, step: &AgentStep) -> Result<AgentCall, String> {
        let names = self.names()?;
        let agent = self.agent()?;
        let prompt =
            step.prompt.value.render_text(&names).map_err(|error| format!("`prompt` cannot be filled in: {error}"))?;
        let input = match &step.input {
            Some(input) => {
                input.value.render(&names).map_err(|error| format!("`input` cannot be filled in: {error}"))?
            }
            None => json!({}),
        };
        let pipeline = self.definition.pipeline();
        let tools = step.tools.iter().filter_map(|name| pipeline.tools.get(&name.value)).map(card).collect();
        let schema = step.schema.as_ref().map(|schema| schema.value.clone());
        let env = self.env(&step.env, &names)?;
        Ok(AgentCall { env, ..self.call(&agent, AgentPhase::Execute, prompt, input, schema, tools)? })
    }

    fn called_agent(&self) -> Result<AgentCall, String> {
        let agent = self.agent()?;
        let input = self.input()?;
        let prompt = match &input {
            Value::String(text) => text.clone(),
            other => other.get("prompt").and_then(Value::as_str).map_or_else(|| other.to_string(), str::to_owned),
        };
        let input = if input.is_object() { input } else { json!({ "input": input }) };
        self.call(&agent, AgentPhase::Execute, prompt, input, None, Vec::new())
    }

    fn planner(&self) -> Result<AgentCall, String> {
        let (key, plan) = self.state.plan_of(self.unit).ok_or("its plan step is not part of the run's definition")?;
        let PlanSource::Agent { goal, .. } = &plan.source else {
            return Err("its plan is not made by an agent".to_owned());
        };
        let agent = self.agent()?;
        let names = ScopeNames::new(self.state, key);
        let goal =
            goal.value.render_text(&names).map_err(|error| format!("`plan.goal` cannot be filled in: {error}"))?;
        let rules =
            crate::compile::PlanRules::of(&plan, &self.definition.pipeline().tools, &self.definition.pipeline().agents);
        let tools: Vec<ToolCard> = rules.tools.values().map(card).collect();
        let mut prompt = format!(
            "{goal}\n\nAnswer with a plan only: a JSON object {{\"steps\": [{{\"id\": \"E1\", \"tool\": …, \"input\": {{…}}}}]}}. \
             An input may refer to an earlier step's outputs as #E1. The tools: {}.",
            tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(", ")
        );
        let mut input =
            Map::from_iter([("goal".to_owned(), json!(goal)), ("max_steps".to_owned(), json!(plan.max_steps))]);
        if let Some(Stage::Plan(stage)) =
            self.state.unit(self.unit).and_then(|unit| unit.more.as_deref()).map(|more| &more.stage)
        {
            if let Some((answer, problems)) = &stage.refused {
                let said = answer
                    .get("output")
                    .filter(|output| !output.is_null())
                    .or_else(|| answer.get("text"))
                    .cloned()
                    .unwrap_or_default();
                prompt.push_str(&format!(
                    "\n\nYour last answer was refused:\n{said}\nWhat is wrong with it:\n- {}\nAnswer again.",
                    problems.join("\n- ")
                ));
                input.insert("refused".to_owned(), json!({ "answer": said, "problems": problems }));
            }
            if let Some(old) = stage.mends {
                let missing = self.state.missing_evidence(old);
                let failed = Value::Object(missing);
                prompt.push_str(&format!(
                    "\n\nA plan before this one failed at: {failed}\nSteps that stay as they were are not run again."
                ));
                input.insert("failed".to_owned(), failed);
                if let super::state::Body::Blueprint(before) = &self.state.scope(old).body {
                    input.insert("plan".to_owned(), (*before.json).clone());
                }
            }
        }
        self.call(
            &agent,
            AgentPhase::Plan,
            prompt,
            Value::Object(input),
            Some(crate::compile::blueprint_schema()),
            tools,
        )
    }

    fn writer(&self, step: &Synthesize) -> Result<AgentCall, String> {
        let agent = self.agent()?;
        let names = self.names()?;
        let scope = self.unit.scope;
        let evidence: Map<String, Value> = step
            .from
            .iter()
            .map(|name| (name.value.to_string(), self.state.evidence_view(scope, &name.value)))
            .collect();
        let mut missing = Map::new();
        for name in &step.from {
            let child = self
                .state
                .scope(scope)
                .find_step(&name.value)
                .and_then(|number| self.state.unit(UnitKey::whole(scope, number))?.child());
            if let Some(child) = child {
                missing.extend(self.state.missing_evidence(child));
            }
        }
        let mut input = Map::from_iter([("evidence".to_owned(), Value::Object(evidence))]);
        if !missing.is_empty() {
            input.insert("missing".to_owned(), Value::Object(missing.clone()));
        }
        if let Some(verify) = &step.verify {
            input.insert("verify".to_owned(), self.state.step_view(scope, &verify.value));
        }
        let mut prompt = match &step.prompt {
            Some(prompt) => prompt
                .value
                .render_text(&names)
                .map_err(|error| format!("`synthesize.prompt` cannot be filled in: {error}"))?,
            None => "Write the answer from the evidence alone.".to_owned(),
        };
        if !missing.is_empty() {
            prompt.push_str(&format!("\n\nThis evidence is missing because it failed: {}", Value::Object(missing)));
        }
        let env = self.env(&step.env, &names)?;
        let state = self.state.synthesis(self.unit);
        if let Some(state) = state.filter(|state| state.critiquing) {
            input.insert("draft".to_owned(), state.draft.clone());
            let ask = format!(
                "Judge this draft against the evidence. It was asked for with: {prompt}\n\nThe draft: {}\n\nAnswer with a JSON object: score (0 to 1), accepted, critiques [{{id, severity, message}}].",
                state.draft
            );
            return Ok(AgentCall {
                env,
                ..self.call(
                    &agent,
                    AgentPhase::Critique,
                    ask,
                    Value::Object(input),
                    Some(critique_schema()),
                    Vec::new(),
                )?
            });
        }
        if let Some(state) = state.filter(|state| state.cycle > 0) {
            input.insert("draft".to_owned(), state.draft.clone());
            input.insert("critiques".to_owned(), Value::Array(state.critiques.clone()));
            input.insert("score".to_owned(), json!(state.score));
            prompt.push_str(&format!(
                "\n\nYour last draft: {}\nWhat its critics said: {}",
                state.draft,
                Value::Array(state.critiques.clone())
            ));
        }
        let schema = step.schema.as_ref().map(|schema| schema.value.clone());
        Ok(AgentCall {
            env,
            ..self.call(&agent, AgentPhase::Synthesize, prompt, Value::Object(input), schema, Vec::new())?
        })
    }
}

fn card(tool: &std::sync::Arc<crate::model::Tool>) -> ToolCard {
    ToolCard {
        name: tool.name.value.to_string(),
        description: tool.description.to_string(),
        input_schema: tool.input_schema.clone(),
    }
}

fn transform(value: &TransformValue, names: &ScopeNames<'_>) -> Result<Value, String> {
    match value {
        TransformValue::Constant(value) => Ok(value.clone()),
        TransformValue::Expression(expression) => expression
            .value
            .evaluate(names)
            .map_err(|error| format!("`{}` cannot be evaluated: {error}", expression.value.source())),
        TransformValue::List(items) => items.iter().map(|item| transform(item, names)).collect(),
        TransformValue::Map(entries) => {
            let entries = entries.iter().map(|(name, value)| Ok((name.value.to_string(), transform(value, names)?)));
            entries.collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
    }
}

/// What an action does, as text: a cached output belongs to it.
fn action_text(action: &Action) -> String {
    match action {
        Action::Run(run) => {
            let source = match &run.source {
                ScriptSource::Script(script) => script.value.to_string(),
                ScriptSource::Argv(argv) => {
                    argv.iter().map(|part| part.value.source()).collect::<Vec<_>>().join("\u{0}")
                }
            };
            format!("run {:?} {} {source}", run.shell, run.json)
        }
        Action::Http(http) => format!("http {} {}", http.method.value.source(), http.url.value.source()),
        Action::Transform(value) => format!("transform {}", transform_text(value)),
        Action::Agent(agent) => format!("agent {} {}", agent.agent.value, agent.prompt.value.source()),
        Action::Pipeline(_)
        | Action::Wait(_)
        | Action::Approve(_)
        | Action::Plan(_)
        | Action::Execute(_)
        | Action::Synthesize(_) => action.key().to_owned(),
    }
}

fn transform_text(value: &TransformValue) -> String {
    match value {
        TransformValue::Constant(value) => value.to_string(),
        TransformValue::Expression(expression) => expression.value.source().to_owned(),
        TransformValue::List(items) => items.iter().map(transform_text).collect::<Vec<_>>().join("\u{0}"),
        TransformValue::Map(entries) => entries
            .iter()
            .map(|(name, value)| format!("{}={}", name.value, transform_text(value)))
            .collect::<Vec<_>>()
            .join("\u{0}"),
    }
}

fn critique_schema() -> Value {
    json!({
        "type": "object",
        "required": ["score"],
        "properties": {
            "score": { "type": "number", "minimum": 0, "maximum": 1 },
            "accepted": { "type": "boolean" },
            "critiques": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["id", "severity", "message"],
                    "properties": { "id": { "type": "string" }, "severity": { "type": "string" }, "message": { "type": "string" } }
                }
            }
        }
    })
}
