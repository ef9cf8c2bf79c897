//! A search cluster that accepts everything and keeps nothing but the state document: what is measured
//! against it is waldex, not a disk.
//!
//! HTTP/1.1 over blocking sockets, a thread a connection, no more of the API than waldex uses. Its threads
//! live as long as the bench.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

const READ_BUFFER_BYTES: usize = 256 << 10;

/// What a sink has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Items of bulks that were accepted.
    pub(crate) documents: u64,
    /// Bulks that were accepted.
    pub(crate) bulks: u64,
    /// When the first accepted bulk began to arrive.
    pub(crate) first: Option<Instant>,
    /// When the last one was answered.
    pub(crate) last: Option<Instant>,
}

impl Seen {
    /// Documents a second, from the first to the last.
    pub(crate) fn per_second(&self) -> Option<f64> {
        let seconds = self.last?.duration_since(self.first?).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        Some(self.documents as f64 / seconds)
    }
}

#[derive(Default)]
struct Shared {
    documents: AtomicU64,
    seen: Mutex<Seen>,
    /// Bulks are answered with 503 while set.
    refuses: AtomicBool,
    /// How long the "cluster" takes for a bulk.
    answer_delay: Duration,
    /// Which document was confirmed when, if that is asked for.
    confirmed: Option<Mutex<Vec<(u64, Instant)>>>,
    store: Mutex<Store>,
}

/// Indices and single documents, for the control calls.
#[derive(Default)]
struct Store {
    indices: BTreeMap<String, Value>,
    documents: BTreeMap<String, (u64, Value)>,
}

/// A running sink.
pub(crate) struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Sink {
    /// A sink that only counts.
    pub(crate) fn start() -> Result<Self> {
        Self::serve(Shared::default())
    }

    /// A sink that takes `answer_delay` for each bulk and remembers when it confirmed which document.
    pub(crate) fn with_clock(answer_delay: Duration) -> Result<Self> {
        let confirmed = Some(Mutex::default());
        Self::serve(Shared { answer_delay, confirmed, ..Shared::default() })
    }

    fn serve(shared: Shared) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(shared);
        let accepted = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&accepted);
                // A connection that breaks is waldex's to notice.
                std::thread::spawn(move || drop(converse(stream, &shared)));
            }
        });
        Ok(Self { address, shared })
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Counts from nothing again.
    pub(crate) fn forget(&self) {
        self.shared.documents.store(0, Ordering::Relaxed);
        *lock(&self.shared.seen) = Seen::default();
    }

    /// What it has seen so far.
    pub(crate) fn seen(&self) -> Seen {
        *lock(&self.shared.seen)
    }

    /// Documents so far, without a lock.
    pub(crate) fn documents(&self) -> u64 {
        self.shared.documents.load(Ordering::Relaxed)
    }

    /// Begins or ends an outage.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }

    /// The documents confirmed so far, by their numeric ids.
    pub(crate) fn confirmed(&self) -> Vec<(u64, Instant)> {
        self.shared.confirmed.as_ref().map(|all| lock(all).clone()).unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request's head.
struct Head {
    method: String,
    path: String,
    /// An external version, if the request has one.
    version: Option<u64>,
    content_length: usize,
}

fn converse(stream: TcpStream, shared: &Shared) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
    let (mut body, mut answer) = (Vec::new(), Vec::new());
    while let Some(head) = read_head(&mut reader)? {
        let began = Instant::now();
        body.resize(head.content_length, 0);
        reader.read_exact(&mut body)?;
        if head.path == "/_bulk" {
            take_bulk(shared, &body, began, &mut answer, &mut writer)?;
        } else {
            let (status, json) = control(&mut lock(&shared.store), &head, &body);
            respond(&mut writer, status, json.to_string().as_bytes())?;
        }
    }
    Ok(())
}

fn read_head(reader: &mut impl BufRead) -> Result<Option<Head>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let method = words.next().context("no method")?.to_owned();
    let target = words.next().context("no path")?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let version = query.split('&').find_map(|it| it.strip_prefix("version=")?.parse().ok());
    let path = path.to_owned();
    let mut content_length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", bytes)) => content_length = bytes.parse()?,
            Some(("transfer-encoding" | "expect" | "content-encoding", _)) => bail!("no {header}"),
            Some(_) => {}
            None => return Ok(Some(Head { method, path, version, content_length })),
        }
    }
}

