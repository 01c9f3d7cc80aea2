//! What a run would do, without doing it: each step with its texts filled in as far as that can be known beforehand.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::event::{Accepted, Event, Stamped};
use super::names::ScopeNames;
use super::state::{State, UnitKey};
use crate::compile::Program;
use crate::diagnostic::Spanned;
use crate::expr::{Template, ValueTemplate};
use crate::model::{Action, Condition, Fan, HttpBody, PlanSource, ScriptSource, Step, TransformValue, Wait};
use crate::task::DEFAULT_QUEUE;
use crate::time::{Timestamp, format_duration};

/// The steps of a pipeline and of its children by path, in an order in which they can run.
pub fn preview(program: &Arc<Program>, accepted: Accepted) -> Vec<(String, Value)> {
    let mut steps = Vec::new();
    pipeline(program, accepted, "", &mut steps);
    steps
}

fn pipeline(program: &Arc<Program>, accepted: Accepted, prefix: &str, steps: &mut Vec<(String, Value)>) {
    let accepted = Arc::new(accepted);
    let mut state = State::new(program.clone(), accepted.clone(), Timestamp::default());
    super::apply(&mut state, &Stamped::new(Timestamp::default(), Event::Accepted(Box::new((*accepted).clone()))));
    let graph = &program.root.graph;
    // The longest way ahead first is an order that keeps every dependency before its dependants.
    let mut order: Vec<u32> = (0..graph.names.len() as u32).collect();
    order.sort_by_key(|step| {
        (*step >= graph.first_finally, u32::MAX - graph.critical.get(*step as usize).copied().unwrap_or(0), *step)
    });
    for number in order {
        let step = program.root.step(number);
        let path = format!("{prefix}{}", step.id.value);
        let filler = Filler { state: &state, key: UnitKey::whole(0, number) };
        let mut object = filler.step(step);
        if number >= graph.first_finally {
            object.insert("finally".to_owned(), json!(true));
        }
        steps.push((path.clone(), Value::Object(object)));
        if let Some(child) = program.root.children.get(&number).and_then(|path| program.pipelines.get(path))
            && let Action::Pipeline(action) = &step.action
        {
            let mut params: Map<String, Value> = child
                .pipeline
                .params
                .iter()
                .filter_map(|(name, param)| Some((name.to_string(), param.default.as_ref()?.value.clone())))
                .collect();
            params.extend(action.with.iter().map(|(name, value)| (name.value.to_string(), filler.value(&value.value))));
            let inner = Arc::new(Program { root: child.clone(), ..(**program).clone() });
            pipeline(
                &inner,
                Accepted { params, reused: Vec::new(), ..(*accepted).clone() },
                &format!("{path}/"),
                steps,
            );
        }
    }
}

struct Filler<'a> {
    state: &'a State,
    key: UnitKey,
}

