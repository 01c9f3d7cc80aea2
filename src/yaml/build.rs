//! Grows the tree from the parser's events: spans, keys, merge keys, aliases, budgets.
//!
//! It keeps a stack of open lists and mappings of its own, so deep input never deepens the call stack.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

use granit_parser::{Event, ScalarStyle, Span as SourceSpan, StructureStyle, Tag};

use super::load::{Limits, span};
use super::mapping::{Mapping, Pending};
use super::place::{header_start, list_start};
use super::scalar::{self, CoreTag};
use super::{Node, Yaml, codes};
use crate::diagnostic::{Diagnostic, FileId, Span, nearest};

/// Mistakes beyond this many are not kept: a hostile file would fill the memory with them.
const MOST_DIAGNOSTICS: usize = 2000;
/// What the words for a syntax error need to know about where the parser stood.
pub(super) struct Context {
    /// The end of the last thing that was read well.
    pub last_end: usize,
    /// The start of the last scalar.
    pub last_scalar: usize,
    /// The start of the innermost open `[` or `{`.
    pub open_flow: Option<usize>,
}

pub(super) struct Builder<'a> {
    file: FileId,
    text: &'a str,
    limits: Limits,
    diagnostics: Vec<Diagnostic>,
    frames: Vec<Frame>,
    root: Option<Node>,
    failed: bool,
    documents: usize,
    /// Finished anchored nodes by the parser's number; `None` while one is still open.
    anchors: HashMap<usize, Option<Built>>,
    anchor_names: Vec<String>,
    /// A file without a star has no alias, so its anchored nodes need no copy.
    may_have_aliases: bool,
    nodes: usize,
    alias_nodes: usize,
    anchored_nodes: usize,
    last_end: usize,
    last_scalar: usize,
}

/// A finished node with what its parents and aliases need to know of it.
#[derive(Clone)]
pub(super) struct Built {
    pub node: Node,
    pub nodes: usize,
    pub height: usize,
    /// Where the node, or the alias of it, ends in the text.
    pub end: usize,
    /// A plain `<<` as a key merges.
    pub is_plain: bool,
    /// Stands for something that was refused already.
    pub is_broken: bool,
}

struct Frame {
    start: usize,
    end: usize,
    is_flow: bool,
    anchor: usize,
    nodes: usize,
    height: usize,
    collection: Collection,
}

enum Collection {
    List(Vec<Node>),
    Map(Mapping),
}

impl<'a> Builder<'a> {
    pub(super) fn new(file: FileId, text: &'a str, limits: &Limits) -> Self {
        Self {
            file,
            text,
            limits: *limits,
            diagnostics: Vec::new(),
            frames: Vec::new(),
            root: None,
            failed: false,
            documents: 0,
            anchors: HashMap::new(),
            anchor_names: Vec::new(),
            may_have_aliases: text.contains('*'),
            nodes: 0,
            alias_nodes: 0,
            anchored_nodes: 0,
            last_end: 0,
            last_scalar: 0,
        }
    }

