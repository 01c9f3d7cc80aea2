//! The checks of `tol doctor` on what lies on other machines: the database, Kafka, a server. Each is made only where
//! something names it, and each takes a few seconds at most.

use std::time::Duration;

use tokio::runtime::Builder;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

use super::args::RemoteArgs;
use super::context::Context;
use super::doctor::{Grade, Line};
use super::exit::Failure;
use super::remote::Remote;
use crate::database::DatabaseUrl;
use crate::dispatch::kafka::{self, Finding, KafkaSettings, Level};
use crate::journal::{Looked, Tables, look_at};
use crate::proto::v1;
use crate::task::DEFAULT_QUEUE;

/// How long a database may take to answer everything.
const DATABASE: Duration = Duration::from_secs(6);
/// How long brokers may take. A cluster that is away is told with its reason after ten seconds.
const KAFKA: Duration = Duration::from_secs(15);
/// How long a server may take for each of two questions.
const SERVER: Duration = Duration::from_secs(6);

/// What each place that is configured says.
pub fn all(context: &Context, remote: &RemoteArgs) -> Vec<Line> {
    let mut lines = match context.database() {
        Ok(None) => Vec::new(),
        Ok(Some(url)) => database(&url),
        Err(failure) => vec![told("database", failure)],
    };
    lines.extend(brokers(context));
    lines.extend(server(context, remote));
    lines
}

/// A failure whose words say what to do.
fn told(check: &'static str, failure: Failure) -> Line {
    Line { grade: Grade::Fail, ..Line::ok(check, failure.message) }
}

fn database(url: &DatabaseUrl) -> Vec<Line> {
    let looked = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(look_at(url, DATABASE)).map_err(Failure::from),
        Err(error) => Err(error.into()),
    };
    let looked = match looked {
        Ok(looked) => looked,
        Err(failure) => return vec![told("database", failure)],
    };
    let mut lines = vec![connection(url, &looked)];
    if !looked.is_durable {
        lines.push(Line::warn(
            "database",
            "its setting fsync is off: what was recorded may be gone after a power cut",
            "set fsync = on in postgresql.conf",
        ));
    }
    if let Some(why) = &looked.unwritable {
        let missing =
            if looked.tables.is_some() { "GRANT ALL ON ALL TABLES IN SCHEMA tol" } else { "GRANT CREATE ON DATABASE" };
        lines.push(Line::fail(
            "tables",
            format!("nothing can be written: {why}"),
            format!("name the primary server in DATABASE_URL, not a copy for reading; or `{missing} … TO` its user"),
        ));
    }
    match &looked.tables {
        Some(found) => lines.extend(tables(found)),
        None if looked.unwritable.is_none() => {
            lines.push(Line::ok("tables", "there are none yet; the first `tol run` or `tol serve` makes them"));
        }
        None => {}
    }
    lines
}

fn connection(url: &DatabaseUrl, looked: &Looked) -> Line {
    let words = format!("{} answers: PostgreSQL {}", url.shown(), looked.server);
    let help = "add sslmode=verify-full&sslrootcert=FILE to DATABASE_URL";
    match &looked.tls {
        Some(version) if url.is_verified() || url.is_here() => Line::ok("database", format!("{words}, {version}")),
        Some(version) => {
            Line::warn("database", format!("{words}, {version}, but nobody looks whose certificate it is"), help)
        }
        None if url.is_here() => Line::ok("database", format!("{words}, on this machine")),
        None => Line::warn("database", format!("{words}, without TLS: what is sent can be read on the way"), help),
    }
}

fn tables(found: &Tables) -> Vec<Line> {
    let Tables { format, newest, partitions, runs, schedulers } = found;
    let words = format!("format {format}, {partitions} partitions, {schedulers} `tol serve` at work");
    let about = if format < newest {
        Line::warn(
            "tables",
            format!("{words}; this tol brings them to format {newest} when it next opens them"),
            "then no older tol can use them: update all of them together",
        )
    } else {
        Line::ok("tables", words)
    };
    let listed: Vec<String> = runs.iter().map(|(status, number)| format!("{number} {status}")).collect();
    vec![about, Line::ok("runs", if listed.is_empty() { "none".to_owned() } else { listed.join(", ") })]
}

fn brokers(context: &Context) -> Vec<Line> {
    // What is wrong with `.env` has a line of its own.
    let Ok(environment) = context.environment() else { return Vec::new() };
    if environment.get("KAFKA_BROKERS").is_none_or(|brokers| brokers.trim().is_empty()) {
        return Vec::new();
    }
    let settings = match KafkaSettings::from_env(&environment) {
        Ok(settings) => settings,
        Err(error) => return vec![told("kafka", Failure::failed(error.to_string()))],
    };
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![told("kafka", error.into())],
    };
    let findings =
        runtime.block_on(async { tokio::time::timeout(KAFKA, kafka::check(&settings, &[DEFAULT_QUEUE])).await });
    // The client's own thread may still wait for a broker.
    runtime.shutdown_background();
    match findings {
        Ok(findings) => findings_as_lines(findings),
        Err(_) => vec![Line::fail(
            "kafka",
            format!("{}: it has not answered for {} s", settings.brokers, KAFKA.as_secs()),
            "see that the brokers run, and that KAFKA_BROKERS and KAFKA_SECURITY_PROTOCOL fit them",
        )],
    }
}

