//! Checks pipelines with all that they name. What several of them share is read and checked once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::kind::SETTINGS_FILES;
use super::load::{Loader, not_readable};
use super::pipeline::{CatalogueView, Child, Compiled, Surroundings, compile, fallback_number, numbered};
use super::report::{Report, has_errors};
use super::{
    CompiledPipeline, MemorySources, Program, SourceProblem, Sources, cascade, codes, kind, paths, profile, tools,
};
use crate::diagnostic::{Diagnostic, Files, Span, Spanned, renew_comparisons};
use crate::model::{self, Action, Blueprint, Pipeline, PlanSource, Settings};
use crate::schema::{self, DocumentKind};
use crate::yaml::Node;

/// Pipelines that run pipelines go this deep; more is a mistake, and the stack has an end.
const MOST_NESTING: usize = 64;

/// The codes of names that an included file may declare.
const SHARED_NAMES: [&str; 4] =
    [codes::UNKNOWN_TEMPLATE, codes::UNKNOWN_AGENT, codes::NO_CATALOGUE, codes::UNKNOWN_TOOL];

/// How a check is made.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// The profile to lay over the pipeline.
    pub profile: Option<String>,
}

/// Checks one pipeline with all that it names. All diagnostics, warnings included, are added in the order of files
/// and places; there is a program if none of them is an error.
pub fn check(
    path: &str,
    sources: &dyn Sources,
    files: &mut Files,
    diagnostics: &mut Vec<Diagnostic>,
    options: &CheckOptions,
) -> Option<Program> {
    let mut checker = Checker::new(sources);
    checker.loader.files = std::mem::take(files);
    checker.profile = options.profile.clone();
    checker.check_pipeline(path);
    let program = checker.program(path);
    let (all_files, mut found) = checker.finish();
    *files = all_files;
    let program = program.filter(|_| !has_errors(&found));
    diagnostics.append(&mut found);
    program
}

/// A check over many files. One checker is used by one thread; several may work beside each other on the same
/// [`Sources`].
pub struct Checker<'s> {
    pub(super) loader: Loader<'s>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pipelines: BTreeMap<String, Entry>,
    pub(super) included: BTreeMap<String, bool>,
    pub(super) catalogues: BTreeMap<String, Arc<CatalogueView>>,
    pub(super) folders: BTreeMap<String, Option<String>>,
    settings: Option<SharedSettings>,
    /// The pipelines that are being checked, each with the place where it names the next one.
    stack: Vec<(String, Span)>,
    profile: Option<String>,
}

/// A pipeline that was checked.
#[derive(Clone)]
struct Entry {
    compiled: Option<Compiled>,
    /// The other files that it was made from.
    reads: Vec<String>,
}

/// The project's settings.
#[derive(Clone)]
pub(super) struct SharedSettings {
    pub settings: Arc<Settings>,
    pub path: Option<String>,
    pub broken: bool,
}

impl<'s> Checker<'s> {
    /// A checker that has read nothing.
    pub fn new(sources: &'s dyn Sources) -> Self {
        Self {
            loader: Loader::new(sources, Files::default()),
            diagnostics: Vec::new(),
            pipelines: BTreeMap::new(),
            included: BTreeMap::new(),
            catalogues: BTreeMap::new(),
            folders: BTreeMap::new(),
            settings: None,
            stack: Vec::new(),
            profile: None,
        }
    }

    /// Checks a pipeline and all that it names; true if it can be run.
    pub fn check_pipeline(&mut self, path: &str) -> bool {
        match self.loader_has(path) {
            Ok(()) => self.pipeline(path).is_some(),
            Err(problem) => {
                let diagnostic = self.loader.unreadable(path, &problem);
                self.diagnostics.push(diagnostic);
                false
            }
        }
    }

    /// What a file is, by its name and its top-level keys; `None` if it is nothing of this language.
    ///
    /// # Errors
    /// Why there is no text.
    pub fn kind(&mut self, path: &str) -> Result<Option<DocumentKind>, SourceProblem> {
        if self.pipelines.contains_key(path) {
            return Ok(Some(DocumentKind::Pipeline));
        }
        let loaded = self.loader.load(path)?;
        Ok(kind::kind_of(path, loaded.tree.as_deref(), self.loader.files.text(loaded.file)))
    }

