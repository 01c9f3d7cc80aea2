//! Checks every text of a pipeline against the names and types at its place, in an order in which the types are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::links::Links;
use super::pipeline::{Plans, Surroundings, hooks, step_of};
use super::report::{MOST_PROBLEMS, Report};
use super::scope::{ItemNames, Names, Scope, step_type};
use super::sites::{self, Site, SiteText, Spot};
use super::{CallTarget, codes};
use crate::diagnostic::Diagnostic;
use crate::expr::{Type, ValueTemplate, type_of_schema};
use crate::model::{Action, Condition, Fan, OnError, Pipeline, Step, Synthesize, TransformValue};

/// What typing a pipeline needs to know.
pub struct Typing<'a> {
    pub pipeline: &'a Pipeline,
    pub around: Surroundings<'a>,
    pub plans: &'a Plans,
}

/// Step types that are the same for all steps of a kind, made once.
struct Common {
    script: Type,
    http: Type,
    unknown: Type,
    agent: Type,
}

impl Typing<'_> {
    /// Checks steps, hooks, outputs and profiles; gives the type of the pipeline's outputs.
    pub fn check(&self, names: &mut Names<'_>, links: &Links, report: &mut Report<'_>) -> Type {
        let common = Common {
            script: step_type(outputs_of_script(false)),
            http: step_type(outputs_of_http()),
            unknown: step_type(Type::Any),
            agent: step_type(Type::open([("text", Type::String)])),
        };
        let order = links.graph.topological_order();
        let mut done = vec![false; names.steps.len()];
        let rest = (0..names.steps.len() as u32).collect::<Vec<_>>();
        let mut sites = Vec::new();
        for number in order.into_iter().chain(rest) {
            let Some(mark) = done.get_mut(number as usize).filter(|mark| !**mark) else { continue };
            *mark = true;
            let Some(step) = step_of(self.pipeline, number) else { continue };
            let kind = self.step(number, step, names, &common, &mut sites, report);
            // Of two steps with one id the first is meant.
            if names.index.get(&step.id.value) == Some(&number)
                && let Some(slot) = names.steps.get_mut(number as usize)
            {
                *slot = kind;
            }
        }
        for hook in hooks(self.pipeline) {
            check_sites(hook, None, None, names, report);
        }
        self.profiles(names, report);
        self.outputs(names, report)
    }

    fn step<'s>(
        &self,
        number: u32,
        step: &'s Step,
        names: &Names<'_>,
        common: &Common,
        sites: &mut Vec<Site<'s>>,
        report: &mut Report<'_>,
    ) -> Type {
        let plain = step.fan.is_none() && step.fallback.is_none() && step.condition.is_none();
        if plain && let Action::Run(run) = &step.action {
            // Most steps are scripts; nothing is allocated for one whose texts are all constant.
            sites::each_site(step, &mut |site| {
                if !site.text.is_plain() {
                    sites.push(site);
                }
            });
            for site in sites.drain(..) {
                let scope = Scope { names, items: None, input: None, accept: None, spot: site.spot };
                check_text(site, &scope, report);
            }
            return if run.json { common.unknown.clone() } else { common.script.clone() };
        }
        let items = step.fan.as_deref().map(|fan| self.items(fan, names, report));
        let transform = check_sites(step, items.as_ref(), None, names, report);
        let mut outputs = self.outputs_of(number, step, transform.first());
        if let Some(fallback) = &step.fallback {
            let other = self.outputs_of(super::fallback_number(number), fallback, transform.get(1));
            outputs = Type::joined([outputs, other]);
        }
        if step.fan.is_some() {
            return step_type(Type::List(Arc::new(outputs)));
        }
        match &step.action {
            Action::Http(_) if step.fallback.is_none() => common.http.clone(),
            Action::Agent(agent) if step.fallback.is_none() && agent.schema.is_none() => common.agent.clone(),
            _ => step_type(outputs),
        }
    }

    /// The names of a fan-out's items, whose `items` must be a list.
    fn items<'s>(&self, fan: &'s Fan, names: &Names<'_>, report: &mut Report<'_>) -> ItemNames<'s> {
        let items = match fan {
            Fan::Static { items, .. } => {
                let scope = Scope { names, items: None, input: None, accept: None, spot: Spot::ListItem };
                Type::List(Arc::new(Type::joined(items.iter().map(|item| type_of_value(item, &scope)))))
            }
            Fan::Dynamic { items, max_items, span, .. } => {
                let scope = Scope { names, items: None, input: None, accept: None, spot: Spot::Items };
                let (kind, problems) = items.value.check(&scope);
                if problems.is_empty() && !matches!(kind, Type::List(_) | Type::Any) {
                    let message = format!("`items` must be a list, but this is of type `{kind}`");
                    report.push(Diagnostic::error(codes::NOT_A_LIST, items.span, message));
                }
                if max_items.is_none() {
                    let message = "this `foreach` goes over a value that only a run knows, and has no `max_items`";
                    report.push(
                        Diagnostic::error(codes::UNBOUNDED_FOREACH, *span, message)
                            .help("say how many items there may be at most, such as `max_items: 50`"),
                    );
                }
                kind
            }
            Fan::Matrix { .. } => Type::Any,
        };
        ItemNames::of(fan, &items)
    }

    /// The type of what one action yields; `transform` is what its expressions were found to give.
    fn outputs_of(&self, number: u32, step: &Step, transform: Option<&Type>) -> Type {
        match &step.action {
            Action::Run(run) => outputs_of_script(run.json),
            Action::Http(_) => outputs_of_http(),
            Action::Transform(_) => transform.cloned().unwrap_or(Type::Any),
            Action::Pipeline(_) => self
                .around
                .children
                .get(&number)
                .and_then(|child| child.compiled.as_ref())
                .map_or(Type::Any, |child| child.outputs.clone()),
            Action::Wait(_) => Type::Any,
            Action::Approve(_) => {
                Type::closed([("decision", Type::String), ("by", Type::Any), ("at", Type::Any), ("comment", Type::Any)])
            }
            Action::Agent(agent) => match &agent.schema {
                Some(schema) => type_of_schema(&schema.value),
                None => Type::open([("text", Type::String)]),
            },
            Action::Plan(_) => Type::open([("steps", Type::list(Type::Any))]),
            Action::Execute(_) => self.evidence(number),
            Action::Synthesize(answer) => outputs_of_answer(answer),
        }
    }

    /// What an `execute` step yields: for a blueprint that is known, its steps; else anything.
    fn evidence(&self, number: u32) -> Type {
        let plan = self.plans.executed.get(&number);
        let Some(blueprint) = plan.and_then(|plan| self.plans.blueprints.get(plan)) else { return Type::Any };
        let fields = blueprint.blueprint.steps.iter().zip(&blueprint.calls).map(|(step, call)| {
            let kind = match (&call.target, call.on_error) {
                (CallTarget::Tool(tool), OnError::Fail) => self.outputs_of(u32::MAX, &tool.step, None),
                (CallTarget::Tool(_) | CallTarget::Agent(_), _) => Type::Any,
            };
            (step.id.value.to_string(), kind)
        });
        let fields: BTreeMap<String, Type> = fields.collect();
        // A blueprint with faults has fewer calls than steps; then nothing is said about what it yields.
        let open = blueprint.calls.len() != blueprint.blueprint.steps.len();
        Type::Object { fields: Arc::new(fields), open }
    }

    fn outputs(&self, names: &Names<'_>, report: &mut Report<'_>) -> Type {
        let scope = Scope { names, items: None, input: None, accept: None, spot: Spot::Output };
        let mut fields = BTreeMap::new();
        for (name, output) in &self.pipeline.outputs {
            sites::value(Spot::Output, &output.value, &mut |site| {
                if !site.text.is_plain() {
                    check_text(site, &scope, report);
                }
            });
            fields.insert(name.value.to_string(), type_of_value(&output.value, &scope));
        }
        Type::Object { fields: Arc::new(fields), open: false }
    }

    fn profiles(&self, names: &Names<'_>, report: &mut Report<'_>) {
        let scope = Scope { names, items: None, input: None, accept: None, spot: Spot::Env };
        for (_, text) in self.pipeline.profiles.values().flat_map(|profile| &profile.env) {
            let site = Site { text: SiteText::Template(&text.value), span: text.span, spot: Spot::Env };
            if !site.text.is_plain() {
                check_text(site, &scope, report);
            }
        }
    }
}

