//! A test file, `*.test.yaml`: runs of a pipeline whose steps' outcomes are made up, and what must come of them.

use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::diagnostic::{FileId, Span, Spanned};
use crate::task::Failure;

/// All cases of one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestFile {
    pub file: FileId,
    /// Path of the test file within the project.
    pub path: Box<str>,
    /// The pipeline, relative to the test file.
    pub pipeline: Spanned<Box<str>>,
    pub cases: Vec<TestCase>,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TestCase {
    pub name: Spanned<Box<str>>,
    pub span: Span,
    pub params: IndexMap<Box<str>, Spanned<Value>>,
    /// The caller's environment, as `env.X` sees it.
    pub env: Vec<(Box<str>, Box<str>)>,
    pub profile: Option<Spanned<Box<str>>>,
    /// By path of the step (`each[2]` for one item), in file order.
    pub mocks: Vec<Mock>,
    /// What has no mock succeeds with empty outputs; else it fails the case.
    pub default_succeeds: bool,
    pub expect: Expectation,
}

/// What stands for running a step: one outcome for each call; the last holds for all further ones. An attempt is one
/// call, but a plan with a repair turn and each draft and critique of a synthesis are calls of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct Mock {
    pub step: Spanned<Box<str>>,
    pub outcomes: Vec<MockOutcome>,
}

/// The made-up outcome of one call, or the answer to an approval.
#[derive(Clone, Debug, PartialEq)]
pub struct MockOutcome {
    /// How long it takes; no real time passes.
    pub takes: Option<Duration>,
    pub what: Mocked,
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Mocked {
    Outputs {
        outputs: Value,
        exit_code: Option<i32>,
        stderr: Option<Box<str>>,
        tokens: Option<u64>,
    },
    /// Where the file names no class, an exit code of a script says it.
    Fail {
        failure: Failure,
        class_given: bool,
        tokens: Option<u64>,
    },
    /// It does not end by itself.
    Hang,
    /// Somebody answers an approval.
    Decide {
        approved: bool,
        by: Box<str>,
        comment: Option<Box<str>>,
    },
}

/// What must hold in the end; what is absent is not looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expectation {
    pub span: Span,
    pub status: Option<Spanned<Box<str>>>,
    /// Words that the run's reason holds.
    pub reason: Option<Spanned<Box<str>>>,
    pub steps: Vec<(Spanned<Box<str>>, ExpectedStep)>,
    pub ran: Vec<Spanned<Box<str>>>,
    pub not_ran: Vec<Spanned<Box<str>>>,
    /// Only the named outputs are looked at.
    pub outputs: Vec<(Spanned<Box<str>>, Spanned<Value>)>,
}

/// What must hold of one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedStep {
    pub status: Option<Spanned<Box<str>>>,
    pub outputs: Option<Spanned<Value>>,
    pub attempts: Option<Spanned<u32>>,
    pub input: Option<Spanned<ExpectedInput>>,
    pub reason: Option<Spanned<Box<str>>>,
}

/// What the step must have been given, filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExpectedInput {
    pub argv: Option<Vec<Box<str>>>,
    pub script: Option<Box<str>>,
    pub env: Map<String, Value>,
    pub url: Option<Box<str>>,
    pub method: Option<Box<str>>,
    pub headers: Map<String, Value>,
    pub body: Option<Value>,
    pub prompt: Option<Box<str>>,
}
