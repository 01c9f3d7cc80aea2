//! The one action of a step.

use serde_json::Value;

use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::expr::Template;
use crate::model::action::{
    Action, AgentStep, Approve, ApproveMode, HttpBody, HttpStep, OnTimeout, RunStep, ScriptSource, SubPipeline,
    TransformValue, Wait,
};
use crate::model::read::step::{Defaults, read_env, read_env_over, shell};
use crate::model::read::{ReadContext, codes, plan, scalar};
use crate::time::Timestamp;
use crate::yaml::{Node, Yaml};

/// Reads the action of a step; the first one in the file if there are several. Nothing if there is none or it is
/// malformed, which has been reported.
pub(super) fn read_action(node: &Node, defaults: &Defaults, context: &mut ReadContext<'_>) -> Option<Action> {
    for entry in node.entries() {
        let value = &entry.node;
        let action = match &*entry.key {
            "run" => Action::Run(Box::new(read_run(node, value, defaults, context)?)),
            "http" => Action::Http(Box::new(read_http(value, context)?)),
            "transform" => Action::Transform(Box::new(read_transform(value, context))),
            "pipeline" => Action::Pipeline(Box::new(read_sub_pipeline(node, value, context)?)),
            "wait" => Action::Wait(Box::new(read_wait(value, context)?)),
            "approve" => Action::Approve(Box::new(read_approve(value, context))),
            "agent" => Action::Agent(Box::new(read_agent(node, value, defaults, context)?)),
            "plan" => Action::Plan(Box::new(plan::read_plan(value, context)?)),
            "execute" => Action::Execute(scalar::spanned_text(value)?),
            "synthesize" => Action::Synthesize(Box::new(plan::read_synthesize(node, value, defaults, context)?)),
            _ => continue,
        };
        return Some(action);
    }
    None
}

fn read_run(step: &Node, value: &Node, defaults: &Defaults, context: &mut ReadContext<'_>) -> Option<RunStep> {
    let source = match &value.value {
        Yaml::String(text) => ScriptSource::Script(Spanned::new(read_script(text, value.span, context), value.span)),
        Yaml::List(items) => ScriptSource::Argv(items.iter().filter_map(|item| context.template(item)).collect()),
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::Map(_) => return None,
    };
    let mut inherit_env = scalar::texts(step, "inherit_env");
    for name in &defaults.inherit_env {
        if !inherit_env.contains(name) {
            inherit_env.push(name.clone());
        }
    }
    let own_dir = step.get("dir").and_then(|dir| context.template(dir));
    Some(RunStep {
        source,
        env: read_env_over(step, defaults, context),
        inherit_env,
        dir: own_dir.or_else(|| defaults.dir.clone()),
        shell: step.get("shell").and_then(Node::as_str).and_then(shell).or(defaults.shell).unwrap_or_default(),
        json: step.get("outputs").and_then(Node::as_str) == Some("json"),
        permanent_exit_codes: scalar::items(step, "permanent_exit_codes")
            .iter()
            .filter_map(|item| scalar::whole(item).and_then(|code| i32::try_from(code).ok()))
            .collect(),
        max_output: scalar::unsigned(step, "max_output"),
    })
}

/// A script's text with `\{{` as a literal `{{`. A real `{{` is a mistake: values reach a script by its environment.
fn read_script(text: &str, span: Span, context: &mut ReadContext<'_>) -> Box<str> {
    if !text.contains("{{") {
        return Box::from(text);
    }
    let mut script = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text[at..].find("{{").map(|offset| at + offset) {
        if text[at..found].ends_with('\\') {
            script.push_str(&text[at..found - 1]);
            script.push_str("{{");
        } else {
            let end = text[found..].find("}}").map_or(found + 2, |offset| found + offset + 2);
            let inner = text[found..end].trim_matches(['{', '}', ' ']);
            report_template_in_script(inner, context.place(span, found..end), context);
            script.push_str(&text[at..found + 2]);
        }
        // A third brace in a row belongs to the same template.
        at = found + 2;
        while text[at..].starts_with('{') {
            script.push('{');
            at += 1;
        }
    }
    script.push_str(&text[at..]);
    script.into_boxed_str()
}

fn report_template_in_script(inner: &str, span: Span, context: &mut ReadContext<'_>) {
    let name = variable_name(inner);
    let message = "a script is not filled in: values reach it by `env`, so that they cannot become code";
    let help = if inner.is_empty() || inner.contains(['\n', '{', '}']) {
        "put the value into `env`, or write `\\{{` for a literal `{{`".to_owned()
    } else {
        format!("add `env: {{ {name}: \"{{{{ {inner} }}}}\" }}` and write `${name}` here; a literal `{{{{` is `\\{{{{`")
    };
    context.report(Diagnostic::error(codes::TEMPLATE_IN_SCRIPT, span, message).help(help));
}

