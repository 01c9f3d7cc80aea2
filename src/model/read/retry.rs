//! `retry:`, `timeout:` and their defaults.

use std::time::Duration;

use crate::diagnostic::{Diagnostic, Spanned};
use crate::model::limits::{Jitter, Retry};
use crate::model::read::{ReadContext, codes, scalar};
use crate::task::ErrorClass;
use crate::yaml::{Node, Yaml};

/// Reads `retry:`. Keys that it leaves out come from `base` (the defaults), else from what `retry: {}` means.
pub(super) fn read_retry(node: &Node, base: Option<&Retry>, context: &mut ReadContext<'_>) -> Option<Retry> {
    match &node.value {
        Yaml::String(text) if &**text == "never" => Some(Retry { never: true, limit: 0, ..Retry::default() }),
        Yaml::Map(_) => Some(read_mapping(node, base, context)),
        Yaml::Null | Yaml::Bool(_) | Yaml::Int(_) | Yaml::Float(_) | Yaml::String(_) | Yaml::List(_) => None,
    }
}

fn read_mapping(node: &Node, base: Option<&Retry>, context: &mut ReadContext<'_>) -> Retry {
    let base = base.filter(|retry| !retry.never);
    let has_base = base.is_some();
    let mut retry = base.cloned().unwrap_or_default();
    if let Some(limit) = scalar::unsigned_small(node, "limit") {
        retry.limit = limit;
    }
    if let Some(jitter) = node.get("jitter").and_then(Node::as_str).and_then(jitter) {
        retry.jitter = jitter;
    }
    if let Some(on) = node.get("on") {
        retry.on = on.items().iter().filter_map(|item| item.as_str().and_then(error_class)).collect();
    }
    if let Some(backoff) = node.get("backoff") {
        read_backoff(backoff, has_base, &mut retry, context);
    }
    retry
}

fn read_backoff(node: &Node, has_base: bool, retry: &mut Retry, context: &mut ReadContext<'_>) {
    let initial = context.duration(node, "initial");
    let max = context.duration(node, "max");
    if let Some(factor) = scalar::number(node, "factor").filter(|factor| *factor >= 1.0) {
        retry.backoff.factor = factor;
    }
    retry.backoff.initial = initial.unwrap_or(retry.backoff.initial);
    retry.backoff.max = max.unwrap_or(retry.backoff.max);
    if retry.backoff.max >= retry.backoff.initial {
        return;
    }
    // A longest pause that nobody wrote down gives way; one that somebody did is a contradiction.
    match (initial.is_some(), max.is_some() || has_base) {
        (true, false) => retry.backoff.max = retry.backoff.initial,
        (false, true) if !has_base => retry.backoff.initial = retry.backoff.max,
        _ => {
            let at = node.get("max").or_else(|| node.get("initial")).unwrap_or(node);
            let message = format!(
                "the longest pause, `max` ({}), is below the first, `initial` ({})",
                crate::time::format_duration(retry.backoff.max),
                crate::time::format_duration(retry.backoff.initial),
            );
            context.report(
                Diagnostic::error(codes::BACKOFF_ORDER, at.span, message).help("raise `max`, or lower `initial`"),
            );
        }
    }
}

fn jitter(text: &str) -> Option<Jitter> {
    match text {
        "none" => Some(Jitter::None),
        "full" => Some(Jitter::Full),
        "equal" => Some(Jitter::Equal),
        _ => None,
    }
}

/// The class that a word names.
pub(super) fn error_class(text: &str) -> Option<ErrorClass> {
    [ErrorClass::Transient, ErrorClass::Permanent, ErrorClass::Timeout, ErrorClass::Cancelled, ErrorClass::Budget]
        .into_iter()
        .find(|class| class.as_str() == text)
}

/// Reads `timeout` and `attempt_timeout` of a step over their defaults. An attempt that may take longer than all of
/// them is a mistake where the step says so, and is cut where only the default does.
pub(super) fn read_timeouts(
    node: &Node,
    timeout_default: Option<Duration>,
    attempt_default: Option<Duration>,
    context: &mut ReadContext<'_>,
) -> (Option<Duration>, Option<Duration>) {
    let timeout = context.duration(node, "timeout").or(timeout_default);
    let own_attempt =
        node.get("attempt_timeout").and_then(|value| Some(Spanned::new(context.duration_of(value)?, value.span)));
    let Some(own_attempt) = own_attempt else {
        let attempt = attempt_default.map(|attempt| timeout.map_or(attempt, |timeout| attempt.min(timeout)));
        return (timeout, attempt);
    };
    if let Some(timeout) = timeout
        && own_attempt.value > timeout
    {
        let message = format!(
            "`attempt_timeout` ({}) is above `timeout` ({}), which bounds all attempts together",
            crate::time::format_duration(own_attempt.value),
            crate::time::format_duration(timeout),
        );
        let help = "raise `timeout`, or lower `attempt_timeout`";
        context.report(Diagnostic::error(codes::ATTEMPT_ABOVE_TIMEOUT, own_attempt.span, message).help(help));
    }
    (timeout, Some(own_attempt.value))
}
