//! Throwaway OpenSearch nodes, without security: its plugin is no part of the artefact.

use anyhow::{Context, Result, bail};

use super::artefacts::{self, Artefact};
use super::backend::Backend;
use super::docker::Container;
use super::java;
use super::locate::{self, say};
use super::ports;
use super::search_node::{Flavour, Installation, NodeOptions, SearchNode};

const NEWEST: &str = "3.3.0";
/// The newest that runs on Java 17.
const ON_JAVA_17: &str = "2.19.0";

/// A node that tests may share: the one `WALDEX_TEST_OPENSEARCH_URL` points at, else a new one of
/// the newest version this machine's Java can run.
pub fn obtain() -> Result<SearchNode> {
    match std::env::var("WALDEX_TEST_OPENSEARCH_URL") {
        Ok(url) => SearchNode::given(Flavour::OpenSearch, &url),
        Err(_) => start(&NodeOptions::default()),
    }
}

/// Starts a node of one's own and waits until it is ready.
pub fn start(options: &NodeOptions) -> Result<SearchNode> {
    let fetched = java::find().and_then(|java| {
        let version = if java.major >= java::CURRENT {
            NEWEST
        } else {
            say(&format!("Java is {}: OpenSearch {ON_JAVA_17}, not {NEWEST}", java.major));
            ON_JAVA_17
        };
        Ok((artefacts::fetch(Artefact::OpenSearch(version))?, java))
    });
    match fetched {
        Ok((home, java)) => {
            let installation = Installation {
                flavour: Flavour::OpenSearch,
                home,
                java: Some(java),
                settings: Vec::new(),
                files: Vec::new(),
                credentials: None,
            };
            SearchNode::start(&installation, options)
        }
        Err(trouble) if locate::has_docker() => start_docker(options).context(trouble),
        Err(trouble) => bail!(
            "no OpenSearch can be had: install a Java {} runtime and Maven, or set \
             WALDEX_TEST_OPENSEARCH_URL ({trouble:#})",
            java::CURRENT
        ),
    }
}

fn start_docker(options: &NodeOptions) -> Result<SearchNode> {
    let port = ports::free()?;
    let heap = options.heap_mib;
    let mut args = vec!["-p".to_owned(), format!("127.0.0.1:{port}:9200")];
    for variable in [
        "discovery.type=single-node".to_owned(),
        "DISABLE_SECURITY_PLUGIN=true".to_owned(),
        "DISABLE_INSTALL_DEMO_CONFIG=true".to_owned(),
        "cluster.routing.allocation.disk.threshold_enabled=false".to_owned(),
        format!("OPENSEARCH_JAVA_OPTS=-Xms{heap}m -Xmx{heap}m"),
    ] {
        args.extend(["-e".to_owned(), variable]);
    }
    args.push(format!("opensearchproject/opensearch:{NEWEST}"));
    let container = Backend::Docker(Container::start(&args)?);
    SearchNode::on_port(Flavour::OpenSearch, port, None, container)
}