/// Checks all texts of a step and its fallback; gives what their `transform`s yield, the step's own first.
pub fn check_sites(
    step: &Step,
    items: Option<&ItemNames<'_>>,
    input: Option<&Type>,
    names: &Names<'_>,
    report: &mut Report<'_>,
) -> Vec<Type> {
    let mut sites = Vec::new();
    sites::each_site(step, &mut |site| {
        if site.spot != Spot::Transform && !site.text.is_plain() {
            sites.push(site);
        }
    });
    let accept = accept_names(&step.action);
    for site in sites {
        let scope = Scope { names, items, input, accept: accept.as_ref(), spot: site.spot };
        check_text(site, &scope, report);
    }
    let mut transforms = Vec::new();
    let mut next = Some(step);
    while let Some(step) = next {
        let scope = Scope { names, items, input, accept: None, spot: Spot::Transform };
        transforms.push(match &step.action {
            Action::Transform(tree) => type_of_transform(tree, &scope, report),
            _ => Type::Any,
        });
        next = step.fallback.as_deref();
    }
    transforms
}

/// Checks one text; a condition must be a boolean.
fn check_text(site: Site<'_>, scope: &Scope<'_>, report: &mut Report<'_>) {
    let (kind, problems) = site.text.check(scope);
    if problems.is_empty()
        && matches!(site.spot, Spot::Condition | Spot::Accept)
        && !matches!(kind, Type::Bool | Type::Any)
    {
        let message =
            format!("{} must be of type `bool` (true or false), but this is of type `{kind}`", site.spot.words());
        report.push(
            Diagnostic::error(codes::NOT_BOOLEAN, site.span, message)
                .help("compare it with something, such as `… > 0` or `… == \"yes\"`"),
        );
    }
    for problem in problems.into_iter().take(MOST_PROBLEMS) {
        report.problem(site.span, problem);
    }
}

