//! A proxy before a search node: a rule says for each request what becomes of it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::message::{Framing, Head, Reader, without};
use crate::support::servers::search_node::SearchNode;

/// Requests that are kept to be looked at or sent again.
const KEPT_MAX: usize = 1000;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out and answered.
    Pass,
    /// The same, but it reaches the server this much later.
    Delay(Duration),
    /// The connection is closed when only this much of the body has reached the server.
    CutRequest(usize),
    /// It is carried out; the connection is closed instead of an answer.
    LoseAnswer,
    /// It is carried out; the answer never comes, and the connection stays.
    Silence,
    /// The connection is closed at once, and the request is carried out this much later.
    Late(Duration),
    /// It is carried out and answered, and carried out once more this much later.
    Twice(Duration),
    /// The connection is closed after this much of the answer's body.
    CutAnswer(usize),
    /// The answer is made this long and looks whole.
    ShortenAnswer(usize),
    /// The answer comes in pieces of so many bytes, with a pause after each.
    Trickle(usize, Duration),
    /// It is not carried out; the proxy answers with this status and body.
    Answer(u16, &'static str),
    /// The same for a body that contains this text; any other request passes.
    AnswerIf(&'static str, u16, &'static str),
}

/// A request whose body is still to come.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counted from 0 over all requests.
    pub number: u64,
    pub method: String,
    /// With the query.
    pub path: String,
    /// Announced length of the body.
    pub body_bytes: usize,
}

impl Request {
    /// Whether it is a bulk.
    pub fn is_bulk(&self) -> bool {
        self.path.starts_with("/_bulk")
    }
}

/// A request that was kept, whole.
#[derive(Clone, Debug)]
pub struct Kept {
    pub request: Request,
    pub body: Vec<u8>,
    head: Vec<u8>,
}

type Rule = dyn FnMut(&Request) -> Fault + Send;
type Choice = dyn Fn(&Request) -> bool + Send;

struct Shared {
    upstream: SocketAddr,
    rule: Mutex<Box<Rule>>,
    keeps: Mutex<Box<Choice>>,
    kept: Mutex<Vec<Kept>>,
    requests: AtomicU64,
    faults: AtomicU64,
    late: AtomicU64,
}

/// A running proxy; its connections end with it.
pub struct SearchProxy {
    node: SearchNode,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl SearchProxy {
    /// A proxy before `node` that passes everything on.
    pub async fn before(node: &SearchNode) -> Result<Self> {
        let port = node.url.port_or_known_default().context("no port")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut url = node.url.clone();
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(listener.local_addr()?.port())).ok().context("a URL without a host")?;
        let mut given = SearchNode::given(node.flavour, url.as_str())?;
        given.credentials.clone_from(&node.credentials);
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            rule: Mutex::new(Box::new(|_| Fault::Pass)),
            keeps: Mutex::new(Box::new(|_| false)),
            kept: Mutex::new(Vec::new()),
            requests: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            late: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { node: given, shared, accepting })
    }

    /// The node, by way of this proxy.
    pub fn node(&self) -> &SearchNode {
        &self.node
    }

    /// What becomes of each request from now on.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Fault + Send + 'static) {
        *lock(&self.shared.rule) = Box::new(rule);
    }

    /// Everything passes from now on.
    pub fn clear(&self) {
        self.rule(|_| Fault::Pass);
    }

    /// Keeps a copy of these requests from now on, up to a limit.
    pub fn keep(&self, keeps: impl Fn(&Request) -> bool + Send + 'static) {
        *lock(&self.shared.keeps) = Box::new(keeps);
    }

    /// What was kept so far.
    pub fn kept(&self) -> Vec<Kept> {
        lock(&self.shared.kept).clone()
    }

    /// Sends a kept request to the server once more; the status and body of the answer.
    pub async fn replay(&self, kept: &Kept) -> Result<(u16, Vec<u8>)> {
        let (head, body) = answer_to(&self.shared, kept).await?;
        let status = head.start_line().get(1).and_then(|status| status.parse().ok());
        Ok((status.context("an answer without a status")?, body))
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Requests so far that the server took only after their connection was closed, or once more.
    pub fn late(&self) -> u64 {
        self.shared.late.load(Ordering::Relaxed)
    }

    /// Requests so far that did not simply pass.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }
}

impl Drop for SearchProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let _ = client.set_nodelay(true);
        let shared = Arc::clone(&shared);
        // An error here is an end: either side went away, or a fault was asked for.
        connections.spawn(async move { drop(serve(client, &shared).await) });
    }
}

struct Server {
    answers: Reader<OwnedReadHalf>,
    requests: OwnedWriteHalf,
}

impl Server {
    async fn connect(upstream: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(upstream).await?;
        stream.set_nodelay(true)?;
        let (answers, requests) = stream.into_split();
        Ok(Self { answers: Reader::new(answers), requests })
    }

