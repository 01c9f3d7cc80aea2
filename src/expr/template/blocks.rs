//! Templates with blocks, filled by the `handlebars` crate.
//!
//! Its tree is built from ours and never from text, so that both agree on every name: roots become `@root.…`, and
//! all helpers, the blocks too, are ours. They refuse a missing value, print lists and maps as JSON, and count work.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use handlebars::template::{
    BlockParam, ExpressionSpecBuilder, HelperTemplate, Parameter, Subexpression, Template, TemplateElement,
};
use handlebars::{
    BlockContext, BlockParamHolder, Context, Handlebars, Helper as HelperCall, HelperDef, HelperResult, Output,
    PathAndJson, RenderContext, RenderError, RenderErrorReason, Renderable, ScopedJson,
};
use serde_json::{Map, Value};

use super::helper::{HELPERS, Helper, is_true, text_of};
use super::resolve::{joined, resolve};
use super::tree::{Argument, Block, BlockKind, Item, Path, Start, each_path};
use super::{MOST_BYTES, SYNTAX};
use crate::expr::names::Names;
use crate::expr::problem::{EvaluationError, Problem};
use crate::expr::reference::Segment;

/// Steps of one filling: turns of loops, helpers, nodes that they look through. About a second at the most.
const MOST_WORK: u64 = 2_000_000;

/// The name of the helper that writes a value.
const SHOW: &str = "show";

/// Stands before the names of block parameters, so that no key of a value is taken for one.
const PARAMETER: char = '\u{e000}';

/// All helpers are registered for each filling, with its own count of work; the registry says only how to be strict.
static REGISTRY: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut registry = Handlebars::new();
    registry.set_strict_mode(true);
    registry.register_escape_fn(handlebars::no_escape);
    registry
});

/// A template in the crate's own form.
#[derive(Debug)]
pub(super) struct Compiled {
    template: Template,
}

impl Compiled {
    /// Builds the crate's tree. A name that the crate cannot hold is a mistake of the text.
    pub fn new(items: &[Item], source: &str) -> Result<Self, Vec<Problem>> {
        let mut builder = Builder { parameters: Vec::new() };
        match builder.template(items) {
            Ok(template) => Ok(Self { template }),
            Err(message) => Err(vec![Problem::new(SYNTAX, 0..source.len(), message)]),
        }
    }

    /// The filled text.
    pub fn render(&self, items: &[Item], names: &dyn Names) -> Result<String, EvaluationError> {
        let context = Context::from(context_of(items, names));
        let budget = Arc::new(AtomicU64::new(0));
        let mut render = RenderContext::new(None);
        for helper in HELPERS {
            let tool = Tool { kind: ToolKind::Value(helper), budget: Arc::clone(&budget) };
            render.register_local_helper(helper.name(), Box::new(tool));
        }
        for kind in [BlockKind::If, BlockKind::Unless, BlockKind::Each, BlockKind::With] {
            let tool = Tool { kind: ToolKind::Block(kind), budget: Arc::clone(&budget) };
            render.register_local_helper(kind.name(), Box::new(tool));
        }
        render.register_local_helper(SHOW, Box::new(Tool { kind: ToolKind::Show, budget: Arc::clone(&budget) }));
        let mut sink = Sink { text: String::new() };
        match self.template.render(&REGISTRY, &context, &mut render, &mut sink) {
            Ok(()) => Ok(sink.text),
            Err(error) => Err(explain(&error, names)),
        }
    }
}

/// The values that the template may read: only those that it names, where they are there.
fn context_of(items: &[Item], names: &dyn Names) -> Value {
    let mut paths: Vec<&[Segment]> = Vec::new();
    each_path(items, &mut |path| {
        if path.start == Start::Root {
            paths.push(&path.segments);
        }
    });
    let mut root = Value::Object(Map::new());
    // Shorter paths first: what lies below one that is there already is not copied again.
    let mut paths: Vec<&[Segment]> = paths.into_iter().map(|path| anchored(path, names)).collect();
    paths.sort_by_key(|path| path.len());
    let mut taken: Vec<&[Segment]> = Vec::new();
    for path in paths {
        let is_below = |above: &&[Segment]| {
            above.len() <= path.len() && above.iter().zip(path).all(|(one, two)| one.name == two.name)
        };
        if path.is_empty() || taken.iter().any(is_below) {
            continue;
        }
        if let Ok(value) = resolve(names, path) {
            insert(&mut root, path, value.into_owned());
            taken.push(path);
        }
    }
    root
}

