//! Which step waits for which: from `depends`, from what texts refer to, and from what actions name.

use std::collections::BTreeSet;

use super::codes;
use super::pipeline::{hooks, numbered, step_of};
use super::report::{MOST_PROBLEMS, Report, did_you_mean};
use super::sites::{self, Site, Spot};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::expr::Reference;
use crate::graph::{Edge, EdgeSource, GraphBuilder, StepGraph};
use crate::model::{Action, Fan, Pipeline, Step};

/// The names that `accept` has beside the others.
pub const ACCEPT_NAMES: [&str; 4] = ["score", "accepted", "verify", "outputs"];

/// Unknown names get a nearest spelling as long as no more names than this were compared.
const MOST_COMPARED_NAMES: u64 = 2_000_000;

/// The graph and what was learnt on the way to it.
pub struct Links {
    pub graph: StepGraph,
    /// Parameters that some text reads.
    pub used_params: BTreeSet<String>,
    /// True if some text reads `params` in a way that does not say which.
    pub all_params_used: bool,
    /// By number: true if something reads the step at all.
    pub read: Vec<bool>,
}

/// Who refers to something.
#[derive(Clone, Copy)]
enum Owner<'a> {
    Step(u32, &'a Step),
    /// A hook, an output or a profile: it comes after all steps and may read every one of them.
    Pipeline,
}

struct Linker<'a, 'r, 'f> {
    pipeline: &'a Pipeline,
    builder: GraphBuilder,
    broken: &'a BTreeSet<Box<str>>,
    report: &'r mut Report<'f>,
    inherited: BTreeSet<&'a str>,
    used_params: BTreeSet<String>,
    all_params_used: bool,
    read: Vec<bool>,
    compared: u64,
}

/// Finds all arrows, and reports names of steps that cannot be waited for or read where they are.
pub fn link(pipeline: &Pipeline, builder: GraphBuilder, broken: &BTreeSet<Box<str>>, report: &mut Report<'_>) -> Links {
    let read = vec![false; builder.names().len()];
    let inherited = pipeline.inherit_env.iter().map(|name| &*name.value).collect();
    let mut linker = Linker {
        pipeline,
        builder,
        broken,
        report,
        inherited,
        used_params: BTreeSet::new(),
        all_params_used: false,
        read,
        compared: 0,
    };
    let mut waits = Vec::new();
    for (number, step) in numbered(pipeline) {
        linker.step(number, step, &mut waits);
        linker.builder.wait_for(number, &mut waits);
        waits.clear();
    }
    linker.rest(&mut waits);
    let Linker { builder, used_params, all_params_used, read, report, .. } = linker;
    let graph = builder.finish();
    report_cycles(pipeline, &graph, report);
    Links { graph, used_params, all_params_used, read }
}

impl<'a> Linker<'a, '_, '_> {
    /// One step's arrows.
    fn step(&mut self, number: u32, step: &'a Step, waits: &mut Vec<(u32, Edge)>) {
        for id in &step.depends {
            if let Some(found) = self.find(number, id, "depends") {
                waits.push((found, Edge { source: EdgeSource::Declared, reads_status: false }));
            }
        }
        self.actions(number, step, waits);
        self.alias(step);
        let mut texts = Vec::new();
        sites::each_site(step, &mut |site| {
            if !site.text.is_plain() {
                texts.push(site);
            }
        });
        for site in texts {
            self.text(Owner::Step(number, step), site, waits);
        }
    }

    /// Outputs, hooks and profiles: nothing waits for them, but what they read must be there.
    fn rest(&mut self, waits: &mut Vec<(u32, Edge)>) {
        let pipeline = self.pipeline;
        let mut texts = Vec::new();
        for (_, output) in &pipeline.outputs {
            sites::value(Spot::Output, &output.value, &mut |site| texts.push(site));
        }
        for hook in hooks(pipeline) {
            sites::each_site(hook, &mut |site| texts.push(site));
        }
        for (_, text) in pipeline.profiles.values().flat_map(|profile| &profile.env) {
            texts.push(Site { text: sites::SiteText::Template(&text.value), span: text.span, spot: Spot::Env });
        }
        for site in texts.into_iter().filter(|site| !site.text.is_plain()) {
            self.text(Owner::Pipeline, site, waits);
        }
        waits.clear();
    }

    /// What the action itself names, the fallback's too.
    fn actions(&mut self, number: u32, step: &'a Step, waits: &mut Vec<(u32, Edge)>) {
        let edge = Edge { source: EdgeSource::Referenced, reads_status: false };
        match &step.action {
            Action::Execute(plan) => {
                if let Some(found) = self.find(number, plan, "execute") {
                    waits.push((found, edge));
                    self.mark(found);
                }
            }
            Action::Synthesize(answer) => {
                for id in &answer.from {
                    if let Some(found) = self.find(number, id, "from") {
                        waits.push((found, edge));
                        self.mark(found);
                    }
                }
                if let Some(found) = answer.verify.as_ref().and_then(|id| self.find(number, id, "verify")) {
                    waits.push((found, edge));
                    self.mark(found);
                }
            }
            Action::Run(_)
            | Action::Http(_)
            | Action::Transform(_)
            | Action::Pipeline(_)
            | Action::Wait(_)
            | Action::Approve(_)
            | Action::Agent(_)
            | Action::Plan(_) => {}
        }
        if let Some(fallback) = &step.fallback {
            self.actions(number, fallback, waits);
        }
    }

