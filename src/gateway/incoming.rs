//! Connections, counted: so many are served, a few more are told that there are too many, the rest is closed at once.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// How many connections above the limit are kept open for as long as it takes to tell them.
const TOLD_MAX: usize = 32;
/// How long accepting rests after the system refused, for lack of files for example.
const REST: Duration = Duration::from_millis(100);

/// The connections of one gateway.
#[derive(Clone)]
pub(super) struct Limits {
    slots: Arc<Semaphore>,
    told: Arc<Semaphore>,
    max: usize,
}

impl Limits {
    pub(super) fn new(max: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(max)), told: Arc::new(Semaphore::new(TOLD_MAX)), max }
    }

    /// How many connections are served now.
    pub(super) fn active(&self) -> usize {
        self.max - self.slots.available_permits()
    }
}

/// What a request knows of its connection.
#[derive(Clone)]
pub(super) struct ConnectionInfo {
    limits: Limits,
    held: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
}

impl ConnectionInfo {
    /// Takes a slot if there is one; false while the gateway has its connections already.
    pub(super) fn is_served(&self) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = self.limits.slots.clone().try_acquire_owned().ok();
        }
        held.is_some()
    }

    /// How many connections the gateway serves at most.
    pub(super) fn max(&self) -> usize {
        self.limits.max
    }
}

/// A connection that can be closed from outside.
pub(super) struct Connection {
    stream: TcpStream,
    info: ConnectionInfo,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _told: Option<OwnedSemaphorePermit>,
}

impl Connected for Connection {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The connections of a listener, until the token ends them all.
pub(super) fn connections(
    listener: TcpListener,
    limits: Limits,
    close: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    futures::stream::unfold((listener, limits, close), async |(listener, limits, close)| {
        loop {
            // What goes wrong in accepting goes wrong for one connection, or passes.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            if let Some(connection) = admit(stream, &limits, &close) {
                return Some((Ok(connection), (listener, limits, close)));
            }
        }
    })
}

fn admit(stream: TcpStream, limits: &Limits, close: &CancellationToken) -> Option<Connection> {
    let info = ConnectionInfo { limits: limits.clone(), held: Arc::default() };
    let told = match info.is_served() {
        true => None,
        false => Some(limits.told.clone().try_acquire_owned().ok()?),
    };
    // Small messages go back and forth: none is held back to be sent with the next. Without it all is only slower.
    let _ = stream.set_nodelay(true);
    Some(Connection { stream, info, closed: Box::pin(close.clone().cancelled_owned()), _told: told })
}

/// The address that a listener has, for words.
pub(super) fn address_of(listener: &TcpListener) -> io::Result<SocketAddr> {
    listener.local_addr()
}
