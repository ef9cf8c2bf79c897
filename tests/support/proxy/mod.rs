//! A proxy that does what networks do: cut, delay, lose, repeat, truncate, trickle.
//!
//! [`tcp::Link`] carries bytes and knows nothing of them; it stands before Postgres or any other server.
//! [`http::SearchProxy`] reads whole HTTP requests and answers; it stands before a search node, and a
//! rule decides for each request what happens to it, another for each item of a bulk ([`items`]). Both
//! run as tasks of the current runtime and end with their handle.

pub mod http;
pub mod items;
pub mod message;
pub mod request;
pub mod tcp;
pub mod tls;
