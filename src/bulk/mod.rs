//! The bulk request: writes are collected in an [`open::OpenBatch`], sealed into a [`batch::Batch`], and settled
//! item by item against the server's [`answer`].
//!
//! Pure: no await, no clock, no socket. To the shell a batch is opaque bytes. A [`batch::Receipt`], without which
//! no LSN can be acknowledged, comes only from a batch whose every item was confirmed, or [`refused`] and its
//! dead letter confirmed.

pub mod answer;
pub mod batch;
pub mod obstacle;
pub mod open;
mod pending;
pub mod refused;
pub mod settle;
#[cfg(test)]
mod tests;
pub mod throttle;
pub mod write;
