//! A link of bytes between a client and one server, whose weather is made by the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

const READ_BYTES: usize = 64 * 1024;

/// How the link behaves, from now on, for every connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// New connections are accepted and closed at once.
    pub refuses: bool,
    /// Nothing moves, in either direction, and nothing is closed.
    pub stalled: bool,
    /// The same of the first connections only, up to this number of them.
    pub stalled_up_to: u64,
    /// Every piece waits this long before it is passed on.
    pub delay: Duration,
    /// Pieces are no longer than this.
    pub piece_bytes: Option<usize>,
    /// Every connection is cut once it has passed this many bytes from the server.
    pub cut_after_bytes: Option<u64>,
    cuts: u64,
}

impl Weather {
    /// Whether anything moves over the connection of that number.
    fn moves(&self, number: u64) -> bool {
        !self.stalled && number > self.stalled_up_to
    }
}

/// A running link; its connections end with it.
pub struct Link {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    cut: AtomicU64,
    downstream_bytes: AtomicU64,
}

impl Link {
    /// A link to 127.0.0.1:`port`.
    pub async fn to(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (weather, seen) = watch::channel(Weather::default());
        let counts = Arc::new(Counts::default());
        let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let accepting = tokio::spawn(accept(listener, upstream, seen, Arc::clone(&counts)));
        Ok(Self { address, weather, counts, accepting })
    }

    /// The same URL, by way of this link.
    pub fn url(&self, url: &str) -> Result<String> {
        let mut url = Url::parse(url)?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(self.address.port())).ok().context("a URL without a host")?;
        Ok(url.to_string())
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the weather.
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Back to fair weather.
    pub fn clear(&self) {
        self.set(|weather| *weather = Weather { cuts: weather.cuts, ..Weather::default() });
    }

    /// Cuts every connection that stands.
    pub fn cut(&self) {
        self.set(|weather| weather.cuts += 1);
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Connections that the link itself ended.
    pub fn cut_connections(&self) -> u64 {
        self.counts.cut.load(Ordering::Relaxed)
    }

    /// Bytes passed on from the server so far.
    pub fn downstream_bytes(&self) -> u64 {
        self.counts.downstream_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = counts.connections.fetch_add(1, Ordering::Relaxed) + 1;
        if weather.borrow().refuses {
            counts.cut.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        while connections.try_join_next().is_some() {}
        connections.spawn(connection(
            number,
            client,
            upstream,
            weather.clone(),
            Arc::clone(&counts),
        ));
    }
}

async fn connection(
    number: u64,
    client: TcpStream,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    // Either fails only for a socket that is gone, which the first read will tell.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let cuts = weather.borrow().cuts;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let up = pump(number, from_client, to_server, weather.clone(), None);
    let down = pump(number, from_server, to_client, weather.clone(), Some(&counts));
    let was_cut = tokio::select! {
        // One side's end ends both, as when the other process is gone.
        end = up => end == End::Cut,
        end = down => end == End::Cut,
        _ = weather.wait_for(|weather| weather.cuts != cuts) => true,
    };
    counts.cut.fetch_add(u64::from(was_cut), Ordering::Relaxed);
}

#[derive(PartialEq, Eq)]
enum End {
    Closed,
    Cut,
}

/// Moves bytes one way; `counts` are given for the direction from the server.
async fn pump(
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    counts: Option<&Counts>,
) -> End {
    let mut buffer = vec![0; READ_BYTES];
    let mut passed = 0;
    loop {
        if weather.wait_for(|weather| weather.moves(number)).await.is_err() {
            return End::Closed;
        }
        let now = weather.borrow().clone();
        let room = now.piece_bytes.unwrap_or(READ_BYTES).clamp(1, READ_BYTES);
        let Some(buffer) = buffer.get_mut(..room) else { return End::Closed };
        let read = match from.read(buffer).await {
            Ok(0) | Err(_) => return End::Closed,
            Ok(read) => read,
        };
        // The weather may have changed while nothing came.
        let now = match weather.wait_for(|weather| weather.moves(number)).await {
            Ok(now) => now.clone(),
            Err(_) => return End::Closed,
        };
        if !now.delay.is_zero() {
            tokio::time::sleep(now.delay).await;
        }
        let limit = counts.and(now.cut_after_bytes).map(|limit| limit.saturating_sub(passed));
        let allowed =
            limit.map_or(read, |left| usize::try_from(left).map_or(read, |n| n.min(read)));
        if to.write_all(buffer.get(..allowed).unwrap_or_default()).await.is_err() {
            return End::Closed;
        }
        if let Some(counts) = counts {
            let allowed = u64::try_from(allowed).unwrap_or(0);
            passed += allowed;
            counts.downstream_bytes.fetch_add(allowed, Ordering::Relaxed);
        }
        if allowed < read {
            return End::Cut;
        }
    }
}