/// A line for each finding; those that the same help mends share one.
fn findings_as_lines(findings: Vec<Finding>) -> Vec<Line> {
    let mut lines: Vec<(Line, usize)> = Vec::new();
    for finding in findings {
        let grade = match finding.level {
            Level::Fine => Grade::Ok,
            Level::Warning => Grade::Warn,
            Level::Error => Grade::Fail,
        };
        match lines.iter_mut().find(|(line, _)| line.help.is_some() && line.help == finding.help) {
            Some((_, more)) => *more += 1,
            None => lines.push((Line { check: "kafka", grade, message: finding.message, help: finding.help }, 0)),
        }
    }
    let counted = |(mut line, more): (Line, usize)| {
        if more > 0 {
            line.message.push_str(&format!(", and so it is with {more} more"));
        }
        line
    };
    lines.into_iter().map(counted).collect()
}

fn server(context: &Context, arguments: &RemoteArgs) -> Vec<Line> {
    let remote = match Remote::around(arguments, &context.state_dir) {
        Ok(None) => return Vec::new(),
        Ok(Some(remote)) => remote,
        Err(failure) => return vec![told("server", failure)],
    };
    let health = remote.runtime.block_on(async { tokio::time::timeout(SERVER, remote.health()).await });
    let address = remote.address();
    let silent = || {
        Line::fail(
            "server",
            format!("{address}: it has not answered for {} s", SERVER.as_secs()),
            "see that `tol serve` runs there and that the way to it is open",
        )
    };
    let tls = if remote.has_tls() { "with TLS" } else { "without TLS, on this machine" };
    let mut lines = match health {
        Err(_) => return vec![silent()],
        Ok(Ok(ServingStatus::Serving)) => vec![Line::ok("server", format!("{address} is ready, {tls}"))],
        Ok(Ok(ServingStatus::NotServing | ServingStatus::Unknown | ServingStatus::ServiceUnknown)) => {
            vec![Line::warn(
                "server",
                format!("{address} answers {tls}, and takes no runs now"),
                "it starts, drains, or has lost its database; what it prints tells which",
            )]
        }
        // A server of another kind is there.
        Ok(Err(status)) if status.code() == Code::Unimplemented => {
            return vec![Line::fail("server", format!("{address} is no `tol serve`"), "look at its address")];
        }
        Ok(Err(status)) => return vec![told("server", remote.failure(&status))],
    };
    let served = remote.runtime.block_on(async {
        let mut client = remote.client();
        tokio::time::timeout(SERVER, client.pipelines(v1::PipelinesRequest {})).await
    });
    match served {
        Err(_) => lines.push(silent()),
        Ok(Err(status)) => lines.push(told("served", remote.failure(&status))),
        Ok(Ok(answer)) => lines.push(served_there(&answer.into_inner())),
    }
    lines
}

fn served_there(served: &v1::PipelinesResponse) -> Line {
    let number = served.pipelines.len();
    let words = format!("the token is accepted; pipelines: {number}");
    match served.problems.trim() {
        "" if number == 0 => {
            Line::warn("served", words, "no file in the folder that is served is a pipeline; `tol serve DIR` names it")
        }
        "" => Line::ok("served", words),
        problems => {
            let first = problems.lines().next().unwrap_or_default();
            Line::warn(
                "served",
                format!("{words}, as they were before the last change, which is wrong: {first}"),
                "`tol validate` in the folder that is served shows all of it",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_that_the_same_help_mends_share_a_line() {
        let finding = |level, message: &str, help: Option<&str>| Finding {
            level,
            message: message.to_owned(),
            help: help.map(str::to_owned),
        };
        let lines = findings_as_lines(vec![
            finding(Level::Fine, "Kafka answers", None),
            finding(Level::Warning, "topic a does not exist", Some("start")),
            finding(Level::Warning, "topic b has one replica", Some("give it more")),
            finding(Level::Warning, "topic c does not exist", Some("start")),
            finding(Level::Error, "no", None),
        ]);
        let shown: Vec<(&str, Grade)> = lines.iter().map(|line| (line.message.as_str(), line.grade)).collect();
        let expected = [
            ("Kafka answers", Grade::Ok),
            ("topic a does not exist, and so it is with 1 more", Grade::Warn),
            ("topic b has one replica", Grade::Warn),
            ("no", Grade::Fail),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_connection_that_others_can_read_is_told() {
        let looked = |tls: Option<&str>| Looked {
            server: "17.2".to_owned(),
            tls: tls.map(str::to_owned),
            is_durable: true,
            tables: None,
            unwritable: None,
        };
        let check = |url: &str, tls: Option<&str>, grade: Grade, words: &str| {
            let line = connection(&DatabaseUrl::parse(url).unwrap(), &looked(tls));
            assert!(line.grade == grade && line.message.contains(words), "{url}: {line:?}");
            assert!(!format!("{line:?}").contains("hush"), "{line:?}");
        };
        check("postgres://u:hush@localhost/tol", None, Grade::Ok, "on this machine");
        check("postgres://u:hush@db/tol", None, Grade::Warn, "without TLS");
        check("postgres://u:hush@db/tol?sslmode=require", Some("TLSv1.3"), Grade::Warn, "nobody looks");
        let verified = "postgres://u:hush@db/tol?sslmode=verify-full&sslrootcert=a.pem";
        check(verified, Some("TLSv1.3"), Grade::Ok, "PostgreSQL 17.2, TLSv1.3");
    }

    #[test]
    fn tables_of_an_older_format_are_told() {
        let found = |format| Tables { format, newest: 2, partitions: 16, runs: Vec::new(), schedulers: 0 };
        assert_eq!(tables(&found(1))[0].grade, Grade::Warn);
        assert!(tables(&found(1))[0].message.contains("format 2 when it next opens"));
        assert_eq!(tables(&found(2))[0].grade, Grade::Ok);
    }
}
