//! A fake Elasticsearch: bulk requests on write aliases, with the real one's rules for versions.
//!
//! A delete leaves a tombstone with its version. Tombstones are kept in memory only: they expire, and a
//! restart forgets them. That these rules are the real ones is what [`crate::support::vectors`] is for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// How an item's version is compared with the stored one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Versioning {
    /// No version was sent: whatever is stored is overwritten.
    Internal,
    /// `external`: must be higher.
    External(i64),
    /// `external_gte`: must not be lower.
    ExternalGte(i64),
}

/// One item of a bulk request.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) alias: String,
    pub(crate) id: String,
    pub(crate) versioning: Versioning,
    /// None is a delete.
    pub(crate) source: Option<Value>,
}

/// What is stored under an id.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) version: i64,
    /// None is a tombstone.
    pub(crate) source: Option<Value>,
    /// When it was written.
    pub(crate) at: u64,
    /// Its place in the order in which writes were sent.
    pub(crate) arrival: u64,
}

/// Documents behind a write alias.
pub(crate) type Index = BTreeMap<String, Stored>;

/// What an item is answered.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// The error's type, if it failed.
    pub(crate) error: Option<&'static str>,
    /// The index that a delete was carried out in.
    pub(crate) index: Option<String>,
}

impl Answered {
    pub(crate) fn failed(status: u16, error: &'static str) -> Self {
        Self { status, error: Some(error), index: None }
    }
}

/// The cluster.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    indices: BTreeMap<String, Index>,
    aliases: BTreeMap<String, String>,
    /// Texts that a mapping does not take; once the operator has corrected it, it does.
    pub(crate) takes_poison: bool,
    pub(crate) now: u64,
    arrivals: u64,
}

/// A text that the mapping does not take: the item is refused.
pub(crate) const POISON: &str = "poison";
/// A text for which the whole request is refused.
pub(crate) const SPOILS: &str = "spoils";

/// Elasticsearch takes no longer ids, and refuses the request.
const ID_BYTES_MAX: usize = 512;

impl Cluster {
    /// Creates an index with its write alias; one that is there is left as it is.
    pub(crate) fn create(&mut self, alias: &str, index: &str) {
        if !self.indices.contains_key(index) {
            self.indices.insert(index.to_owned(), Index::new());
            self.aliases.insert(alias.to_owned(), index.to_owned());
        }
    }

    /// What is behind a write alias.
    pub(crate) fn documents(&self, alias: &str) -> Option<&Index> {
        self.indices.get(self.aliases.get(alias)?)
    }

    /// An index, whether or not its alias is there.
    pub(crate) fn index(&self, index: &str) -> Option<&Index> {
        self.indices.get(index)
    }

    /// Somebody removes an alias.
    pub(crate) fn remove_alias(&mut self, alias: &str) {
        self.aliases.remove(alias);
    }

    /// The operator puts it back, and removes what stands in its place.
    pub(crate) fn restore_alias(&mut self, alias: &str, index: &str) {
        self.indices.remove(alias);
        self.aliases.insert(alias.to_owned(), index.to_owned());
    }

    pub(crate) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Reads a body as the server does; a malformed one is refused as a whole.
    pub(crate) fn parse(body: &[u8]) -> Result<Vec<Item>, u16> {
        let mut lines = body.split(|&byte| byte == b'\n');
        let mut items = Vec::new();
        while let Some(action) = lines.next().filter(|line| !line.is_empty()) {
            let action: Value = serde_json::from_slice(action).map_err(|_| 400_u16)?;
            let (verb, meta) = action.as_object().and_then(|o| o.iter().next()).ok_or(400_u16)?;
            let text = |name: &str| meta[name].as_str().map(str::to_owned).ok_or(400_u16);
            let source = match verb.as_str() {
                "index" => {
                    let line = lines.next().ok_or(400_u16)?;
                    Some(serde_json::from_slice(line).map_err(|_| 400_u16)?)
                }
                "delete" => None,
                _ => return Err(400),
            };
            let id = text("_id")?;
            if id.len() > ID_BYTES_MAX {
                return Err(400);
            }
            let versioning = versioning(meta)?;
            items.push(Item { alias: text("_index")?, id, versioning, source });
        }
        Ok(items)
    }

