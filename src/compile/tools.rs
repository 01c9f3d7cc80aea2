//! The texts of tools, which see `input` and no step or parameter.

use std::collections::{BTreeSet, HashMap};

use super::links::{check_environment, check_secret};
use super::report::{MOST_PROBLEMS, Report};
use super::scope::Names;
use super::{codes, sites, typing};
use crate::diagnostic::Diagnostic;
use crate::expr::{Type, type_of_schema};
use crate::model::{Action, Step, Tool};

/// Checks the texts of tools. `inherited` is the pipeline's `inherit_env`, or nothing for those of a catalogue.
pub fn check<'t>(tools: impl Iterator<Item = &'t Tool>, inherited: &BTreeSet<&str>, report: &mut Report<'_>) {
    let (index, broken) = (HashMap::new(), BTreeSet::new());
    let names = Names::bare(Type::Any, &index, &broken);
    for tool in tools {
        let input = type_of_schema(&tool.input_schema);
        references(&tool.step, inherited, report);
        typing::check_sites(&tool.step, None, Some(&input), &names, report);
        action(tool, report);
    }
}

fn references(step: &Step, inherited: &BTreeSet<&str>, report: &mut Report<'_>) {
    let mut texts = Vec::new();
    sites::each_site(step, &mut |site| {
        if !site.text.is_plain() {
            texts.push(site);
        }
    });
    for site in texts {
        let before = report.diagnostics.len();
        for reference in site.text.references() {
            if report.diagnostics.len() - before >= MOST_PROBLEMS {
                break;
            }
            match reference.root() {
                "secrets" => check_secret(&reference, site, report),
                "env" => check_environment(&reference, site, inherited, report),
                name @ ("item" | "matrix") => {
                    let range = reference.segments.first().map_or(0..0, |segment| segment.range.clone());
                    let span = report.place(site.span, range);
                    let message = format!("there is no `{name}` here");
                    report.push(
                        Diagnostic::error(codes::NAME_NOT_HERE, span, message).help("a tool sees only its `input`"),
                    );
                }
                _ => {}
            }
        }
    }
}

/// A tool does one thing by itself; what needs steps around it is refused.
fn action(tool: &Tool, report: &mut Report<'_>) {
    match &tool.step.action {
        Action::Run(_) | Action::Http(_) | Action::Transform(_) | Action::Agent(_) | Action::Wait(_) => {}
        Action::Pipeline(_) | Action::Approve(_) | Action::Plan(_) | Action::Execute(_) | Action::Synthesize(_) => {
            let message = format!("a tool cannot be a `{}`", tool.step.action.key());
            report.push(
                Diagnostic::error(codes::MISPLACED_ACTION, tool.name.span, message)
                    .help("a tool is one of `run`, `http`, `transform`, `agent` or `wait`"),
            );
        }
    }
}
