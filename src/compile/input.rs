//! The input of a blueprint step: JSON whose strings may hold `#E1` and `{{ E1.outputs… }}`, filled in one pass.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value};

use super::codes;
use super::report::did_you_mean;
use super::scope::step_type;
use crate::expr::{EvaluationError, Fields, Found, Names, Problem, Template, Type, TypeNames};

/// The root name under which a template that was `#E1` finds the evidence of each step.
const EVIDENCE: &str = "evidence__";

/// So many unknown names of one input are told.
const MOST_UNKNOWN: usize = 20;

/// A parsed input.
#[derive(Clone, Debug)]
pub struct InputTemplate {
    root: Part,
}

#[derive(Clone, Debug)]
enum Part {
    Constant(Value),
    /// A string that is one whole `#E1`.
    Evidence(Box<str>),
    Text(Box<Text>),
    List(Vec<Part>),
    Map(Vec<(String, Part)>),
}

#[derive(Clone, Debug)]
struct Text {
    template: Template,
    /// The steps that stand in it as `#E1`.
    evidence: Vec<Box<str>>,
}

/// What parsing an input found.
#[derive(Debug)]
pub struct ParsedInput {
    pub template: InputTemplate,
    pub references: Vec<InputReference>,
    /// JSON pointer of the string, and what is wrong in it.
    pub problems: Vec<(String, Problem)>,
    /// JSON pointers of the strings whose value only a run knows.
    pub open: Vec<String>,
}

/// A step that an input reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputReference {
    pub id: String,
    /// JSON pointer of the string.
    pub pointer: String,
    pub range: Range<usize>,
}

impl InputTemplate {
    /// Reads an input. `steps` are the ids of the blueprint, sorted.
    pub fn parse(input: &Value, steps: &[&str]) -> ParsedInput {
        let mut parser =
            Parser { steps, references: Vec::new(), problems: Vec::new(), open: Vec::new(), unknown: BTreeSet::new() };
        let root = parser.part(input, &mut String::new());
        let Parser { references, problems, open, .. } = parser;
        ParsedInput { template: Self { root }, references, problems, open }
    }

    /// Fills every reference once. `names` knows the blueprint's steps by id, each with `outputs` and `status`.
    /// Evidence that is only `{text}` is inserted as that text, other evidence as compact JSON; a string that is one
    /// whole `#E1` or template keeps the type.
    ///
    /// # Errors
    /// A reference without a value, or a template that cannot be filled.
    pub fn render(&self, names: &dyn Names) -> Result<Value, EvaluationError> {
        render(&self.root, names)
    }
}

fn render(part: &Part, names: &dyn Names) -> Result<Value, EvaluationError> {
    match part {
        Part::Constant(value) => Ok(value.clone()),
        Part::Evidence(id) => evidence(names, id).map(Cow::into_owned),
        Part::Text(text) => {
            let mut values = Vec::with_capacity(text.evidence.len());
            for id in &text.evidence {
                values.push((&**id, evidence(names, id)?));
            }
            text.template.render(&WithEvidence { names, evidence: Evidence(values) })
        }
        Part::List(items) => items.iter().map(|item| render(item, names)).collect::<Result<_, _>>().map(Value::Array),
        Part::Map(entries) => {
            let mut map = Map::with_capacity(entries.len());
            for (key, item) in entries {
                map.insert(key.clone(), render(item, names)?);
            }
            Ok(Value::Object(map))
        }
    }
}

/// The outputs of a step, or their text where they are nothing else.
fn evidence<'n>(names: &'n dyn Names, id: &str) -> Result<Cow<'n, Value>, EvaluationError> {
    let missing = || EvaluationError::new(format!("step `{id}` has no outputs that `#{id}` could stand for"));
    let outputs = match names.lookup(id).ok_or_else(missing)? {
        Found::Fields(fields) => fields.field("outputs").ok_or_else(missing)?,
        Found::Value(Cow::Borrowed(value)) => Cow::Borrowed(value.get("outputs").ok_or_else(missing)?),
        Found::Value(Cow::Owned(value)) => Cow::Owned(value.get("outputs").cloned().ok_or_else(missing)?),
    };
    if outputs.is_null() {
        return Err(missing());
    }
    let only_text = outputs.as_object().filter(|map| map.len() == 1).and_then(|map| map.get("text"));
    Ok(match only_text {
        Some(Value::String(text)) => Cow::Owned(Value::String(text.clone())),
        _ => outputs,
    })
}

/// The evidence that one text uses, by the ids of the steps.
struct Evidence<'n>(Vec<(&'n str, Cow<'n, Value>)>);