fn respond(writer: &mut TcpStream, status: u16, body: &[u8]) -> Result<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    Ok(writer.write_all(&[head.as_bytes(), body].concat())?)
}

fn take_bulk(
    shared: &Shared,
    body: &[u8],
    began: Instant,
    answer: &mut Vec<u8>,
    writer: &mut TcpStream,
) -> Result<()> {
    if shared.refuses.load(Ordering::Relaxed) {
        return respond(writer, 503, br#"{"error":{"type":"refused_by_the_bench"}}"#);
    }
    answer.clear();
    answer.extend_from_slice(b"{\"items\":[");
    let mut ids = Vec::new();
    let mut items = 0;
    let mut rest = body;
    while let Some(action) = take_line(&mut rest)? {
        let is_index = action.starts_with(b"{\"index\"");
        answer.extend_from_slice(if is_index {
            b"{\"index\":{\"status\":201}},"
        } else {
            b"{\"delete\":{\"status\":200}},"
        });
        if is_index {
            take_line(&mut rest)?.context("an action without its document")?;
        }
        if shared.confirmed.is_some() {
            ids.extend(id_of(action));
        }
        items += 1;
    }
    answer.pop();
    answer.extend_from_slice(b"]}");
    if !shared.answer_delay.is_zero() {
        std::thread::sleep(shared.answer_delay);
    }
    respond(writer, 200, answer)?;
    let now = Instant::now();
    if let Some(confirmed) = &shared.confirmed {
        lock(confirmed).extend(ids.into_iter().map(|id| (id, now)));
    }
    shared.documents.fetch_add(items, Ordering::Relaxed);
    let mut seen = lock(&shared.seen);
    seen.documents += items;
    seen.bulks += 1;
    seen.first.get_or_insert(began);
    seen.last = Some(now);
    Ok(())
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    let all = *rest;
    let bytes = rest.skip_until(b'\n')?;
    Ok(all.get(..bytes).filter(|line| !line.is_empty()))
}

/// The number in `"_id":"number"`.
fn id_of(action: &[u8]) -> Option<u64> {
    let action = std::str::from_utf8(action).ok()?;
    let (_, rest) = action.split_once("\"_id\":\"")?;
    rest.split('"').next()?.parse().ok()
}

/// Control calls: indices are remembered by name, single documents with their sequence number.
fn control(store: &mut Store, head: &Head, body: &[u8]) -> (u16, Value) {
    let parts: Vec<&str> = head.path.trim_start_matches('/').split('/').collect();
    match (head.method.as_str(), parts.as_slice()) {
        ("PUT", [index, "_doc", id]) => {
            let source = serde_json::from_slice(body).unwrap_or_default();
            let document = store.documents.entry(format!("{index}/{id}")).or_default();
            if head.version.is_some_and(|version| version < document.0) {
                return (409, json!({"error": {"type": "version_conflict_engine_exception"}}));
            }
            *document = (head.version.unwrap_or(document.0 + 1), source);
            (200, json!({"_seq_no": document.0, "_primary_term": 1, "result": "updated"}))
        }
        ("GET", [index, "_doc", id]) => match store.documents.get(&format!("{index}/{id}")) {
            Some((seq_no, source)) => {
                let found = json!({"_seq_no": seq_no, "_primary_term": 1, "_source": source});
                (200, found)
            }
            None => (404, json!({"found": false})),
        },
        ("PUT", [index]) => {
            let created = serde_json::from_slice::<Value>(body).unwrap_or_default();
            let aliases = created.get("aliases").cloned().unwrap_or_default();
            store.indices.insert((*index).to_owned(), json!({ "aliases": aliases }));
            (200, json!({"acknowledged": true}))
        }
        ("GET", [index]) => {
            let prefix = format!("{}-", index.trim_end_matches("-*"));
            let found: serde_json::Map<String, Value> = (store.indices.iter())
                .filter(|(name, _)| name.starts_with(&prefix))
                .map(|(name, index)| (name.clone(), index.clone()))
                .collect();
            if found.is_empty() && !index.ends_with('*') {
                return (404, json!({"error": {"type": "index_not_found_exception"}}));
            }
            (200, Value::Object(found))
        }
        (_, [.., "_count"]) => (200, json!({"count": 0})),
        (_, [.., "_search" | "_refresh"]) => {
            let shards = json!({"total": 1, "successful": 1, "failed": 0});
            (200, json!({"timed_out": false, "_shards": shards, "hits": {"hits": []}}))
        }
        _ => (200, json!({"acknowledged": true})),
    }
}
