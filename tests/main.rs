//! All integration tests, in one binary: it links once and shares its servers.

mod e2e;
mod support;
