//! How an error is to be met: by trying again, or by stopping and saying why.

/// Whether the same attempt can succeed later without anybody acting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An outage: wait and try again.
    Transient,
    /// Nothing changes until an operator acts: stop with the reason and the remedy.
    Definite,
}
