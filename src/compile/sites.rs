//! Every place of a step that holds a template or an expression, and what may stand in each.

use crate::diagnostic::{Span, Spanned};
use crate::expr::{Expression, Problem, Reference, Template, Type, TypeNames, ValueTemplate};
use crate::model::{
    Action, Condition, Fan, HttpBody, PlanSource, RunStep, ScriptSource, Step, Synthesize, TransformValue, Wait,
};

/// A template or an expression.
#[derive(Clone, Copy)]
pub enum SiteText<'a> {
    Template(&'a Template),
    Expression(&'a Expression),
}

/// One text and where it stands.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    pub text: SiteText<'a>,
    /// The scalar that holds the text.
    pub span: Span,
    pub spot: Spot,
}

/// The kind of place that a text stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    Env,
    Header,
    With,
    Condition,
    Items,
    ListItem,
    Accept,
    Argument,
    Folder,
    Url,
    Method,
    Query,
    Body,
    Transform,
    Prompt,
    AgentInput,
    Message,
    CacheKey,
    WaitUntil,
    Output,
}

impl Spot {
    /// Secrets go where they reach a program, a server or a child, and nowhere where they would be shown or kept.
    pub fn allows_secrets(self) -> bool {
        match self {
            Self::Env | Self::Header | Self::With => true,
            Self::Condition
            | Self::Items
            | Self::ListItem
            | Self::Accept
            | Self::Argument
            | Self::Folder
            | Self::Url
            | Self::Method
            | Self::Query
            | Self::Body
            | Self::Transform
            | Self::Prompt
            | Self::AgentInput
            | Self::Message
            | Self::CacheKey
            | Self::WaitUntil
            | Self::Output => false,
        }
    }

    /// A step's own `if` and `items` are evaluated before there are items.
    pub fn sees_item(self) -> bool {
        !matches!(self, Self::Condition | Self::Items | Self::ListItem)
    }

    /// The place in words, for messages.
    pub fn words(self) -> &'static str {
        match self {
            Self::Env => "`env`",
            Self::Header => "a header",
            Self::With => "`with`",
            Self::Condition => "`if`",
            Self::Items | Self::ListItem => "`items`",
            Self::Accept => "`accept`",
            Self::Argument => "an argument",
            Self::Folder => "`dir`",
            Self::Url => "a URL",
            Self::Method => "a method",
            Self::Query => "`query`",
            Self::Body => "a body",
            Self::Transform => "`transform`",
            Self::Prompt => "a prompt",
            Self::AgentInput => "the input of an agent",
            Self::Message => "a message",
            Self::CacheKey => "a cache key",
            Self::WaitUntil => "`until`",
            Self::Output => "`outputs`",
        }
    }
}

impl SiteText<'_> {
    /// True if there is nothing to fill in, so that nothing can be wrong with it.
    pub fn is_plain(self) -> bool {
        match self {
            Self::Template(template) => template.constant().is_some(),
            Self::Expression(_) => false,
        }
    }

    /// What it refers to.
    pub fn references(self) -> Vec<Reference> {
        match self {
            Self::Template(template) => template.references(),
            Self::Expression(expression) => expression.references(),
        }
    }

    /// Its type and what is wrong with it.
    pub fn check(self, names: &dyn TypeNames) -> (Type, Vec<Problem>) {
        match self {
            Self::Template(template) => template.check(names),
            Self::Expression(expression) => expression.check(names),
        }
    }
}

/// What visits the places of a step.
pub type Visit<'v, 'a> = &'v mut dyn FnMut(Site<'a>);

fn template<'a>(spot: Spot, template: &'a Spanned<Template>, visit: Visit<'_, 'a>) {
    visit(Site { text: SiteText::Template(&template.value), span: template.span, spot });
}

fn expression<'a>(spot: Spot, expression: &'a Spanned<Expression>, visit: Visit<'_, 'a>) {
    visit(Site { text: SiteText::Expression(&expression.value), span: expression.span, spot });
}

/// Visits the templates of a value.
pub fn value<'a>(spot: Spot, value: &'a ValueTemplate, visit: Visit<'_, 'a>) {
    value.each_template(&mut |text| template(spot, text, visit));
}

