//! The `http` action: one request, its redirects, and its response.
//!
//! Redirects are followed here and not by the client, because only this room knows which headers hold secrets: those
//! go to no other server than the one that they were meant for.

mod failure;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};
use serde_json::{Map, Value, json};

use crate::dispatch::{Stop, StopSignal};
use crate::handler::context::WorkerContext;
use crate::handler::http::failure::{Place, broken, status_failure};
use crate::handler::redact::Redactor;
use crate::task::{Body, Failure, HttpRequest, Outcome, Part};

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 10;
/// How long a connection may take to be made; a server that is there answers within a part of that.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// The connections of a process.
pub struct Client {
    /// The words are why there is no client.
    client: Result<reqwest::Client, String>,
    /// Why no server's certificate can be checked, if none can: plain `http` works all the same.
    no_certificates: Option<String>,
}

impl Client {
    /// A client that goes by the proxies which the environment names.
    fn new() -> Self {
        Self::of(reqwest::Client::builder)
    }

    fn of(begin: fn() -> reqwest::ClientBuilder) -> Self {
        // An error means that there is a provider already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let builder = || {
            begin()
                .user_agent(concat!("tol/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
        };
        match builder().build() {
            Ok(client) => Self { client: Ok(client), no_certificates: None },
            Err(error) => Self {
                client: builder().tls_certs_only([]).build().map_err(|error| failure::cause_of(&error)),
                no_certificates: Some(failure::cause_of(&error)),
            },
        }
    }
}

/// Sends a request and takes its response.
pub async fn send(request: &HttpRequest, context: &WorkerContext, stop: &mut StopSignal) -> Outcome {
    tokio::select! {
        biased;
        _ = stop.wait(Stop::Graceful) => Outcome::Stopped,
        result = exchange(request, context) => match result {
            Ok(outputs) => Outcome::success(outputs),
            Err(mut failure) => {
                failure.message = context.secrets.redactor().text(&failure.message);
                Outcome::failed(failure)
            }
        },
    }
}

async fn exchange(request: &HttpRequest, context: &WorkerContext) -> Result<Value, Failure> {
    let mut hop = Hop::new(request, context)?;
    let redactor = context.secrets.redactor();
    let client = context.client.get_or_init(Client::new);
    let mut redirects = 0;
    loop {
        let place = hop.place();
        let response = hop.send(client).await?;
        let status = response.status();
        let target =
            response.headers().get(header::LOCATION).filter(|_| request.follow_redirects && is_redirect(status));
        if let Some(target) = target {
            if redirects == REDIRECTS_MAX {
                return Err(Failure::permanent(format!("{place}: more than {REDIRECTS_MAX} redirects")));
            }
            redirects += 1;
            let target = String::from_utf8_lossy(target.as_bytes()).into_owned();
            hop.follow(status, &target)?;
            continue;
        }
        if !status.is_success() {
            return Err(status_failure(&place, response).await);
        }
        return outputs_of(&place, response, request.max_bytes, &redactor).await;
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// One request of a chain of redirects.
struct Hop {
    method: Method,
    url: Url,
    headers: HeaderMap,
    /// The names of headers that may go to the first server only.
    confined: Vec<HeaderName>,
    body: Option<Vec<u8>>,
}

impl Hop {
    fn new(request: &HttpRequest, context: &WorkerContext) -> Result<Self, Failure> {
        let method = Method::from_bytes(request.method.to_ascii_uppercase().as_bytes())
            .map_err(|_| Failure::permanent(format!("`{}` is not an HTTP method", request.method)))?;
        let mut url = url_of(&request.url)?;
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut headers = HeaderMap::new();
        let mut confined = vec![header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];
        for (name, text) in &request.headers {
            let wrong = |what: &str| Failure::permanent(format!("header `{name}`: {what}"));
            let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("this cannot be a header's name"))?;
            let value = context.secrets.fill(text)?;
            let mut value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| wrong("its value holds a line break or another control character"))?;
            if text.0.iter().any(|part| matches!(part, Part::Secret(_))) {
                value.set_sensitive(true);
                confined.push(known.clone());
            }
            headers.append(known, value);
        }
        let body = match &request.body {
            None => None,
            Some(Body::Text(text)) => Some(context.secrets.fill(text)?.into_bytes()),
            Some(Body::Json(value)) => {
                headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                Some(value.to_string().into_bytes())
            }
        };
        Ok(Self { method, url, headers, confined, body })
    }

    fn place(&self) -> Place {
        Place::new(&self.method, &self.url)
    }

    async fn send(&self, client: &Client) -> Result<Response, Failure> {
        let place = self.place();
        let known =
            client.client.as_ref().map_err(|why| Failure::permanent(format!("{place}: no HTTP client: {why}")))?;
        if let Some(why) = client.no_certificates.as_ref().filter(|_| self.url.scheme() == "https") {
            return Err(Failure::permanent(format!(
                "{place}: the server's certificate cannot be checked: {why}; install the system's CA certificates, or \
                 name them in SSL_CERT_FILE"
            )));
        }
        let mut builder = known.request(self.method.clone(), self.url.clone()).headers(self.headers.clone());
        if let Some(body) = &self.body {
            builder = builder.body(body.clone());
        }
        builder.send().await.map_err(|error| broken(&place, &error))
    }

    /// Turns to where a redirect points, by the rules of RFC 9110, section 15.4.
    fn follow(&mut self, status: StatusCode, target: &str) -> Result<(), Failure> {
        let place = self.place();
        let unusable = || Failure::permanent(format!("{place}: {} points to no URL", status.as_u16()));
        let next = self.url.join(target).map_err(|_| unusable())?;
        if !matches!(next.scheme(), "http" | "https") {
            return Err(unusable());
        }
        if next.origin() != self.url.origin() {
            for name in &self.confined {
                self.headers.remove(name);
            }
        }
        let becomes_get = match status.as_u16() {
            303 => self.method != Method::HEAD,
            301 | 302 => self.method == Method::POST,
            _ => false,
        };
        if becomes_get {
            self.method = Method::GET;
            self.body = None;
            for name in
                [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::CONTENT_ENCODING, header::TRANSFER_ENCODING]
            {
                self.headers.remove(name);
            }
        }
        self.url = next;
        Ok(())
    }
}

fn url_of(text: &str) -> Result<Url, Failure> {
    // The text itself is not shown, for a text that is no URL may hold a password anywhere.
    let url = Url::parse(text).map_err(|error| Failure::permanent(format!("`url` is not a URL: {error}")))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(Failure::permanent(format!("`url` begins with `{other}:`; a request needs http or https"))),
    }
}