impl Fields for Evidence<'_> {
    fn field(&self, name: &str) -> Option<Cow<'_, Value>> {
        self.0.iter().find(|(id, _)| *id == name).map(|(_, value)| Cow::Borrowed(value.as_ref()))
    }

    fn field_names(&self) -> Vec<String> {
        self.0.iter().map(|(id, _)| (*id).to_owned()).collect()
    }
}

struct WithEvidence<'n> {
    names: &'n dyn Names,
    evidence: Evidence<'n>,
}

impl Names for WithEvidence<'_> {
    fn lookup(&self, root: &str) -> Option<Found<'_>> {
        if root == EVIDENCE { Some(Found::Fields(&self.evidence)) } else { self.names.lookup(root) }
    }
}

/// The types of names inside an input: every step has the fields of a step. Names that are no steps are reported by
/// the parser itself.
struct StepTypes<'s> {
    steps: &'s [&'s str],
    step: Type,
}

impl TypeNames for StepTypes<'_> {
    fn type_of(&self, root: &str) -> Option<Type> {
        let is_step = self.steps.binary_search(&root).is_ok();
        Some(if is_step { self.step.clone() } else { Type::Any })
    }

    fn root_names(&self) -> Vec<String> {
        Vec::new()
    }
}

struct Parser<'s> {
    steps: &'s [&'s str],
    references: Vec<InputReference>,
    problems: Vec<(String, Problem)>,
    open: Vec<String>,
    unknown: BTreeSet<(String, String)>,
}

impl Parser<'_> {
    fn part(&mut self, value: &Value, pointer: &mut String) -> Part {
        let length = pointer.len();
        match value {
            Value::String(text) => self.text(text, pointer),
            Value::Array(items) => {
                let mut parts = Vec::with_capacity(items.len());
                for (index, item) in items.iter().enumerate() {
                    pointer.push_str(&format!("/{index}"));
                    parts.push(self.part(item, pointer));
                    pointer.truncate(length);
                }
                collapse(parts, Part::List, |values| Value::Array(values.collect()))
            }
            Value::Object(entries) => {
                let mut parts = Vec::with_capacity(entries.len());
                for (key, item) in entries {
                    pointer.push('/');
                    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
                    parts.push((key.clone(), self.part(item, pointer)));
                    pointer.truncate(length);
                }
                if parts.iter().all(|(_, part)| matches!(part, Part::Constant(_))) {
                    return Part::Constant(value.clone());
                }
                Part::Map(parts)
            }
            other => Part::Constant(other.clone()),
        }
    }

    fn text(&mut self, text: &str, pointer: &str) -> Part {
        if !text.contains(['#', '{']) {
            return Part::Constant(Value::String(text.to_owned()));
        }
        if let Some(id) = text.strip_prefix('#')
            && self.is_step(id)
        {
            self.open.push(pointer.to_owned());
            self.reference(id, pointer, 0..text.len());
            return Part::Evidence(id.into());
        }
        let rewritten = self.rewrite(text, pointer);
        let template = match Template::parse(&rewritten.source) {
            Ok(template) => template,
            Err(problems) => {
                for problem in problems {
                    self.problem(pointer, &rewritten, problem);
                }
                return Part::Constant(Value::String(text.to_owned()));
            }
        };
        if let Some(constant) = template.constant() {
            return Part::Constant(Value::String(constant.to_owned()));
        }
        self.open.push(pointer.to_owned());
        for reference in template.references() {
            let Some(root) = reference.segments.first() else { continue };
            let range = rewritten.original(root.range.clone());
            if rewritten.is_ours(&root.range) {
                continue;
            }
            if self.is_step(&root.name) {
                self.reference(&root.name, pointer, range);
            } else {
                self.unknown(&root.name, pointer, range);
            }
        }
        let types = StepTypes { steps: self.steps, step: step_type(Type::Any) };
        let (_, problems) = template.check(&types);
        for problem in problems {
            self.problem(pointer, &rewritten, problem);
        }
        Part::Text(Box::new(Text { template, evidence: rewritten.evidence }))
    }

    fn is_step(&self, id: &str) -> bool {
        self.steps.binary_search(&id).is_ok()
    }

    fn reference(&mut self, id: &str, pointer: &str, range: Range<usize>) {
        self.references.push(InputReference { id: id.to_owned(), pointer: pointer.to_owned(), range });
    }

    fn problem(&mut self, pointer: &str, rewritten: &Rewritten, problem: Problem) {
        let range = rewritten.original(problem.range.clone());
        self.problems.push((pointer.to_owned(), Problem { range, ..problem }));
    }

    /// Reports a name once for each text, and no more than [`MOST_UNKNOWN`] in one input.
    fn unknown(&mut self, name: &str, pointer: &str, range: Range<usize>) {
        let told = (pointer.to_owned(), name.to_owned());
        if self.unknown.contains(&told) || self.unknown.len() >= MOST_UNKNOWN {
            return;
        }
        self.unknown.insert(told);
        let near = crate::diagnostic::nearest(name, self.steps.iter().copied());
        let help = did_you_mean(near)
            .unwrap_or_else(|| "an input reads the blueprint's own steps and nothing else".to_owned());
        let problem =
            Problem::new(codes::BLUEPRINT_UNKNOWN_STEP, range, format!("`{name}` is not a step of this blueprint"));
        self.problems.push((pointer.to_owned(), problem.help(help)));
    }

    /// Turns each `#E1` outside `{{ }}` into a template, so that one engine fills everything in one pass.
    fn rewrite(&mut self, text: &str, pointer: &str) -> Rewritten {
        let mut rewritten =
            Rewritten { source: String::with_capacity(text.len()), shifts: Vec::new(), evidence: Vec::new() };
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let skip = if rest.starts_with("\\{{") {
                3
            } else if rest.starts_with("{{") {
                rest.find("}}").map_or(rest.len(), |end| end + 2)
            } else if let Some(name) = rest.strip_prefix('#') {
                let length = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
                let name = name.get(..length).unwrap_or_default();
                let range = at..at + 1 + length;
                if self.is_step(name) {
                    self.reference(name, pointer, range.clone());
                    let start = rewritten.source.len();
                    rewritten.source.push_str(&format!("{{{{{EVIDENCE}.{name}}}}}"));
                    rewritten.shifts.push((start..rewritten.source.len(), range));
                    if !rewritten.evidence.iter().any(|known| &**known == name) {
                        rewritten.evidence.push(name.into());
                    }
                    at += 1 + length;
                    continue;
                }
                if is_numbered(name) {
                    self.unknown(name, pointer, range);
                }
                1 + length
            } else {
                rest.find(['#', '{', '\\']).map_or(rest.len(), |next| next.max(1))
            };
            let skip = ceil_boundary(rest, skip);
            rewritten.source.push_str(rest.get(..skip).unwrap_or(rest));
            at += skip;
        }
        rewritten
    }
}