    /// Whether an item is such that the whole request is refused.
    pub(crate) fn refuses_whole(&self, items: &[Item]) -> bool {
        let spoils = |item: &Item| item.source.as_ref().is_some_and(|it| it["text"] == SPOILS);
        !self.takes_poison && items.iter().any(spoils)
    }

    /// Applies one item that was sent when `arrivals` had arrived; what was sent after it is newer.
    pub(crate) fn apply_late(&mut self, item: &Item, arrivals: u64) {
        if self.apply(item).error.is_none()
            && let Some(index) = self.aliases.get(&item.alias)
            && let Some(stored) = self.indices.get_mut(index).and_then(|it| it.get_mut(&item.id))
        {
            stored.arrival = arrivals;
        }
    }

    /// Applies one item.
    pub(crate) fn apply(&mut self, item: &Item) -> Answered {
        // `require_alias` does not hold for deletes, and with an external version they create an index.
        let behind = self.aliases.get(&item.alias);
        let Some(name) = behind.or(item.source.is_none().then_some(&item.alias)).cloned() else {
            return Answered::failed(404, "index_not_found_exception");
        };
        let index = self.indices.entry(name.clone()).or_default();
        if item.id.is_empty() {
            return Answered::failed(400, "illegal_argument_exception");
        }
        let is_poison = |source: &Value| source["text"] == POISON;
        if !self.takes_poison && item.source.as_ref().is_some_and(is_poison) {
            return Answered::failed(400, "document_parsing_exception");
        }
        let stored = index.get(&item.id);
        let version = stored.map(|stored| stored.version);
        let next = match item.versioning {
            Versioning::Internal => version.map_or(1, |version| version + 1),
            Versioning::External(new) if version.is_some_and(|version| new <= version) => {
                return Answered::failed(409, "version_conflict_engine_exception");
            }
            Versioning::ExternalGte(new) if version.is_some_and(|version| new < version) => {
                return Answered::failed(409, "version_conflict_engine_exception");
            }
            Versioning::External(new) | Versioning::ExternalGte(new) => new,
        };
        let existed = stored.is_some_and(|stored| stored.source.is_some());
        let status = match (&item.source, existed) {
            (Some(_), true) | (None, true) => 200,
            (Some(_), false) => 201,
            (None, false) => 404,
        };
        self.arrivals += 1;
        let (source, at, arrival) = (item.source.clone(), self.now, self.arrivals);
        index.insert(item.id.clone(), Stored { version: next, source, at, arrival });
        Answered { status, error: None, index: item.source.is_none().then_some(name) }
    }

    /// The answer's body, of which waldex asks for the index of deletes only.
    pub(crate) fn answer(items: &[Item], answered: &[Answered]) -> Vec<u8> {
        let item = |(item, answered): (&Item, &Answered)| {
            let verb = if item.source.is_some() { "index" } else { "delete" };
            let mut said = json!({"status": answered.status});
            if let Some(kind) = answered.error {
                said["error"] = json!({"type": kind});
            }
            if let Some(index) = &answered.index {
                said["_index"] = json!(index);
            }
            json!({ verb: said })
        };
        let items: Vec<Value> = items.iter().zip(answered).map(item).collect();
        json!({"items": items}).to_string().into_bytes()
    }

    /// Forgets tombstones older than `kept`.
    pub(crate) fn expire_tombstones(&mut self, kept: u64) {
        let now = self.now;
        for index in self.indices.values_mut() {
            index.retain(|_, stored| stored.source.is_some() || stored.at + kept >= now);
        }
    }

    /// Restarts: every document is still there; of tombstones, those that `keeps` says (they may be in
    /// what was not yet committed to disk, and so be read again).
    pub(crate) fn restart(&mut self, mut keeps: impl FnMut() -> bool) {
        for index in self.indices.values_mut() {
            index.retain(|_, stored| stored.source.is_some() || keeps());
        }
    }
}

fn versioning(meta: &Value) -> Result<Versioning, u16> {
    let Some(version) = meta.get("version") else { return Ok(Versioning::Internal) };
    let version = version.as_i64().filter(|version| *version >= 0).ok_or(400_u16)?;
    match meta["version_type"].as_str() {
        Some("external") => Ok(Versioning::External(version)),
        Some("external_gte") => Ok(Versioning::ExternalGte(version)),
        _ => Err(400),
    }
}
