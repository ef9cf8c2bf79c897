//! Dead letters: what the cluster refuses for good is written to an index of its own, so that the stream may
//! go on and nothing is lost.
//!
//! One index for all slots, hidden, made by us and never by accident: `waldex-dead-letters-000001` behind the
//! alias `waldex-dead-letters`. A letter has the version of the write it stands for, so that an older one never
//! replaces a newer. It goes when a later write of its document is confirmed; to know which documents have
//! one without asking for each, their hashes are held here, and `dead_letters.max` bounds them.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use elasticsearch::http::Method;
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::client::{Client, path_segment};
use super::index::{self, IndexError};
use super::letter::{Letter, document_name, index_body, letter_id, names_in, now};
use super::mailbox::Mailbox;
use super::scan::{Hit, Scan, ScanError};
use super::writer::{Buried, Event, WriteError};
use crate::bulk::batch::{Batch, Item};
use crate::bulk::open::{OpenBatch, document_hash};
use crate::bulk::refused::Refused;
use crate::bulk::settle::Settled;
use crate::bulk::write::Write;

/// The alias for readers.
pub const LETTERS: &str = "waldex-dead-letters";
const GENERATION: u32 = 1;
/// The field of a letter that holds the document; a list goes without it.
const DOCUMENT: &str = "document";
/// How often open letters are counted again.
const COUNT_INTERVAL: Duration = Duration::from_secs(30);

/// What may become of refused documents, and who they belong to.
#[derive(Clone, Debug)]
pub struct LetterSettings {
    /// The slot.
    pub slot: String,
    /// Whether letters hold their documents.
    pub keep_document: bool,
    /// Open letters, at most.
    pub max: usize,
}

/// The dead letters of one slot. Clones share what is known of them.
#[derive(Clone)]
pub struct DeadLetters {
    client: Client,
    mailbox: Mailbox,
    settings: Arc<LetterSettings>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// Hashes of the documents with an open letter.
    open: HashSet<u64>,
    /// Times that changed here.
    changes: u64,
    /// Schema-qualified name of the table behind each readers' name.
    tables: BTreeMap<String, String>,
}

/// Refused items that have their letters now.
pub struct Interred {
    /// What is left of the batch.
    pub settled: Settled,
    /// Hashes of the documents.
    pub hashes: Vec<u64>,
}

/// A letter that is to go.
pub struct Outdated {
    /// Hash of the document.
    pub hash: u64,
    id: String,
    version: i64,
}

/// The letters' index cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// Making it.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Reading it.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

impl LetterError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Index(error) => error.is_transient(),
            Self::Scan(error) => error.is_transient(),
        }
    }
}

/// The alias that letters are written through.
pub fn letters_write_alias() -> String {
    index::write_alias(LETTERS, GENERATION)
}

/// Makes the index if it is not there.
pub(super) async fn prepare(client: &Client) -> Result<(), IndexError> {
    index::create(client, LETTERS, GENERATION, &index_body(), true).await
}

/// All letters of a slot, with their versions; none if there never was one.
///
/// # Errors
/// The server's.
pub async fn list(client: &Client, slot: &str) -> Result<Vec<Letter>, ScanError> {
    let query = json!({"term": {"slot": slot}});
    // Documents that are kept may be a thousand times as large as the rest.
    let source = json!({"excludes": [DOCUMENT]});
    let mut letters = Vec::new();
    let mut scan = match Scan::start(client, LETTERS, &query, &source).await {
        Ok(scan) => scan,
        Err(ScanError::Missing { .. }) => return Ok(letters),
        Err(error) => return Err(error),
    };
    loop {
        let page = scan.next_page().await?;
        if page.is_empty() {
            return Ok(letters);
        }
        letters.extend(page.into_iter().filter_map(as_letter));
    }
}

/// A document that is not one of ours is left alone.
fn as_letter(hit: Hit) -> Option<Letter> {
    match serde_json::from_value::<Letter>(hit.source) {
        Ok(letter) => Some(letter),
        Err(_) => {
            warn!(
                index = LETTERS,
                "a document that is no dead letter of this version; passed over"
            );
            None
        }
    }
}

impl DeadLetters {
    /// Makes the index if needed, and learns which letters are open.
    ///
    /// # Errors
    /// The cluster's.
    pub async fn open(
        client: &Client,
        mailbox: Mailbox,
        settings: LetterSettings,
    ) -> Result<Self, LetterError> {
        prepare(client).await?;
        let letters = Self {
            client: client.clone(),
            mailbox,
            settings: Arc::new(settings),
            known: Arc::default(),
        };
        letters.count_again().await?;
        let open = letters.count();
        if open > 0 {
            warn!(open, "there are dead letters: see `waldex dead-letters list`");
        }
        Ok(letters)
    }