/// The first character boundary at or behind an offset.
fn ceil_boundary(text: &str, mut offset: usize) -> usize {
    while !text.is_char_boundary(offset) {
        offset += 1;
    }
    offset.max(1).min(text.len())
}

/// `E` and digits: the ids that ReWOO gives, and that nobody writes in prose behind a `#`.
fn is_numbered(name: &str) -> bool {
    name.strip_prefix('E').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A list of constants is a constant.
fn collapse(
    parts: Vec<Part>,
    wrap: impl Fn(Vec<Part>) -> Part,
    constant: impl Fn(&mut dyn Iterator<Item = Value>) -> Value,
) -> Part {
    if parts.iter().all(|part| matches!(part, Part::Constant(_))) {
        let mut values = parts.into_iter().filter_map(|part| match part {
            Part::Constant(value) => Some(value),
            Part::Evidence(_) | Part::Text(_) | Part::List(_) | Part::Map(_) => None,
        });
        return Part::Constant(constant(&mut values));
    }
    wrap(parts)
}

/// A text in which each `#E1` became a template, and what stood where before.
struct Rewritten {
    source: String,
    /// Where a replacement stands now, and where its original stood, in order.
    shifts: Vec<(Range<usize>, Range<usize>)>,
    evidence: Vec<Box<str>>,
}

impl Rewritten {
    /// True if a place in the rewritten text lies in a template that was `#E1`.
    fn is_ours(&self, range: &Range<usize>) -> bool {
        let at = self.shifts.partition_point(|(now, _)| now.end <= range.start);
        self.shifts.get(at).is_some_and(|(now, _)| now.start <= range.start)
    }

    /// The place in the original text of a place in the rewritten one.
    fn original(&self, range: Range<usize>) -> Range<usize> {
        self.offset(range.start, true)..self.offset(range.end, false)
    }

    fn offset(&self, at: usize, start: bool) -> usize {
        let mut shifted = at;
        for (now, before) in &self.shifts {
            if now.end <= at {
                shifted = (before.end + at).saturating_sub(now.end);
            } else if now.start < at || (now.start == at && start) {
                return if start { before.start } else { before.end };
            }
        }
        shifted
    }
}