    async fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.requests.write_all(&[head, body].concat()).await
    }

    async fn answer(&mut self, is_answer_to_head: bool) -> io::Result<(Head, Vec<u8>)> {
        let head =
            self.answers.head(is_answer_to_head).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let body = self.answers.body(head.framing).await?;
        Ok((head, body))
    }
}

async fn serve(client: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = Reader::new(from_client);
    let mut server = Server::connect(shared.upstream).await?;
    while let Some(head) = from_client.head(false).await? {
        let request = describe(&head, shared);
        let fault = (lock(&shared.rule))(&request);
        shared.faults.fetch_add(u64::from(fault != Fault::Pass), Ordering::Relaxed);
        if let Fault::CutRequest(bytes) = fault {
            let part = from_client.take(bytes.min(request.body_bytes.saturating_sub(1))).await?;
            return server.send(&head.bytes, &part).await;
        }
        let body = from_client.body(head.framing).await?;
        let kept = Kept { request, head: head.before(&body), body };
        keep(shared, &kept);
        match fault {
            Fault::Answer(status, text) => {
                to_client.write_all(&own_answer(status, text)).await?;
                continue;
            }
            Fault::AnswerIf(part, status, text) if contains(&kept.body, part) => {
                to_client.write_all(&own_answer(status, text)).await?;
                continue;
            }
            Fault::Late(after) => {
                tokio::spawn(carry_out(Arc::clone(shared), after, kept));
                return Ok(());
            }
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            Fault::Pass
            | Fault::AnswerIf(..)
            | Fault::CutRequest(_)
            | Fault::LoseAnswer
            | Fault::Silence
            | Fault::Twice(_)
            | Fault::CutAnswer(_)
            | Fault::ShortenAnswer(_)
            | Fault::Trickle(..) => {}
        }
        server.send(&kept.head, &kept.body).await?;
        let (head, body) = server.answer(kept.request.method == "HEAD").await?;
        if let Fault::Twice(after) = fault {
            tokio::spawn(carry_out(Arc::clone(shared), after, kept));
        }
        if !give(&mut to_client, &head, &body, &fault).await? {
            return Ok(());
        }
    }
    Ok(())
}

fn describe(head: &Head, shared: &Shared) -> Request {
    let line = head.start_line();
    let word = |at: usize| line.get(at).cloned().unwrap_or_default();
    let body_bytes = match head.framing {
        Framing::Length(length) => length,
        Framing::Chunked => usize::MAX,
    };
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    Request { number, method: word(0), path: word(1), body_bytes }
}

fn keep(shared: &Shared, request: &Kept) {
    if !(lock(&shared.keeps))(&request.request) {
        return;
    }
    let mut kept = lock(&shared.kept);
    if kept.len() < KEPT_MAX {
        kept.push(request.clone());
    }
}

/// Gives the answer to the client; whether the connection goes on.
async fn give(
    to_client: &mut OwnedWriteHalf,
    head: &Head,
    body: &[u8],
    fault: &Fault,
) -> io::Result<bool> {
    let part =
        |bytes: usize| body.get(..bytes.min(body.len().saturating_sub(1))).unwrap_or_default();
    let whole = head.before(body);
    match fault {
        Fault::Pass | Fault::Delay(_) | Fault::Twice(_) | Fault::AnswerIf(..) => {
            to_client.write_all(&[&whole, body].concat()).await?;
            Ok(true)
        }
        Fault::LoseAnswer | Fault::Late(_) | Fault::CutRequest(_) | Fault::Answer(..) => Ok(false),
        Fault::Silence => std::future::pending().await,
        Fault::CutAnswer(bytes) => {
            to_client.write_all(&[&whole, part(*bytes)].concat()).await?;
            Ok(false)
        }
        Fault::ShortenAnswer(bytes) => {
            let part = part(*bytes);
            to_client.write_all(&[&head.with_length(part.len()), part].concat()).await?;
            Ok(true)
        }
        Fault::Trickle(bytes, pause) => {
            for piece in [&whole, body].concat().chunks((*bytes).max(1)) {
                to_client.write_all(piece).await?;
                tokio::time::sleep(*pause).await;
            }
            Ok(true)
        }
    }
}

/// Sends a request nobody waits for any more, until the server has taken it.
async fn carry_out(shared: Arc<Shared>, after: Duration, request: Kept) {
    tokio::time::sleep(after).await;
    if answer_to(&shared, &request).await.is_ok() {
        shared.late.fetch_add(1, Ordering::Relaxed);
    }
}

async fn answer_to(shared: &Shared, request: &Kept) -> io::Result<(Head, Vec<u8>)> {
    let mut server = Server::connect(shared.upstream).await?;
    // Nobody unpacks this answer.
    let head = without(&request.head, &["accept-encoding"]);
    server.send(&head, &request.body).await?;
    server.answer(request.request.method == "HEAD").await
}

fn contains(body: &[u8], part: &str) -> bool {
    body.windows(part.len().max(1)).any(|window| window == part.as_bytes())
}

fn own_answer(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} By-The-Proxy\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
