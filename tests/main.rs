//! All integration tests, in one binary: it links once and shares its servers.

mod decoder;
mod e2e;
mod fuzz;
mod simulation;
mod support;
mod tidy;
