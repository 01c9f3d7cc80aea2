//! Blueprints that stand in a file: their faults as diagnostics with places.

use super::{BlueprintFault, FaultPlace, PlanRules, compile};
use crate::compile::report::{Report, node_at, node_at_pointer};
use crate::compile::{CompiledBlueprint, codes};
use crate::diagnostic::{Diagnostic, Span};
use crate::model::{Blueprint, Callee};
use crate::yaml::Node;

/// Checks a blueprint of a file. `tree` is that file's tree, for the places of numbers and keys in inputs.
pub fn compile_static(
    blueprint: &Blueprint,
    rules: &PlanRules,
    excused: &dyn Fn(&str) -> bool,
    tree: Option<&Node>,
    report: &mut Report<'_>,
) -> CompiledBlueprint {
    let (compiled, faults) = compile(blueprint.clone(), rules, excused);
    // A missing key and an empty list of steps were found when the file was held against its schema.
    let is_told = |fault: &BlueprintFault| {
        fault.code == codes::BLUEPRINT_FORM || (fault.code == codes::BLUEPRINT_SIZE && blueprint.steps.is_empty())
    };
    for fault in faults.into_iter().filter(|fault| !is_told(fault)) {
        let span = span_of(&fault, blueprint, tree, report);
        report.push(Diagnostic::error(fault.code, span, fault.message).maybe_help(fault.help));
    }
    compiled
}

fn span_of(fault: &BlueprintFault, blueprint: &Blueprint, tree: Option<&Node>, report: &Report<'_>) -> Span {
    let Some(step) = fault.place.step().and_then(|step| blueprint.steps.get(step)) else { return blueprint.span };
    match &fault.place {
        FaultPlace::Whole => blueprint.span,
        FaultPlace::Step(_) => step.span,
        FaultPlace::Id(_) => step.id.span,
        FaultPlace::Callee(_) => match &step.callee {
            Callee::Tool(name) | Callee::Agent(name) => name.span,
        },
        FaultPlace::Depends(_, at) => step.depends.get(*at).map_or(step.span, |id| id.span),
        FaultPlace::Input { pointer, range, property, .. } => {
            let leaf = step.leaf_spans.iter().find(|(at, _)| at == pointer).map(|(_, span)| *span);
            if let (Some(leaf), Some(range)) = (leaf, range) {
                return report.place(leaf, range.clone());
            }
            let node = tree.and_then(|tree| node_at(tree, step.input.span)).map(|node| node_at_pointer(node, pointer));
            let key = property.as_ref().and_then(|name| node.and_then(|node| node.entry(name)));
            match (key, leaf, node) {
                (Some(entry), _, _) => entry.key_span,
                (None, Some(leaf), _) => leaf,
                (None, None, Some(node)) => node.span,
                (None, None, None) => step.input.span,
            }
        }
    }
}