async fn outputs_of(place: &Place, response: Response, bytes_max: u64, redactor: &Redactor) -> Result<Value, Failure> {
    let status = response.status().as_u16();
    let headers = headers_of(response.headers(), redactor);
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(is_json_type);
    let body = read_body(place, response, bytes_max).await?;
    let body = redactor.bytes(&body);
    let text = String::from_utf8_lossy(&body);
    let body = if !is_json {
        Value::from(text)
    } else if text.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(text.trim_start_matches('\u{FEFF}')).map_err(|error| {
            Failure::permanent(format!("{place}: the response says that it is JSON, but it is not: {error}"))
        })?
    };
    Ok(json!({"status": status, "headers": headers, "body": body}))
}

/// Headers as a map whose names are in lower case; the values of one that comes again are joined by `, `.
fn headers_of(headers: &HeaderMap, redactor: &Redactor) -> Map<String, Value> {
    let mut map = Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        map.insert(name.as_str().to_owned(), Value::from(redactor.text(&values.join(", "))));
    }
    map
}

fn is_json_type(value: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
    let kind = text.split(';').next().unwrap_or_default().trim();
    matches!(kind, "application/json" | "text/json") || kind.ends_with("+json")
}

async fn read_body(place: &Place, mut response: Response, bytes_max: u64) -> Result<Vec<u8>, Failure> {
    let too_large = || {
        Failure::permanent(format!(
            "{place}: the response is larger than the limit of {bytes_max} bytes; `max_bytes` raises it"
        ))
    };
    if response.content_length().is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(place, &error))? {
        if body.len() as u64 + chunk.len() as u64 > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
