//! What went wrong with a request, in words and in a class.

use std::error::Error;
use std::fmt;

use reqwest::header::{self, HeaderValue};
use reqwest::{Method, Response, Url};

use crate::handler::{logs, outputs};
use crate::task::Failure;
use crate::time::Timestamp;

/// How much of a response that tells of an error is read for the message, in bytes.
const ERROR_BODY_BYTES: usize = 2 * 1024;

/// A request as messages name it: its method and its URL, without what may be secret in one.
pub struct Place {
    method: Method,
    url: Url,
}

impl Place {
    pub fn new(method: &Method, url: &Url) -> Self {
        let mut url = url.clone();
        // Neither can fail for a URL that has a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        if url.query().is_some() {
            url.set_query(Some("…"));
        }
        Self { method: method.clone(), url }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.url.as_str().replace("?%E2%80%A6", "?…"))
    }
}

/// The failure of a response whose status is not 2xx.
pub async fn status_failure(place: &Place, mut response: Response) -> Failure {
    let status = response.status();
    let retry_after_ms = response.headers().get(header::RETRY_AFTER).and_then(|value| wait_of(value, logs::now()));
    let mut body = Vec::new();
    // A body that breaks off still says as much as it does.
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > ERROR_BODY_BYTES {
            body.truncate(ERROR_BODY_BYTES);
            break;
        }
    }
    let said = outputs::start_of(&String::from_utf8_lossy(&body));
    let message = match said.as_str() {
        "" => format!("{place}: {status}"),
        said => format!("{place}: {status}: {said}"),
    };
    if matches!(status.as_u16(), 408 | 429) || status.is_server_error() {
        Failure { retry_after_ms, ..Failure::transient(message) }
    } else {
        Failure::permanent(message)
    }
}

/// How long `Retry-After` asks to wait, in milliseconds: a number of seconds, or a date.
fn wait_of(value: &HeaderValue, now: Timestamp) -> Option<u64> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()?;
    let date = Timestamp(u64::try_from(date.as_millisecond()).unwrap_or(0));
    u64::try_from(date.since(now).as_millis()).ok()
}

/// The failure of a connection that could not be made, or that broke: another try may find a better one, but for a
/// certificate that is not to be trusted.
pub fn broken(place: &Place, error: &reqwest::Error) -> Failure {
    let cause = cause_of(error);
    if is_about_certificate(error) {
        return Failure::permanent(format!("{place}: the server's certificate is not trusted: {cause}"));
    }
    if error.is_builder() {
        return Failure::permanent(format!("{place}: the request cannot be sent: {cause}"));
    }
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_body() || error.is_decode() {
        "the response broke off"
    } else {
        "the connection broke"
    };
    Failure::transient(format!("{place}: {what}: {cause}"))
}

/// The innermost words of an error; the outer ones only say that there was one.
pub fn cause_of(error: &(dyn Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

fn is_about_certificate(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = next {
        if matches!(current.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        // An I/O error does not show what it wraps as its source, but only the source of that.
        let wrapped = current.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => current.source(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_wait(text: &str, expect: Option<u64>) {
        // 1994-11-06T08:49:30Z
        let now = Timestamp(784_111_770_000);
        assert_eq!(wait_of(&HeaderValue::from_str(text).unwrap(), now), expect, "{text}");
    }

    #[test]
    fn retry_after_has_two_forms() {
        check_wait("120", Some(120_000));
        check_wait(" 0 ", Some(0));
        check_wait("Sun, 06 Nov 1994 08:49:37 GMT", Some(7000));
        check_wait("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check_wait("soon", None);
        check_wait("-5", None);
    }

    #[test]
    fn places_hold_no_secrets() {
        let url = Url::parse("https://me:word@example.com/a/b?token=x&y=1#part").unwrap();
        assert_eq!(Place::new(&Method::GET, &url).to_string(), "GET https://example.com/a/b?…");
        let url = Url::parse("http://example.com").unwrap();
        assert_eq!(Place::new(&Method::POST, &url).to_string(), "POST http://example.com/");
    }
}
