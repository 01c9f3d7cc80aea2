//! Requests against a small server of the test's own.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Client, send};
use crate::dispatch::{Stop, StopSignal, stop_channel};
use crate::handler::WorkerContext;
use crate::task::{Body, ErrorClass, Failure, HttpRequest, Outcome, Part, Text};

/// A server whose answers are written by hand: the first line of a request chooses, `*` is for all others.
struct Server {
    address: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new(answers: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let answers: Vec<(String, Vec<u8>)> =
            answers.iter().map(|(line, answer)| ((*line).to_owned(), answer.to_vec())).collect();
        let kept = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answers.clone(), kept.clone()));
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, answers: Vec<(String, Vec<u8>)>, heard: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.unwrap_or(0);
        request.extend_from_slice(&piece[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            if count == 0 {
                return;
            }
            continue;
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if body.len() < length.unwrap_or(0) && count > 0 {
            continue;
        }
        heard.lock().unwrap().push(text.clone());
        let line = text.split(" HTTP/").next().unwrap();
        let answer = answers.iter().find(|(known, _)| known == line || known == "*");
        let answer = answer.map_or(&b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..], |(_, answer)| answer);
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
        return;
    }
}

fn context(env: &[(&str, &str)]) -> WorkerContext {
    let env: BTreeMap<String, String> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let context = WorkerContext::new(Path::new("/nowhere"), env, None);
    // A proxy of the machine that the tests run on has no part in them.
    assert!(context.client.set(Client::of(|| reqwest::Client::builder().no_proxy())).is_ok());
    context
}

fn request(method: &str, url: &str) -> HttpRequest {
    HttpRequest {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        query: Vec::new(),
        body: None,
        follow_redirects: true,
        max_bytes: 10_000_000,
    }
}

async fn outputs(request: &HttpRequest) -> Value {
    match send(request, &context(&[]), &mut StopSignal::never()).await {
        Outcome::Succeeded { outputs, .. } => (*outputs).clone(),
        other => panic!("{other:?}"),
    }
}

async fn failure(request: &HttpRequest) -> Failure {
    match send(request, &context(&[]), &mut StopSignal::never()).await {
        Outcome::Failed { failure, .. } => failure,
        other => panic!("{other:?}"),
    }
}

async fn check_failure(request: &HttpRequest, class: ErrorClass, words: &str) -> Failure {
    let failure = failure(request).await;
    assert_eq!(failure.class, class, "{failure:?}");
    assert!(failure.message.contains(words), "{failure:?}");
    failure
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// `{"zip": true}`, compressed.
const GZIP: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xab, 0x56, 0xaa, 0xca, 0x2c, 0x50, 0xb2, 0x52, 0x28,
    0x29, 0x2a, 0x4d, 0xad, 0x05, 0x00, 0x1b, 0xaa, 0x13, 0x7e, 0x0d, 0x00, 0x00, 0x00,
];

#[tokio::test]
async fn a_response_is_status_headers_and_body() {
    let headers = "Content-Type: application/json; charset=utf-8\r\nX-Two: a\r\nx-two: b\r\n";
    let tree = answer("200 OK", headers, r#"{"kind": "oak", "rings": 120}"#);
    let problem = answer("200 OK", "Content-Type: application/problem+json\r\n", "[1]");
    let words = answer("201 Created", "Content-Type: text/plain\r\n", "{\"plain\": 1}");
    let empty = answer("200 OK", "Content-Type: application/json\r\n", "");
    let odd = b"HTTP/1.1 200 OK\r\n\r\nbytes \xff\xfe".to_vec();
    let broken = answer("200 OK", "Content-Type: application/json\r\n", "{oops");
    let mut zipped = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        GZIP.len()
    )
    .into_bytes();
    zipped.extend_from_slice(GZIP);
    let server = Server::new(&[
        ("GET /tree", &tree),
        ("GET /problem", &problem),
        ("GET /words", &words),
        ("GET /empty", &empty),
        ("GET /odd", &odd),
        ("GET /broken", &broken),
        ("GET /zipped", &zipped),
    ])
    .await;
    let get = |path: &str| request("get", &format!("{}{path}", server.address));
    let got = outputs(&get("/tree")).await;
    assert_eq!((&got["status"], &got["body"]), (&json!(200), &json!({"kind": "oak", "rings": 120})));
    assert_eq!(got["headers"]["content-type"], "application/json; charset=utf-8");
    assert_eq!(got["headers"]["x-two"], "a, b");
    assert_eq!(outputs(&get("/problem")).await["body"], json!([1]));
    let got = outputs(&get("/words")).await;
    assert_eq!((&got["status"], &got["body"]), (&json!(201), &json!("{\"plain\": 1}")));
    assert_eq!(outputs(&get("/empty")).await["body"], Value::Null);
    assert_eq!(outputs(&get("/odd")).await["body"], "bytes \u{FFFD}\u{FFFD}");
    assert_eq!(outputs(&get("/zipped")).await["body"], json!({"zip": true}));
    check_failure(&get("/broken"), ErrorClass::Permanent, "says that it is JSON").await;
}