    /// Takes one event; breaks when the rest of the text shall not be read.
    pub(super) fn take(&mut self, event: Event<'a>, source: &SourceSpan) -> ControlFlow<()> {
        let range = source.byte_range().unwrap_or_default();
        let (start, end) = (range.start, range.end);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let message = "a second YAML document begins here; a file holds one";
                    let place = self.span(start, end.max(start + 1));
                    self.report(
                        Diagnostic::error(codes::SECOND_DOCUMENT, place, message).help("put it in a file of its own"),
                    );
                    return ControlFlow::Break(());
                }
                self.last_end = end;
                ControlFlow::Continue(())
            }
            Event::Scalar(value, style, anchor, tag) => {
                let built = self.scalar(value, style, tag.as_deref(), source, start, end);
                self.last_scalar = built.node.span.start as usize;
                self.last_end = end;
                self.keep_anchor(anchor, &built)?;
                self.complete(built)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.open(Collection::List(Vec::new()), style, anchor, tag.as_deref(), source, start, end)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.open(Collection::Map(Mapping::default()), style, anchor, tag.as_deref(), source, start, end)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(end),
            Event::Alias(id) => {
                self.last_end = end;
                self.alias(id, start, end)
            }
            Event::UnresolvedAlias(name) => {
                self.last_end = end;
                self.unknown_alias(&name, start, end)
            }
            Event::Anchor(_, name) => {
                if self.anchor_names.len() < MOST_DIAGNOSTICS {
                    self.anchor_names.push(name.into_owned());
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// Where the parser stands.
    pub(super) fn context(&self) -> Context {
        Context {
            last_end: self.last_end,
            last_scalar: self.last_scalar,
            open_flow: self.frames.last().filter(|frame| frame.is_flow).map(|frame| frame.start),
        }
    }

    /// Takes the mistake that ended the reading; there will be no tree.
    pub(super) fn fail(&mut self, diagnostic: Diagnostic) {
        self.failed = true;
        // What stopped the reading can be a fuller view of what was found at the same place just before.
        self.diagnostics.retain(|one| (one.code, one.span.start) != (diagnostic.code, diagnostic.span.start));
        self.diagnostics.push(diagnostic);
    }

    /// The tree and all mistakes.
    pub(super) fn finish(mut self) -> (Option<Node>, Vec<Diagnostic>) {
        if self.failed {
            return (None, self.diagnostics);
        }
        let is_empty = |node: &Node| node.value == Yaml::Null && node.span.start == node.span.end;
        if self.root.as_ref().is_none_or(is_empty) && self.diagnostics.is_empty() {
            let message = "the file is empty: it holds no YAML but, at most, comments";
            let place = self.span(0, 0);
            self.report(Diagnostic::error(codes::EMPTY, place, message).help("write a document, or delete the file"));
            return (None, self.diagnostics);
        }
        (self.root, self.diagnostics)
    }

    fn span(&self, start: usize, end: usize) -> Span {
        span(self.file, start, end)
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < MOST_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        }
    }

    fn stop(&mut self, diagnostic: Diagnostic) -> ControlFlow<()> {
        self.fail(diagnostic);
        ControlFlow::Break(())
    }

    fn scalar(
        &mut self,
        value: Cow<'a, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        source: &SourceSpan,
        start: usize,
        end: usize,
    ) -> Built {
        let is_plain = style == ScalarStyle::Plain;
        // The parser writes `~` for what is not there.
        let value = if is_plain && start == end { Cow::Borrowed("") } else { value };
        let place = match style {
            ScalarStyle::Literal | ScalarStyle::Folded => self.block_scalar_span(start, end),
            ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => self.span(start, end),
        };
        let untagged = |value: &str| if is_plain { scalar::plain(value) } else { Yaml::String(value.into()) };
        let yaml = match tag {
            None => untagged(&value),
            Some(tag) if tag.original() == "!" => Yaml::String(value.as_ref().into()),
            Some(tag) => match self.core_tag(tag, source, start) {
                None => untagged(&value),
                Some(core) => core.read(&value).unwrap_or_else(|| {
                    let shown: String = value.chars().take(40).collect();
                    self.wrong_tag(tag, core, &format!("`{shown}`"), place);
                    untagged(&value)
                }),
            },
        };
        let node = Node { span: place, value: yaml };
        Built {
            node,
            nodes: 1,
            height: 0,
            end: place.end as usize,
            is_plain: is_plain && tag.is_none(),
            is_broken: false,
        }
    }

    /// A block scalar's span: from its `|` or `>` to the end of its last line that is not blank.
    fn block_scalar_span(&self, start: usize, end: usize) -> Span {
        let header = header_start(self.text, self.last_end, start);
        let body = self.text.get(header..end.max(header)).unwrap_or_default();
        self.span(header, header + body.trim_end_matches([' ', '\n', '\r']).len())
    }

    /// The core tag that a written tag stands for; one that nobody knows is reported.
    fn core_tag(&mut self, tag: &Tag, source: &SourceSpan, start: usize) -> Option<CoreTag> {
        let known = tag.core_suffix().and_then(CoreTag::named);
        if known.is_none() {
            let range = source.tag_span().and_then(|span| span.byte_range()).unwrap_or(start..start);
            let message = format!("the tag `{}` is not known", tag.original());
            let help = "leave it out; or, if the text itself begins with `!`, put it in quotes";
            let place = self.span(range.start, range.end);
            self.report(Diagnostic::error(codes::TAG, place, message).help(help));
        }
        known
    }

    fn wrong_tag(&mut self, tag: &Tag, core: CoreTag, what: &str, place: Span) {
        let message = format!("{what} is not {}, as its tag `{}` says", core.noun(), tag.original());
        self.report(Diagnostic::error(codes::TAG, place, message).help("leave the tag out"));
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one event, taken apart by its only caller")]
    fn open(
        &mut self,
        collection: Collection,
        style: StructureStyle,
        anchor: usize,
        tag: Option<&Tag>,
        source: &SourceSpan,
        start: usize,
        end: usize,
    ) -> ControlFlow<()> {
        if self.frames.len() >= self.limits.max_depth {
            let place = self.span(start, end);
            return self.stop(too_deep(place, &self.limits));
        }
        if let Some(tag) = tag
            && let Some(core) = self.core_tag(tag, source, start)
        {
            let (fitting, noun) = match collection {
                Collection::List(_) => (CoreTag::List, "this list"),
                Collection::Map(_) => (CoreTag::Map, "this mapping"),
            };
            if core != fitting {
                let place = self.span(start, end);
                self.wrong_tag(tag, core, noun, place);
            }
        }
        if anchor != 0 {
            self.anchors.insert(anchor, None);
        }
        let is_flow = style == StructureStyle::Flow;
        let follows_key = self.frames.last().is_some_and(|frame| matches!(frame.collection, Collection::Map(_)));
        let is_block_list = !is_flow && matches!(collection, Collection::List(_));
        // The parser begins a list at its first item where the dashes stand right under the key.
        let start =
            if is_block_list && follows_key { list_start(self.text, self.last_end, start).min(start) } else { start };
        self.last_end = end;
        self.frames.push(Frame { start, end, is_flow, anchor, nodes: 1, height: 0, collection });
        ControlFlow::Continue(())
    }

    fn close(&mut self, end: usize) -> ControlFlow<()> {
        let Some(mut frame) = self.frames.pop() else { return ControlFlow::Continue(()) };
        if frame.is_flow {
            frame.end = end;
            self.last_end = end;
        }
        let place = self.span(frame.start, frame.end);
        let value = match frame.collection {
            Collection::List(items) => Yaml::List(items),
            Collection::Map(mapping) if mapping.is_template => match self.template(frame.start, place) {
                Some(text) => text,
                None => return ControlFlow::Continue(()),
            },
            Collection::Map(mapping) => Yaml::Map(mapping.merged()),
        };
        let node = Node { span: place, value };
        let built = Built {
            node,
            nodes: frame.nodes,
            height: frame.height + 1,
            end: frame.end,
            is_plain: false,
            is_broken: false,
        };
        self.keep_anchor(frame.anchor, &built)?;
        self.complete(built)
    }

    /// Ends the mapping that YAML sees in an unquoted `{{ … }}`; it is taken as the text that was meant. With three
    /// braces the mapping around it takes over, and nothing is given.
    fn template(&mut self, start: usize, place: Span) -> Option<Yaml> {
        if let Some(Frame { start: outer, is_flow: true, collection: Collection::Map(parent), .. }) =
            self.frames.last_mut()
            && *outer + 1 == start
            && parent.pending.is_none()
        {
            parent.is_template = true;
            parent.pending = Some(Pending::Refused);
            return None;
        }
        let text = self.text.get(place.start as usize..place.end as usize).unwrap_or_default();
        self.report(unquoted_template(place, text));
        Some(Yaml::String(text.into()))
    }

    fn alias(&mut self, id: usize, start: usize, end: usize) -> ControlFlow<()> {
        let place = self.span(start, end);
        let Some(Some(target)) = self.anchors.get(&id) else {
            let name = self.text.get(start..end).unwrap_or_default();
            let message =
                format!("the alias `{name}` stands inside the node that it names, so it would contain itself");
            let help = "refer to a part that does not contain this place, or write the value out";
            self.report(Diagnostic::error(codes::ALIAS_IN_ITSELF, place, message).help(help));
            return self.complete(broken(place));
        };
        if self.frames.len() + target.height > self.limits.max_depth {
            return self.stop(too_deep(place, &self.limits));
        }
        self.alias_nodes = self.alias_nodes.saturating_add(target.nodes);
        if self.alias_nodes > self.limits.max_alias_nodes {
            let message = format!("aliases expand to more than {} nodes", self.limits.max_alias_nodes);
            let help = "write out less by alias: each one counts with all that it brings";
            return self.stop(Diagnostic::error(codes::ALIASES_EXPAND, place, message).help(help));
        }
        let built = Built { end, is_plain: false, ..target.clone() };
        self.complete(built)
    }

    fn unknown_alias(&mut self, name: &str, start: usize, end: usize) -> ControlFlow<()> {
        let place = self.span(start, end);
        let names = self.anchor_names.iter().map(String::as_str);
        let help = match nearest(name, names) {
            Some(known) => format!("did you mean `*{known}`?"),
            None if name.starts_with(['.', '/', '_', '-', '*']) => {
                format!("a text that begins with `*` must be in quotes: \"*{name}\"")
            }
            None => format!("name a node by `&{name}` above this place; a text that begins with `*` must be in quotes"),
        };
        let message = format!("there is no anchor `&{name}` above this alias");
        self.report(Diagnostic::error(codes::UNKNOWN_ANCHOR, place, message).help(help));
        self.complete(broken(place))
    }

    /// Keeps a copy of a finished anchored node for its aliases.
    fn keep_anchor(&mut self, anchor: usize, built: &Built) -> ControlFlow<()> {
        if anchor == 0 || !self.may_have_aliases {
            return ControlFlow::Continue(());
        }
        self.anchored_nodes = self.anchored_nodes.saturating_add(built.nodes);
        if self.anchored_nodes > self.limits.max_nodes {
            return self.stop(too_many_nodes(built.node.span, &self.limits));
        }
        self.anchors.insert(anchor, Some(built.clone()));
        ControlFlow::Continue(())
    }

    /// Puts a finished node where it belongs.
    fn complete(&mut self, built: Built) -> ControlFlow<()> {
        self.nodes = self.nodes.saturating_add(if built.height == 0 { built.nodes } else { 1 });
        if self.nodes.saturating_add(self.alias_nodes) > self.limits.max_nodes {
            return self.stop(too_many_nodes(built.node.span, &self.limits));
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(built.node);
            return ControlFlow::Continue(());
        };
        frame.end = frame.end.max(built.end);
        frame.nodes = frame.nodes.saturating_add(built.nodes);
        frame.height = frame.height.max(built.height);
        let trouble = match &mut frame.collection {
            Collection::List(items) => {
                items.push(built.node);
                None
            }
            Collection::Map(mapping) => match mapping.pending.take() {
                Some(pending) => mapping.value(pending, built),
                None => {
                    let brace_before =
                        frame.is_flow && self.text.get(frame.start..).is_some_and(|rest| rest.starts_with("{{"));
                    mapping.key(built, self.text, brace_before)
                }
            },
        };
        if let Some(trouble) = trouble {
            self.report(trouble);
        }
        ControlFlow::Continue(())
    }
}

/// What stands in the tree for an alias of nothing.
fn broken(place: Span) -> Built {
    let node = Node { span: place, value: Yaml::Null };
    Built { node, nodes: 1, height: 0, end: place.end as usize, is_plain: false, is_broken: true }
}

/// The diagnostic for `{{ … }}` outside quotes.
pub(super) fn unquoted_template(place: Span, text: &str) -> Diagnostic {
    let message = "a template that begins a value must be in quotes: YAML reads `{` as the start of a mapping";
    let quote = if text.contains('"') { '\'' } else { '"' };
    let fits = text.len() <= 100 && !text.contains('\n') && !(text.contains('"') && text.contains('\''));
    let help = if fits { format!("write {quote}{text}{quote}") } else { "put the whole value in quotes".to_owned() };
    Diagnostic::error(codes::UNQUOTED_TEMPLATE, place, message).help(help)
}

/// The diagnostic for nesting beyond the limit.
pub(super) fn too_deep(place: Span, limits: &Limits) -> Diagnostic {
    let message = format!("lists and mappings are nested more than {} levels deep here", limits.max_depth);
    Diagnostic::error(codes::TOO_DEEP, place, message).help("nest less")
}

fn too_many_nodes(place: Span, limits: &Limits) -> Diagnostic {
    let message = format!("the file has more than {} values", limits.max_nodes);
    Diagnostic::error(codes::TOO_MANY_NODES, place, message).help("split the file")
}
