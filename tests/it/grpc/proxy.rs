//! A TCP proxy that can be made to lose everything, or to cut its connections.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Passes,
    /// Holds what comes back, and passes it on when it passes again; connections stay open.
    Stalls,
    /// Takes what comes and passes nothing on; connections stay open.
    Swallows,
    /// Ends connections, old and new.
    Cuts,
}

pub struct Proxy {
    pub address: SocketAddr,
    mood: watch::Sender<Mood>,
}

impl Proxy {
    pub async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mood, moods) = watch::channel(Mood::Passes);
        tokio::spawn(async move {
            loop {
                let Ok((from, _)) = listener.accept().await else { return };
                if *moods.borrow() == Mood::Cuts {
                    continue;
                }
                let moods = moods.clone();
                tokio::spawn(async move {
                    let Ok(to) = TcpStream::connect(to).await else { return };
                    let (from_read, from_write) = from.into_split();
                    let (to_read, to_write) = to.into_split();
                    tokio::select! {
                        () = pass(from_read, to_write, moods.clone(), false) => {}
                        () = pass(to_read, from_write, moods, true) => {}
                    }
                });
            }
        });
        Self { address, mood }
    }

    pub fn set(self: &Arc<Self>, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut moods: watch::Receiver<Mood>,
    stalls: bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let mood = *moods.borrow_and_update();
        if mood == Mood::Cuts {
            return;
        }
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(count) if count > 0 => {
                    if stalls && moods.wait_for(|mood| *mood != Mood::Stalls).await.is_err() {
                        return;
                    }
                    if *moods.borrow() == Mood::Passes && to.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
            changed = moods.changed() => if changed.is_err() {
                return;
            },
        }
    }
}