#[tokio::test]
async fn a_request_is_sent_as_it_is_told() {
    let server = Server::new(&[("*", &answer("200 OK", "", ""))]).await;
    let mut post = request("POST", &format!("{}/a?b=1", server.address));
    post.query = vec![("q".to_owned(), "a b&c".to_owned())];
    post.headers = vec![("X-Name".to_owned(), Text::plain("zażółć")), ("X-Name".to_owned(), Text::plain("two"))];
    post.body = Some(Body::Json(json!({"n": 1})));
    outputs(&post).await;
    let heard = server.heard().remove(0);
    assert!(heard.starts_with("POST /a?b=1&q=a+b%26c HTTP/1.1\r\n"), "{heard}");
    for line in [
        "x-name: zażółć\r\n",
        "x-name: two\r\n",
        "content-type: application/json\r\n",
        "user-agent: tol/",
        "\r\n\r\n{\"n\":1}",
    ] {
        assert!(heard.contains(line), "{line} in {heard}");
    }
    post.headers = vec![("Content-Type".to_owned(), Text::plain("application/vnd.oak+json"))];
    outputs(&post).await;
    assert!(server.heard()[1].contains("content-type: application/vnd.oak+json\r\n"));
    post.headers.clear();
    post.body = Some(Body::Text(Text::plain("words")));
    outputs(&post).await;
    let heard = server.heard().remove(2);
    assert!(heard.ends_with("\r\n\r\nwords") && !heard.contains("content-type"), "{heard}");
}

#[tokio::test]
async fn statuses_have_classes() {
    let server = Server::new(&[
        ("GET /404", &answer("404 Not Found", "Retry-After: 3\r\n", "there is nothing")),
        ("GET /408", &answer("408 Request Timeout", "", "")),
        ("GET /429", &answer("429 Too Many Requests", "Retry-After: 3\r\n", "slow down")),
        ("GET /503", &answer("503 Service Unavailable", "", &"long ".repeat(10_000))),
        ("GET /304", &answer("304 Not Modified", "", "")),
    ])
    .await;
    let get = |path: &str| request("GET", &format!("{}{path}", server.address));
    let (transient, permanent) = (ErrorClass::Transient, ErrorClass::Permanent);
    let failure = check_failure(&get("/404?token=x"), permanent, "404 Not Found").await;
    assert!(!failure.message.contains("token"), "{failure:?}");
    let failure = check_failure(&get("/404"), permanent, "/404: 404 Not Found: there is nothing").await;
    assert_eq!(failure.retry_after_ms, None);
    check_failure(&get("/408"), transient, "408").await;
    assert_eq!(check_failure(&get("/429"), transient, "429").await.retry_after_ms, Some(3000));
    assert!(check_failure(&get("/503"), transient, "503").await.message.len() < 400);
    check_failure(&get("/304"), permanent, "304").await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_permanent_and_what_breaks_is_transient() {
    let server = Server::new(&[
        ("GET /nothing", b""),
        ("GET /short", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfew"),
        ("GET /noise", b"\x00\x01\x02 no HTTP\r\n\r\n"),
    ])
    .await;
    let get = |path: &str| request("GET", &format!("{}{path}", server.address));
    let (transient, permanent) = (ErrorClass::Transient, ErrorClass::Permanent);
    check_failure(&get("/nothing"), transient, "/nothing").await;
    check_failure(&get("/short"), transient, "broke off").await;
    check_failure(&get("/noise"), transient, "/noise").await;
    check_failure(&request("GET", "http://127.0.0.1:1/x"), transient, "cannot connect").await;
    check_failure(&request("GET", "not a url"), permanent, "not a URL").await;
    check_failure(&request("GET", "ftp://example.com/"), permanent, "`ftp:`").await;
    check_failure(&request("G E T", &server.address), permanent, "`G E T`").await;
    let mut odd = get("/x");
    odd.headers = vec![("a b".to_owned(), Text::plain("c"))];
    check_failure(&odd, permanent, "`a b`").await;
    odd.headers = vec![("a".to_owned(), Text::plain("c\r\nd: e"))];
    check_failure(&odd, permanent, "`a`").await;
}

#[tokio::test]
async fn a_response_over_the_limit_is_refused_while_it_streams() {
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 2_000_000]].concat();
    let server = Server::new(&[
        ("GET /told", &answer("200 OK", "", &"x".repeat(101))),
        ("GET /exact", &answer("200 OK", "", &"x".repeat(100))),
        ("GET /endless", &endless),
    ])
    .await;
    let get = |path: &str| HttpRequest { max_bytes: 100, ..request("GET", &format!("{}{path}", server.address)) };
    check_failure(&get("/told"), ErrorClass::Permanent, "larger than the limit of 100 bytes").await;
    check_failure(&get("/endless"), ErrorClass::Permanent, "larger than the limit of 100 bytes").await;
    assert_eq!(outputs(&get("/exact")).await["body"].as_str().unwrap().len(), 100);
}