/// The type of a value with templates; what is wrong in it is reported elsewhere.
pub fn type_of_value(value: &ValueTemplate, scope: &Scope<'_>) -> Type {
    match value {
        ValueTemplate::Constant(value) => Type::of_value(value),
        ValueTemplate::Text(text) => text.value.check(scope).0,
        ValueTemplate::List(items) => {
            Type::List(Arc::new(Type::joined(items.iter().map(|item| type_of_value(item, scope)))))
        }
        ValueTemplate::Map(entries) => {
            let fields = entries.iter().map(|(name, item)| (name.clone(), type_of_value(item, scope))).collect();
            Type::Object { fields: Arc::new(fields), open: false }
        }
    }
}

fn type_of_transform(tree: &TransformValue, scope: &Scope<'_>, report: &mut Report<'_>) -> Type {
    match tree {
        TransformValue::Constant(value) => Type::of_value(value),
        TransformValue::Expression(text) => {
            let (kind, problems) = text.value.check(scope);
            for problem in problems.into_iter().take(MOST_PROBLEMS) {
                report.problem(text.span, problem);
            }
            kind
        }
        TransformValue::List(items) => {
            let kinds: Vec<Type> = items.iter().map(|item| type_of_transform(item, scope, report)).collect();
            Type::List(Arc::new(Type::joined(kinds)))
        }
        TransformValue::Map(entries) => {
            let fields = entries
                .iter()
                .map(|(name, item)| (name.value.to_string(), type_of_transform(item, scope, report)))
                .collect();
            Type::Object { fields: Arc::new(fields), open: false }
        }
    }
}

/// What `accept` may ask about the draft.
fn accept_names(action: &Action) -> Option<BTreeMap<&'static str, Type>> {
    let Action::Synthesize(answer) = action else { return None };
    let draft = match &answer.schema {
        Some(schema) => type_of_schema(&schema.value),
        None => Type::open([("text", Type::String)]),
    };
    Some(BTreeMap::from([
        ("score", Type::Double),
        ("accepted", Type::Bool),
        ("verify", step_type(Type::Any)),
        ("outputs", draft),
    ]))
}

fn outputs_of_script(json: bool) -> Type {
    if json { Type::Any } else { Type::open([("text", Type::String)]) }
}

fn outputs_of_http() -> Type {
    Type::closed([("status", Type::Int), ("headers", Type::Map(Arc::new(Type::String))), ("body", Type::Any)])
}

fn outputs_of_answer(answer: &Synthesize) -> Type {
    let draft = match &answer.schema {
        Some(schema) => type_of_schema(&schema.value),
        None => Type::open([("text", Type::String)]),
    };
    let Type::Object { fields, open } = draft else { return Type::Any };
    let mut fields = fields.as_ref().clone();
    fields.insert("score".to_owned(), Type::Double);
    fields.insert("cycles".to_owned(), Type::Int);
    fields.insert("critiques".to_owned(), Type::list(Type::Any));
    Type::Object { fields: Arc::new(fields), open }
}

/// True if a step's condition is written down as never true.
pub fn never_true(step: &Step) -> bool {
    match step.condition.as_ref().map(|condition| &condition.value) {
        Some(Condition::Constant(value)) => !value,
        Some(Condition::Expression(text)) => text.constant() == Some(serde_json::Value::Bool(false)),
        None => false,
    }
}
