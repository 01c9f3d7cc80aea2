//! Holds the end of a played run against what its case expects.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::mocks::Mocks;
use super::places;
use super::play::{Played, play};
use crate::compile::{Program, complete_params};
use crate::diagnostic::{Span, Spanned};
use crate::id::{RunId, UnitPath};
use crate::model::{ExpectedInput, ExpectedStep, TestCase};
use crate::scheduler::{Accepted, Options, State, StepStatus, UnitState};
use crate::task::{Body, Command, Part, Text, Work};

/// The run's name in every case.
const RUN: &str = "00000000-0000-7000-8000-000000000000";
/// Values in messages are cut after so many characters.
const SHOWN: usize = 400;

/// How a case ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaseResult {
    /// What was not as expected; none if the case passed.
    pub findings: Vec<Finding>,
    /// How the run ended, in one line, for when the case failed.
    pub ended: Option<String>,
    /// How long the run took in virtual time.
    pub duration: Duration,
}

/// One thing that was not as expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Where the test file expects it.
    pub span: Span,
    pub message: String,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
}

/// Plays a case of a test and checks it. `program` is the pipeline, compiled with the case's profile.
pub fn check_case(program: &Arc<Program>, case: &TestCase) -> CaseResult {
    let mut findings = Vec::new();
    check_places(program, case, &mut findings);
    let profile = case.profile.as_ref().map(|profile| profile.value.to_string());
    let given: Map<String, Value> =
        case.params.iter().map(|(name, value)| (name.to_string(), value.value.clone())).collect();
    let params = match complete_params(&program.root, given) {
        Ok(params) => params,
        Err(problems) => {
            findings.extend(problems.into_iter().map(|problem| parameter(case, problem)));
            Map::new()
        }
    };
    if !findings.is_empty() {
        return CaseResult { findings, ..CaseResult::default() };
    }
    let accepted = Accepted {
        run: RunId::new(RUN),
        definition_hash: program.hash.to_string(),
        params,
        env: environment(program, case),
        options: Options { max_parallel: None, profile },
        parent: None,
        reused: Vec::new(),
    };
    let stops_waiting = case.expect.status.as_ref().is_some_and(|status| &*status.value == "waiting");
    match play(program, accepted, &Mocks::of(case), stops_waiting) {
        Ok(played) => Check { played: &played, findings }.finish(case),
        Err(message) => {
            findings.push(plain(case.name.span, message));
            CaseResult { findings, ..CaseResult::default() }
        }
    }
}

fn plain(span: Span, message: String) -> Finding {
    Finding { span, message, expected: None, actual: None }
}

/// A problem of a parameter, at the parameter if the case gives it.
fn parameter(case: &TestCase, problem: String) -> Finding {
    let name = problem.split('`').nth(1).unwrap_or_default();
    let span = case.params.get(name).map_or(case.name.span, |value| value.span);
    let problem = problem.split("; give it with --param").next().unwrap_or_default().to_owned();
    plain(span, problem)
}

/// Every path that the case names must be one that a step can have.
fn check_places(program: &Program, case: &TestCase, findings: &mut Vec<Finding>) {
    for mock in &case.mocks {
        findings.extend(places::mock_problem(program, &mock.step.value).map(|problem| plain(mock.step.span, problem)));
    }
    let steps = case.expect.steps.iter().map(|(path, _)| path);
    for path in steps.chain(&case.expect.ran).chain(&case.expect.not_ran) {
        findings.extend(places::problem_of(program, &path.value).map(|problem| plain(path.span, problem)));
    }
}

/// What of the case's environment the pipelines let in.
fn environment(program: &Program, case: &TestCase) -> Map<String, Value> {
    let listed: Vec<&str> = program
        .pipelines
        .values()
        .flat_map(|pipeline| &pipeline.pipeline.inherit_env)
        .map(|name| &*name.value)
        .collect();
    let let_in = case.env.iter().filter(|(name, _)| listed.contains(&&**name));
    let_in.map(|(name, value)| (name.to_string(), json!(value))).collect()
}