    fn mark(&mut self, step: u32) {
        if let Some(read) = self.read.get_mut(step as usize) {
            *read = true;
        }
    }

    /// The number of a step that a key names; reports one that cannot be named there.
    fn find(&mut self, from: u32, id: &Spanned<Box<str>>, key: &str) -> Option<u32> {
        let Some(found) = self.builder.number(&id.value) else {
            if !self.broken.contains(&id.value) {
                let message = format!("`{}` is not a step of this pipeline", id.value);
                let near = self.nearest(&id.value);
                self.report.push(
                    Diagnostic::error(codes::UNKNOWN_STEP, id.span, message).maybe_help(did_you_mean(near.as_deref())),
                );
            }
            return None;
        };
        if found == from {
            let message = match key {
                "depends" => format!("step `{}` waits for itself", id.value),
                _ => format!("`{key}` of step `{}` names the step itself", id.value),
            };
            self.report.push(
                Diagnostic::error(codes::SELF_REFERENCE, id.span, message).help("name another step, or leave it out"),
            );
            return None;
        }
        self.check_order(from, found, id.span).then_some(found)
    }

    /// A step may not wait for a `finally` step, which runs after all the others.
    fn check_order(&mut self, from: u32, found: u32, span: Span) -> bool {
        let first_finally = self.pipeline.steps.len() as u32;
        let backwards = from < first_finally && found >= first_finally;
        if backwards && let Some(step) = step_of(self.pipeline, found) {
            let message = format!("`{}` is a `finally` step, which runs after all steps have ended", step.id.value);
            self.report.push(
                Diagnostic::error(codes::READS_FINALLY, span, message)
                    .help("move this step to `finally` too, or that one to `steps`")
                    .related(step.id.span, "the `finally` step"),
            );
        }
        !backwards
    }

    fn nearest(&mut self, name: &str) -> Option<String> {
        self.compared += self.builder.names().len() as u64;
        if self.compared > MOST_COMPARED_NAMES {
            return None;
        }
        let names = self.builder.names().iter().map(|name| &**name);
        crate::diagnostic::nearest(name, names).map(str::to_owned)
    }

    /// `as` gives a new name; it must not hide a step. The language's own names are `schema`'s to refuse.
    fn alias(&mut self, step: &Step) {
        let Some(alias) = step.fan.as_deref().and_then(Fan::alias) else { return };
        if let Some(other) = self.builder.number(&alias.value).and_then(|number| step_of(self.pipeline, number)) {
            let message = format!("`as: {0}` hides the step `{0}`", alias.value);
            self.report.push(
                Diagnostic::error(codes::HIDDEN_NAME, alias.span, message)
                    .help("give the item another name")
                    .related(other.id.span, "the step"),
            );
        }
    }

    /// The arrows that one text makes, and the names in it that are not for this place.
    fn text(&mut self, owner: Owner<'a>, site: Site<'a>, waits: &mut Vec<(u32, Edge)>) {
        let before = self.report.diagnostics.len();
        for reference in site.text.references() {
            if self.report.diagnostics.len() - before >= MOST_PROBLEMS {
                return;
            }
            let root = reference.root();
            match root {
                "params" => match reference.field(1) {
                    Some(name) => {
                        if !self.used_params.contains(name) {
                            self.used_params.insert(name.to_owned());
                        }
                    }
                    None => self.all_params_used = true,
                },
                "run" => {}
                "secrets" => check_secret(&reference, site, self.report),
                "env" => check_environment(&reference, site, &self.inherited, self.report),
                "item" | "matrix" | "input" => self.local(owner, &reference, site),
                _ => self.step_reference(owner, &reference, site, waits),
            }
        }
    }

    fn step_reference(
        &mut self,
        owner: Owner<'a>,
        reference: &Reference,
        site: Site<'a>,
        waits: &mut Vec<(u32, Edge)>,
    ) {
        let root = reference.root();
        let hidden = match owner {
            Owner::Step(_, step) => is_local(step, root, site.spot),
            Owner::Pipeline => false,
        };
        if hidden {
            return;
        }
        let Some(found) = self.builder.number(root) else { return };
        self.mark(found);
        let Owner::Step(from, step) = owner else { return };
        let span = segment_span(self.report, site.span, reference, 0);
        if found == from {
            let field = reference.field(1).unwrap_or("outputs");
            let message =
                format!("step `{}` reads its own `{field}`, which is not there before it has ended", step.id.value);
            self.report.push(Diagnostic::error(codes::SELF_REFERENCE, span, message).help("read another step"));
            return;
        }
        if self.check_order(from, found, span) {
            let reads_status = site.spot == Spot::Condition && reference.field(1) == Some("status");
            waits.push((found, Edge { source: EdgeSource::Referenced, reads_status }));
        }
    }