    /// Everything that was read and found. The diagnostics stand in the order of files and places, each once.
    pub fn finish(self) -> (Files, Vec<Diagnostic>) {
        let mut diagnostics = self.diagnostics;
        in_order(&mut diagnostics);
        (self.loader.files, diagnostics)
    }

    /// The program of a pipeline that was checked and can be run.
    pub fn program(&self, path: &str) -> Option<Program> {
        let root = self.pipelines.get(path)?.compiled.as_ref()?;
        let mut pipelines: HashMap<Box<str>, Arc<CompiledPipeline>> = HashMap::new();
        let mut reads: BTreeSet<&str> = BTreeSet::new();
        let mut waiting = vec![path];
        while let Some(path) = waiting.pop() {
            let (path, entry) = self.pipelines.get_key_value(path)?;
            let compiled = &entry.compiled.as_ref()?.pipeline;
            if pipelines.insert(path.as_str().into(), Arc::clone(compiled)).is_some() {
                continue;
            }
            reads.insert(path);
            reads.extend(entry.reads.iter().map(String::as_str));
            for child in compiled.children.values() {
                waiting.push(child);
            }
        }
        let settings = self.settings.as_ref();
        reads.extend(settings.and_then(|settings| settings.path.as_deref()));
        let texts = reads.into_iter().filter_map(|path| {
            let text = self.loader.texts.0.get(path)?;
            Some((path.to_owned(), Arc::clone(text)))
        });
        let sources = MemorySources(texts.collect());
        Some(Program {
            root: Arc::clone(&root.pipeline),
            pipelines,
            settings: settings.map(|settings| Arc::clone(&settings.settings)).unwrap_or_default(),
            hash: hash_of(&sources),
            sources,
        })
    }

    fn loader_has(&mut self, path: &str) -> Result<(), SourceProblem> {
        if self.pipelines.contains_key(path) { Ok(()) } else { self.loader.load(path).map(|_| ()) }
    }

    /// A pipeline whose text is there.
    fn pipeline(&mut self, path: &str) -> Option<Compiled> {
        if let Some(entry) = self.pipelines.get(path) {
            return entry.compiled.clone();
        }
        let mut found = Vec::new();
        let mut entry = Entry { compiled: None, reads: Vec::new() };
        if self.stack.is_empty() {
            renew_comparisons();
        }
        self.stack.push((path.to_owned(), Span::default()));
        entry.compiled = self.compile_file(path, &mut entry.reads, &mut found);
        self.stack.pop();
        self.loader.forget(path);
        self.diagnostics.append(&mut found);
        let compiled = entry.compiled.clone();
        self.pipelines.insert(path.to_owned(), entry);
        compiled
    }

    fn compile_file(&mut self, path: &str, reads: &mut Vec<String>, found: &mut Vec<Diagnostic>) -> Option<Compiled> {
        let loaded = self.loader.load(path).ok()?;
        found.extend(loaded.diagnostics.iter().cloned());
        let tree = loaded.tree?;
        schema::check(DocumentKind::Pipeline, &tree, found);
        let folder = paths::folder_of(path).to_owned();
        let includes = tree.get("include").map(|list| list.span);
        let (tree, mut sound) = self.with_includes(tree, &folder, reads, found);
        let tree = with_templates(tree, found);
        let mut context = model::ReadContext::new(&self.loader.files, found);
        let mut pipeline = model::read_pipeline(&tree, loaded.file, path, &mut context);
        let name = self.profile.clone().filter(|_| self.stack.len() == 1);
        let settings = self.settings();
        let catalogue = self.catalogue(&folder);
        reads.extend(catalogue.iter().map(|view| view.catalogue.path.to_string()));
        sound &= !settings.broken && catalogue.as_ref().is_none_or(|view| !view.faulty);
        let children = self.children(&pipeline, &folder, found);
        sound &= children.values().all(|child| child.compiled.is_some());
        let blueprints = self.blueprints(&pipeline, &folder, reads, found);
        let mut report = Report::new(&self.loader.files);
        profile::check(&pipeline, &mut report);
        if let Some(name) = name {
            profile::apply(&mut pipeline, &name, &mut report);
        }
        let inherited = pipeline.inherit_env.iter().map(|name| &*name.value).collect();
        tools::check(pipeline.tools.values(), &inherited, &mut report);
        found.append(&mut report.diagnostics);
        let around = Surroundings {
            files: &self.loader.files,
            tree: Some(&tree),
            catalogue: catalogue.as_deref(),
            settings: &settings.settings,
            children: &children,
            blueprints: &blueprints,
        };
        let (compiled, outputs) = compile(pipeline, around, sound, found);
        let is_missing = |code: &str| matches!(code, codes::MISSING_FILE | codes::OUTSIDE_PROJECT);
        if includes.is_some_and(|list| {
            found.iter().any(|one| {
                is_missing(one.code)
                    && list.file == one.span.file
                    && list.start <= one.span.start
                    && one.span.end <= list.end
            })
        }) {
            // What the missing file would have brought is not called unknown.
            found.retain(|one| !SHARED_NAMES.contains(&one.code));
        }
        if has_errors(found) {
            cascade::drop_followers(&tree, &self.loader.files, found);
        }
        (sound && !has_errors(found)).then(|| Compiled { pipeline: Arc::new(compiled), outputs })
    }

