//! `triggers:`, with their cron expressions and time zones checked.

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZoneDatabase;

use crate::diagnostic::{Diagnostic, nearest};
use crate::model::pipeline::{Trigger, WebhookSignature};
use crate::model::read::{ReadContext, codes, scalar};
use crate::yaml::Node;

/// Reads the triggers of a pipeline.
pub(super) fn read_triggers(pipeline: &Node, context: &mut ReadContext<'_>) -> Vec<Trigger> {
    scalar::items(pipeline, "triggers").iter().filter_map(|node| read_trigger(node, context)).collect()
}

fn read_trigger(node: &Node, context: &mut ReadContext<'_>) -> Option<Trigger> {
    if let Some(cron) = scalar::spanned(node, "cron") {
        check_cron(node, context);
        check_timezone(node, context);
        return Some(Trigger::Cron {
            cron,
            timezone: scalar::spanned(node, "timezone"),
            overlap: scalar::text(node, "overlap").unwrap_or_else(|| Box::from("skip")),
            catch_up: scalar::text(node, "catch_up").unwrap_or_else(|| Box::from("none")),
        });
    }
    if let Some(webhook) = node.get("webhook") {
        return Some(Trigger::Webhook {
            path: scalar::spanned(webhook, "path")?,
            signature: read_signature(webhook, context),
        });
    }
    if let Some(kafka) = node.get("kafka") {
        return Some(Trigger::Kafka { topic: scalar::spanned(kafka, "topic")?, group: scalar::text(kafka, "group") });
    }
    scalar::spanned(node, "file").map(|glob| Trigger::File { glob })
}

fn read_signature(webhook: &Node, context: &mut ReadContext<'_>) -> Option<WebhookSignature> {
    let hmac = webhook.get("hmac")?;
    Some(WebhookSignature {
        secret: scalar::spanned(hmac, "secret")?,
        header: scalar::text(hmac, "header"),
        tolerance: context.duration(hmac, "tolerance"),
    })
}

fn check_cron(node: &Node, context: &mut ReadContext<'_>) {
    let Some((value, text)) =
        node.get("cron").and_then(|value| Some((value, value.as_str().filter(|text| !text.is_empty())?)))
    else {
        return;
    };
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    if let Err(error) = parser.parse(text) {
        let message = format!("`{text}` is no cron expression: {}", error.to_string().trim_end_matches('.'));
        let help = "write five fields: minute, hour, day of month, month, day of week, as in `0 6 * * 1-5`";
        context.report(Diagnostic::error(codes::BAD_CRON, value.span, message).help(help));
    }
}

fn check_timezone(node: &Node, context: &mut ReadContext<'_>) {
    let Some((value, text)) =
        node.get("timezone").and_then(|value| Some((value, value.as_str().filter(|text| !text.is_empty())?)))
    else {
        return;
    };
    // The bundled database, so that the answer is the same on every machine.
    let database = TimeZoneDatabase::bundled();
    if database.get(text).is_ok() {
        return;
    }
    let names: Vec<String> = database.available().map(|name| name.to_string()).collect();
    let help = match nearest(text, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "write a name of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    context.report(Diagnostic::error(codes::BAD_TIMEZONE, value.span, format!("`{text}` is no time zone")).help(help));
}
