//! waldex keeps Elasticsearch and OpenSearch equal to PostgreSQL tables.

pub mod document;
pub mod error;
pub mod lsn;
pub mod pgoutput;
pub mod postgres;
pub mod settings;
