//! A node that says what it is told to, for tests of calls: answers in turn, whatever is asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::client::Client;
use crate::settings::{CircuitBreakerSettings, ElasticsearchSettings, SearchCredentials};

/// What a proxy says whose backend is away.
pub(super) const SORRY_PAGE: (u16, &str) = (200, "<html>Sorry, we are under maintenance.</html>");
/// What an ingress says that has no such route.
pub(super) const NO_ROUTE: (u16, &str) = (404, "404 page not found");

/// The node; it is gone when this is dropped.
pub(super) struct Fake {
    pub(super) client: Client,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl Fake {
    /// A node that answers so, one request after the other; the last answer again and again.
    pub(super) async fn answering(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let answers = answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let serving = tokio::spawn(serve(listener, answers, Arc::clone(&asked)));
        Self { client: Client::new(&settings(&address)).unwrap(), asked, serving }
    }

    fn requests(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Method and path of each request so far.
    pub(super) fn asked(&self) -> Vec<String> {
        let line = |request: String| request.split(" HTTP/").next().unwrap_or_default().to_owned();
        self.requests().into_iter().map(line).collect()
    }

    /// Its body.
    pub(super) fn bodies(&self) -> Vec<String> {
        let body =
            |request: String| request.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned();
        self.requests().into_iter().map(body).collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, answers: Vec<(u16, String)>, asked: Arc<Mutex<Vec<String>>>) {
    let mut answers = answers.into_iter();
    let mut now = answers.next().unwrap();
    while let Ok((mut stream, _)) = listener.accept().await {
        let request = read(&mut stream).await;
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let (status, body) = &now;
        let head =
            format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}", body.len());
        let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
        now = answers.next().unwrap_or(now);
    }
}

/// A request with its body.
async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|it| it.lines().next());
            let length: usize = length.and_then(|it| it.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return String::new();
        }
    }
}

fn settings(address: &str) -> ElasticsearchSettings {
    ElasticsearchSettings {
        addresses: vec![address.parse().unwrap()],
        credentials: SearchCredentials::None,
        secret_file: None,
        ca_file: None,
        bulk_size: 1,
        bulk_bytes: 1,
        flush_interval: Duration::ZERO,
        concurrency: 1,
        request_timeout: Duration::from_secs(5),
        max_retries: 1,
        circuit_breaker: CircuitBreakerSettings {
            min_requests: 1,
            failure_ratio: 1.0,
            interval: Duration::from_secs(1),
            open_for: Duration::from_secs(1),
        },
        compression: false,
    }
}