/// The path up to the first value that is no map; below it the value is taken as a whole.
fn anchored<'p>(path: &'p [Segment], names: &dyn Names) -> &'p [Segment] {
    let has_index = |segment: &Segment| segment.name.parse::<usize>().is_ok();
    let Some(at) = path.iter().skip(1).position(has_index) else { return path };
    let above = path.get(..=at).unwrap_or(path);
    match resolve(names, above) {
        Ok(value) if value.is_object() => path,
        Ok(_) | Err(_) => above,
    }
}

fn insert(root: &mut Value, path: &[Segment], value: Value) {
    let mut place = root;
    for segment in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(fields) = place else { return };
        place = fields.entry(segment.name.as_str()).or_insert(Value::Null);
    }
    *place = value;
}

/// Says what went wrong in the words of the fast path; a missing root path is looked up again for what there is.
fn explain(error: &RenderError, names: &dyn Names) -> EvaluationError {
    let missing = |raw: &str| match raw.strip_prefix("@root.") {
        Some(path) => {
            let parts = path.trim_start_matches('[').trim_end_matches(']').split("].[");
            let segments: Vec<Segment> = parts.map(|name| Segment { name: name.to_owned(), range: 0..0 }).collect();
            match resolve(names, &segments) {
                Ok(_) => EvaluationError::new(format!("`{}` is not there", joined(&segments))),
                Err(error) => error,
            }
        }
        None => {
            let words = raw.replace(['[', ']'], "");
            let words =
                words.trim_start_matches(|c: char| c == PARAMETER || c.is_ascii_digit()).trim_start_matches('-');
            EvaluationError::new(format!("`{words}` is not there"))
        }
    };
    match error.reason() {
        RenderErrorReason::MissingVariable(Some(raw)) => missing(raw),
        RenderErrorReason::Other(message) => EvaluationError::new(message),
        RenderErrorReason::IOError(error) => EvaluationError::new(error.to_string()),
        RenderErrorReason::InvalidJsonIndex(key) => {
            EvaluationError::new(format!("a list has no key `{key}`: name an element by its index"))
        }
        _ => EvaluationError::new(error.to_string()),
    }
}

/// Where the text goes; it refuses to grow without end.
struct Sink {
    text: String,
}

