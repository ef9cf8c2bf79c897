//! Answers to bulk requests, from a server, a proxy or anything else that speaks HTTP.

use serde_json::Value;
use waldex::bulk::answer::{Action, AnswerError, Outcome, outcomes};
use waldex::bulk::batch::Batch;
use waldex::bulk::open::OpenBatch;
use waldex::bulk::settle::Settled;
use waldex::bulk::write::Write;

use super::{SplitMix, fuzz};

/// Items of every request.
const ITEMS: usize = 5;

const TOKENS: &[&str] = &[
    "\"items\":[",
    "\"index\":",
    "\"delete\":",
    "\"status\":",
    "\"error\":{",
    "\"type\":\"index_not_found_exception\"",
    "\"reason\":\"failed to parse field [a] of type [long]\"",
    "200",
    "404",
    "409",
    "429",
    "null",
    "{",
    "}",
    "]",
    ",",
    "\\u0000",
    "\\ud800",
];

#[test]
fn bulk_answers() {
    fuzz("bulk-answers", TOKENS, generated, check);
}

/// The alias that every item names.
const ALIAS: &str = "t-000001-write";

fn actions() -> [Action; ITEMS] {
    [Action::Index, Action::Delete, Action::Index, Action::Delete, Action::Index]
}

fn sent() -> [(Action, &'static str); ITEMS] {
    actions().map(|action| (action, ALIAS))
}

fn batch() -> Batch {
    let mut batch = OpenBatch::new(0);
    for (number, action) in actions().into_iter().enumerate() {
        let name = format!("\"_index\":\"{ALIAS}\",\"_id\":\"{number}\"");
        batch.push(&match action {
            Action::Index => Write::index(name.as_bytes(), 7, b"{}"),
            Action::Delete => Write::delete(name.as_bytes(), 7),
        });
    }
    batch.seal()
}

fn generated(random: &mut SplitMix) -> Vec<u8> {
    const STATUSES: &[&str] = &[
        "200", "201", "400", "404", "409", "429", "503", "0", "-1", "65536", "2e2", "200.0",
        "\"200\"",
    ];
    const ERRORS: &[&str] = &[
        "",
        ",\"error\":null",
        ",\"error\":{}",
        ",\"error\":\"text\"",
        ",\"error\":{\"type\":\"index_not_found_exception\",\"reason\":\"no such index\"}",
        ",\"error\":{\"type\":\"x\",\"reason\":\"failed to parse field [a] of type [long]: 'canary'\",\
         \"caused_by\":{\"type\":\"y\"}}",
    ];
    const INDICES: &[&str] =
        &["", ",\"_index\":\"t-000001\"", ",\"_index\":\"t-000001-write\"", ",\"_index\":null"];
    let count = if random.below(4) == 0 { random.below(8) } else { ITEMS };
    let items: Vec<String> = (0..count)
        .map(|number| {
            let wrong = random.of(&["create", "update", "other", ""]);
            let right = if number % 2 == 0 { "index" } else { "delete" };
            let verb = if random.below(10) == 0 { wrong } else { right };
            let status = if random.below(2) == 0 { "200" } else { random.of(STATUSES) };
            let index = random.of(INDICES);
            format!("{{\"{verb}\":{{\"status\":{status}{index}{}}}}}", random.of(ERRORS))
        })
        .collect();
    let before = random.of(&["", "\"took\":1,\"errors\":true,", "\"items\":[],"]);
    format!("{{{before}\"items\":[{}]}}", items.join(",")).into_bytes()
}

fn check(answer: &[u8]) {
    let outcomes = match outcomes(answer, &sent()) {
        Ok(outcomes) => outcomes,
        Err(AnswerError::WrongCount { sent, answered }) => {
            assert_eq!(sent, ITEMS);
            return assert_ne!(answered, ITEMS, "a count that fits was called wrong");
        }
        Err(AnswerError::NotJson { .. }) => return assert_unconfirmed(answer),
    };
    assert_eq!(outcomes.len(), ITEMS, "more or fewer outcomes than items");
    for (number, (outcome, (status, index))) in outcomes.iter().zip(answered(answer)).enumerate() {
        let is_delete = actions()[number] == Action::Delete;
        // A delete that made an index of the alias's name has done nothing for us.
        let is_astray = is_delete && index.as_deref() == Some(ALIAS);
        let holds = match outcome {
            Outcome::Applied => matches!(status, Some(200..=299)) && !is_astray,
            Outcome::Superseded => status == Some(409),
            Outcome::AlreadyGone => status == Some(404) && is_delete && !is_astray,
            Outcome::Retry(_) | Outcome::Rejected(_) => true,
        };
        assert!(holds, "item {number} with status {status:?} in {index:?} is {outcome:?}");
    }
    let is_confirmed = |outcome: &Outcome| match outcome {
        Outcome::Applied | Outcome::Superseded | Outcome::AlreadyGone => true,
        Outcome::Retry(_) | Outcome::Rejected(_) => false,
    };
    let open = outcomes.iter().filter(|outcome| !is_confirmed(outcome)).count();
    match batch().settle(answer) {
        Ok(Settled::Done(receipt)) => {
            assert_eq!(open, 0, "a receipt for items that are open");
            assert_eq!(receipt.applied() + receipt.superseded(), ITEMS as u64);
        }
        Ok(Settled::Again { rest, .. }) => {
            assert_eq!(rest.items(), open, "the rest is what is open");
        }
        Ok(Settled::Refused(_)) => panic!("a first refusal is believed"),
        Err((_, error)) => panic!("outcomes were read, and settle says {error}"),
    }
}

fn assert_unconfirmed(answer: &[u8]) {
    match batch().settle(answer) {
        Err((whole, _)) => {
            assert_eq!(whole.items(), ITEMS, "an unread answer must confirm nothing")
        }
        Ok(_) => panic!("an answer that cannot be read was used"),
    }
}

/// Status and index of each item as another reader finds them; none if it is stricter in what it passes over.
fn answered(answer: &[u8]) -> Vec<(Option<u64>, Option<String>)> {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let items = answer["items"].as_array().cloned().unwrap_or_default();
    let item = |item: Value| {
        let item = item.as_object().and_then(|item| item.values().next_back().cloned());
        let item = item.unwrap_or_default();
        (item["status"].as_u64(), item["_index"].as_str().map(str::to_owned))
    };
    items.into_iter().map(item).collect()
}