struct Check<'p> {
    played: &'p Played,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn finish(mut self, case: &TestCase) -> CaseResult {
        let state = &self.played.state;
        if let Some(expected) = &case.expect.status {
            let actual = state.status().as_str();
            self.equal("the run's status", expected.span, json!(expected.value), json!(actual));
        }
        if let Some(expected) = &case.expect.reason {
            let reason = state.verdict.as_ref().and_then(|verdict| verdict.reason.clone());
            self.holds_words("the run's reason", expected, reason);
        }
        for (path, expected) in &case.expect.steps {
            self.step(path, expected);
        }
        for path in &case.expect.ran {
            if !self.did_run(&path.value) {
                let why = self.standing(&path.value);
                self.findings
                    .push(plain(path.span, format!("step `{}` was expected to run and did not: {why}", path.value)));
            }
        }
        for path in &case.expect.not_ran {
            if self.did_run(&path.value) {
                let how = self.standing(&path.value);
                self.findings
                    .push(plain(path.span, format!("step `{}` was expected not to run and did: {how}", path.value)));
            }
        }
        let outputs = state.outputs.as_deref().cloned().unwrap_or_else(|| json!({}));
        for (name, expected) in &case.expect.outputs {
            let what = format!("output `{}`", name.value);
            match outputs.get(&*name.value) {
                Some(actual) => self.matches(&what, expected.span, &expected.value, actual),
                None => {
                    let names: Vec<&str> =
                        outputs.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                    let listed = if names.is_empty() {
                        "it has none".to_owned()
                    } else {
                        format!("it has {}", names.join(", "))
                    };
                    self.findings.push(plain(name.span, format!("the run has no output `{}`; {listed}", name.value)));
                }
            }
        }
        let ended = (!self.findings.is_empty()).then(|| ended_words(state));
        CaseResult { findings: self.findings, ended, duration: self.played.duration() }
    }

    fn unit(&self, path: &str) -> Option<&UnitState> {
        let state = &self.played.state;
        state.find(&UnitPath::new(path)).and_then(|key| state.unit(key))
    }

    /// True if work of the step, or of one of its items, was begun.
    fn did_run(&self, path: &str) -> bool {
        let seen = |other: &UnitPath| other.as_str() == path || other.split_item().0 == path;
        self.played.ran.iter().any(seen)
    }

    /// How a step stands, in words.
    fn standing(&self, path: &str) -> String {
        match self.unit(path) {
            None => "the run never came to it".to_owned(),
            Some(unit) => {
                let status = unit.status.as_str();
                reason_of(unit).map_or_else(|| format!("it is {status}"), |reason| format!("it is {status} ({reason})"))
            }
        }
    }

    fn step(&mut self, path: &Spanned<Box<str>>, expected: &ExpectedStep) {
        let name = &*path.value;
        let Some(unit) = self.unit(name).cloned() else {
            self.findings.push(plain(path.span, format!("step `{name}`: the run never came to it")));
            return;
        };
        if let Some(status) = &expected.status {
            let mut what = format!("step `{name}`, status");
            if let Some(reason) = reason_of(&unit).filter(|_| unit.status.as_str() != &*status.value) {
                what.push_str(&format!(" ({reason})"));
            }
            self.equal(&what, status.span, json!(status.value), json!(unit.status.as_str()));
        }
        if let Some(attempts) = &expected.attempts {
            self.equal(&format!("step `{name}`, attempts"), attempts.span, json!(attempts.value), json!(unit.attempt));
        }
        if let Some(outputs) = &expected.outputs {
            let actual = unit.outputs.as_deref().cloned().unwrap_or_default();
            self.matches(&format!("step `{name}`, outputs"), outputs.span, &outputs.value, &actual);
        }
        if let Some(reason) = &expected.reason {
            self.holds_words(&format!("step `{name}`, reason"), reason, reason_of(&unit));
        }
        if let Some(input) = &expected.input {
            self.input(name, input);
        }
    }

    fn input(&mut self, name: &str, expected: &Spanned<ExpectedInput>) {
        let span = expected.span;
        let Some(work) = self.played.calls.get(&UnitPath::new(name)).and_then(|calls| calls.last()) else {
            let why = self.standing(name);
            self.findings.push(plain(span, format!("step `{name}`, input: it was never given any; {why}")));
            return;
        };
        let actual = input_of(work);
        let mut wanted = Map::new();
        let ExpectedInput { argv, script, env, url, method, headers, body, prompt } = &expected.value;
        let mut want = |key: &str, value: Option<Value>| value.map(|value| wanted.insert(key.to_owned(), value));
        want("argv", argv.as_ref().map(|argv| json!(argv)));
        want("script", script.as_ref().map(|script| json!(script.trim_end())));
        want("env", (!env.is_empty()).then(|| texts(env)));
        want("url", url.as_ref().map(|url| json!(url)));
        want("method", method.as_ref().map(|method| json!(method)));
        want("headers", (!headers.is_empty()).then(|| texts(headers)));
        want("body", body.clone());
        want("prompt", prompt.as_ref().map(|prompt| json!(prompt)));
        for (key, value) in wanted {
            match actual.get(&key) {
                Some(got) => self.matches(&format!("step `{name}`, input.{key}"), span, &value, got),
                None => {
                    let has: Vec<&str> = actual.keys().map(String::as_str).collect();
                    let message = format!("step `{name}` has no `{key}` in its input; it has {}", has.join(", "));
                    self.findings.push(plain(span, message));
                }
            }
        }
    }

    fn equal(&mut self, what: &str, span: Span, expected: Value, actual: Value) {
        if !same(&expected, &actual) {
            let message = format!("{what}: expected {}, got {}", shown(&expected), shown(&actual));
            self.findings.push(Finding { span, message, expected: Some(expected), actual: Some(actual) });
        }
    }

    fn holds_words(&mut self, what: &str, expected: &Spanned<Box<str>>, actual: Option<String>) {
        if actual.as_deref().is_some_and(|actual| actual.contains(&*expected.value)) {
            return;
        }
        let got = actual.as_ref().map_or_else(|| "none".to_owned(), |actual| shown(&json!(actual)));
        let message = format!("{what}: expected it to hold {}, got {got}", shown(&json!(expected.value)));
        self.findings.push(Finding {
            span: expected.span,
            message,
            expected: Some(json!(expected.value)),
            actual: actual.map(Value::from),
        });
    }

    /// In a map only the keys that are expected are looked at; a list must be as long as the expected one.
    fn matches(&mut self, what: &str, span: Span, expected: &Value, actual: &Value) {
        match (expected, actual) {
            (Value::Object(expected), Value::Object(actual)) => {
                for (key, expected) in expected {
                    let what = format!("{what}.{key}");
                    match actual.get(key) {
                        Some(actual) => self.matches(&what, span, expected, actual),
                        None => self.findings.push(Finding {
                            span,
                            message: format!("{what}: expected {}, but there is no such key", shown(expected)),
                            expected: Some(expected.clone()),
                            actual: None,
                        }),
                    }
                }
            }
            (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
                for (number, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    self.matches(&format!("{what}[{number}]"), span, expected, actual);
                }
            }
            (expected, actual) => self.equal(what, span, expected.clone(), actual.clone()),
        }
    }
}

