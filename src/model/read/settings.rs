//! Project settings.

use std::time::Duration;

use crate::diagnostic::Diagnostic;
use crate::model::limits::Limits;
use crate::model::read::agents::provider;
use crate::model::read::{ReadContext, codes, scalar};
use crate::model::settings::{EngineSettings, Settings};
use crate::yaml::{Entry, Node};

/// How far weights may be from adding up to 1.
const WEIGHT_TOLERANCE: f64 = 0.01;

/// Reads `duo-agent.config.yaml`.
pub fn read_settings(node: &Node, context: &mut ReadContext<'_>) -> Settings {
    check_weights(node, context);
    check_health(node, context);
    let engine = node.get("engine");
    let retention = node.get("retention");
    let limits = node.get("limits");
    Settings {
        project_name: node.get("project").and_then(|project| scalar::text(project, "name")),
        engine: EngineSettings {
            workers: engine.and_then(|engine| scalar::unsigned_small(engine, "workers")),
            max_parallel: engine.and_then(|engine| scalar::unsigned_small(engine, "max_parallel")),
        },
        ceilings: limits.map(read_ceilings).unwrap_or_default(),
        max_improvement_cycles: limits.and_then(|limits| scalar::unsigned_small(limits, "max_improvement_cycles")),
        provider: node.get("provider").and_then(Node::as_str).and_then(provider),
        retention_days: retention.and_then(|retention| scalar::unsigned_small(retention, "days")),
        retention_runs: retention.and_then(|retention| scalar::unsigned_small(retention, "runs")),
    }
}

fn read_ceilings(limits: &Node) -> Limits {
    let hours = scalar::number(limits, "max_runtime_hours").filter(|hours| *hours > 0.0);
    Limits {
        max_tokens: scalar::unsigned(limits, "max_tokens_total"),
        max_cost: scalar::number(limits, "max_cost"),
        max_runtime: hours.and_then(|hours| Duration::try_from_secs_f64(hours * 3600.0).ok()),
        max_parallel: scalar::unsigned_small(limits, "max_parallel"),
        queues: Vec::new(),
        error_rate: scalar::number(limits, "max_error_rate"),
    }
}

/// Every `weights:` block, wherever it stands, adds up to 1.
fn check_weights(node: &Node, context: &mut ReadContext<'_>) {
    for entry in node.entries() {
        if &*entry.key == "weights" {
            check_sum(entry, context);
        } else {
            check_weights(&entry.node, context);
        }
    }
}

fn check_sum(entry: &Entry, context: &mut ReadContext<'_>) {
    let weights: Option<Vec<f64>> = entry.node.entries().iter().map(|weight| scalar::number_of(&weight.node)).collect();
    let Some(weights) =
        weights.filter(|weights| !weights.is_empty() && weights.iter().all(|weight| (0.0..=1.0).contains(weight)))
    else {
        return;
    };
    let sum: f64 = weights.iter().sum();
    // A hair more than the tolerance, because 0.99 is not exact in binary.
    if (sum - 1.0).abs() > WEIGHT_TOLERANCE + 1e-9 {
        let message = format!("the weights add up to {}, not to 1", (sum * 1000.0).round() / 1000.0);
        let help = "change them so that they add up to 1, give or take 0.01";
        context.report(Diagnostic::error(codes::WEIGHTS, entry.key_span, message).help(help));
    }
}

fn check_health(node: &Node, context: &mut ReadContext<'_>) {
    let Some(health) = node.get("health") else { return };
    let (Some(healthy), Some(degraded)) = (scalar::number(health, "healthy"), scalar::number(health, "degraded"))
    else {
        return;
    };
    let out_of_range = !(0.0..=1.0).contains(&healthy) || !(0.0..=1.0).contains(&degraded);
    if degraded < healthy || out_of_range {
        return;
    }
    let span = health.get("degraded").map_or(health.span, |node| node.span);
    let message = format!("`degraded` ({degraded}) must be below `healthy` ({healthy})");
    context.report(Diagnostic::error(codes::HEALTH_ORDER, span, message).help("lower `degraded`, or raise `healthy`"));
}
