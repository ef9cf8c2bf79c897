//! The admin server: `GET /live`, `/ready`, `/status`, `/metrics`. Reads the run's [`Vitals`], changes nothing.
//!
//! - `/live`: 200 while the run makes progress or waits for something outside; 503 when it is stuck, so that
//!   whoever watches may restart it, which is always safe.
//! - `/ready`: 200 once every change up to the start of the stream is searchable, and while that holds.
//! - `/status`: the same as JSON. `/metrics`: the same for Prometheus.
//!
//! Listens on loopback unless told otherwise, and answers with names and numbers only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{debug, info};

use crate::bulk::obstacle::Cause;
use crate::elasticsearch::breaker::Circuit;
use crate::metrics;
use crate::run::vitals::{State, Vitals};

/// Connections at a time; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// A client that has not sent its request by then is gone.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that is kept open ends after this long at the latest.
const CONNECTION_LIFE_MAX: Duration = Duration::from_secs(300);

/// Where the server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Address and port.
    pub listen: SocketAddr,
    /// Whether it is another than the default: then one that is taken is an error, else the run does without.
    pub is_given: bool,
}

/// Binds the address and serves for as long as the process lives.
///
/// # Errors
/// The system refuses the address.
pub(crate) async fn start(
    listen: SocketAddr,
    vitals: watch::Receiver<Vitals>,
) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let bound = listener.local_addr()?;
    info!(%bound, "admin server: /live /ready /status /metrics");
    tokio::spawn(serve(listener, vitals));
    Ok(bound)
}

async fn serve(listener: TcpListener, vitals: watch::Receiver<Vitals>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: to ask again at once would only spin.
                debug!(%error, "the admin server cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let vitals = vitals.clone();
        tokio::spawn(async move {
            let served =
                tokio::time::timeout(CONNECTION_LIFE_MAX, connection(stream, &vitals)).await;
            if let Ok(Err(error)) = served {
                debug!(%error, "a connection to the admin server broke");
            }
            drop(place);
        });
    }
}

async fn connection(
    stream: TcpStream,
    vitals: &watch::Receiver<Vitals>,
) -> Result<(), hyper::Error> {
    let answer = service_fn(|request: Request<Incoming>| {
        let answer = answer(request.method(), request.uri().path(), &vitals.borrow());
        async move { Ok::<_, Infallible>(answer) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

fn answer(method: &Method, path: &str, vitals: &Vitals) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const JSON: &str = "application/json";
    if method != Method::GET {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".to_owned());
    }
    match path {
        "/live" => match vitals.trouble(Instant::now()) {
            None => response(StatusCode::OK, TEXT, format!("{}\n", vitals.state.name())),
            Some(trouble) => {
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{trouble}\n"))
            }
        },
        "/ready" => {
            let is_ready = vitals.state == State::Live && vitals.trouble(Instant::now()).is_none();
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(status, TEXT, readiness(vitals))
        }
        "/status" => response(StatusCode::OK, JSON, status(vitals)),
        "/metrics" => response(StatusCode::OK, TEXT, metrics::render(vitals)),
        _ => response(StatusCode::NOT_FOUND, TEXT, "/live /ready /status /metrics\n".to_owned()),
    }
}

/// Dead letters do not take the service away, and are told.
fn readiness(vitals: &Vitals) -> String {
    match vitals.dead_letters {
        0 => format!("{}\n", vitals.state.name()),
        letters => format!("{}, degraded: {letters} dead letters\n", vitals.state.name()),
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn status(vitals: &Vitals) -> String {
    let counters = vitals.counters;
    let status = json!({
        "state": vitals.state.name(),
        "cause": vitals.cause.map(Cause::name),
        "reason": vitals.reason,
        "circuit": vitals.circuit.name(),
        "circuit_open": vitals.circuit != Circuit::Closed,
        "dead_letters": vitals.dead_letters,
        "received_lsn": vitals.received.to_string(),
        "durable_lsn": vitals.durable.to_string(),
        "confirmed_lsn": vitals.confirmed.to_string(),
        "lag_bytes": vitals.lag_bytes(),
        "lag_seconds": vitals.lag_seconds,
        "bytes_in_flight": vitals.bytes_in_flight,
        "requests_in_flight": vitals.requests_in_flight,
        "rows": counters.rows,
        "transactions": counters.transactions,
        "applied": counters.applied,
        "superseded": counters.superseded,
        "dead_lettered": counters.dead_lettered,
        "reselected": counters.reselected,
        "reconnects": vitals.reconnects,
        "retained_wal_bytes": vitals.source.retained_wal_bytes,
        "safe_wal_bytes": vitals.source.safe_wal_bytes,
        "oldest_transaction": vitals.source.oldest_transaction.as_ref().map(|oldest| {
            json!({"who": oldest.who, "seconds": oldest.seconds})
        }),
    });
    format!("{status}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status_of(method: &Method, path: &str, state: State) -> u16 {
        let vitals = Vitals { state, ..Vitals::new() };
        answer(method, path, &vitals).status().as_u16()
    }

    #[test]
    fn ready_is_only_what_is_live_and_alive_all_that_moves_or_waits() {
        assert_eq!(status_of(&Method::GET, "/ready", State::Live), 200);
        for state in [State::Starting, State::Backfilling, State::CatchingUp, State::Backpressure] {
            assert_eq!(status_of(&Method::GET, "/ready", state), 503, "{state:?}");
            assert_eq!(status_of(&Method::GET, "/live", state), 200, "{state:?}");
        }
        assert_eq!(status_of(&Method::GET, "/live", State::Stuck), 503);
    }

    #[test]
    fn dead_letters_degrade_and_do_not_take_away() {
        let vitals = Vitals { state: State::Live, dead_letters: 2, ..Vitals::new() };
        assert_eq!(answer(&Method::GET, "/ready", &vitals).status(), 200);
        assert_eq!(readiness(&vitals), "live, degraded: 2 dead letters\n");
        assert!(status(&vitals).contains("\"dead_letters\":2"));
    }

    #[test]
    fn nothing_else_is_served() {
        assert_eq!(status_of(&Method::POST, "/live", State::Live), 405);
        assert_eq!(status_of(&Method::GET, "/", State::Live), 404);
        assert_eq!(status_of(&Method::GET, "/status", State::Live), 200);
    }
}
