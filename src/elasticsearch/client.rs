//! One HTTP call to the search cluster, over the nodes, credentials and TLS of the `elasticsearch` crate.
//!
//! The typed APIs of that crate send what Elasticsearch 9 understands; here its transport is used, with
//! plain `application/json`, because OpenSearch refuses the versioned media types.

use std::time::{Duration, Instant};

use bytes::Bytes;
use elasticsearch::http::Method;
use elasticsearch::http::headers::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::de::IgnoredAny;
use serde_json::Value;

use super::access::Access;
use crate::bulk::answer::error_name;
use crate::settings::ElasticsearchSettings;

/// Answers to control calls above this are not ours.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A client of one cluster; clones share its connections.
#[derive(Clone)]
pub struct Client {
    access: Access,
    addresses: String,
}

/// What a node answered, whatever the status. Not `Debug`: documents and errors quote column values.
#[derive(Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body as it came.
    pub body: Bytes,
    /// `Retry-After`, in seconds.
    pub retry_after_seconds: Option<u64>,
}

impl Answer {
    /// Whether the status is a success.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The error's type, as the server names it; [`NO_KIND`] if it names none.
    pub fn error_kind(&self) -> String {
        let json = self.json();
        let kind = json.pointer("/error/type").or_else(|| json.pointer("/error"));
        let kind = kind.and_then(Value::as_str).and_then(error_name);
        kind.unwrap_or(NO_KIND).to_owned()
    }

    /// Whether the cluster says that the document, index or alias is not there. A 404 alone may be of anything
    /// that stands before it.
    pub fn is_missing(&self) -> bool {
        if self.status != 404 {
            return false;
        }
        let json = self.json();
        let of_document = json.get("found") == Some(&Value::Bool(false))
            || json.get("result").and_then(Value::as_str) == Some("not_found");
        // As every version says it of an alias, without a type (seen: Elasticsearch 9.5, OpenSearch 2.19).
        let error = json.get("error").and_then(Value::as_str);
        let of_alias =
            error.is_some_and(|it| it.starts_with("alias [") || it.starts_with("aliases ["));
        let of_index = ["index_not_found_exception", "aliases_not_found_exception"];
        of_document || of_alias || of_index.contains(&self.error_kind().as_str())
    }

    /// Whether the cluster says that what was asked for is done. Anything else may still be, or was never heard.
    pub fn is_acknowledged(&self) -> bool {
        self.is_success() && self.json().get("acknowledged") == Some(&Value::Bool(true))
    }

    /// Whether the cluster has begun to do it, and not every node has said in time that it is done.
    pub fn is_slow(&self) -> bool {
        self.is_success() && self.json().get("acknowledged") == Some(&Value::Bool(false))
    }
}

/// In the place of an error's type: whoever answers so is hardly the cluster.
pub const NO_KIND: &str = "no error type given";

/// No answer came. Unless the connection was refused, the request may have been carried out in part.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection to the node.
    #[error("cannot connect to {addresses}: {reason}")]
    NotConnected {
        /// The configured addresses.
        addresses: String,
        /// What the HTTP client said, innermost cause last.
        reason: String,
    },
    /// The connection broke before the whole answer was there.
    #[error("the connection to {addresses} broke: {reason}")]
    Broken {
        /// The configured addresses.
        addresses: String,
        /// What the HTTP client said, innermost cause last.
        reason: String,
    },
    /// Connected, but the answer never came, or not whole.
    #[error("no answer from {addresses}: {reason}")]
    NoAnswer {
        /// The configured addresses.
        addresses: String,
        /// What the HTTP client said, innermost cause last.
        reason: String,
    },
    /// An answer longer than anything we ask for.
    #[error("an answer of {bytes} bytes, over the limit of {ANSWER_BYTES_MAX}")]
    AnswerTooLarge {
        /// Its announced length.
        bytes: u64,
    },
}

/// The client cannot be built from these settings.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The authority's file.
    #[error("elasticsearch.ca_file \"{path}\": {reason}")]
    CaFile {
        /// As configured.
        path: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The HTTP client.
    #[error("the HTTP client cannot be built: {0}")]
    Build(String),
}

impl Client {
    /// A client of the configured nodes, asked in turn. Nothing is sent yet.
    pub fn new(settings: &ElasticsearchSettings) -> Result<Self, ClientError> {
        let addresses: Vec<&str> = settings.addresses.iter().map(url::Url::as_str).collect();
        Ok(Self { access: Access::new(settings)?, addresses: addresses.join(", ") })
    }

    /// Reads the file of the password or API key again, for all clones. Whether there is one to use now.
    pub async fn reread_secret(&self) -> bool {
        self.access.reread_secret().await
    }

    /// Limit of one request.
    pub fn request_timeout(&self) -> Duration {
        self.access.settings().request_timeout
    }

