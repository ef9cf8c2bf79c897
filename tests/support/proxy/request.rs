//! A request as the proxy sees it, and what may become of it.

use std::time::Duration;

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
    /// The same, with the seconds of a `Retry-After`.
    AnswerLater(u16, u64, &'static str),
    /// Each item of a bulk is judged by the rule for items: those it refuses do not reach the server.
    Items,
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
    /// Requests that are not answered yet, this one included.
    pub in_flight: u64,
    /// The header, if there is one.
    pub authorization: Option<String>,
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
    pub(super) head: Vec<u8>,
}

impl Kept {
    /// A bulk that never was a request, to try an observer with.
    pub fn of(number: u64, body: String) -> Self {
        let request = Request {
            number,
            method: "POST".to_owned(),
            path: "/_bulk".to_owned(),
            body_bytes: body.len(),
            in_flight: 1,
            authorization: None,
        };
        Self { request, body: body.into_bytes(), head: Vec::new() }
    }
}

/// What an observer is told of each request that the server gets.
pub enum Step<'a> {
    /// From now on the server may carry it out.
    Begins(&'a Kept),
    /// It was answered, or its connection is gone, and it will not be sent again.
    Ends(u64),
}
