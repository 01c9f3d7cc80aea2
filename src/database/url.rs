//! The address of a database, as `DATABASE_URL` gives it. It is shown without its password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::database::error::DatabaseError;
use crate::database::tls::Trust;

/// The longest wait for one attempt to connect.
const CONNECT: Duration = Duration::from_secs(5);
/// After so long without an answer to what was sent, a connection counts as broken.
const UNANSWERED: Duration = Duration::from_secs(10);
/// A silent connection is asked for a sign of life after so long, then every two seconds, three times.
const IDLE: Duration = Duration::from_secs(5);

/// The address of a database.
#[derive(Clone)]
pub struct DatabaseUrl {
    pub(crate) config: Config,
    pub(crate) trust: Trust,
    shown: String,
}

impl DatabaseUrl {
    /// Reads `postgres://user:password@host:port/database?sslmode=…&sslrootcert=…`.
    ///
    /// `sslmode` is `disable`, `prefer` (the default), `require`, `verify-ca` or `verify-full`, as in PostgreSQL's own
    /// programs: `prefer` and `require` encrypt without looking who answers, unless `sslrootcert` is given.
    pub fn parse(text: &str) -> Result<Self, DatabaseError> {
        let wrong = |what: String| DatabaseError::Url { what };
        let text = text.trim();
        if !(text.starts_with("postgres://") || text.starts_with("postgresql://")) {
            return Err(wrong("it does not begin with postgres://".to_owned()));
        }
        let (stem, query) = text.split_once('?').unwrap_or((text, ""));
        let mut mode = "prefer".to_owned();
        let mut roots = None;
        let mut rest = Vec::new();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("sslmode", value)) => mode = decoded(value),
                Some(("sslrootcert", value)) => roots = Some(PathBuf::from(decoded(value))),
                _ => rest.push(part),
            }
        }
        let plain = if rest.is_empty() { stem.to_owned() } else { format!("{stem}?{}", rest.join("&")) };
        // The library's own words may quote a part of the address, so that only the kind of trouble is told.
        let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
            let option = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            let option = option.split_once('`').and_then(|(_, rest)| rest.split_once('`')).map(|(name, _)| name);
            match option {
                Some(name) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !stem.contains(name) => {
                    wrong(format!("its part `{name}` is not understood"))
                }
                _ => wrong("it is not of the form of an address".to_owned()),
            }
        })?;
        let trust = match (mode.as_str(), roots) {
            ("disable", _) => Trust::Plain,
            ("prefer", _) => Trust::Anyone,
            ("require", None) => Trust::Anyone,
            ("require" | "verify-ca", Some(roots)) => Trust::Authority(roots),
            ("verify-full", Some(roots)) => Trust::Host(roots),
            ("verify-ca" | "verify-full", None) => {
                return Err(wrong(format!("sslmode={mode} needs sslrootcert=FILE, the certificates to trust")));
            }
            _ => {
                let modes = "disable, prefer, require, verify-ca and verify-full";
                return Err(wrong(format!("its sslmode is none of {modes}")));
            }
        };
        config.ssl_mode(match mode.as_str() {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            _ => SslMode::Require,
        });
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong("it names no host".to_owned()));
        }
        if mode == "prefer" && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            config.ssl_mode(SslMode::Disable);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(UNANSWERED);
        }
        config.keepalives_idle(IDLE).keepalives_interval(Duration::from_secs(2)).keepalives_retries(3);
        let shown = shown(&config);
        Ok(Self { config, trust, shown })
    }

    /// The address as messages show it: `postgres://user@host:port/database`.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether the server must show a certificate of an authority that is trusted.
    pub fn is_verified(&self) -> bool {
        matches!(self.trust, Trust::Authority(_) | Trust::Host(_))
    }

    /// Whether the server is on this machine, so that nobody can read along.
    pub fn is_here(&self) -> bool {
        let is_loopback = |name: &str| {
            name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        };
        self.config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
            && self.config.get_hosts().iter().all(|host| match host {
                Host::Tcp(name) => is_loopback(name),
                Host::Unix(_) => true,
            })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseUrl({})", self.shown)
    }
}

fn shown(config: &Config) -> String {
    let ports = config.get_ports();
    let named = |(at, host): (usize, &Host)| {
        let port = ports.get(at).or_else(|| ports.first()).map_or(String::new(), |port| format!(":{port}"));
        match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]{port}"),
            Host::Tcp(name) => format!("{name}{port}"),
            Host::Unix(folder) => format!("{}{port}", folder.display()),
        }
    };
    let mut hosts: Vec<String> = config.get_hosts().iter().enumerate().map(named).collect();
    if hosts.is_empty() {
        hosts.extend(config.get_hostaddrs().iter().map(ToString::to_string));
    }
    let user = config.get_user().map_or(String::new(), |user| format!("{user}@"));
    let name = config.get_dbname().or_else(|| config.get_user()).unwrap_or("");
    format!("postgres://{user}{}/{name}", hosts.join(","))
}

/// A value of the query part with `%41` and the like resolved.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let pair = behind.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = behind.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let check = |text: &str, expect: &str| {
            let url = DatabaseUrl::parse(text).unwrap();
            assert_eq!(url.shown(), expect);
            let debug = format!("{url:?} {:?} {:?}", url.config, url.trust);
            assert!(!debug.contains("hush"), "{debug}");
        };
        check("postgres://u:hush@db.example:6432/tol", "postgres://u@db.example:6432/tol");
        check("postgresql://u:hush@db/tol?sslmode=disable&application_name=x", "postgres://u@db:5432/tol");
        check("postgres://u@%2Frun%2Fpg:5433/tol", "postgres://u@/run/pg:5433/tol");
        check(
            "postgres://u:hush@[::1]:5432/tol?sslmode=verify-full&sslrootcert=%2Fa%20b.pem",
            "postgres://u@[::1]:5432/tol",
        );
    }

    #[test]
    fn who_can_read_along_is_known() {
        let check = |text: &str, here: bool, verified: bool| {
            let url = DatabaseUrl::parse(text).unwrap();
            assert_eq!((url.is_here(), url.is_verified()), (here, verified), "{text}");
        };
        check("postgres://u@localhost/tol", true, false);
        check("postgres://u@[::1]/tol", true, false);
        check("postgres://u@%2Frun%2Fpg/tol", true, false);
        check("postgres://u@localhost,db.example/tol", false, false);
        check("postgres://u@localhost/tol?hostaddr=192.0.2.1", false, false);
        check("postgres://u@db/tol?sslmode=require", false, false);
        check("postgres://u@db/tol?sslmode=require&sslrootcert=a.pem", false, true);
        check("postgres://u@db/tol?sslmode=verify-full&sslrootcert=a.pem", false, true);
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        let check = |text: &str, expect: &str| {
            let error = DatabaseUrl::parse(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
            assert!(!error.contains("hush"), "{error}");
        };
        check("mysql://u:hush@db/tol", "does not begin with postgres://");
        check("postgres://u:hush@db/tol?sslmode=sometimes", "its sslmode is none of");
        check("postgres://u:hush@db/tol?sslmode=verify-full", "needs sslrootcert");
        check("postgres://u:hush@db/tol?colour=red", "`colour` is not understood");
        check("postgres://u:hush@db:port/tol", "DATABASE_URL cannot be used");
        check("postgres:///tol", "names no host");
    }
}