#[tokio::test]
async fn redirects_are_followed_so_far() {
    let to = |status: &str, target: &str| answer(status, &format!("Location: {target}\r\n"), "");
    let other = Server::new(&[("*", &answer("200 OK", "", "other"))]).await;
    let server = Server::new(&[
        ("GET /a", &to("302 Found", "/b?x=1")),
        ("GET /b?x=1", &answer("200 OK", "", "arrived")),
        ("GET /loop", &to("301 Moved Permanently", "/loop")),
        ("POST /see", &to("303 See Other", "b?x=1")),
        ("POST /same", &to("307 Temporary Redirect", &format!("{}/x", other.address))),
        ("GET /file", &to("302 Found", "file:///etc/passwd")),
        ("GET /bare", &answer("302 Found", "", "")),
    ])
    .await;
    let at = |method: &str, path: &str| request(method, &format!("{}{path}", server.address));
    assert_eq!(outputs(&at("GET", "/a")).await["body"], "arrived");
    check_failure(&at("GET", "/loop"), ErrorClass::Permanent, "more than 10 redirects").await;
    assert_eq!(server.heard().iter().filter(|heard| heard.starts_with("GET /loop")).count(), 11);
    check_failure(&HttpRequest { follow_redirects: false, ..at("GET", "/a") }, ErrorClass::Permanent, "302").await;
    check_failure(&at("GET", "/file"), ErrorClass::Permanent, "points to no URL").await;
    check_failure(&at("GET", "/bare"), ErrorClass::Permanent, "302").await;
    let body = Some(Body::Json(json!([1])));
    assert_eq!(outputs(&HttpRequest { body: body.clone(), ..at("POST", "/see") }).await["body"], "arrived");
    assert!(!server.heard().last().unwrap().contains("content-type"));
    assert_eq!(outputs(&HttpRequest { body, ..at("POST", "/same") }).await["body"], "other");
    assert!(other.heard()[0].starts_with("POST /x ") && other.heard()[0].ends_with("[1]"));
}

#[tokio::test]
async fn secrets_go_to_their_server_only_and_come_back_hidden() {
    let other = Server::new(&[("*", &answer("200 OK", "", "other"))]).await;
    let server = Server::new(&[
        ("GET /away", &answer("302 Found", &format!("Location: {}/x\r\n", other.address), "")),
        ("GET /near", &answer("302 Found", "Location: /echo\r\n", "")),
        (
            "GET /echo",
            &answer("200 OK", "X-Echo: hunter2secret\r\nContent-Type: application/json\r\n", "[\"is hunter2secret\"]"),
        ),
        ("GET /bad", &answer("400 Bad Request", "", "bad key hunter2secret")),
    ])
    .await;
    let context = context(&[("TOL_SECRET_KEY", "hunter2secret")]);
    let get = |path: &str| HttpRequest {
        headers: vec![
            ("X-Key".to_owned(), Text(vec![Part::Secret("KEY".to_owned())])),
            ("Authorization".to_owned(), Text::plain("Basic x")),
            ("X-Plain".to_owned(), Text::plain("p")),
        ],
        ..request("GET", &format!("{}{path}", server.address))
    };
    let never = &mut StopSignal::never();
    send(&get("/away"), &context, never).await;
    let heard = other.heard().remove(0);
    assert!(heard.contains("x-plain: p") && !heard.contains("hunter2") && !heard.contains("uthorization"), "{heard}");
    let Outcome::Succeeded { outputs, .. } = send(&get("/near"), &context, never).await else { panic!("it failed") };
    assert!(server.heard().last().unwrap().contains("x-key: hunter2secret"));
    assert_eq!((&outputs["headers"]["x-echo"], &outputs["body"]), (&json!("***"), &json!(["is ***"])));
    let Outcome::Failed { failure, .. } = send(&get("/bad"), &context, never).await else { panic!("it succeeded") };
    assert!(failure.message.ends_with("400 Bad Request: bad key ***"), "{failure:?}");
    let mut absent = get("/near");
    absent.headers = vec![("X-Key".to_owned(), Text(vec![Part::Secret("ABSENT".to_owned())]))];
    check_failure(&absent, ErrorClass::Permanent, "secret `ABSENT` is not set").await;
}