/// A name for the variable that carries a value: `ask.outputs.text` becomes `ASK_TEXT`.
fn variable_name(inner: &str) -> String {
    let path = inner.split_whitespace().last().unwrap_or_default();
    let parts = path
        .split(['.', '[', ']'])
        .filter(|part| !matches!(*part, "" | "params" | "outputs" | "this" | "env" | "secrets"));
    let name: Vec<String> = parts
        .map(|part| part.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>().to_uppercase())
        .filter(|part| !part.is_empty())
        .collect();
    let name = name.join("_");
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || name.len() > 40 {
        "VALUE".to_owned()
    } else {
        name
    }
}

fn read_http(value: &Node, context: &mut ReadContext<'_>) -> Option<HttpStep> {
    let url = context.template(value.get("url")?)?;
    let method = match value.get("method").and_then(|method| context.template(method)) {
        Some(method) => method,
        None => Spanned::new(Template::parse("GET").ok()?, value.span),
    };
    let body = match (value.get("json"), value.get("body")) {
        (Some(json), _) => Some(HttpBody::Json(Spanned::new(context.value_template(json), json.span))),
        (None, Some(body)) => context.template(body).map(HttpBody::Text),
        (None, None) => None,
    };
    Some(HttpStep {
        method,
        url,
        headers: read_env(value, "headers", context),
        query: read_env(value, "query", context),
        body,
        follow_redirects: scalar::boolean(value, "follow_redirects").unwrap_or(true),
        max_bytes: scalar::unsigned(value, "max_bytes"),
    })
}

fn read_transform(value: &Node, context: &mut ReadContext<'_>) -> TransformValue {
    match &value.value {
        Yaml::String(_) => match context.expression(value) {
            Some(expression) => TransformValue::Expression(expression),
            None => TransformValue::Constant(Value::Null),
        },
        Yaml::List(items) => TransformValue::List(items.iter().map(|item| read_transform(item, context)).collect()),
        Yaml::Map(entries) => TransformValue::Map(
            entries
                .iter()
                .map(|entry| (Spanned::new(entry.key.clone(), entry.key_span), read_transform(&entry.node, context)))
                .collect(),
        ),
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) => TransformValue::Constant(value.to_json()),
    }
}

fn read_sub_pipeline(step: &Node, value: &Node, context: &mut ReadContext<'_>) -> Option<SubPipeline> {
    let path = scalar::spanned_text(value)?;
    let with = scalar::entries(step, "with")
        .iter()
        .map(|entry| {
            let value = context.value_template(&entry.node);
            (Spanned::new(entry.key.clone(), entry.key_span), Spanned::new(value, entry.node.span))
        })
        .collect();
    Some(SubPipeline { path, with })
}

fn read_wait(value: &Node, context: &mut ReadContext<'_>) -> Option<Wait> {
    if value.as_str().is_some() {
        return context.duration_of(value).map(Wait::For);
    }
    let until = value.get("until")?;
    let text = until.as_str()?;
    match text.trim().parse::<jiff::Timestamp>() {
        Ok(time) => Some(Wait::Until(Timestamp(u64::try_from(time.as_millisecond()).unwrap_or_default()))),
        Err(_) => context.expression(until).map(Wait::UntilTime),
    }
}

fn read_approve(value: &Node, context: &mut ReadContext<'_>) -> Approve {
    let word = |key: &str| value.get(key).and_then(Node::as_str);
    let mode = match word("mode") {
        Some("blocking") => ApproveMode::Blocking,
        Some("autonomous") => ApproveMode::Autonomous,
        Some(_) | None => ApproveMode::Partial,
    };
    let on_timeout = match word("on_timeout") {
        Some("approve") => OnTimeout::Approve,
        Some("reject") => OnTimeout::Reject,
        Some(_) | None => OnTimeout::Fail,
    };
    Approve {
        message: value.get("message").and_then(|message| context.template(message)),
        mode,
        timeout: context.duration(value, "timeout"),
        on_timeout,
        approvers: scalar::texts(value, "approvers"),
    }
}

fn read_agent(step: &Node, value: &Node, defaults: &Defaults, context: &mut ReadContext<'_>) -> Option<AgentStep> {
    let agent = scalar::spanned_text(value)?;
    let prompt = step.get("prompt").and_then(|prompt| context.template(prompt))?;
    let input = step.get("input").map(|input| Spanned::new(context.value_template(input), input.span));
    Some(AgentStep {
        agent,
        prompt,
        input,
        schema: read_answer_schema(step),
        tools: scalar::spanned_texts(step, "tools"),
        env: read_env_over(step, defaults, context),
    })
}

/// `schema:` of a step, the JSON Schema of an agent's answer.
pub(super) fn read_answer_schema(step: &Node) -> Option<Spanned<Value>> {
    step.get("schema").map(|schema| Spanned::new(schema.to_json(), schema.span))
}
