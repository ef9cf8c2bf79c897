//! Rows become documents: Postgres' text values go straight to JSON bytes in the bulk body.
//!
//! Pure: no await, no clock, no socket. A row arrives as resolved [`Field`]s; unchanged TOAST has been
//! settled before (the type has no such case, so it cannot be forgotten).

/// One column of a resolved row, in the order of the relation's columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// SQL NULL: becomes `null`.
    Null,
    /// Not known and not to be written: the field is left out of the document.
    Absent,
    /// The value in its type's text form under the pinned session settings.
    Text(&'a [u8]),
}

mod array;
mod datetime;
mod hstore;
pub mod id;
pub mod index_settings;
pub mod json;
mod json_text;
pub mod mapping;
pub mod projection;
mod quoted;
mod range;
pub mod template;
pub mod tombstones;
pub mod types;
pub mod value;
