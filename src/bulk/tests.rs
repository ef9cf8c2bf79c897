//! Routed writes against a model with shards: one document an id in the end, where its row is, whatever parts the
//! batches are sent in, what is answered and what arrives twice.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::answer::Action;
use super::batch::Batch;
use super::obstacle::Rejection;
use super::open::OpenBatch;
use super::settle::{Open, Settled};
use super::write::{Write, write_routing};

const IDS: usize = 3;
/// Two shards: of the first, third and fifth, and of the others.
const ROUTINGS: [&str; 5] = ["a", "b\"", "c", "d,\"version\":9", "e"];
const SHARDS: usize = 2;

#[derive(Clone, Debug)]
struct Line {
    action: Action,
    id: String,
    routing: String,
    version: i64,
    document: Value,
}

fn lines(body: &[u8]) -> Vec<Line> {
    let mut lines = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut out = Vec::new();
    while let Some(line) = lines.next() {
        let line: Value = serde_json::from_slice(line).unwrap();
        let (verb, meta) = line.as_object().unwrap().iter().next().unwrap();
        let text = |name: &str| meta[name].as_str().unwrap().to_owned();
        let (action, document) = match verb.as_str() {
            "index" => (Action::Index, serde_json::from_slice(lines.next().unwrap()).unwrap()),
            _ => (Action::Delete, Value::Null),
        };
        let version = meta["version"].as_i64().unwrap();
        out.push(Line { action, id: text("_id"), routing: text("routing"), version, document });
    }
    out
}

/// A version, and a document or a tombstone.
type Stored = (i64, Option<Value>);

/// What stands where, by shard and id.
#[derive(Default)]
struct Shards(BTreeMap<(usize, String), Stored>);

fn shard(routing: &str) -> usize {
    ROUTINGS.iter().position(|known| *known == routing).unwrap() % SHARDS
}

impl Shards {
    fn apply(&mut self, line: &Line) -> &'static str {
        if line.document["v"] == "refused" {
            return r#"{"status":400,"error":{"type":"document_parsing_exception"}}"#;
        }
        let place = (shard(&line.routing), line.id.clone());
        if self.0.get(&place).is_some_and(|(version, _)| line.version < *version) {
            return r#"{"status":409,"error":{"type":"version_conflict_engine_exception"}}"#;
        }
        let source = (line.action == Action::Index).then(|| line.document.clone());
        self.0.insert(place, (line.version, source));
        r#"{"status":200,"_index":"i-000001"}"#
    }
}

struct Model {
    random: StdRng,
    shards: Shards,
    /// Requests without an answer, which may be carried out until the batch is through.
    late: Vec<Vec<Line>>,
    letters: BTreeSet<String>,
}

impl Model {
    fn deliver(&mut self, batch: Batch) {
        let mut rest = batch;
        let mut items_max = usize::MAX;
        loop {
            if !self.late.is_empty() && self.random.random_bool(0.3) {
                self.land_late();
            }
            let head = rest.head(self.random.random_range(1..5).min(items_max), usize::MAX);
            let sent = lines(&head.body);
            let settled = if sent.iter().any(|line| line.document["v"] == "spoils") {
                self.refuse_whole(rest, head.items, &mut items_max)
            } else if self.random.random_bool(0.2) {
                for line in &sent {
                    if self.random.random_bool(0.5) {
                        self.shards.apply(line);
                    }
                }
                self.late.push(sent);
                Settled::Again { rest, why: Open::Unsent }
            } else {
                items_max = items_max.saturating_mul(2);
                let answer = self.answer(&sent);
                rest.settle_head(head.items, answer.as_bytes()).map_err(|(_, why)| why).unwrap()
            };
            match self.buried(settled) {
                Some(again) => rest = again,
                None => break,
            }
        }
        while !self.late.is_empty() {
            self.land_late();
        }
    }

    fn land_late(&mut self) {
        for line in self.late.swap_remove(0) {
            self.shards.apply(&line);
        }
    }

