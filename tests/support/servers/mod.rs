//! Real servers for tests and examples: found or fetched, started, and gone afterwards.
//!
//! Order of preference: servers the environment points at (`WALDEX_TEST_POSTGRES_URL`,
//! `WALDEX_TEST_ELASTICSEARCH_URL`, `WALDEX_TEST_OPENSEARCH_URL`), installed ones, artefacts
//! fetched with Maven, Docker, the system's packages. An exact version, which a test or
//! `WALDEX_TEST_SERVERS` may ask for, skips the first two. The first use of a shared server starts
//! it; all calls here block.

pub mod artefacts;
pub mod backend;
pub mod data_copy;
pub mod data_file;
pub mod docker;
pub mod elasticsearch;
pub mod java;
pub mod locate;
pub mod opensearch;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod releases;
pub mod search_node;
pub mod watchdog;

use std::sync::OnceLock;

use anyhow::{Result, anyhow, bail};

use postgres::{Postgres, Version};
use search_node::SearchNode;

type Shared<T> = OnceLock<Result<T, String>>;

fn shared<T>(cell: &'static Shared<T>, start: impl FnOnce() -> Result<T>) -> Result<&'static T> {
    // A start that failed stays failed: each further test would only wait for the same deadline.
    cell.get_or_init(|| start().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("{error}"))
}

/// The newest PostgreSQL, or the chosen one, shared by all tests of this process.
pub fn shared_postgres() -> Result<&'static Postgres> {
    static SERVER: Shared<Postgres> = OnceLock::new();
    shared(&SERVER, || Postgres::obtain(Version::Newest))
}

/// One that is at least of this major version, for what older ones lack, shared likewise.
pub fn shared_postgres_since(major: u32) -> Result<&'static Postgres> {
    static SERVER: Shared<Postgres> = OnceLock::new();
    match releases::chosen()?.postgres {
        Some(chosen) if chosen.major()? < major => {
            shared(&SERVER, || Postgres::obtain(Version::Major(releases::newest_postgres()?)))
        }
        _ => shared_postgres(),
    }
}

/// PostgreSQL 14, shared likewise.
pub fn shared_postgres_14() -> Result<&'static Postgres> {
    static SERVER: Shared<Postgres> = OnceLock::new();
    shared(&SERVER, || Postgres::obtain(Version::Major(14)))
}

/// Elasticsearch, shared likewise.
pub fn shared_elasticsearch() -> Result<&'static SearchNode> {
    static SERVER: Shared<SearchNode> = OnceLock::new();
    shared(&SERVER, elasticsearch::obtain)
}

/// OpenSearch, shared likewise.
pub fn shared_opensearch() -> Result<&'static SearchNode> {
    static SERVER: Shared<SearchNode> = OnceLock::new();
    shared(&SERVER, opensearch::obtain)
}

/// One database server and one search server, whatever is at hand.
pub struct Servers {
    /// The source.
    pub postgres: Postgres,
    /// The target.
    pub elasticsearch: SearchNode,
}

impl Servers {
    /// For someone who tries it out: what is installed comes first. Both start at the same time.
    pub fn for_quickstart() -> Result<Self> {
        std::thread::scope(|scope| {
            let elasticsearch = scope.spawn(elasticsearch::obtain_any);
            let postgres = Postgres::obtain(Version::Any);
            let elasticsearch =
                elasticsearch.join().map_err(|_| anyhow!("starting Elasticsearch panicked"))?;
            if postgres.is_err() && elasticsearch.is_err() && locate::which("mvn").is_none() {
                bail!(
                    "neither PostgreSQL nor Elasticsearch can be had: install Maven and a Java {} \
                     runtime, with which both are fetched",
                    java::CURRENT
                );
            }
            Ok(Self { postgres: postgres?, elasticsearch: elasticsearch? })
        })
    }
}
