//! Fetches servers as artefacts with Maven and keeps them unpacked.
//!
//! Artefacts are named by coordinates; where they come from is Maven's own configuration. They are
//! kept in `target/servers`, or where `WALDEX_TEST_CACHE` says. Several test processes may want the
//! same one at once: a file lock lets one fetch it, and a directory appears under its final name
//! only when it is complete.

use std::fs::{self, File, Permissions};
use std::io::{BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::locate::{self, is_reachable, say};

const PLUGIN_GOAL: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy";

/// How the directories of unfinished work begin.
const PARTIAL: &str = ".partial-";

/// A server that can be fetched.
#[derive(Clone, Copy, Debug)]
pub enum Artefact {
    /// PostgreSQL binaries.
    Postgres(&'static str),
    /// Elasticsearch, the distribution its own integration tests use.
    Elasticsearch(&'static str),
    /// OpenSearch likewise, with the analyzers that come as a module of their own.
    OpenSearch(&'static str),
}

impl Artefact {
    /// `name-version`, as the directory is called.
    fn label(self) -> String {
        match self {
            Self::Postgres(version) => format!("postgres-{version}"),
            Self::Elasticsearch(version) => format!("elasticsearch-{version}"),
            Self::OpenSearch(version) => format!("opensearch-{version}"),
        }
    }

    fn coordinates(self) -> Vec<String> {
        match self {
            Self::Postgres(version) => {
                let arch = if cfg!(target_arch = "aarch64") { "arm64v8" } else { "amd64" };
                let group = "io.zonky.test.postgres";
                vec![format!("{group}:embedded-postgres-binaries-linux-{arch}:{version}")]
            }
            Self::Elasticsearch(version) => {
                let group = "org.elasticsearch.distribution.integ-test-zip";
                vec![format!("{group}:elasticsearch:{version}:zip")]
            }
            Self::OpenSearch(version) => {
                let group = "org.opensearch.distribution.integ-test-zip";
                vec![
                    format!("{group}:opensearch:{version}:zip"),
                    format!("org.opensearch.plugin:analysis-common:{version}"),
                ]
            }
        }
    }

    /// Brings the fetched files in `from` into their final shape in `into`.
    fn unpack(self, from: &Path, into: &Path) -> Result<()> {
        match self {
            Self::Postgres(_) => unpack_postgres(&only_file(from, "jar")?, into),
            Self::Elasticsearch(_) => unpack_zip(&only_file(from, "zip")?, into),
            Self::OpenSearch(version) => {
                unpack_zip(&only_file(from, "zip")?, into)?;
                add_analyzers(&only_file(from, "jar")?, into, version)
            }
        }
    }
}

/// The directory of an unpacked server; fetched if it is not there yet.
pub fn fetch(artefact: Artefact) -> Result<PathBuf> {
    let cache = cache_directory()?;
    let home = cache.join(artefact.label());
    if home.is_dir() {
        return Ok(home);
    }
    // One lock for all: Maven's own store does not expect several of it at once.
    let lock = File::create(cache.join(".lock"))?;
    lock.lock().context("cannot lock the servers' directory")?;
    if home.is_dir() {
        return Ok(home);
    }
    let mvn = maven()?;
    remove_partial(&cache);
    say(&format!("fetching {} with mvn", artefact.label()));
    let work = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(&cache)?;
    let (jars, unpacked) = (work.path().join("jars"), work.path().join("unpacked"));
    for coordinates in artefact.coordinates() {
        locate::run(
            Command::new(&mvn)
                .args(["-q", "-B", PLUGIN_GOAL])
                .arg(format!("-Dartifact={coordinates}"))
                .arg(format!("-DoutputDirectory={}", jars.display()))
                .current_dir(work.path()),
        )
        .with_context(|| format!("cannot fetch \"{coordinates}\""))?;
    }
    fs::create_dir(&unpacked)?;
    artefact.unpack(&jars, &unpacked)?;
    let root = only_directory(&unpacked).unwrap_or(unpacked);
    open_to_all(&root)?;
    fs::rename(&root, &home)?;
    Ok(home)
}

/// What a fetch that was killed has left. Whoever holds the lock is the only one at work.
fn remove_partial(cache: &Path) {
    for entry in locate::entries(&cache.to_string_lossy()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PARTIAL) {
            // What cannot be removed is only in the way of the disk's space.
            let _ = fs::remove_dir_all(&entry);
        }
    }
}

/// Whether [`fetch`] has a chance: Maven is here, or can be installed.
fn maven() -> Result<PathBuf> {
    if let Some(mvn) = locate::which("mvn") {
        return Ok(mvn);
    }
    if !locate::can_install() {
        bail!("Maven is missing");
    }
    locate::install(&["maven"]).context("Maven is missing")?;
    locate::which("mvn").context("Maven is missing after its installation")
}

/// Where servers are kept; one that the servers' user can read.
fn cache_directory() -> Result<PathBuf> {
    let chosen = match std::env::var_os("WALDEX_TEST_CACHE") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers"),
    };
    fs::create_dir_all(&chosen)
        .with_context(|| format!("cannot create \"{}\"", chosen.display()))?;
    if is_reachable(&chosen) {
        return Ok(chosen);
    }
    // Below root's home nobody else can read; this place is ours alone to write.
    let shared = PathBuf::from("/var/tmp/waldex-servers");
    fs::create_dir_all(&shared)?;
    if std::os::unix::fs::MetadataExt::uid(&fs::symlink_metadata(&shared)?) != 0 {
        bail!("\"{}\" belongs to somebody else: set WALDEX_TEST_CACHE", shared.display());
    }
    Ok(shared)
}

fn only_file(directory: &Path, extension: &str) -> Result<PathBuf> {
    let mut files = locate::entries(&directory.to_string_lossy());
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    match <[PathBuf; 1]>::try_from(files) {
        Ok([file]) => Ok(file),
        Err(files) => bail!("expected one .{extension} file, got {}", files.len()),
    }
}

fn only_directory(directory: &Path) -> Option<PathBuf> {
    let [entry] = <[PathBuf; 1]>::try_from(locate::entries(&directory.to_string_lossy())).ok()?;
    entry.is_dir().then_some(entry)
}

fn unpack_zip(zip: &Path, into: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::new(File::open(zip)?))?;
    archive.extract(into).with_context(|| format!("cannot unpack \"{}\"", zip.display()))
}

/// The jar holds one `.txz` with `bin`, `lib` and `share`.
fn unpack_postgres(jar: &Path, into: &Path) -> Result<()> {
    let mut archive = zip::ZipArchive::new(BufReader::new(File::open(jar)?))?;
    let name = archive
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with(".txz"))
        .context("no .txz in the jar of the Postgres binaries")?
        .into_owned();
    let mut packed = Vec::new();
    archive.by_name(&name)?.read_to_end(&mut packed)?;
    let mut unpacked = Vec::new();
    lzma_rs::xz_decompress(&mut packed.as_slice(), &mut unpacked)
        .map_err(|error| anyhow::anyhow!("cannot unpack \"{name}\": {error:?}"))?;
    tar::Archive::new(unpacked.as_slice()).unpack(into).context("cannot unpack Postgres")
}