    fn answer(&mut self, sent: &[Line]) -> String {
        let mut items = Vec::new();
        for line in sent {
            let said = match self.random.random_bool(0.2) {
                true => r#"{"status":429,"error":{"type":"es_rejected_execution_exception"}}"#,
                false => self.shards.apply(line),
            };
            let verb = if line.action == Action::Index { "index" } else { "delete" };
            items.push(format!(r#"{{"{verb}":{said}}}"#));
        }
        format!(r#"{{"items":[{}]}}"#, items.join(","))
    }

    fn refuse_whole(&mut self, rest: Batch, items: usize, items_max: &mut usize) -> Settled {
        if items > 1 {
            *items_max = items / 2;
            return Settled::Again { rest, why: Open::Unsent };
        }
        rest.refuse_first(Rejection { status: 400, kind: "t".to_owned(), field: None })
    }

    /// What is left, once the letters of what was refused are written.
    fn buried(&mut self, mut settled: Settled) -> Option<Batch> {
        loop {
            settled = match settled {
                Settled::Done(_) => return None,
                Settled::Again { rest, .. } => return Some(rest),
                Settled::Refused(refused) => {
                    let letters = refused.letters(|item, _| (item.name.to_vec(), b"{}".to_vec()));
                    let names = refused.items().map(|(item, _)| id_in(item.name));
                    self.letters.extend(names);
                    let said = vec![r#"{"index":{"status":201}}"#; letters.items()].join(",");
                    let answer = format!(r#"{{"items":[{said}]}}"#);
                    let Ok(Settled::Done(proof)) = letters.settle(answer.as_bytes()) else {
                        panic!("the letters are applied")
                    };
                    refused.buried(proof)
                }
            };
        }
    }
}

fn id_in(name: &[u8]) -> String {
    let name: Value = serde_json::from_slice(&[b"{", name, b"}"].concat()).unwrap();
    name["_id"].as_str().unwrap().to_owned()
}

/// A row as the writes have left it: its routing and its content.
type Rows = BTreeMap<usize, (usize, String)>;

/// One change of a row, as the pipeline writes it.
fn change(random: &mut StdRng, rows: &mut Rows, batch: &mut OpenBatch, version: i64, step: usize) {
    let key = random.random_range(0..IDS);
    let name = format!(r#""_index":"i-000001-write","_id":"{key}""#);
    let rendered = |routing: usize| {
        let mut out = Vec::new();
        write_routing(ROUTINGS[routing].as_bytes(), &mut out);
        out
    };
    let before = rows.get(&key).map(|(routing, _)| *routing);
    if let Some(before) = before
        && random.random_bool(0.2)
    {
        rows.remove(&key);
        return batch.push(&Write::delete(name.as_bytes(), version).routed(&rendered(before)));
    }
    let content = match random.random_range(0..30) {
        0 => "refused".to_owned(),
        1 => "spoils".to_owned(),
        _ => step.to_string(),
    };
    let routing = random.random_range(0..ROUTINGS.len());
    let document = format!(r#"{{"v":"{content}"}}"#);
    let left = before.map(rendered).unwrap_or_default();
    rows.insert(key, (routing, content));
    let write = Write::index(name.as_bytes(), version, document.as_bytes());
    batch.push(&write.routed(&rendered(routing)).leaving(&left));
}

/// Exactly the rows' documents, each on its shard; of one that was refused, at most what was there before.
fn check(model: &Model, rows: &Rows) -> Result<(), TestCaseError> {
    let mut expected: BTreeMap<(usize, String), String> = BTreeMap::new();
    for (key, (routing, content)) in rows {
        expected.insert((shard(ROUTINGS[*routing]), key.to_string()), content.clone());
    }
    for (place, (_, stored)) in &model.shards.0 {
        let Some(document) = stored else { continue };
        let found = document["v"].as_str().unwrap().to_owned();
        let Some(content) = expected.remove(place) else {
            return Err(TestCaseError::fail(format!("left behind: {place:?} {found}")));
        };
        prop_assert!(content == found || model.letters.contains(&place.1), "{:?}", place);
    }
    for (_, id) in expected.keys() {
        prop_assert!(model.letters.contains(id), "missing: {}", id);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn one_document_an_id_and_where_its_row_is(seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        let (shards, late, letters) = (Shards::default(), Vec::new(), BTreeSet::new());
        let mut model = Model { random: StdRng::seed_from_u64(seed ^ 1), shards, late, letters };
        let mut rows = Rows::new();
        let mut batch = OpenBatch::new(0);
        let mut version = 1;
        for step in 0..random.random_range(1..40) {
            version += i64::from(random.random_bool(0.4));
            change(&mut random, &mut rows, &mut batch, version, step);
            if random.random_bool(0.2) {
                model.deliver(std::mem::replace(&mut batch, OpenBatch::new(0)).seal());
            }
        }
        if batch.documents() > 0 {
            model.deliver(batch.seal());
        }
        check(&model, &rows)?;
    }
}
