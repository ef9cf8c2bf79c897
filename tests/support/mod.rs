//! What tests and examples share: real servers, SQL, search requests, waiting, comparing.
//!
//! Everything returns errors instead of panicking, so that an example can use it too.
#![allow(dead_code, reason = "no single test or example uses all of it")]
#![allow(unreachable_pub, reason = "the same files are a module of tests and of examples")]

pub mod admin;
pub mod certificates;
pub mod compare;
pub mod encode;
pub mod proxy;
pub mod refusal;
pub mod search;
pub mod seed;
pub mod servers;
pub mod sql;
pub mod stage;
pub mod vectors;
pub mod wait;
pub mod waldex;