    /// A few instructions on what is known.
    fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which table is behind which index, for letters to come.
    pub fn know_tables(&self, tables: BTreeMap<String, String>) {
        self.with(|known| known.tables = tables);
    }

    /// How many are open, as far as this process knows; a `retry` or `drop` beside it is noticed by
    /// [`Self::watch`].
    pub fn count(&self) -> usize {
        self.with(|known| known.open.len())
    }

    /// Learns from the index which letters are open.
    async fn count_again(&self) -> Result<(), ScanError> {
        let before = self.with(|known| known.changes);
        let letters = list(&self.client, &self.settings.slot).await?;
        let hashes = letters.iter().map(|letter| hash_of(&letter.index, &letter.document_id));
        let open = hashes.collect();
        self.with(|known| {
            // What changed here meanwhile may or may not be among what was read.
            if known.changes == before {
                known.open = open;
            }
        });
        Ok(())
    }

    /// Looks from time to time, while letters are open, whether others have put them right.
    pub async fn watch(self) {
        loop {
            tokio::time::sleep(COUNT_INTERVAL).await;
            if self.count() == 0 {
                continue;
            }
            if let Err(error) = self.count_again().await {
                debug!(%error, "cannot count the dead letters");
            }
        }
    }

    /// The letters of documents that `batch` writes.
    pub fn of(&self, batch: &Batch) -> Vec<Outdated> {
        let of_item = |(hash, item): (u64, Item<'_>)| {
            let (alias, document_id) = names_in(item.name);
            let id = letter_id(index::physical_of(&alias), &document_id);
            Outdated { hash, id, version: item.version }
        };
        self.with(|known| {
            if known.open.is_empty() {
                return Vec::new();
            }
            let hashed = batch.each().map(|item| (document_hash(item.name), item));
            hashed.filter(|(hash, _)| known.open.contains(hash)).map(of_item).collect()
        })
    }

    /// Writes the letters of refused items, and gives their batch back once they are durable.
    ///
    /// # Errors
    /// There would be more than may be.
    pub async fn bury(
        &self,
        refused: Refused,
        tell: &mut impl FnMut(Event),
    ) -> Result<Interred, WriteError> {
        let hashes: Vec<u64> = refused.items().map(|(item, _)| document_hash(item.name)).collect();
        self.refuse_too_many(&refused, &hashes).await?;
        let proof = self.mailbox.deliver(self.letters(&refused), tell).await;
        let (index, reason) = (refused.index().to_owned(), refused.reason().clone());
        let documents = hashes.len();
        self.with(|known| {
            known.open.extend(hashes.iter().copied());
            known.changes += 1;
        });
        tell(Event::Buried(Buried { documents, open: self.count(), index, reason }));
        Ok(Interred { settled: refused.buried(proof), hashes })
    }

    async fn refuse_too_many(&self, refused: &Refused, hashes: &[u64]) -> Result<(), WriteError> {
        let max = self.settings.max;
        let would_be_open = || {
            self.with(|known| {
                let new = hashes.iter().filter(|hash| !known.open.contains(hash)).count();
                known.open.len() + new
            })
        };
        if would_be_open() <= max {
            return Ok(());
        }
        // Some may have been retried or dropped meanwhile; if that cannot be told, what is known counts.
        if let Err(error) = self.count_again().await {
            warn!(%error, "cannot count the dead letters");
        }
        let open = would_be_open();
        if open <= max {
            return Ok(());
        }
        Err(WriteError::TooManyRejected { open, max, reason: refused.reason().clone() })
    }

    fn letters(&self, refused: &Refused) -> Batch {
        let (time, alias) = (now(), letters_write_alias());
        let settings = &self.settings;
        let tables = self.with(|known| known.tables.clone());
        refused.letters(|item, reason| {
            let keeps = settings.keep_document;
            let mut letter = Letter::of(item, reason, &settings.slot, &time, keeps);
            letter.table = tables.get(letter.readers_name()).cloned();
            let document = serde_json::to_vec(&letter).unwrap_or_default();
            (document_name(&alias, &letter.id()), document)
        })
    }