/// A module is a directory with a jar and a descriptor that names its class, which was renamed
/// between OpenSearch 2 and 3.
fn add_analyzers(jar: &Path, into: &Path, version: &str) -> Result<()> {
    let home = only_directory(into).context("the OpenSearch zip holds no directory")?;
    let module = home.join("modules/analysis-common");
    fs::create_dir_all(&module)?;
    let classes = zip::ZipArchive::new(BufReader::new(File::open(jar)?))?;
    let class = ["CommonAnalysisModulePlugin", "CommonAnalysisPlugin"]
        .into_iter()
        .find(|class| {
            let file = format!("org/opensearch/analysis/common/{class}.class");
            classes.file_names().any(|name| name.is_ok_and(|name| name == file))
        })
        .context("the analyzers' jar holds no known plugin class")?;
    fs::copy(jar, module.join("analysis-common.jar"))?;
    let java = if version.starts_with("2.") { 11 } else { 21 };
    let descriptor = format!(
        "name=analysis-common\ndescription=analyzers\nversion={version}\n\
         opensearch.version={version}\njava.version={java}\n\
         classname=org.opensearch.analysis.common.{class}\n\
         custom.foldername=\nextended.plugins=\nhas.native.controller=false\n"
    );
    fs::write(module.join("plugin-descriptor.properties"), descriptor)?;
    Ok(())
}

/// Readable by the servers' user whatever our umask is.
fn open_to_all(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mode = meta.permissions().mode();
    let more = if meta.is_dir() || mode & 0o100 != 0 { 0o555 } else { 0o444 };
    fs::set_permissions(path, Permissions::from_mode(mode | more))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            open_to_all(&entry?.path())?;
        }
    }
    Ok(())
}
