//! Throwaway Elasticsearch nodes, with security on.

use anyhow::{Context, Result, bail};

use super::artefacts::{self, Artefact};
use super::backend::Backend;
use super::docker::Container;
use super::java::{self, Java};
use super::locate::{self, say};
use super::ports;
use super::releases::{self, ELASTICSEARCH, Release};
use super::search_node::{Flavour, Installation, NodeOptions, SearchNode};

/// The user of every throwaway node, a superuser.
pub const USER: &str = "waldex";
/// Its password.
pub const PASSWORD: &str = "waldex-throwaway";
/// The bcrypt hash of [`PASSWORD`], at a low cost: it guards nothing.
const PASSWORD_BCRYPT: &str = "$2a$06$Wa1dexThr0wawaySa1t00u7YUOML28UQU9mf4LHFxngcabKWERfSO";

/// A node that tests may share: of the chosen release, else the one that `WALDEX_TEST_ELASTICSEARCH_URL`
/// points at, else a new one.
pub fn obtain() -> Result<SearchNode> {
    let chosen = releases::chosen()?.elasticsearch;
    match std::env::var("WALDEX_TEST_ELASTICSEARCH_URL") {
        Ok(url) if chosen.is_none() => SearchNode::given(Flavour::Elasticsearch, &url),
        _ => start(&NodeOptions::default()),
    }
}

/// What is at hand, for the quickstart: pointed at, installed, else as [`obtain`].
pub fn obtain_any() -> Result<SearchNode> {
    if std::env::var_os("WALDEX_TEST_ELASTICSEARCH_URL").is_none()
        && let Some((home, version)) = locate::installed_search("elasticsearch", "ES_HOME")
    {
        say(&format!("using the installed Elasticsearch {version}"));
        let java = if home.join("jdk/bin/java").is_file() {
            None
        } else {
            Some(java::find(&(java::CURRENT..=u32::MAX))?)
        };
        return SearchNode::start(&installation(home, java), &NodeOptions::default());
    }
    obtain()
}

/// Starts a node of one's own and waits until it is ready: of the chosen release, else of the newest that
/// this machine's Java can run.
pub fn start(options: &NodeOptions) -> Result<SearchNode> {
    let chosen = releases::chosen()?.elasticsearch;
    let fetched =
        releases::with_java("Elasticsearch", &ELASTICSEARCH, chosen).and_then(|(release, java)| {
            Ok((artefacts::fetch(Artefact::Elasticsearch(release.version))?, java))
        });
    match fetched {
        Ok((home, java)) => SearchNode::start(&installation(home, Some(java)), options),
        Err(trouble) if locate::has_docker() => start_docker(chosen, options).context(trouble),
        Err(trouble) if chosen.is_some() => Err(trouble),
        Err(trouble) => match locate::installed_search("elasticsearch", "ES_HOME") {
            Some((home, _)) => SearchNode::start(&installation(home, None), options),
            None => bail!(
                "no Elasticsearch can be had: install a Java {} runtime and Maven, or set \
                 WALDEX_TEST_ELASTICSEARCH_URL ({trouble:#})",
                java::CURRENT
            ),
        },
    }
}

fn installation(home: std::path::PathBuf, java: Option<Java>) -> Installation {
    let mut settings: Vec<String> = [
        "xpack.security.enabled: true",
        "xpack.security.http.ssl.enabled: false",
        "xpack.security.transport.ssl.enabled: false",
        "xpack.security.autoconfiguration.enabled: false",
        "xpack.security.enrollment.enabled: false",
    ]
    .map(str::to_owned)
    .into();
    // A node refuses settings of modules that it has not.
    let has = |module: &str| home.join("modules").join(module).is_dir();
    if has("x-pack-ml") {
        settings.push("xpack.ml.enabled: false".to_owned());
    }
    if has("ingest-geoip") {
        settings.push("ingest.geoip.downloader.enabled: false".to_owned());
    }
    Installation {
        flavour: Flavour::Elasticsearch,
        home,
        java,
        settings,
        files: vec![
            ("users", format!("{USER}:{PASSWORD_BCRYPT}\n")),
            ("users_roles", format!("superuser:{USER}\n")),
        ],
        credentials: Some((USER.to_owned(), PASSWORD.to_owned())),
    }
}

fn start_docker(chosen: Option<&'static Release>, options: &NodeOptions) -> Result<SearchNode> {
    let version = chosen.unwrap_or_else(|| releases::newest(&ELASTICSEARCH)).version;
    let port = ports::free()?;
    let heap = options.heap_mib;
    let mut args = vec!["-p".to_owned(), format!("127.0.0.1:{port}:9200")];
    for variable in [
        "discovery.type=single-node".to_owned(),
        "xpack.security.http.ssl.enabled=false".to_owned(),
        "cluster.routing.allocation.disk.threshold_enabled=false".to_owned(),
        format!("ELASTIC_PASSWORD={PASSWORD}"),
        format!("ES_JAVA_OPTS=-Xms{heap}m -Xmx{heap}m"),
    ] {
        args.extend(["-e".to_owned(), variable]);
    }
    args.push(format!("elasticsearch:{version}"));
    let credentials = Some(("elastic".to_owned(), PASSWORD.to_owned()));
    let container = Backend::Docker(Container::start(&args)?);
    SearchNode::on_port(Flavour::Elasticsearch, port, credentials, container)
}