    /// Removes the letters of documents that were written since.
    pub async fn remove(&self, outdated: Vec<Outdated>, tell: &mut impl FnMut(Event)) {
        if outdated.is_empty() {
            return;
        }
        let receipt = self.mailbox.deliver(deletes(&outdated), tell).await;
        // If something newer was there, this is a replay: the letter is of a later write, which is still to
        // come once more.
        if receipt.superseded() == 0 {
            self.forget(&outdated);
        }
    }

    /// Removes every letter that `goes`.
    ///
    /// # Errors
    /// The letters cannot be read now.
    pub async fn remove_where(
        &self,
        goes: impl Fn(&Letter) -> bool,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), ScanError> {
        let outdated = self.find(goes).await?;
        self.remove(outdated, tell).await;
        Ok(())
    }

    /// Removes every letter that `goes`, if that can be done now; the next start tries again.
    pub async fn discard_where(&self, goes: impl Fn(&Letter) -> bool) {
        let outdated = match self.find(goes).await {
            Ok(outdated) => outdated,
            Err(error) => {
                warn!(%error, "dead letters of indices that are gone stay for now");
                return;
            }
        };
        if outdated.is_empty() {
            return;
        }
        let receipt = self.mailbox.try_once(deletes(&outdated)).await;
        match receipt {
            Some(_) => self.forget(&outdated),
            None => warn!("dead letters of indices that are gone stay for now"),
        }
    }

    async fn find(&self, wanted: impl Fn(&Letter) -> bool) -> Result<Vec<Outdated>, ScanError> {
        if self.count() == 0 {
            return Ok(Vec::new());
        }
        let letters = list(&self.client, &self.settings.slot).await?;
        let found = letters.into_iter().filter(wanted).map(|letter| {
            let hash = hash_of(&letter.index, &letter.document_id);
            Outdated { hash, id: letter.id(), version: letter.version }
        });
        Ok(found.collect())
    }

    fn forget(&self, outdated: &[Outdated]) {
        self.with(|known| {
            for letter in outdated {
                known.open.remove(&letter.hash);
            }
            known.changes += 1;
        });
    }
}

/// Removes a letter, unless it was replaced since.
///
/// # Errors
/// The server's.
pub async fn discard(client: &Client, letter: &Letter) -> Result<(), IndexError> {
    change(client, Method::Delete, letter, None).await
}

/// Writes a letter again, unless it was replaced since, with the document that it keeps.
///
/// # Errors
/// The server's.
pub async fn rewrite(client: &Client, letter: &Letter) -> Result<(), IndexError> {
    let path = format!("/{LETTERS}/_doc/{}", path_segment(&letter.id()));
    let asked = [("_source_includes", DOCUMENT)];
    let answer = client.call(Method::Get, &path, &asked, None).await?;
    if answer.is_missing() {
        return Ok(());
    }
    if !answer.is_success() {
        return Err(index::refused(format!("read a dead letter in \"{LETTERS}\""), &answer));
    }
    let mut body = serde_json::to_value(letter).unwrap_or_default();
    if let Some(document) = answer.json().pointer(&format!("/_source/{DOCUMENT}")) {
        body[DOCUMENT] = document.clone();
    }
    change(client, Method::Put, letter, Some(&body)).await
}

async fn change(
    client: &Client,
    method: Method,
    letter: &Letter,
    body: Option<&Value>,
) -> Result<(), IndexError> {
    let path = format!("/{LETTERS}/_doc/{}", path_segment(&letter.id()));
    let version = letter.version.to_string();
    let mut query = vec![("version", version.as_str()), ("version_type", "external_gte")];
    if body.is_some() {
        query.push(("require_alias", "true"));
    }
    let answer = client.call(method, &path, &query, body).await?;
    // Missing: gone already. 409: a newer one took its place.
    if answer.is_success() || answer.is_missing() || answer.status == 409 {
        return Ok(());
    }
    // Without the server's reason, which may quote the letter.
    let what = format!("change a dead letter in \"{LETTERS}\"");
    let (status, kind) = (answer.status, answer.error_kind());
    Err(IndexError::Refused { what, status, kind, detail: String::new() })
}

fn deletes(outdated: &[Outdated]) -> Batch {
    let alias = letters_write_alias();
    let mut deletes = OpenBatch::new(0);
    for letter in outdated {
        deletes.push(&Write::delete(&document_name(&alias, &letter.id), letter.version));
    }
    deletes.seal()
}

/// The hash by which the document's writes are known.
fn hash_of(physical: &str, document_id: &str) -> u64 {
    document_hash(&document_name(&index::write_alias_of(physical), document_id))
}