fn entries<'a>(spot: Spot, entries: &'a [(Spanned<Box<str>>, Spanned<Template>)], visit: Visit<'_, 'a>) {
    for (_, text) in entries {
        template(spot, text, visit);
    }
}

/// Visits all places of a step and of its fallback, in the order in which they are evaluated.
pub fn each_site<'a>(step: &'a Step, visit: Visit<'_, 'a>) {
    if let Some(condition) = &step.condition
        && let Condition::Expression(text) = &condition.value
    {
        visit(Site { text: SiteText::Expression(text), span: condition.span, spot: Spot::Condition });
    }
    match step.fan.as_deref() {
        Some(Fan::Static { items, .. }) => items.iter().for_each(|item| value(Spot::ListItem, item, visit)),
        Some(Fan::Dynamic { items, .. }) => expression(Spot::Items, items, visit),
        Some(Fan::Matrix { .. }) | None => {}
    }
    if let Some(cache) = &step.cache {
        template(Spot::CacheKey, &cache.key, visit);
    }
    action(&step.action, visit);
    if let Some(fallback) = &step.fallback {
        each_site(fallback, visit);
    }
}

fn action<'a>(action: &'a Action, visit: Visit<'_, 'a>) {
    match action {
        Action::Run(run) => script(run, visit),
        Action::Http(http) => {
            template(Spot::Method, &http.method, visit);
            template(Spot::Url, &http.url, visit);
            entries(Spot::Header, &http.headers, visit);
            entries(Spot::Query, &http.query, visit);
            match &http.body {
                Some(HttpBody::Text(text)) => template(Spot::Body, text, visit),
                Some(HttpBody::Json(json)) => value(Spot::Body, &json.value, visit),
                None => {}
            }
        }
        Action::Transform(tree) => transform(tree, visit),
        Action::Pipeline(child) => child.with.iter().for_each(|(_, with)| value(Spot::With, &with.value, visit)),
        Action::Wait(wait) => match wait.as_ref() {
            Wait::UntilTime(until) => expression(Spot::WaitUntil, until, visit),
            Wait::For(_) | Wait::Until(_) => {}
        },
        Action::Approve(approve) => {
            if let Some(message) = &approve.message {
                template(Spot::Message, message, visit);
            }
        }
        Action::Agent(agent) => {
            template(Spot::Prompt, &agent.prompt, visit);
            if let Some(input) = &agent.input {
                value(Spot::AgentInput, &input.value, visit);
            }
            entries(Spot::Env, &agent.env, visit);
        }
        Action::Plan(plan) => match &plan.source {
            PlanSource::Agent { goal, .. } => template(Spot::Prompt, goal, visit),
            PlanSource::Static(_) | PlanSource::File(_) => {}
        },
        Action::Execute(_) => {}
        Action::Synthesize(answer) => synthesize(answer, visit),
    }
}

fn script<'a>(run: &'a RunStep, visit: Visit<'_, 'a>) {
    match &run.source {
        ScriptSource::Script(_) => {}
        ScriptSource::Argv(arguments) => {
            arguments.iter().for_each(|argument| template(Spot::Argument, argument, visit));
        }
    }
    entries(Spot::Env, &run.env, visit);
    if let Some(dir) = &run.dir {
        template(Spot::Folder, dir, visit);
    }
}

fn synthesize<'a>(answer: &'a Synthesize, visit: Visit<'_, 'a>) {
    if let Some(prompt) = &answer.prompt {
        template(Spot::Prompt, prompt, visit);
    }
    if let Some(accept) = &answer.accept {
        expression(Spot::Accept, accept, visit);
    }
    entries(Spot::Env, &answer.env, visit);
}

fn transform<'a>(tree: &'a TransformValue, visit: Visit<'_, 'a>) {
    match tree {
        TransformValue::Constant(_) => {}
        TransformValue::Expression(text) => expression(Spot::Transform, text, visit),
        TransformValue::List(items) => items.iter().for_each(|item| transform(item, visit)),
        TransformValue::Map(entries) => entries.iter().for_each(|(_, item)| transform(item, visit)),
    }
}