    /// `item`, `matrix` and `input` where there is none.
    fn local(&mut self, owner: Owner<'a>, reference: &Reference, site: Site<'_>) {
        let root = reference.root();
        let fan = match owner {
            Owner::Step(_, step) => step.fan.as_deref(),
            Owner::Pipeline => None,
        };
        let (here, help) = match (root, fan) {
            ("input", _) => (false, "only the templates of a tool see `input`"),
            ("matrix", Some(Fan::Matrix { .. })) | ("item", Some(_)) => {
                (site.spot.sees_item(), "`if` and `items` are evaluated once, before there are items")
            }
            ("matrix", _) => (false, "only a step with `matrix` has it"),
            _ => (false, "only a step with `foreach` or `matrix` has it"),
        };
        if !here {
            let span = segment_span(self.report, site.span, reference, 0);
            let message = format!("there is no `{root}` here");
            self.report.push(Diagnostic::error(codes::NAME_NOT_HERE, span, message).help(help));
        }
    }
}

/// A secret may stand only where it is not shown or kept.
pub fn check_secret(reference: &Reference, site: Site<'_>, report: &mut Report<'_>) {
    if site.spot.allows_secrets() {
        return;
    }
    let span = segment_span(report, site.span, reference, reference.segments.len().saturating_sub(1));
    let message = format!("a secret may not be read in {}, where it would be shown or kept", site.spot.words());
    report.push(
        Diagnostic::error(codes::SECRET_NOT_ALLOWED, span, message)
            .help("secrets go into `env`, `with` and the headers of `http`"),
    );
}

/// `env.X` is there only if `inherit_env` lists it.
pub fn check_environment(reference: &Reference, site: Site<'_>, inherited: &BTreeSet<&str>, report: &mut Report<'_>) {
    let Some(part) = reference.segments.get(1) else { return };
    if inherited.contains(&*part.name) {
        return;
    }
    let span = report.place(site.span, part.range.clone());
    let message = format!("`env.{}` is not in this pipeline's `inherit_env`", part.name);
    let help = match crate::diagnostic::nearest(&part.name, inherited.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("add it to the pipeline: `inherit_env: [{}]`", part.name),
    };
    report.push(Diagnostic::error(codes::ENV_NOT_LISTED, span, message).help(help));
}

/// True if the name belongs to the step's own items or to its `accept`.
pub fn is_local(step: &Step, root: &str, spot: Spot) -> bool {
    let alias = step.fan.as_deref().and_then(Fan::alias);
    (spot.sees_item() && alias.is_some_and(|alias| &*alias.value == root))
        || (spot == Spot::Accept && ACCEPT_NAMES.contains(&root))
}

/// From the start of a reference to the end of its segment at a depth.
fn segment_span(report: &Report<'_>, scalar: Span, reference: &Reference, depth: usize) -> Span {
    let range = match (reference.segments.first(), reference.segments.get(depth)) {
        (Some(first), Some(last)) => first.range.start..last.range.end,
        _ => return scalar,
    };
    report.place(scalar, range)
}

/// One diagnostic for each knot of steps that wait for each other, at its first step in file order.
fn report_cycles(pipeline: &Pipeline, graph: &StepGraph, report: &mut Report<'_>) {
    for cycle in graph.cycles() {
        let Some(first) = cycle.first().and_then(|number| step_of(pipeline, *number)) else { continue };
        let names = cycle.iter().chain(cycle.first()).filter_map(|number| step_of(pipeline, *number));
        let names: Vec<String> = names.map(|step| format!("`{}`", step.id.value)).collect();
        let path = if names.len() <= 12 {
            names.join(" → ")
        } else {
            let (head, tail) = (names.get(..6).unwrap_or_default(), names.get(names.len() - 5..).unwrap_or_default());
            format!("{} → … → {}", head.join(" → "), tail.join(" → "))
        };
        let message = format!("these steps wait for each other in a cycle: {path}");
        let mut diagnostic = Diagnostic::error(codes::CYCLE, first.id.span, message)
            .help("take one of the dependencies away; each step waits for the one behind its arrow");
        let pairs = cycle.iter().zip(cycle.iter().cycle().skip(1)).take(12);
        for (from, to) in pairs {
            if let (Some(from), Some(to)) = (step_of(pipeline, *from), step_of(pipeline, *to)) {
                let span = wait_span(from, &to.id.value, report);
                diagnostic = diagnostic.related(span, format!("`{}` waits for `{}`", from.id.value, to.id.value));
            }
        }
        report.push(diagnostic);
    }
}

/// Where a step says that it waits for another.
fn wait_span(step: &Step, name: &str, report: &Report<'_>) -> Span {
    if let Some(declared) = step.depends.iter().find(|id| &*id.value == name) {
        return declared.span;
    }
    let mut found = None;
    sites::each_site(step, &mut |site| {
        if found.is_none() && !site.text.is_plain() {
            let references = site.text.references();
            let reference = references.iter().find(|reference| reference.root() == name);
            found = reference.map(|reference| segment_span(report, site.span, reference, 0));
        }
    });
    found.unwrap_or(step.id.span)
}
