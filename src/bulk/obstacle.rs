//! What keeps a write from being confirmed: an [`Obstacle`], which passes by itself or by an operator's hand,
//! or a [`Rejection`] of the document, which does not.
//!
//! The difference decides what may become a dead letter, so everything that is not surely the document's own
//! fault is an obstacle.

use std::fmt;

/// What stands in the way. The order is that of importance: of several, the last is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// An earlier request without an answer may still be carried out.
    Unanswered,
    /// No connection, no answer, or the server is at fault.
    Unreachable,
    /// The server has more to do than it can take.
    Overload,
    /// A shard has no copy to write to.
    Red,
    /// Flood stage: the disk is full, the index takes deletes only.
    DiskFull,
    /// Somebody has blocked writes to the index.
    Blocked,
    /// The credentials are refused, or lack a right.
    Auth,
    /// The index or its alias is not as it must be, or something other than the cluster answers.
    Misconfigured,
    /// Dead letters cannot be written, and without them nothing may be passed over.
    DeadLetters,
}

impl Cause {
    /// The obstacle behind a status and the type of an error, for a request or an item; `None` if it is the
    /// document that is refused.
    pub fn of(status: u16, kind: &str) -> Option<Self> {
        let is_block = kind == "cluster_block_exception";
        match status {
            429 if is_block => Some(Self::DiskFull),
            429 => Some(Self::Overload),
            503 => Some(Self::Red),
            408 | 500.. => Some(Self::Unreachable),
            400..=428 if is_block => Some(Self::Blocked),
            401 | 403 => Some(Self::Auth),
            400 if NAMES_AT_FAULT.contains(&kind) => Some(Self::Misconfigured),
            // Malformed, too large, unprocessable: of all errors of the 400s only these can be the document's.
            400 | 413 | 422 => None,
            _ => Some(Self::Misconfigured),
        }
    }

    /// The word for it in log and status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unanswered => "es_unanswered",
            Self::Unreachable => "es_unreachable",
            Self::Overload => "es_overload",
            Self::Red => "es_red",
            Self::DiskFull => "es_disk_full",
            Self::Blocked => "es_blocked",
            Self::Auth => "es_auth",
            Self::Misconfigured => "es_misconfigured",
            Self::DeadLetters => "dead_letters",
        }
    }

    /// Whether somebody has to act: there is no use in asking often.
    pub fn needs_operator(self) -> bool {
        match self {
            Self::Unanswered | Self::Unreachable | Self::Overload | Self::Red => false,
            Self::DiskFull
            | Self::Blocked
            | Self::Auth
            | Self::Misconfigured
            | Self::DeadLetters => true,
        }
    }
}

impl Obstacle {
    /// The index that alone is hindered: writes to others may go on.
    pub fn only_of(&self) -> Option<&str> {
        match self.cause {
            Cause::Red | Cause::DiskFull | Cause::Blocked | Cause::Auth | Cause::Misconfigured => {
                self.index.as_deref()
            }
            Cause::Unanswered | Cause::Unreachable | Cause::Overload | Cause::DeadLetters => None,
        }
    }
}

/// Errors of status 400 that speak of the index, not of the document.
const NAMES_AT_FAULT: [&str; 3] =
    ["index_closed_exception", "invalid_index_name_exception", "invalid_alias_name_exception"];

/// Why a write waits. Holds no column value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// What stands in the way.
    pub cause: Cause,
    /// HTTP status.
    pub status: u16,
    /// The error's type, as the server names it.
    pub kind: String,
    /// The index or alias, where it is one.
    pub index: Option<String>,
}

impl Obstacle {
    /// Of two, the more important.
    #[must_use]
    pub(super) fn or_worse(self, other: Self) -> Self {
        if other.cause > self.cause { other } else { self }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}, {}", self.status, self.kind)?;
        match &self.index {
            Some(index) => write!(f, ", index \"{index}\""),
            None => Ok(()),
        }
    }
}

/// Why the server refuses a document. Holds no column value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// HTTP status of the item, or of the request in which it stood alone.
    pub status: u16,
    /// The error's type and, if there is one, its cause's.
    pub kind: String,
    /// The field the error names.
    pub field: Option<String>,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}, {}", self.status, self.kind)?;
        match &self.field {
            Some(field) => write!(f, ", field \"{field}\""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_malformed_and_oversized_is_the_documents_own_fault() {
        let refused: Vec<u16> =
            (400..=599).filter(|&status| Cause::of(status, "any_exception").is_none()).collect();
        assert_eq!(refused, [400, 413, 422]);
    }

    #[test]
    fn as_the_servers_answered() {
        for (status, kind, cause) in [
            (429, "es_rejected_execution_exception", Cause::Overload),
            (429, "circuit_breaking_exception", Cause::Overload),
            (429, "cluster_block_exception", Cause::DiskFull),
            (403, "cluster_block_exception", Cause::Blocked),
            (403, "security_exception", Cause::Auth),
            (401, "security_exception", Cause::Auth),
            (503, "unavailable_shards_exception", Cause::Red),
            (400, "index_closed_exception", Cause::Misconfigured),
            (404, "index_not_found_exception", Cause::Misconfigured),
            (405, "no error type given", Cause::Misconfigured),
            (500, "null_pointer_exception", Cause::Unreachable),
            (504, "no error type given", Cause::Unreachable),
        ] {
            assert_eq!(Cause::of(status, kind), Some(cause), "{status} {kind}");
        }
        assert_eq!(Cause::of(400, "document_parsing_exception"), None);
    }
}
