//! Bulks of which some items are refused, as an overloaded or half broken cluster does: the others reach the
//! server, and one answer speaks of all.

use std::io;

use serde_json::{Value, json};

use super::http::{Kept, Server, Shared, lock};
use super::message::Head;

/// One item of a bulk.
pub struct Item<'a> {
    /// Number of its request, see [`super::http::Request`].
    pub request: u64,
    /// `index` or `delete`.
    pub action: &'a str,
    pub index: &'a str,
    pub id: &'a str,
    pub version: u64,
}

/// Sends what the rule lets pass, and answers for all.
pub(super) async fn answer_to_items(
    shared: &Shared,
    kept: &Kept,
    server: &mut Server,
) -> io::Result<String> {
    let mut passed = Vec::new();
    let mut answers = Vec::new();
    for (action, lines) in actions(&kept.body)? {
        let (verb, named) = action.as_object().and_then(|it| it.iter().next()).ok_or_else(odd)?;
        let name = |key: &str| named[key].as_str().unwrap_or_default();
        let item = Item {
            request: kept.request.number,
            action: verb,
            index: name("_index"),
            id: name("_id"),
            version: named["version"].as_u64().unwrap_or_default(),
        };
        let refusal = (lock(&shared.item_rule))(&item);
        answers.push(match refusal {
            Some((status, error)) => {
                let error: Value = serde_json::from_str(error)?;
                Some(json!({ verb: {"status": status, "error": error} }))
            }
            None => {
                passed.extend(lines);
                None
            }
        });
    }
    let mut given = Vec::new();
    if !passed.is_empty() {
        given = forward(kept, &passed, server).await?;
    }
    let mut given = given.into_iter();
    let items: Option<Vec<Value>> =
        answers.into_iter().map(|own| own.or_else(|| given.next())).collect();
    Ok(json!({"items": items.ok_or_else(odd)?}).to_string())
}

async fn forward(kept: &Kept, body: &[u8], server: &mut Server) -> io::Result<Vec<Value>> {
    let head = super::message::without(&kept.head, &["accept-encoding"]);
    let head = Head { bytes: head, framing: super::message::Framing::Length(0) };
    server.send(&head.with_length(body.len()), body).await?;
    let (_, answer) = server.answer(false).await?;
    let answer: Value = serde_json::from_slice(&answer)?;
    Ok(answer["items"].as_array().cloned().unwrap_or_default())
}

/// Each action, with its lines as they were sent.
fn actions(body: &[u8]) -> io::Result<Vec<(Value, Vec<u8>)>> {
    let mut lines = body.split_inclusive(|byte| *byte == b'\n').filter(|line| *line != b"\n");
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let action: Value = serde_json::from_slice(line)?;
        let mut all = line.to_vec();
        if action.get("delete").is_none() {
            all.extend(lines.next().ok_or_else(odd)?);
        }
        found.push((action, all));
    }
    Ok(found)
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a bulk, or an answer to one, that is none")
}