impl Output for Sink {
    fn write(&mut self, text: &str) -> Result<(), io::Error> {
        if self.text.len().saturating_add(text.len()) > MOST_BYTES {
            return Err(io::Error::other("this template makes too much text: more than 64 MiB"));
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// Builds the crate's tree from ours.
struct Builder {
    /// Names of the block parameters in scope, as the crate knows them.
    parameters: Vec<String>,
}

impl Builder {
    fn template(&mut self, items: &[Item]) -> Result<Template, String> {
        let mut template = Template::default();
        for item in items {
            template.elements.push(match item {
                Item::Text(text) => TemplateElement::RawString(text.to_string()),
                Item::Value(argument) => {
                    let parameter = self.parameter(argument)?;
                    TemplateElement::Expression(Box::new(call(SHOW, vec![parameter], false)?))
                }
                Item::Block(block) => TemplateElement::HelperBlock(Box::new(self.block(block)?)),
            });
        }
        Ok(template)
    }

    fn block(&mut self, block: &Block) -> Result<HelperTemplate, String> {
        let parameter = self.parameter(&block.argument)?;
        let mut helper = call(block.kind.name(), vec![parameter], true)?;
        let before = self.parameters.len();
        for name in &block.parameters {
            self.parameters.push(format!("{PARAMETER}{}-{name}", self.parameters.len()));
        }
        helper.block_param = match self.parameters.get(before..).unwrap_or_default() {
            [] => None,
            [one] => Some(BlockParam::Single(Parameter::Name(one.clone()))),
            [one, two, ..] => Some(BlockParam::Pair((Parameter::Name(one.clone()), Parameter::Name(two.clone())))),
        };
        helper.template = Some(self.template(&block.body)?);
        self.parameters.truncate(before);
        helper.inverse = match &block.otherwise {
            Some(items) => Some(self.template(items)?),
            None => None,
        };
        Ok(helper)
    }

    fn parameter(&self, argument: &Argument) -> Result<Parameter, String> {
        match argument {
            Argument::Literal(value) => Ok(Parameter::Literal(value.clone())),
            Argument::Path(path) => {
                let text = self.path(path);
                let parsed =
                    handlebars::Path::parse(&text).map_err(|_| format!("`{text}` cannot be read as a path"))?;
                Ok(Parameter::Path(parsed))
            }
            Argument::Call(call) => {
                let arguments = call.arguments.iter().map(|argument| self.parameter(argument));
                let arguments: Vec<Parameter> = arguments.collect::<Result<_, _>>()?;
                let name = Parameter::Name(call.helper.name().to_owned());
                Ok(Parameter::Subexpression(Subexpression::new(name, arguments, HashMap::new())))
            }
        }
    }

    fn path(&self, path: &Path) -> String {
        let mut text = match &path.start {
            Start::Root => "@root".to_owned(),
            Start::This => "this".to_owned(),
            Start::Parameter(index) => self.parameters.get(*index).cloned().unwrap_or_default(),
            Start::Local(name) => format!("@{name}"),
        };
        for segment in &path.segments {
            text.push_str(".[");
            text.push_str(&segment.name);
            text.push(']');
        }
        text
    }
}

fn call(name: &str, params: Vec<Parameter>, block: bool) -> Result<HelperTemplate, String> {
    let spec = ExpressionSpecBuilder::default()
        .name(Parameter::Name(name.to_owned()))
        .params(params)
        .hash(HashMap::new())
        .omit_pre_ws(false)
        .omit_pro_ws(false)
        .build();
    match spec {
        Ok(spec) => Ok(HelperTemplate::new(spec, block, false)),
        Err(error) => Err(error.to_string()),
    }
}

/// One helper of ours, as the crate calls it.
struct Tool {
    kind: ToolKind,
    budget: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum ToolKind {
    Value(Helper),
    Block(BlockKind),
    Show,
}

impl Tool {
    fn charge(&self, steps: u64) -> Result<(), RenderError> {
        let before = self.budget.fetch_add(steps, Ordering::Relaxed);
        if before.saturating_add(steps) > MOST_WORK {
            return Err(other("this template does too much work: more than 2,000,000 steps"));
        }
        Ok(())
    }

    /// The first argument, which must be there.
    fn first<'h, 'rc>(&self, call: &'h HelperCall<'rc>) -> Result<&'h PathAndJson<'rc>, RenderError> {
        self.charge(1)?;
        let Some(value) = call.param(0) else { return Err(other("a helper has no argument")) };
        present(value)
    }

    fn each<'reg: 'rc, 'rc>(
        &self,
        call: &HelperCall<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let value = self.first(call)?;
        let keys: Vec<Option<String>> = match value.value() {
            Value::Array(items) => vec![None; items.len()],
            Value::Object(fields) => fields.keys().map(|key| Some(key.clone())).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(other("`#each` needs a list or a map"));
            }
        };
        let Some(template) = call.template() else { return Ok(()) };
        if keys.is_empty() {
            return call.inverse().map_or(Ok(()), |inverse| inverse.render(registry, context, render, out));
        }
        let last = keys.len() - 1;
        for (index, key) in keys.into_iter().enumerate() {
            self.charge(1)?;
            let name = key.clone().unwrap_or_else(|| index.to_string());
            let key = key.map_or_else(|| Value::from(index), Value::String);
            let mut block = BlockContext::new();
            block.set_local_var("index", Value::from(index));
            block.set_local_var("key", key.clone());
            block.set_local_var("first", Value::Bool(index == 0));
            block.set_local_var("last", Value::Bool(index == last));
            let item = self.enter(&mut block, value, Some(&name))?;
            if let Some((first, second)) = call.block_param_pair() {
                block.set_block_param(first, item);
                block.set_block_param(second, BlockParamHolder::value(key));
            } else if let Some(first) = call.block_param() {
                block.set_block_param(first, item);
            }
            render.push_block(block);
            let outcome = template.render(registry, context, render, out);
            render.pop_block();
            outcome?;
        }
        Ok(())
    }

    /// Makes a value, or one of its parts, the `this` of a block; gives what a block parameter holds.
    fn enter(
        &self,
        block: &mut BlockContext<'_>,
        value: &PathAndJson<'_>,
        part: Option<&str>,
    ) -> Result<BlockParamHolder, RenderError> {
        if let Some(path) = value.context_path() {
            let mut path = path.clone();
            path.extend(part.map(str::to_owned));
            *block.base_path_mut() = path;
            return Ok(BlockParamHolder::path(Vec::new()));
        }
        let item = match part {
            Some(name) => super::helper::step(value.value(), name).cloned().unwrap_or_default(),
            None => value.value().clone(),
        };
        self.charge(nodes(&item))?;
        block.set_base_value(item.clone());
        Ok(BlockParamHolder::value(item))
    }

    fn with<'reg: 'rc, 'rc>(
        &self,
        call: &HelperCall<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        let value = self.first(call)?;
        if !is_true(value.value()) {
            return call.inverse().map_or(Ok(()), |inverse| inverse.render(registry, context, render, out));
        }
        let Some(template) = call.template() else { return Ok(()) };
        let mut block = BlockContext::new();
        // `@index` and the like stay those of the loop around.
        for name in ["index", "key", "first", "last"] {
            if let Some(found) = render.block().and_then(|block| block.get_local_var(name)) {
                block.set_local_var(name, found.clone());
            }
        }
        let item = self.enter(&mut block, value, None)?;
        if let Some(name) = call.block_param() {
            block.set_block_param(name, item);
        }
        render.push_block(block);
        let outcome = template.render(registry, context, render, out);
        render.pop_block();
        outcome
    }
}

impl HelperDef for Tool {
    fn call_inner<'reg: 'rc, 'rc>(
        &self,
        call: &HelperCall<'rc>,
        _: &'reg Handlebars<'reg>,
        _: &'rc Context,
        _: &mut RenderContext<'reg, 'rc>,
    ) -> Result<ScopedJson<'rc>, RenderError> {
        let ToolKind::Value(helper) = self.kind else { return Err(RenderErrorReason::Unimplemented.into()) };
        let mut arguments = Vec::with_capacity(call.params().len());
        for value in call.params() {
            let value = present(value)?.value();
            self.charge(nodes(value))?;
            arguments.push(Cow::Borrowed(value));
        }
        helper.call(&arguments).map(|value| ScopedJson::Derived(value.into_owned())).map_err(other)
    }

    fn call<'reg: 'rc, 'rc>(
        &self,
        call: &HelperCall<'rc>,
        registry: &'reg Handlebars<'reg>,
        context: &'rc Context,
        render: &mut RenderContext<'reg, 'rc>,
        out: &mut dyn Output,
    ) -> HelperResult {
        match self.kind {
            ToolKind::Value(_) => Err(other("a helper stands where a block is needed")),
            ToolKind::Show => {
                let value = self.first(call)?;
                self.charge(1 + value.value().as_str().map_or(0, str::len) as u64 / 1024)?;
                out.write(&text_of(value.value()))?;
                Ok(())
            }
            ToolKind::Block(BlockKind::Each) => self.each(call, registry, context, render, out),
            ToolKind::Block(BlockKind::With) => self.with(call, registry, context, render, out),
            ToolKind::Block(kind @ (BlockKind::If | BlockKind::Unless)) => {
                let chosen = is_true(self.first(call)?.value()) == (kind == BlockKind::If);
                let template = if chosen { call.template() } else { call.inverse() };
                template.map_or(Ok(()), |template| template.render(registry, context, render, out))
            }
        }
    }
}

fn present<'h, 'rc>(value: &'h PathAndJson<'rc>) -> Result<&'h PathAndJson<'rc>, RenderError> {
    if value.is_value_missing() {
        return Err(RenderErrorReason::MissingVariable(value.relative_path().cloned()).into());
    }
    Ok(value)
}

fn other(message: impl Into<String>) -> RenderError {
    RenderErrorReason::Other(message.into()).into()
}

/// How many nodes a value has, long texts counted as several.
fn nodes(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() as u64 / 1024,
        Value::Array(items) => 1 + items.iter().map(nodes).sum::<u64>(),
        Value::Object(fields) => 1 + fields.values().map(nodes).sum::<u64>(),
    }
}