/// Numbers are the same if they count the same: `1` is `1.0`.
fn same(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Number(expected), Value::Number(actual)) => expected == actual || expected.as_f64() == actual.as_f64(),
        (expected, actual) => expected == actual,
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}… ({} characters)", text.get(..at).unwrap_or_default(), text.chars().count()),
        None => text,
    }
}

/// Why a unit stands as it does.
fn reason_of(unit: &UnitState) -> Option<String> {
    let failure =
        unit.failure.as_deref().filter(|_| unit.status != StepStatus::Succeeded).map(|failure| failure.message.clone());
    match (unit.reason(), failure) {
        (Some(reason), Some(failure)) if failure.contains(reason) => Some(failure),
        (Some(reason), Some(failure)) => Some(format!("{reason}: {failure}")),
        (Some(reason), None) => Some(reason.to_owned()),
        (None, failure) => failure,
    }
}

/// How the run ended and what failed in it.
fn ended_words(state: &State) -> String {
    let mut words = format!("the run ended {}", state.status().as_str());
    if state.verdict.is_none() {
        words = format!("the run is {}", state.status().as_str());
    }
    if let Some(reason) = state.verdict.as_ref().and_then(|verdict| verdict.reason.as_deref()) {
        words.push_str(&format!(" ({reason})"));
    }
    let Some(root) = state.scopes.first() else { return words };
    for (number, step) in (0u32..).zip(&root.steps) {
        let unit = &step.unit;
        let status = unit.status;
        if status.is_failure() || matches!(status, StepStatus::Running | StepStatus::Waiting) {
            let reason = reason_of(unit).map_or(String::new(), |reason| format!(" ({reason})"));
            words.push_str(&format!("; step `{}` is {}{reason}", root.step_name(number), status.as_str()));
        }
    }
    words
}

/// A filled-in text; secrets stand in it as they do in a file.
fn text(text: &Text) -> String {
    let pieces = text.0.iter().map(|part| match part {
        Part::Plain(words) => words.clone(),
        Part::Secret(name) => format!("{{{{ secrets.{name} }}}}"),
    });
    pieces.collect()
}

fn pairs(entries: &[(String, Text)]) -> Value {
    Value::Object(entries.iter().map(|(name, value)| (name.clone(), json!(text(value)))).collect())
}

/// Values of the environment are text, whatever the test file writes.
fn texts(map: &Map<String, Value>) -> Value {
    let entries = map.iter().map(|(name, value)| {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        (name.clone(), Value::String(text))
    });
    Value::Object(entries.collect())
}

/// What a call was given, in the words of a test file.
fn input_of(work: &Work) -> Map<String, Value> {
    let mut input = Map::new();
    match work {
        Work::Run(script) => {
            match &script.command {
                Command::Argv(argv) => input.insert("argv".to_owned(), json!(argv)),
                Command::Shell { script, .. } => input.insert("script".to_owned(), json!(script.trim_end())),
            };
            input.insert("env".to_owned(), pairs(&script.env));
        }
        Work::Http(request) => {
            input.insert("method".to_owned(), json!(request.method));
            input.insert("url".to_owned(), json!(request.url));
            input.insert("headers".to_owned(), pairs(&request.headers));
            let body = match &request.body {
                None => Value::Null,
                Some(Body::Text(body)) => json!(text(body)),
                Some(Body::Json(body)) => body.clone(),
            };
            input.insert("body".to_owned(), body);
        }
        Work::Agent(call) => {
            input.insert("prompt".to_owned(), json!(call.prompt));
            input.insert("env".to_owned(), pairs(&call.env));
        }
    }
    input
}
