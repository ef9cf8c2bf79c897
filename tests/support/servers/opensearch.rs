//! Throwaway OpenSearch nodes, without security: its plugin is no part of the artefact.

use anyhow::{Context, Result, bail};

use super::artefacts::{self, Artefact};
use super::backend::Backend;
use super::docker::Container;
use super::java;
use super::locate;
use super::ports;
use super::releases::{self, OPENSEARCH, Release};
use super::search_node::{Flavour, Installation, NodeOptions, SearchNode};

/// A node that tests may share: of the chosen release, else the one that `WALDEX_TEST_OPENSEARCH_URL`
/// points at, else a new one.
pub fn obtain() -> Result<SearchNode> {
    let chosen = releases::chosen()?.opensearch;
    match std::env::var("WALDEX_TEST_OPENSEARCH_URL") {
        Ok(url) if chosen.is_none() => SearchNode::given(Flavour::OpenSearch, &url),
        _ => start(&NodeOptions::default()),
    }
}

/// Starts a node of one's own and waits until it is ready: of the chosen release, else of the newest that
/// this machine's Java can run.
pub fn start(options: &NodeOptions) -> Result<SearchNode> {
    let chosen = releases::chosen()?.opensearch;
    let fetched =
        releases::with_java("OpenSearch", &OPENSEARCH, chosen).and_then(|(release, java)| {
            Ok((artefacts::fetch(Artefact::OpenSearch(release.version))?, java))
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
        Err(trouble) if locate::has_docker() => start_docker(chosen, options).context(trouble),
        Err(trouble) if chosen.is_some() => Err(trouble),
        Err(trouble) => bail!(
            "no OpenSearch can be had: install a Java {} runtime and Maven, or set \
             WALDEX_TEST_OPENSEARCH_URL ({trouble:#})",
            java::CURRENT
        ),
    }
}

fn start_docker(chosen: Option<&'static Release>, options: &NodeOptions) -> Result<SearchNode> {
    let version = chosen.unwrap_or_else(|| releases::newest(&OPENSEARCH)).version;
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
    args.push(format!("opensearchproject/opensearch:{version}"));
    let container = Backend::Docker(Container::start(&args)?);
    SearchNode::on_port(Flavour::OpenSearch, port, None, container)
}
