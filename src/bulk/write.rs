//! One write of a document, ready for a body.
//!
//! Where rows are routed, a document is found by its id and its routing. A row that changes its routing leaves its
//! document behind: perhaps on another shard, where it must be deleted, perhaps on the same, where the delete
//! must come first, since both have one version and the later wins. So a write carries the routing that it
//! leaves, and the two stay together on their way.

use super::answer::Action;
use super::open::document_hash;
use crate::document::json::write_string;

/// A write.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    /// What becomes of the document.
    pub action: Action,
    /// `"_index":…,"_id":…`: names the document.
    pub name: &'a [u8],
    /// What follows its name, as [`write_routing`] writes it; empty where nothing is routed.
    pub routing: &'a [u8],
    /// The same of a routing under which the document is deleted; empty if there is none.
    pub left: &'a [u8],
    /// Of the name.
    pub hash: u64,
    /// Its version.
    pub version: i64,
    /// One line of JSON; empty for a delete.
    pub document: &'a [u8],
}

impl<'a> Write<'a> {
    /// The whole document.
    pub fn index(name: &'a [u8], version: i64, document: &'a [u8]) -> Self {
        Self { action: Action::Index, document, ..Self::delete(name, version) }
    }

    /// No document.
    pub fn delete(name: &'a [u8], version: i64) -> Self {
        let hash = document_hash(name);
        let (action, nothing) = (Action::Delete, &[]);
        Self { action, name, routing: nothing, left: nothing, hash, version, document: nothing }
    }

    /// Under this routing.
    #[must_use]
    pub fn routed(self, routing: &'a [u8]) -> Self {
        Self { routing, ..self }
    }

    /// Away from this one.
    #[must_use]
    pub fn leaving(self, left: &'a [u8]) -> Self {
        Self { left, ..self }
    }
}

/// Appends a routing as it follows a document's name.
pub fn write_routing(routing: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"routing\":");
    write_string(routing, out);
}
