//! What `tol doctor` says of the variables that are set: which are read, and which look as if they were meant to be.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use clap::CommandFactory;

use super::Cli;
use super::doctor::Line;
use crate::diagnostic::nearest;
use crate::handler::secrets::{FOLDER_VARIABLE, VARIABLE_PREFIX};

/// Variables that are read beside those of the command line.
const READ: [&str; 27] = [
    "DATABASE_URL",
    "GRPC_HOST",
    "GRPC_MAX_CONNECTIONS",
    "GRPC_PORT",
    "GRPC_TLS_CERT",
    "GRPC_TLS_CLIENT_CA",
    "GRPC_TLS_ENABLED",
    "GRPC_TLS_KEY",
    "KAFKA_BROKERS",
    "KAFKA_CLAMP_REPLICATION",
    "KAFKA_COMPRESSION",
    "KAFKA_MIN_INSYNC_REPLICAS",
    "KAFKA_PARTITIONS",
    "KAFKA_REPLICATION_FACTOR",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SSL_CERTIFICATE_LOCATION",
    "KAFKA_SSL_KEY_LOCATION",
    "KAFKA_TOPIC_PREFIX",
    "NO_COLOR",
    "TOL_TOKEN",
    "TOL_USER",
    "TOL_WORKER_TOKEN",
    FOLDER_VARIABLE,
];
/// What names of others begin with, too: here only a name that is nearly right is told.
const SHARED_PREFIXES: [&str; 2] = ["GRPC_", "KAFKA_"];
/// Variables that `tol` sets for scripts and reads nowhere.
const SET_FOR_SCRIPTS: [&str; 7] =
    ["TOL_RUN_ID", "TOL_STEP", "TOL_ITEM", "TOL_ATTEMPT", "TOL_IDEMPOTENCY_KEY", "TOL_OUTPUT", "TOL_ARTIFACTS"];
/// Kills the process around a commit; for tests of `tol` itself.
const FAULT: &str = "TOL_FAULT";

/// The variables that any subcommand reads.
fn known_variables() -> BTreeSet<String> {
    let mut known: BTreeSet<String> = READ.iter().map(|name| (*name).to_owned()).collect();
    let mut open = vec![Cli::command()];
    while let Some(command) = open.pop() {
        let named = command.get_arguments().filter_map(|argument| argument.get_env()).filter_map(OsStr::to_str);
        known.extend(named.map(str::to_owned));
        open.extend(command.get_subcommands().cloned());
    }
    known
}

/// A line for each variable that nothing reads, or one for all that are read.
pub fn all() -> Vec<Line> {
    let known = known_variables();
    let set: BTreeSet<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    let mut lines = Vec::new();
    let mut read = Vec::new();
    for name in &set {
        let upper = name.to_ascii_uppercase();
        let near = || nearest(name, known.iter().map(String::as_str).filter(|other| other != name));
        if !upper.starts_with("TOL_") {
            if known.contains(name) {
                read.push(name.as_str());
            } else if SHARED_PREFIXES.iter().any(|prefix| upper.starts_with(prefix))
                && let Some(near) = near()
            {
                lines.push(unread(name, format!("did you mean {near}?")));
            }
        } else if name == FAULT {
            lines.push(Line::warn(
                "variables",
                format!("{name} is set: it makes tol kill itself, for tests"),
                format!("unset {name}"),
            ));
        } else if known.contains(name) {
            read.push(name.as_str());
        } else if SET_FOR_SCRIPTS.contains(&name.as_str()) || name.starts_with(VARIABLE_PREFIX) {
            // A step's own variables, or a secret.
        } else {
            let help = near().map_or_else(
                || {
                    format!(
                        "tol reads {}, and {VARIABLE_PREFIX}NAME for secrets",
                        known.iter().cloned().collect::<Vec<_>>().join(", ")
                    )
                },
                |near| format!("did you mean {near}?"),
            );
            lines.push(unread(name, help));
        }
    }
    if lines.is_empty() {
        let words = if read.is_empty() {
            "none of tol's is set".to_owned()
        } else {
            format!("set and read: {}", read.join(", "))
        };
        lines.push(Line::ok("variables", words));
    }
    lines
}

fn unread(name: &str, help: String) -> Line {
    Line::warn("variables", format!("{name} is set, and nothing reads it"), help)
}