    /// The tree with what its includes bring, and whether all of them could be read.
    fn with_includes(
        &mut self,
        tree: Arc<Node>,
        folder: &str,
        reads: &mut Vec<String>,
        found: &mut Vec<Diagnostic>,
    ) -> (Arc<Node>, bool) {
        let Some(list) = tree.get("include") else { return (tree, true) };
        let mut trees = Vec::new();
        let mut sound = true;
        for item in list.items() {
            let Some(written) = item.as_str() else { continue };
            let written = Spanned::new(Box::from(written), item.span);
            let Some(path) = self.resolve(&written, folder, found) else { continue };
            let Ok(loaded) = self.loader.load(&path) else { continue };
            let text = self.loader.files.text(loaded.file);
            if kind::kind_of(&path, loaded.tree.as_deref(), text) == Some(DocumentKind::Pipeline) {
                let message = format!("`{}` is a pipeline, which cannot be included", written.value);
                let help = "name a file that holds only what is shared: `defaults`, `agents`, `tools`, `templates`";
                found.push(Diagnostic::error(codes::INCLUDED_PIPELINE, written.span, message).help(help));
                sound = false;
                continue;
            }
            sound &= self.include(&path);
            if let Some(tree) = loaded.tree {
                trees.push(tree.as_ref().clone());
            }
            reads.push(path);
        }
        (Arc::new(model::merge_includes(tree.as_ref().clone(), &trees)), sound)
    }

    /// The path that a file names, if a text can be had there; else that is reported at the name.
    fn resolve(&mut self, written: &Spanned<Box<str>>, folder: &str, found: &mut Vec<Diagnostic>) -> Option<String> {
        let Some(path) = paths::join(folder, &written.value) else {
            found.push(not_readable(&written.value, &SourceProblem::Outside, written.span));
            return None;
        };
        match self.loader_has(&path) {
            Ok(()) => Some(path),
            Err(problem) => {
                found.push(not_readable(&written.value, &problem, written.span));
                None
            }
        }
    }

    /// Checks the pipelines that steps and their fallbacks run.
    fn children(&mut self, pipeline: &Pipeline, folder: &str, found: &mut Vec<Diagnostic>) -> BTreeMap<u32, Child> {
        let mut children = BTreeMap::new();
        for (number, step) in numbered(pipeline) {
            let fallback = step.fallback.as_deref().map(|fallback| (fallback_number(number), fallback));
            for (number, step) in std::iter::once((number, step)).chain(fallback) {
                let Action::Pipeline(call) = &step.action else { continue };
                let child = match self.resolve(&call.path, folder, found) {
                    Some(path) => {
                        let compiled = self.child(&path, call.path.span);
                        Child { path: path.into(), compiled }
                    }
                    None => Child { path: call.path.value.clone(), compiled: None },
                };
                children.insert(number, child);
            }
        }
        children
    }