impl Filler<'_> {
    fn knows(&self, template: &Template) -> bool {
        let scope = self.state.scope(0);
        template.references().iter().all(|reference| scope.find_step(reference.root()).is_none())
    }

    fn text(&self, template: &Template) -> String {
        let names = ScopeNames::new(self.state, self.key);
        let filled = self.knows(template).then(|| template.render_text(&names).ok()).flatten();
        filled.unwrap_or_else(|| template.source().to_owned())
    }

    fn value(&self, value: &ValueTemplate) -> Value {
        match value {
            ValueTemplate::Constant(value) => value.clone(),
            ValueTemplate::Text(template) => {
                let names = ScopeNames::new(self.state, self.key);
                let filled = self.knows(&template.value).then(|| template.value.render(&names).ok()).flatten();
                filled.unwrap_or_else(|| json!(template.value.source()))
            }
            ValueTemplate::List(items) => items.iter().map(|item| self.value(item)).collect(),
            ValueTemplate::Map(entries) => {
                Value::Object(entries.iter().map(|(name, value)| (name.clone(), self.value(value))).collect())
            }
        }
    }

    fn texts(&self, entries: &[(Spanned<Box<str>>, Spanned<Template>)]) -> Value {
        Value::Object(
            entries.iter().map(|(name, value)| (name.value.to_string(), json!(self.text(&value.value)))).collect(),
        )
    }

    fn step(&self, step: &Step) -> Map<String, Value> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() && value != json!({}) {
                object.insert(key.to_owned(), value);
            }
        };
        put("action", json!(step.action.key()));
        let waits: Vec<&str> = {
            let graph = &self.state.program.root.graph;
            let mut numbers: Vec<u32> = graph.dependencies(self.key.step).map(|(step, _)| step).collect();
            numbers.sort_unstable();
            numbers.into_iter().map(|number| &*graph.names[number as usize]).collect()
        };
        if !waits.is_empty() {
            put("after", json!(waits));
        }
        match step.condition.as_ref().map(|condition| &condition.value) {
            Some(Condition::Constant(value)) => put("if", json!(value)),
            Some(Condition::Expression(expression)) => put("if", json!(expression.source())),
            None => {}
        }
        match step.fan.as_deref() {
            Some(Fan::Static { items, .. }) => put("foreach", items.iter().map(|item| self.value(item)).collect()),
            Some(Fan::Dynamic { items, .. }) => put("foreach", json!(items.value.source())),
            Some(Fan::Matrix { combinations, .. }) => put("matrix", json!(combinations)),
            None => {}
        }
        if let Some(place) = &step.place {
            put("queue", if &*place.queue == DEFAULT_QUEUE { Value::Null } else { json!(place.queue) });
            put("capabilities", if place.capabilities.is_empty() { Value::Null } else { json!(place.capabilities) });
        }
        match &step.action {
            Action::Run(run) => {
                match &run.source {
                    ScriptSource::Script(script) => put("run", json!(script.value.trim_end())),
                    ScriptSource::Argv(argv) => {
                        put("run", argv.iter().map(|part| json!(self.text(&part.value))).collect())
                    }
                }
                put("env", self.texts(&run.env));
                put("dir", run.dir.as_ref().map_or(Value::Null, |dir| json!(self.text(&dir.value))));
            }
            Action::Http(http) => {
                put("method", json!(self.text(&http.method.value)));
                put("url", json!(self.text(&http.url.value)));
                put("headers", self.texts(&http.headers));
                put("query", self.texts(&http.query));
                match &http.body {
                    Some(HttpBody::Text(text)) => put("body", json!(self.text(&text.value))),
                    Some(HttpBody::Json(value)) => put("json", self.value(&value.value)),
                    None => {}
                }
            }
            Action::Transform(value) => put("transform", transform(value)),
            Action::Pipeline(pipeline) => {
                put("pipeline", json!(pipeline.path.value));
                let with = pipeline.with.iter().map(|(name, value)| (name.value.to_string(), self.value(&value.value)));
                put("with", Value::Object(with.collect()));
            }
            Action::Wait(wait) => match &**wait {
                Wait::For(length) => put("wait", json!(format_duration(*length))),
                Wait::Until(time) => put("until", json!(time.to_string())),
                Wait::UntilTime(expression) => put("until", json!(expression.value.source())),
            },
            Action::Approve(approve) => {
                put("message", approve.message.as_ref().map_or(Value::Null, |text| json!(self.text(&text.value))))
            }
            Action::Agent(agent) => {
                put("agent", json!(agent.agent.value));
                put("prompt", json!(self.text(&agent.prompt.value)));
            }
            Action::Plan(plan) => match &plan.source {
                PlanSource::Agent { agent, goal } => {
                    put("agent", json!(agent.value));
                    put("goal", json!(self.text(&goal.value)));
                }
                PlanSource::Static(_) | PlanSource::File(_) => {
                    let blueprint = self.state.program.root.blueprints.get(&self.key.step);
                    put("blueprint", blueprint.map_or(Value::Null, |blueprint| (*blueprint.json).clone()));
                }
            },
            Action::Execute(plan) => put("execute", json!(plan.value)),
            Action::Synthesize(synthesize) => {
                put("agent", json!(synthesize.agent.value));
                put("from", synthesize.from.iter().map(|name| json!(name.value)).collect());
            }
        }
        object
    }
}

fn transform(value: &TransformValue) -> Value {
    match value {
        TransformValue::Constant(value) => value.clone(),
        TransformValue::Expression(expression) => json!(expression.value.source()),
        TransformValue::List(items) => items.iter().map(transform).collect(),
        TransformValue::Map(entries) => {
            Value::Object(entries.iter().map(|(name, value)| (name.value.to_string(), transform(value))).collect())
        }
    }
}
