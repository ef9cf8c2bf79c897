//! One HTTP/1.1 message at a time: as much of the protocol as clients of a search server use.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A head above this is not one of ours.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// A body above this is not one of ours.
const BODY_BYTES_MAX: usize = 256 * 1024 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// How the length of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `content-length`, or no body at all.
    Length(usize),
    /// `transfer-encoding: chunked`.
    Chunked,
}

/// The start line and the headers, as they came.
#[derive(Clone, Debug)]
pub struct Head {
    pub bytes: Vec<u8>,
    pub framing: Framing,
}

impl Head {
    /// The words of the start line.
    pub fn start_line(&self) -> Vec<String> {
        let line = self.bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        String::from_utf8_lossy(line).split(' ').map(str::to_owned).collect()
    }

    /// A header, named in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
        let found = lines.find(|(given, _)| given.eq_ignore_ascii_case(name))?;
        Some(found.1.trim().to_owned())
    }

    /// The head as it goes before its body, whose chunks were put together.
    pub fn before(&self, body: &[u8]) -> Vec<u8> {
        match self.framing {
            Framing::Length(_) => self.bytes.clone(),
            Framing::Chunked => self.with_length(body.len()),
        }
    }

    /// The same head, for a body of another length.
    pub fn with_length(&self, length: usize) -> Vec<u8> {
        let mut head = without(&self.bytes, &["content-length", "transfer-encoding"]);
        head.truncate(head.len() - 2);
        head.extend(format!("content-length: {length}\r\n\r\n").into_bytes());
        head
    }
}

/// A head without these headers, named in lower case.
pub fn without(head: &[u8], names: &[&str]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    let is_one = |line: &str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        names.contains(&name.as_str())
    };
    let kept: Vec<&str> = text.split("\r\n").filter(|line| !is_one(line)).collect();
    kept.join("\r\n").into_bytes()
}

/// One side of a connection, with what was read ahead.
pub struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = vec![0; READ_BYTES];
        let read = self.stream.read(&mut chunk).await?;
        self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        Ok(read)
    }

    /// The next head; none if the connection ends between two messages.
    pub async fn head(&mut self, is_answer_to_head: bool) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                let bytes = std::mem::replace(&mut self.buffer, rest);
                let framing = framing(&bytes, is_answer_to_head)?;
                return Ok(Some(Head { bytes, framing }));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(odd("a head without an end"));
            }
            if self.fill().await? == 0 {
                let ended_well = self.buffer.is_empty();
                return if ended_well { Ok(None) } else { Err(odd("the end within a head")) };
            }
        }
    }

    /// At most `count` bytes of what follows the head, less only at the end of the connection.
    pub async fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count && self.fill().await? > 0 {}
        let rest = self.buffer.split_off(count.min(self.buffer.len()));
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// The whole body, without the marks of its chunks.
    pub async fn body(&mut self, framing: Framing) -> io::Result<Vec<u8>> {
        match framing {
            Framing::Length(length) => self.exactly(length).await,
            Framing::Chunked => self.chunks().await,
        }
    }

    async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let bytes = self.take(count).await?;
        if bytes.len() == count { Ok(bytes) } else { Err(odd("the end within a body")) }
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size =
                usize::from_str_radix(size, 16).map_err(|_| odd("a chunk without a size"))?;
            if size + body.len() > BODY_BYTES_MAX {
                return Err(odd("a body above the limit"));
            }
            if size == 0 {
                // Trailers, if any, end with an empty line.
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size).await?);
            self.line().await?;
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let rest = self.buffer.split_off(end + 2);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Ok(String::from_utf8_lossy(line.get(..end).unwrap_or_default()).into());
            }
            if self.buffer.len() > HEAD_BYTES_MAX || self.fill().await? == 0 {
                return Err(odd("a line without an end"));
            }
        }
    }
}

fn framing(head: &[u8], is_answer_to_head: bool) -> io::Result<Framing> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = text.strip_prefix("http/1.1 ").and_then(|rest| rest.get(..3));
    if is_answer_to_head || matches!(status, Some("204" | "304")) {
        return Ok(Framing::Length(0));
    }
    let value = |name: &str| {
        let line = text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    if value("transfer-encoding").is_some_and(|coding| coding.ends_with("chunked")) {
        return Ok(Framing::Chunked);
    }
    let length = value("content-length").unwrap_or("0");
    let length = length.parse().map_err(|_| odd("a content-length that is no number"))?;
    if length > BODY_BYTES_MAX {
        Err(odd("a body above the limit"))
    } else {
        Ok(Framing::Length(length))
    }
}

/// Whether a body has a text in it.
pub fn contains(body: &[u8], part: &str) -> bool {
    body.windows(part.len().max(1)).any(|window| window == part.as_bytes())
}

/// An answer that no server gave.
pub fn own_answer(status: u16, retry_after: Option<u64>, body: &str) -> Vec<u8> {
    let length = body.len();
    let retry_after = retry_after.map(|seconds| format!("retry-after: {seconds}\r\n"));
    let retry_after = retry_after.unwrap_or_default();
    format!(
        "HTTP/1.1 {status} By-The-Proxy\r\ncontent-type: application/json\r\n{retry_after}\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
