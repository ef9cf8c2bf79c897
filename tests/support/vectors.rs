//! What a search server does with versions: one table of steps, run against the fake cluster of the
//! simulation and against real servers, so that the fake cannot have rules of its own.

use serde_json::json;

/// A write alias, an index without one, and a name that stands for nothing.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The write alias of an index.
    Alias,
    /// The index itself, though every request demands an alias.
    Index,
    /// No index and no alias.
    Nowhere,
}

/// How the item is versioned.
#[derive(Clone, Copy, Debug)]
pub enum Version {
    /// Not at all.
    None,
    /// `external`.
    External(i64),
    /// `external_gte`.
    Gte(i64),
}

/// One request of one item, and what it is answered.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What it shows.
    pub what: &'static str,
    /// Where it goes.
    pub place: Place,
    /// The document.
    pub id: &'static str,
    /// How it is versioned.
    pub version: Version,
    /// The value of its one field, which is mapped as `integer`; none is a delete.
    pub value: Option<&'static str>,
    /// Status of the item, or of the request if that is refused.
    pub answer: Answer,
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The item was carried out.
    Done(u16),
    /// The item failed.
    Failed(u16),
    /// The whole request was refused.
    Refused(u16),
}

/// The field of the documents.
pub const FIELD: &str = "text";

use Answer::{Done, Failed, Refused};
use Place::{Alias, Index, Nowhere};
use Version::{External, Gte};

const fn put(what: &'static str, version: Version, value: &'static str, answer: Answer) -> Step {
    Step { what, place: Alias, id: "1", version, value: Some(value), answer }
}

const fn delete(what: &'static str, version: Version, answer: Answer) -> Step {
    Step { what, place: Alias, id: "1", version, value: None, answer }
}

const LONG: [u8; 513] = [b'x'; 513];
const LONG_ID: &str = match std::str::from_utf8(&LONG) {
    Ok(text) => text,
    Err(_) => "",
};

/// In this order, on an empty index.
pub const STEPS: [Step; 31] = [
    put("a document is created with its version", Gte(5), "1", Done(201)),
    put("a higher version is applied", Gte(7), "2", Done(200)),
    put("an equal version is applied again", Gte(7), "3", Done(200)),
    put("a lower version is superseded", Gte(6), "4", Failed(409)),
    put("strictly external, an equal version is superseded", External(7), "4", Failed(409)),
    put("strictly external, a higher version is applied", External(8), "5", Done(200)),
    delete("a delete of a lower version is superseded", Gte(7), Failed(409)),
    delete("a delete of an equal version is applied", Gte(8), Done(200)),
    delete("of a deleted document, the delete finds nothing", Gte(8), Done(404)),
    put("below its tombstone nothing comes back", Gte(7), "6", Failed(409)),
    put("at the version of its tombstone a document is created", Gte(8), "7", Done(201)),
    delete(
        "strictly external, a delete of an equal version is superseded",
        External(8),
        Failed(409),
    ),
    delete("it is deleted again", Gte(9), Done(200)),
    put(
        "strictly external, it does not come back at the tombstone's",
        External(9),
        "8",
        Failed(409),
    ),
    delete("a delete that finds nothing raises the tombstone", Gte(20), Done(404)),
    put("below the raised tombstone nothing comes back", Gte(19), "8", Failed(409)),
    put("above it, it does", Gte(21), "9", Done(201)),
    Step { id: "2", ..delete("a delete of what was never there finds nothing", Gte(5), Done(404)) },
    Step { id: "2", ..put("and leaves a tombstone", Gte(4), "1", Failed(409)) },
    Step { id: "3", ..put("version 0 is one", Gte(0), "1", Done(201)) },
    Step { id: "3", ..put("what the mapping does not take fails", Gte(3), "poison", Failed(400)) },
    Step { id: "3", ..put("and leaves the document as it was", Gte(2), "2", Done(200)) },
    Step {
        id: "4",
        ..put("without a version, whatever is there is overwritten", Version::None, "1", Done(201))
    },
    Step { place: Nowhere, ..put("without an alias nothing is created", Gte(1), "1", Failed(404)) },
    Step { place: Index, ..put("an index is no alias", Gte(1), "1", Failed(404)) },
    // `require_alias` does not hold for deletes, and one with an external version creates what is missing.
    Step { place: Index, ..delete("a delete takes an index for an alias", Gte(1), Failed(409)) },
    Step { place: Nowhere, ..delete("a delete creates what is missing", Gte(1), Done(404)) },
    Step { place: Nowhere, ..put("which does not make it an alias", Gte(2), "1", Failed(404)) },
    Step {
        id: LONG_ID,
        ..put("an id that is too long spoils the request", Gte(1), "1", Refused(400))
    },
    Step { id: "", ..put("an empty id fails alone", Gte(1), "1", Failed(400)) },
    put("a negative version spoils the request", Gte(-1), "1", Refused(400)),
];

/// The documents that are left: id, version and value.
pub const LEFT: [(&str, u64, &str); 3] = [("1", 21, "9"), ("3", 2, "2"), ("4", 1, "1")];

/// A stale write, which a tombstone holds off for as long as it is there.
pub const STALE: Step = Step {
    id: "2",
    ..put("once its tombstone is gone, a stale write comes through", Gte(4), "1", Done(201))
};

impl Step {
    /// The body of its request; `index` has the alias `<index>-write`.
    pub fn body(&self, index: &str) -> String {
        let name = match self.place {
            Alias => format!("{index}-write"),
            Index => index.to_owned(),
            Nowhere => format!("{index}-nowhere"),
        };
        let mut meta = json!({"_index": name, "_id": self.id});
        let versioned = match self.version {
            Version::None => None,
            External(version) => Some((version, "external")),
            Gte(version) => Some((version, "external_gte")),
        };
        if let Some((version, kind)) = versioned {
            meta["version"] = version.into();
            meta["version_type"] = kind.into();
        }
        match self.value {
            Some(value) => format!("{}\n{}\n", json!({ "index": meta }), json!({ FIELD: value })),
            None => format!("{}\n", json!({ "delete": meta })),
        }
    }
}