#[tokio::test]
async fn a_stop_ends_the_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (handle, mut signal) = stop_channel();
    let began = Instant::now();
    let work = tokio::spawn(async move { send(&request("GET", &url), &context(&[]), &mut signal).await });
    let _connection = listener.accept().await.unwrap();
    handle.stop(Stop::Graceful);
    assert_eq!(work.await.unwrap(), Outcome::Stopped);
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// A certificate for `localhost` that nobody signed but itself, and its key: good for this test and nothing else.
const CERTIFICATE: &str = "\
    MIIBnDCCAUKgAwIBAgIUWTzaPJ58kf2EhAognMncQE1Lco0wCgYIKoZIzj0EAwIwFjEUMBIGA1UEAwwLdGVzdCBvZiB0b2wwIBcN\
    MjYxMTIwMjAwMTIzWhgPMjEyNjEwMjcyMDAxMjNaMBYxFDASBgNVBAMMC3Rlc3Qgb2YgdG9sMFkwEwYHKoZIzj0CAQYIKoZIzj0D\
    AQcDQgAEh1WqIgMq9Aq00PSCA0TLGBAh4/882Mv+rWttTxu2TUKnw2tjGk3sNjRj5RCqUZ+2gPXRPy+2dz1YMS514rceIKNsMGow\
    HQYDVR0OBBYEFL2Ez/Hba40sNNeYcDbmcaK2d5LwMB8GA1UdIwQYMBaAFL2Ez/Hba40sNNeYcDbmcaK2d5LwMBoGA1UdEQQTMBGC\
    CWxvY2FsaG9zdIcEfwAAATAMBgNVHRMBAf8EAjAAMAoGCCqGSM49BAMCA0gAMEUCIHtrUxffAVi0vv5ajpPINUIqgrwX/4BObGS2\
    Q3gZmudlAiEAvTIH5xfm1KxEg1+Uj/i6U903Q/So2A0Y6rixSWJnCnI=";
const KEY: &str = "\
    MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgjsmY48imrfMEpRWiLxZkBIb7BHWkxNX11Cif5N8RuJShRANCAASH\
    VaoiAyr0CrTQ9IIDRMsYECHj/zzYy/6ta21PG7ZNQqfDa2MaTew2NGPlEKpRn7aA9dE/L7Z3PVgxLnXitx4g";

/// Answers one connection after another over TLS, with a certificate that no authority vouches for.
fn serve_tls() -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let pem = |kind: &str, body: &str| format!("-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n").into_bytes();
    let certificate = CertificateDer::from_pem_slice(&pem("CERTIFICATE", CERTIFICATE)).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem("PRIVATE KEY", KEY)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream);
            let mut request = [0; 1024];
            if std::io::Read::read(&mut tls, &mut request).is_ok() {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecure");
            }
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_must_be_vouched_for() {
    let url = serve_tls();
    check_failure(&request("GET", &url), ErrorClass::Permanent, "certificate").await;
    let context = WorkerContext::new(Path::new("/nowhere"), BTreeMap::new(), None);
    let trusting = Client::of(|| {
        let pem = format!("-----BEGIN CERTIFICATE-----\n{CERTIFICATE}\n-----END CERTIFICATE-----\n");
        reqwest::Client::builder().no_proxy().tls_certs_only([reqwest::Certificate::from_pem(pem.as_bytes()).unwrap()])
    });
    assert!(context.client.set(trusting).is_ok());
    match send(&request("GET", &url), &context, &mut StopSignal::never()).await {
        Outcome::Succeeded { outputs, .. } => assert_eq!(outputs["body"], "secure"),
        other => panic!("{other:?}"),
    }
}
