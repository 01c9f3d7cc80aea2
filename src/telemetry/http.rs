//! The three pages: `/metrics`, `/healthz`, `/readyz`.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::telemetry::Exposition;

/// What a process has to tell.
pub trait Telling: Send + Sync + 'static {
    /// Its figures of now.
    fn figures(&self, page: &mut Exposition);

    /// Whether it takes work.
    ///
    /// # Errors
    /// What it waits for.
    fn ready(&self) -> Result<(), String>;
}

/// Answers until `end` comes. The pages hold no secret and need no token; who binds them to a public address decides
/// who may read them.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    telling: Arc<dyn Telling>,
    end: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(telling);
    axum::serve(listener, pages).with_graceful_shutdown(end).await
}

async fn metrics(State(telling): State<Arc<dyn Telling>>) -> Response {
    let mut page = Exposition::new();
    telling.figures(&mut page);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.into_text()).into_response()
}

async fn ready(State(telling): State<Arc<dyn Telling>>) -> Response {
    match telling.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Process(AtomicBool);

    impl Telling for Process {
        fn figures(&self, page: &mut Exposition) {
            page.counter("tol_x_total", "x", 1);
        }

        fn ready(&self) -> Result<(), String> {
            if self.0.load(Ordering::Relaxed) { Ok(()) } else { Err("the journal is not open yet".to_owned()) }
        }
    }

    async fn page(at: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn the_pages_tell_what_is_so() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let process = Arc::new(Process(AtomicBool::new(false)));
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, process.clone(), async move { ended.await.unwrap_or_default() }));
        assert!(page(at, "/metrics").await.contains("\ntol_x_total 1\n"));
        assert!(page(at, "/healthz").await.starts_with("HTTP/1.1 200"));
        let unready = page(at, "/readyz").await;
        assert!(unready.starts_with("HTTP/1.1 503") && unready.contains("not open yet"), "{unready}");
        process.0.store(true, Ordering::Relaxed);
        assert!(page(at, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(page(at, "/other").await.starts_with("HTTP/1.1 404"));
        end.send(()).unwrap();
        serving.await.unwrap().unwrap();
    }
}
