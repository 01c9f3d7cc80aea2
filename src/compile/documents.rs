//! Files beside pipelines: the catalogue, the settings, includes, blueprints and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::checker::{Checker, SharedSettings};
use super::kind::AGENTS_FILES;
use super::pipeline::CatalogueView;
use super::report::{Report, has_errors};
use super::{PlanRules, blueprint, codes, paths, tools};
use crate::diagnostic::Diagnostic;
use crate::model::{self, Catalogue};
use crate::schema::{self, DocumentKind};
use crate::yaml::Node;

impl Checker<'_> {
    /// Checks a file that is not a pipeline, or one that is; true if it has no error.
    pub fn check_document(&mut self, path: &str, kind: DocumentKind) -> bool {
        let before = self.diagnostics.len();
        let loaded = match kind {
            DocumentKind::Pipeline => return self.check_pipeline(path),
            DocumentKind::Agents
            | DocumentKind::Settings
            | DocumentKind::Blueprint
            | DocumentKind::Test
            | DocumentKind::Include => self.loader.load(path),
        };
        if let Err(problem) = loaded {
            let diagnostic = self.loader.unreadable(path, &problem);
            self.diagnostics.push(diagnostic);
            return false;
        }
        match kind {
            DocumentKind::Pipeline => {}
            DocumentKind::Agents => return !self.catalogue_at(path).faulty,
            DocumentKind::Settings => {
                let root = super::kind::SETTINGS_FILES.into_iter().find(|name| self.loader.exists(name));
                let settings = if root == Some(path) { self.settings() } else { self.load_settings(path) };
                return !settings.broken;
            }
            DocumentKind::Include => return self.include(path),
            DocumentKind::Blueprint => self.lone_blueprint(path),
            DocumentKind::Test => {
                self.form_of(path, DocumentKind::Test);
            }
        }
        !has_errors(self.diagnostics.get(before..).unwrap_or_default())
    }

    /// Holds a file against its schema; gives its tree.
    fn form_of(&mut self, path: &str, kind: DocumentKind) -> Option<Arc<Node>> {
        let loaded = self.loader.load(path).ok()?;
        self.diagnostics.extend(loaded.diagnostics.iter().cloned());
        let tree = loaded.tree?;
        schema::check(kind, &tree, &mut self.diagnostics);
        Some(tree)
    }

    /// Checks a file that pipelines include, once; true if it has no error.
    pub(super) fn include(&mut self, path: &str) -> bool {
        if let Some(sound) = self.included.get(path) {
            return *sound;
        }
        let before = self.diagnostics.len();
        self.form_of(path, DocumentKind::Include);
        let sound = !has_errors(self.diagnostics.get(before..).unwrap_or_default());
        self.included.insert(path.to_owned(), sound);
        sound
    }

    /// A blueprint by itself: its form and its structure. Which tools there are is its plan's to say.
    fn lone_blueprint(&mut self, path: &str) {
        let Some(tree) = self.form_of(path, DocumentKind::Blueprint) else { return };
        let read = model::read_blueprint(&tree);
        let mut report = Report::new(&self.loader.files);
        let rules = PlanRules { write: model::WritePolicy::Allow, ..PlanRules::default() };
        blueprint::compile_static(&read, &rules, &|_| true, Some(&tree), &mut report);
        self.diagnostics.append(&mut report.diagnostics);
    }

    pub(super) fn load_settings(&mut self, path: &str) -> SharedSettings {
        let before = self.diagnostics.len();
        let tree = self.form_of(path, DocumentKind::Settings);
        let mut context = model::ReadContext::new(&self.loader.files, &mut self.diagnostics);
        let settings = tree.map(|tree| model::read_settings(&tree, &mut context)).unwrap_or_default();
        let broken = has_errors(self.diagnostics.get(before..).unwrap_or_default());
        SharedSettings { settings: Arc::new(settings), path: Some(path.to_owned()), broken }
    }

    /// The nearest catalogue from a folder up to the root.
    pub(super) fn catalogue(&mut self, folder: &str) -> Option<Arc<CatalogueView>> {
        let path = match self.folders.get(folder) {
            Some(path) => path.clone(),
            None => {
                let candidates = paths::upwards(folder).flat_map(|folder| {
                    AGENTS_FILES
                        .map(|name| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") })
                });
                let path = candidates.into_iter().find(|path| self.loader.exists(path));
                self.folders.insert(folder.to_owned(), path.clone());
                path
            }
        };
        path.map(|path| self.catalogue_at(&path))
    }

    fn catalogue_at(&mut self, path: &str) -> Arc<CatalogueView> {
        if let Some(view) = self.catalogues.get(path) {
            return Arc::clone(view);
        }
        let before = self.diagnostics.len();
        let mut view = match self.loader.load(path) {
            Ok(_) => self.load_catalogue(path),
            Err(problem) => {
                let diagnostic = self.loader.unreadable(path, &problem);
                self.diagnostics.push(diagnostic);
                CatalogueView { unreadable: true, ..CatalogueView::default() }
            }
        };
        view.faulty = has_errors(self.diagnostics.get(before..).unwrap_or_default());
        let view = Arc::new(view);
        self.catalogues.insert(path.to_owned(), Arc::clone(&view));
        view
    }

    fn load_catalogue(&mut self, path: &str) -> CatalogueView {
        let (Some(tree), Ok(loaded)) = (self.form_of(path, DocumentKind::Agents), self.loader.load(path)) else {
            let catalogue = Arc::new(Catalogue { path: path.into(), ..Catalogue::default() });
            return CatalogueView { catalogue, unreadable: true, ..CatalogueView::default() };
        };
        let mut context = model::ReadContext::new(&self.loader.files, &mut self.diagnostics);
        let catalogue = model::read_agents(&tree, loaded.file, path, &mut context);
        let mut report = Report::new(&self.loader.files);
        tools::check(catalogue.tools.values(), &BTreeSet::new(), &mut report);
        same_names(&catalogue, &mut report);
        self.diagnostics.append(&mut report.diagnostics);
        let keys = ["agents", "tools"].into_iter().filter_map(|key| tree.get(key)).flat_map(|map| map.entries());
        let broken = keys
            .map(|entry| entry.key.clone())
            .filter(|name| !catalogue.agents.contains_key(name) && !catalogue.tools.contains_key(name));
        let tools = catalogue.tools.iter().map(|(name, tool)| (name.clone(), Arc::new(tool.clone())));
        let agents = catalogue.agents.iter().map(|(name, agent)| (name.clone(), Arc::new(agent.clone())));
        CatalogueView {
            broken: broken.collect(),
            tools: Arc::new(tools.collect()),
            agents: Arc::new(agents.collect()),
            catalogue: Arc::new(catalogue),
            unreadable: false,
            faulty: false,
        }
    }
}

/// Two agents with one display name cannot be told apart in a log.
fn same_names(catalogue: &Catalogue, report: &mut Report<'_>) {
    let mut seen: BTreeMap<&str, &model::Agent> = BTreeMap::new();
    for agent in catalogue.agents.values() {
        if let Some(first) = seen.get(&*agent.name.value) {
            let message =
                format!("agents `{}` and `{}` have one name, `{}`", first.id.value, agent.id.value, agent.name.value);
            report.push(
                Diagnostic::warning(codes::SAME_AGENT_NAME, agent.name.span, message)
                    .related(first.name.span, "the first one"),
            );
        } else {
            seen.insert(&agent.name.value, agent);
        }
    }
}