    fn child(&mut self, path: &str, span: Span) -> Option<Compiled> {
        if let Some((_, place)) = self.stack.last_mut() {
            *place = span;
        }
        if let Some(start) = self.stack.iter().position(|(open, _)| open == path) {
            self.report_recursion(start);
            return None;
        }
        if self.stack.len() >= MOST_NESTING {
            let message = format!("pipelines run pipelines more than {MOST_NESTING} deep");
            self.diagnostics.push(Diagnostic::error(codes::DEEP_PIPELINES, span, message).help("flatten them"));
            return None;
        }
        self.pipeline(path)
    }

    /// A circle of pipelines is told at one place whichever of them was asked for: where its first path is named.
    fn report_recursion(&mut self, start: usize) {
        let circle = self.stack.get(start..).unwrap_or_default();
        let pairs = circle.iter().zip(circle.iter().skip(1).chain(circle.first()));
        let Some(((_, span), (first, _))) = pairs.min_by_key(|(_, (next, _))| next) else { return };
        let message = if circle.len() == 1 {
            format!("`{first}` runs itself")
        } else {
            let turn = circle.iter().position(|(path, _)| path == first).unwrap_or(0);
            let names = circle.iter().cycle().skip(turn).take(circle.len() + 1);
            let names: Vec<String> = names.map(|(path, _)| format!("`{path}`")).collect();
            format!("these pipelines run each other in a circle: {}", names.join(" → "))
        };
        let diagnostic = Diagnostic::error(codes::RECURSIVE_PIPELINE, *span, message)
            .help("a run of it would never end; use `foreach` to do something several times");
        self.diagnostics.push(diagnostic);
    }

    /// The blueprints that plan steps name by their files.
    fn blueprints(
        &mut self,
        pipeline: &Pipeline,
        folder: &str,
        reads: &mut Vec<String>,
        found: &mut Vec<Diagnostic>,
    ) -> BTreeMap<u32, Blueprint> {
        let mut blueprints = BTreeMap::new();
        for (number, step) in numbered(pipeline) {
            let Action::Plan(plan) = &step.action else { continue };
            let PlanSource::File(file) = &plan.source else { continue };
            let Some(path) = self.resolve(file, folder, found) else { continue };
            let Ok(loaded) = self.loader.load(&path) else { continue };
            found.extend(loaded.diagnostics.iter().cloned());
            if let Some(tree) = loaded.tree {
                let before = found.len();
                schema::check(DocumentKind::Blueprint, &tree, found);
                let sound = !has_errors(found.get(before..).unwrap_or_default());
                let blueprint = model::read_blueprint(&tree);
                if sound {
                    blueprints.insert(number, blueprint);
                }
            }
            reads.push(path);
        }
        blueprints
    }

    /// The settings at the project's root, read when they are first asked for.
    pub(super) fn settings(&mut self) -> SharedSettings {
        if let Some(settings) = &self.settings {
            return settings.clone();
        }
        let path = SETTINGS_FILES.into_iter().find(|path| self.loader.exists(path));
        let settings = match path {
            Some(path) => self.load_settings(path),
            None => SharedSettings { settings: Arc::default(), path: None, broken: false },
        };
        self.settings = Some(settings.clone());
        settings
    }
}

/// The settings of a project, or the defaults if there are none; what is wrong with them is for `check` to say.
pub fn settings(sources: &dyn Sources) -> Arc<Settings> {
    Checker::new(sources).settings().settings
}

/// The tree with step templates merged in. Most pipelines have none, and their tree is not copied.
fn with_templates(tree: Arc<Node>, found: &mut Vec<Diagnostic>) -> Arc<Node> {
    let lists = ["steps", "finally"].into_iter().filter_map(|key| tree.get(key));
    if !lists.flat_map(Node::items).any(|step| step.get("template").is_some()) {
        return tree;
    }
    Arc::new(model::apply_templates(Arc::unwrap_or_clone(tree), found))
}

/// Diagnostics in the order of files and places, each once.
pub(super) fn in_order(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
    diagnostics.dedup_by(|a, b| a.span == b.span && a.code == b.code && a.message == b.message);
}

/// BLAKE3 over paths and texts, each behind its length.
fn hash_of(sources: &MemorySources) -> Box<str> {
    let mut hasher = blake3::Hasher::new();
    for (path, text) in &sources.0 {
        for part in [path.as_str(), text] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
    }
    hasher.finalize().to_hex().as_str().into()
}
