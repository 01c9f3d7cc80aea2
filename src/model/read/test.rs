//! Test files.

use serde_json::{Map, Value};

use crate::diagnostic::{FileId, Spanned};
use crate::model::read::retry::error_class;
use crate::model::read::{ReadContext, scalar};
use crate::model::test::{Expectation, ExpectedInput, ExpectedStep, Mock, MockOutcome, Mocked, TestCase, TestFile};
use crate::task::{ErrorClass, Failure};
use crate::yaml::{Node, Yaml};

/// Reads `*.test.yaml`. `path` is the file's path within the project.
pub fn read_test(node: &Node, file: FileId, path: &str, context: &mut ReadContext<'_>) -> TestFile {
    TestFile {
        file,
        path: Box::from(path),
        pipeline: scalar::spanned(node, "pipeline").unwrap_or_default(),
        cases: scalar::items(node, "cases").iter().map(|case| read_case(case, context)).collect(),
    }
}

fn read_case(node: &Node, context: &mut ReadContext<'_>) -> TestCase {
    TestCase {
        name: scalar::spanned(node, "name").unwrap_or_default(),
        span: node.span,
        params: scalar::entries(node, "params").iter().map(|entry| (entry.key.clone(), json(&entry.node))).collect(),
        env: scalar::entries(node, "env")
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), Box::from(scalar::text_of(&entry.node)?))))
            .collect(),
        profile: scalar::spanned(node, "profile"),
        mocks: scalar::entries(node, "mocks")
            .iter()
            .map(|entry| Mock {
                step: Spanned::new(entry.key.clone(), entry.key_span),
                outcomes: read_outcomes(&entry.node, context),
            })
            .collect(),
        default_succeeds: node.get("default").and_then(Node::as_str) == Some("succeed"),
        expect: node.get("expect").map(read_expectation).unwrap_or_default(),
    }
}

fn json(node: &Node) -> Spanned<Value> {
    Spanned::new(node.to_json(), node.span)
}

fn object(node: &Node, key: &str) -> Map<String, Value> {
    scalar::entries(node, key).iter().map(|entry| (entry.key.to_string(), entry.node.to_json())).collect()
}

fn read_outcomes(node: &Node, context: &mut ReadContext<'_>) -> Vec<MockOutcome> {
    match &node.value {
        Yaml::List(items) => items.iter().filter_map(|item| read_outcome(item, context)).collect(),
        Yaml::Map(_) => read_outcome(node, context).into_iter().collect(),
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::String(_) => Vec::new(),
    }
}

fn read_outcome(node: &Node, context: &mut ReadContext<'_>) -> Option<MockOutcome> {
    let takes = context.duration(node, "takes");
    let tokens = scalar::unsigned(node, "tokens");
    let what = if let Some(fail) = node.get("fail") {
        Mocked::Fail { failure: read_failure(fail), class_given: fail.get("class").is_some(), tokens }
    } else if let Some(decision) = node.get("decision") {
        Mocked::Decide {
            approved: decision.as_str() == Some("approved"),
            by: scalar::text(node, "by").unwrap_or_else(|| Box::from("test")),
            comment: scalar::text(node, "comment"),
        }
    } else if scalar::boolean(node, "hang") == Some(true) {
        Mocked::Hang
    } else {
        Mocked::Outputs {
            outputs: node.get("outputs")?.to_json(),
            exit_code: scalar::unsigned(node, "exit_code").and_then(|code| i32::try_from(code).ok()),
            stderr: scalar::text(node, "stderr"),
            tokens,
        }
    };
    Some(MockOutcome { takes, what })
}

fn read_failure(node: &Node) -> Failure {
    let class = node.get("class").and_then(Node::as_str).and_then(error_class).unwrap_or(ErrorClass::Permanent);
    let exit_code = scalar::unsigned(node, "exit_code").and_then(|code| i32::try_from(code).ok());
    let message = node.get("message").and_then(Node::as_str).map(str::to_owned);
    let message = message
        .unwrap_or_else(|| exit_code.map_or_else(|| "mocked failure".to_owned(), |code| format!("exit code {code}")));
    let stderr = node.get("stderr").and_then(Node::as_str).map(str::to_owned);
    Failure { exit_code, stderr, ..Failure::new(class, message) }
}

fn read_expectation(node: &Node) -> Expectation {
    Expectation {
        span: node.span,
        status: scalar::spanned(node, "status"),
        reason: scalar::spanned(node, "reason"),
        steps: scalar::entries(node, "steps")
            .iter()
            .map(|entry| (Spanned::new(entry.key.clone(), entry.key_span), read_expected_step(&entry.node)))
            .collect(),
        ran: scalar::spanned_texts(node, "ran"),
        not_ran: scalar::spanned_texts(node, "not_ran"),
        outputs: scalar::entries(node, "outputs")
            .iter()
            .map(|entry| (Spanned::new(entry.key.clone(), entry.key_span), json(&entry.node)))
            .collect(),
    }
}

fn read_expected_step(node: &Node) -> ExpectedStep {
    let attempts = node.get("attempts").and_then(|value| {
        let count = scalar::whole(value)?;
        Some(Spanned::new(u32::try_from(count).unwrap_or(u32::MAX), value.span))
    });
    ExpectedStep {
        status: scalar::spanned(node, "status"),
        outputs: node.get("outputs").map(json),
        attempts,
        input: node.get("input").map(|input| Spanned::new(read_expected_input(input), input.span)),
        reason: scalar::spanned(node, "reason"),
    }
}

fn read_expected_input(node: &Node) -> ExpectedInput {
    ExpectedInput {
        argv: node.get("argv").map(|_| scalar::texts(node, "argv")),
        script: scalar::text(node, "script"),
        env: object(node, "env"),
        url: scalar::text(node, "url"),
        method: scalar::text(node, "method"),
        headers: object(node, "headers"),
        body: node.get("body").map(Node::to_json),
        prompt: scalar::text(node, "prompt"),
    }
}
