//! waldex keeps Elasticsearch and OpenSearch equal to PostgreSQL tables.

pub mod bulk;
pub mod document;
pub mod lsn;
pub mod pgoutput;
pub mod settings;