    /// One call with a JSON body. A success that is no JSON is the page of something in between, and no answer.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, CallError> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let answer = self.send(method, path, query, body, "application/json").await?;
        let is_json = || serde_json::from_slice::<IgnoredAny>(&answer.body).is_ok();
        if answer.is_success() && !is_json() {
            return Err(self.not_of_the_cluster(&answer));
        }
        Ok(answer)
    }

    /// What an answer is taken for that cannot be the cluster's: the request may have been carried out or not.
    pub(super) fn not_of_the_cluster(&self, answer: &Answer) -> CallError {
        let reason = format!("status {}, and not what the cluster says", answer.status);
        CallError::NoAnswer { addresses: self.addresses.clone(), reason }
    }

    /// One call with a body of newline-delimited JSON.
    pub async fn bulk(&self, query: &[(&str, &str)], body: Bytes) -> Result<Answer, CallError> {
        self.send(Method::Post, "/_bulk", query, Some(body), "application/x-ndjson").await
    }

    /// What is refused for our credentials, or not sent for want of trust, is sent once more if the files of
    /// these were replaced since: whoever rotates them need not restart anything.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        content_type: &'static str,
    ) -> Result<Answer, CallError> {
        // Of all attempts together: the lease is counted on to outlive the call.
        let over = Instant::now() + self.request_timeout();
        let send =
            async |body| self.send_to_nodes(method, path, query, body, content_type, over).await;
        let before = self.access.renewals();
        let sent = send(body.clone()).await;
        match &sent {
            Ok(Answer { status: 401, .. }) => {
                self.access.reread_secret().await;
            }
            Err(CallError::NotConnected { .. }) => self.access.reread_authority().await,
            Ok(_) | Err(_) => return sent,
        }
        // By this request or by one beside it.
        if self.access.renewals() == before {
            return sent;
        }
        send(body).await
    }

    /// A node that cannot be reached has not got the request, so the next one is asked at once, as many times
    /// as there are nodes: what takes several calls in a row would never come through beside a dead one.
    async fn send_to_nodes(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        content_type: &'static str,
        over: Instant,
    ) -> Result<Answer, CallError> {
        let rest = || over.saturating_duration_since(Instant::now());
        for _ in 1..self.access.settings().addresses.len() {
            let sent =
                self.send_once(method, path, query, body.clone(), content_type, rest()).await;
            if !matches!(sent, Err(CallError::NotConnected { .. })) || rest().is_zero() {
                return sent;
            }
        }
        self.send_once(method, path, query, body, content_type, rest()).await
    }

    async fn send_once(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Bytes>,
        content_type: &'static str,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let transport = self.access.transport();
        let sent = transport.send(method, path, headers, Some(query), body, Some(timeout));
        let response = sent.await.map_err(|error| self.unanswered(&error))?;
        let status = response.status_code().as_u16();
        let retry_after_seconds = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.parse().ok());
        if let Some(bytes) = response.content_length().filter(|&bytes| bytes > ANSWER_BYTES_MAX) {
            return Err(CallError::AnswerTooLarge { bytes });
        }
        let body = response.bytes().await.map_err(|error| self.unanswered(&error))?;
        Ok(Answer { status, body, retry_after_seconds })
    }

    fn unanswered(&self, error: &elasticsearch::Error) -> CallError {
        let addresses = self.addresses.clone();
        let reason = innermost(error);
        // The crate hides reqwest's own classification; a connection that never stood (refused, no address, a
        // certificate that is not trusted) is the one case in which the request is known not to have been sent.
        let refused = chain(error).any(|cause| {
            cause
                .downcast_ref::<std::io::Error>()
                .is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
        });
        let text = full(error);
        if refused || text.contains(NEVER_CONNECTED) {
            CallError::NotConnected { addresses, reason }
        } else if BROKEN.iter().any(|words| text.contains(words)) || chain(error).any(is_broken) {
            CallError::Broken { addresses, reason }
        } else {
            CallError::NoAnswer { addresses, reason }
        }
    }
}

/// What hyper says of a connection that never stood.
const NEVER_CONNECTED: &str = "client error (Connect)";
/// What hyper says of a connection that ended too early, beside what the system says.
const BROKEN: [&str; 2] =
    ["connection closed before message completed", "error writing a body to connection"];

fn is_broken(cause: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    let ended = [
        ErrorKind::BrokenPipe,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::UnexpectedEof,
    ];
    io.is_some_and(|kind| ended.contains(&kind))
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn full(error: &elasticsearch::Error) -> String {
    chain(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The cause at the bottom says what happened; the layers above repeat the URL.
fn innermost(error: &elasticsearch::Error) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// One segment of a path: everything but letters, digits, `-`, `_` and `.` is percent-encoded.
pub fn path_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::path_segment;

    #[test]
    fn a_path_segment_cannot_leave_its_place() {
        assert_eq!(path_segment("a/../b?c#d é"), "a%2F..%2Fb%3Fc%23d%20%C3%A9");
    }
}
