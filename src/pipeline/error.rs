//! What ends the stream for good.

use super::row::BinaryColumn;
use crate::document::projection::ProjectionError;
use crate::lsn::Lsn;
use crate::pgoutput::decode::DecodeError;
use crate::pgoutput::envelope::EnvelopeError;

/// The stream or its configuration is not what it must be; nothing is lost, the slot stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Damaged or unknown envelope.
    #[error("replication stream: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Damaged or unsupported message.
    #[error("replication stream: {0}")]
    Decode(#[from] DecodeError),
    /// A tuple in binary form.
    #[error("replication stream: {0}")]
    Binary(#[from] BinaryColumn),
    /// A message out of its place.
    #[error("replication stream: {0}")]
    Order(&'static str),
    /// A change of a table that was never described.
    #[error("replication stream: a change of relation {0}, which was not announced")]
    UnknownRelation(u32),
    /// The table no longer fits its configuration.
    #[error("table \"{table}\": {source}")]
    Projection {
        /// Schema-qualified name.
        table: String,
        /// What does not fit.
        source: ProjectionError,
    },
    /// WAL beyond what a version can hold.
    #[error("LSN {0} does not fit a document version (64 PiB of WAL)")]
    LsnTooLarge(Lsn),
}
