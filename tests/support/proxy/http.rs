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

use super::items::{self, Item};
use super::message::{Framing, Head, Reader, contains, own_answer, without};
pub use super::request::{Fault, Kept, Request, Step};
use crate::support::servers::search_node::SearchNode;

/// Requests that are kept to be looked at or sent again.
const KEPT_MAX: usize = 1000;

type Rule = dyn FnMut(&Request) -> Fault + Send;
type ItemRule = dyn FnMut(&Item<'_>) -> Option<(u16, &'static str)> + Send;
type Observer = dyn Fn(Step<'_>) + Send + Sync;
type Choice = dyn Fn(&Request) -> bool + Send;

pub(super) struct Shared {
    upstream: SocketAddr,
    rule: Mutex<Box<Rule>>,
    pub(super) item_rule: Mutex<Box<ItemRule>>,
    keeps: Mutex<Box<Choice>>,
    kept: Mutex<Vec<Kept>>,
    requests: AtomicU64,
    faults: AtomicU64,
    late: AtomicU64,
    /// Requests to be sent late or once more, or held back.
    waiting: AtomicU64,
    /// Late requests of an earlier era are not sent any more.
    era: AtomicU64,
    observer: Mutex<Option<Arc<Observer>>>,
    in_flight: AtomicU64,
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
            item_rule: Mutex::new(Box::new(|_| None)),
            keeps: Mutex::new(Box::new(|_| false)),
            kept: Mutex::new(Vec::new()),
            requests: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            late: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            era: AtomicU64::new(0),
            observer: Mutex::new(None),
            in_flight: AtomicU64::new(0),
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

    /// What becomes of each item of a request that [`Fault::Items`] is given for, from now on: none passes it on,
    /// else it is answered with this status and error, as JSON.
    pub fn item_rule(
        &self,
        rule: impl FnMut(&Item<'_>) -> Option<(u16, &'static str)> + Send + 'static,
    ) {
        *lock(&self.shared.item_rule) = Box::new(rule);
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

    /// Requests that are still to be sent late or once more, or held back.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Forgets them: their connections went with the server.
    pub fn forget_waiting(&self) {
        self.shared.era.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells `observer` of every request that the server gets, from now on.
    pub fn observe(&self, observer: impl Fn(Step<'_>) + Send + Sync + 'static) {
        *lock(&self.shared.observer) = Some(Arc::new(observer));
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

pub(super) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
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

pub(super) struct Server {
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

    pub(super) async fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.requests.write_all(&[head, body].concat()).await
    }

    pub(super) async fn answer(&mut self, is_answer_to_head: bool) -> io::Result<(Head, Vec<u8>)> {
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
        let _counted = InFlight::count(shared);
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
                to_client.write_all(&own_answer(status, None, text)).await?;
                continue;
            }
            Fault::AnswerLater(status, seconds, text) => {
                to_client.write_all(&own_answer(status, Some(seconds), text)).await?;
                continue;
            }
            Fault::AnswerIf(part, status, text) if contains(&kept.body, part) => {
                to_client.write_all(&own_answer(status, None, text)).await?;
                continue;
            }
            Fault::Items => {
                let answer = items::answer_to_items(shared, &kept, &mut server).await?;
                to_client.write_all(&own_answer(200, None, &answer)).await?;
                continue;
            }
            Fault::Late(after) => {
                let way = OnItsWay::begin(shared, &kept);
                tokio::spawn(carry_out(way, after, kept));
                return Ok(());
            }
            Fault::Delay(delay) => {
                shared.waiting.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(delay).await;
            }
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
        let way = OnItsWay::begin(shared, &kept);
        let sent = server.send(&kept.head, &kept.body).await;
        let answer = server.answer(kept.request.method == "HEAD").await;
        shared.waiting.fetch_sub(u64::from(matches!(fault, Fault::Delay(_))), Ordering::Relaxed);
        let ((), (head, body)) = (sent?, answer?);
        if let Fault::Twice(after) = fault {
            tokio::spawn(carry_out(way, after, kept));
        } else {
            drop(way);
        }
        if !give(&mut to_client, &head, &body, &fault).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// A request, until it is answered or given up.
struct InFlight(Arc<Shared>);

impl InFlight {
    fn count(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn describe(head: &Head, shared: &Shared) -> Request {
    let line = head.start_line();
    let word = |at: usize| line.get(at).cloned().unwrap_or_default();
    let body_bytes = match head.framing {
        Framing::Length(length) => length,
        Framing::Chunked => usize::MAX,
    };
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    Request {
        number,
        method: word(0),
        path: word(1),
        body_bytes,
        in_flight: shared.in_flight.load(Ordering::Relaxed),
        authorization: head.header("authorization"),
    }
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
        Fault::LoseAnswer
        | Fault::Late(_)
        | Fault::CutRequest(_)
        | Fault::Answer(..)
        | Fault::AnswerLater(..)
        | Fault::Items => Ok(false),
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

/// A request that the server may carry out, for as long as this lives.
struct OnItsWay {
    shared: Arc<Shared>,
    number: u64,
}

impl OnItsWay {
    fn begin(shared: &Arc<Shared>, request: &Kept) -> Self {
        let way = Self { shared: Arc::clone(shared), number: request.request.number };
        way.tell(Step::Begins(request));
        way
    }

    fn tell(&self, step: Step<'_>) {
        let observer = lock(&self.shared.observer).clone();
        if let Some(observer) = observer {
            observer(step);
        }
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.tell(Step::Ends(self.number));
    }
}

/// Sends a request nobody waits for any more, until the server has taken it.
async fn carry_out(way: OnItsWay, after: Duration, request: Kept) {
    let shared = &way.shared;
    let era = shared.era.load(Ordering::Relaxed);
    shared.waiting.fetch_add(1, Ordering::Relaxed);
    tokio::time::sleep(after).await;
    let is_of_now = shared.era.load(Ordering::Relaxed) == era;
    if is_of_now && answer_to(shared, &request).await.is_ok() {
        shared.late.fetch_add(1, Ordering::Relaxed);
    }
    shared.waiting.fetch_sub(1, Ordering::Relaxed);
}

async fn answer_to(shared: &Shared, request: &Kept) -> io::Result<(Head, Vec<u8>)> {
    let mut server = Server::connect(shared.upstream).await?;
    // Nobody unpacks this answer.
    let head = without(&request.head, &["accept-encoding"]);
    server.send(&head, &request.body).await?;
    server.answer(request.request.method == "HEAD").await
}
