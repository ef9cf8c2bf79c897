//! The test servers themselves: each starts, answers, survives a crash and leaves nothing behind.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use serde_json::json;

use crate::support::compare::{Expectation, assert_table_equals_index, differences};
use crate::support::search::Search;
use crate::support::servers::backend::Backend;
use crate::support::servers::postgres::{Options, Postgres, Version};
use crate::support::servers::releases::{self, POSTGRES};
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    Servers, shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::sql;
use crate::support::wait::wait_until;
use crate::support::waldex::Waldex;

const DEADLINE: Duration = Duration::from_secs(30);

async fn slot_round_trip(server: &Postgres) -> Result<String> {
    let database = server.create_database("smoke").await?;
    let client = sql::connect(&database.url).await?;
    let slot = &database.name;
    sql::batch(&client, "create table t (id int primary key, v text)").await?;
    sql::batch(&client, &format!("create publication {slot} for table t")).await?;
    let create = format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    sql::batch(&client, &create).await?;
    sql::batch(&client, "insert into t values (1, 'one')").await?;
    let changes = format!(
        "select count(*) from pg_logical_slot_get_binary_changes('{slot}', null, null, \
         'proto_version', '1', 'publication_names', '{slot}')"
    );
    // Begin, Relation, Insert, Commit.
    ensure!(sql::value(&client, &changes).await?.as_deref() == Some("4"), "no pgoutput");
    let version = sql::value(&client, "show server_version_num").await?;
    server.drop_database(&database).await?;
    version.context("no version")
}

async fn index_round_trip(node: &SearchNode) -> Result<()> {
    let search = Search::of(node)?;
    let index = format!("smoke-{}", std::process::id());
    ensure!(search.count(&index).await?.is_none(), "the index is there already");
    let version = "?version=9007199254740993&version_type=external_gte";
    for id in ["1", "a b,~0"] {
        let id = id.replace(' ', "%20");
        let path = format!("/{index}/_doc/{id}{version}");
        search.expect(Method::Put, &path, Some(json!({"id": id, "n": i64::MAX}))).await?;
    }
    let documents = search.documents(&index).await?;
    ensure!(documents.keys().collect::<Vec<_>>() == ["1", "a b,~0"], "{documents:?}");
    let one = search.document(&index, "a b,~0").await?.context("no document")?;
    ensure!(one.version == 9_007_199_254_740_993 && one.source["n"] == i64::MAX, "{one:?}");
    search.delete_index(&index).await
}

#[tokio::test]
async fn newest_postgres_decodes_with_pgoutput() -> Result<()> {
    let server = shared_postgres()?;
    let version = slot_round_trip(server).await?;
    let pointed = matches!(server.backend(), Backend::Given);
    let release = releases::chosen()?.postgres.unwrap_or_else(|| releases::newest(&POSTGRES));
    ensure!(pointed || version.starts_with(release.line), "version {version}");
    Ok(())
}

#[tokio::test]
async fn postgres_14_decodes_with_pgoutput() -> Result<()> {
    let version = slot_round_trip(shared_postgres_14()?).await?;
    ensure!(version.starts_with("14"), "version {version}");
    Ok(())
}

#[tokio::test]
async fn elasticsearch_takes_versioned_documents() -> Result<()> {
    let node = shared_elasticsearch()?;
    index_round_trip(node).await?;
    let stranger = SearchNode::given(node.flavour, node.url.as_str())?;
    let (status, _) = Search::of(&stranger)?.request(Method::Get, "/_cluster/health", None).await?;
    let secured = node.credentials.is_some();
    ensure!(!secured || status == 401, "an anonymous request was answered with {status}");
    Ok(())
}

#[tokio::test]
async fn opensearch_takes_versioned_documents_and_has_analyzers() -> Result<()> {
    let node = shared_opensearch()?;
    index_round_trip(node).await?;
    let text = json!({"tokenizer": "standard", "filter": ["asciifolding"], "text": "Été"});
    let answer = Search::of(node)?.expect(Method::Post, "/_analyze", Some(text)).await?;
    ensure!(answer["tokens"][0]["token"] == "Ete", "{answer}");
    Ok(())
}

/// The comparison finds a missing, a different and an orphaned document, and equality.
#[tokio::test]
async fn comparison_finds_every_kind_of_difference() -> Result<()> {
    let server = shared_postgres()?;
    let database = server.create_database("compare").await?;
    let client = sql::connect(&database.url).await?;
    sql::batch(
        &client,
        "create table t (id int primary key, v text); insert into t values (1, 'a'), (2, null)",
    )
    .await?;
    let search = Search::of(shared_elasticsearch()?)?;
    let index = &database.name;
    let put = async |id: &str, body| {
        search.expect(Method::Put, &format!("/{index}/_doc/{id}"), Some(body)).await
    };
    put("1", json!({"id": 1, "v": "b"})).await?;
    put("3", json!({"id": 3, "v": null})).await?;
    let expectation = Expectation::columns("t", "id", &["id", "v"]);
    let found = differences(&client, &expectation, &search, index).await?;
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let starts = ["1 in", "missing 2", "orphan 3"];
    ensure!(
        found.len() == 3 && found.iter().zip(starts).all(|(line, start)| line.starts_with(start)),
        "{found:?}"
    );
    ensure!(
        assert_table_equals_index(&client, &expectation, &search, index).await.is_err(),
        "differences passed"
    );
    put("1", json!({"id": 1, "v": "a"})).await?;
    put("2", json!({"v": null, "id": 2})).await?;
    search.expect(Method::Delete, &format!("/{index}/_doc/3"), None).await?;
    assert_table_equals_index(&client, &expectation, &search, index).await?;
    search.delete_index(index).await?;
    drop(client);
    server.drop_database(&database).await
}

/// A crash keeps what was committed, a suspension stops answers, and dropping leaves nothing.
#[tokio::test]
async fn private_postgres_survives_kill_and_then_vanishes() -> Result<()> {
    let server = Postgres::start(Version::Newest, &Options { fsync: true, conf: Vec::new() })?;
    let database = server.create_database("fault").await?;
    let client = sql::connect(&database.url).await?;
    sql::batch(&client, "create table t (id int); insert into t values (7)").await?;
    server.kill()?;
    ensure!(sql::connect(&database.url).await.is_err(), "a killed server answers");
    server.start_again()?;
    let client = sql::connect(&database.url).await?;
    ensure!(sql::value(&client, "select id from t").await?.as_deref() == Some("7"), "row lost");
    server.stop()?;
    server.start_again()?;
    let client = sql::connect(&database.url).await?;
    server.backend().suspend()?;
    let asked = tokio::time::timeout(Duration::from_millis(300), sql::value(&client, "select 1"));
    ensure!(asked.await.is_err(), "a suspended server answers");
    server.backend().resume()?;
    ensure!(sql::value(&client, "select id from t").await?.as_deref() == Some("7"), "row lost");
    if let Backend::Local(process) = server.backend() {
        let (directory, pids) = (process.directory().to_path_buf(), process.pids());
        ensure!(pids.len() > 3, "only {pids:?}");
        drop(server);
        ensure!(!directory.exists(), "\"{}\" was left behind", directory.display());
        ensure!(!pids.into_iter().any(is_alive), "a process was left behind");
    }
    Ok(())
}

/// The quickstart's pair; its node keeps port and documents through a crash and a freeze.
#[tokio::test]
async fn quickstart_servers_start_and_the_node_survives_kill() -> Result<()> {
    let servers = Servers::for_quickstart()?;
    let client = sql::connect(servers.postgres.url()).await?;
    ensure!(sql::value(&client, "show wal_level").await?.as_deref() == Some("logical"));
    let node = &servers.elasticsearch;
    index_round_trip(node).await?;
    if matches!(node.backend(), Backend::Given) {
        return Ok(());
    }
    let search = Search::of(node)?;
    search.expect(Method::Put, "/kept/_doc/1", Some(json!({"kept": true}))).await?;
    node.kill()?;
    ensure!(search.request(Method::Get, "/", None).await.is_err(), "a killed node answers");
    node.start_again()?;
    let kept = search.document("kept", "1").await?.context("the document was lost")?;
    ensure!(kept.source["kept"] == true, "{kept:?}");
    node.backend().suspend()?;
    let asked = tokio::time::timeout(Duration::from_millis(300), search.document("kept", "1"));
    ensure!(asked.await.is_err(), "a suspended node answers");
    node.backend().resume()?;
    search.document("kept", "1").await?.context("the document was lost")?;
    node.stop()
}

/// The runner of the binary under test, shown on a shell: lines, signals, exit codes, deadline.
#[tokio::test]
async fn runner_collects_lines_and_tells_how_it_ended() -> Result<()> {
    let shell = |script: &str| Waldex::at(PathBuf::from("/bin/sh"), "-c").arg(script);
    let ended = shell("echo out; echo log >&2; exit 3").run_to_end(DEADLINE).await?;
    ensure!(ended.stdout == ["out"] && ended.stderr == ["log"], "{ended:?}");
    ended.expect_code(3)?;
    ensure!(ended.expect_code(0).is_err(), "a wrong exit code passed");
    let mut running = shell("echo ready; exec sleep 600").spawn()?;
    running.wait_for_line(DEADLINE, "ready").await?;
    ensure!(running.is_running() && running.peak_rss_bytes().is_some(), "it does not run");
    running.terminate();
    ensure!(running.finish(DEADLINE).await?.signal == Some(15), "SIGTERM was not the end");
    let mut running = shell("echo ready; exec sleep 600").spawn()?;
    running.wait_for_line(DEADLINE, "ready").await?;
    ensure!(running.kill()?.signal == Some(9), "SIGKILL was not the end");
    let late = shell("exec sleep 600").run_to_end(Duration::from_millis(100)).await;
    ensure!(late.is_err(), "the deadline passed unnoticed");
    let mut short = shell("exit 0").spawn()?;
    ensure!(short.wait_for_line(DEADLINE, "never").await.is_err(), "a line out of nothing");
    Ok(())
}

/// The same test binary is run once more, as a child that starts a server and is then killed.
#[tokio::test]
async fn servers_vanish_when_their_process_is_killed() -> Result<()> {
    let report = tempfile::tempdir()?;
    let file = report.path().join("server");
    let mut child = starts_a_server(&file)?.spawn()?;
    let mut found = None;
    let limit = Duration::from_secs(120);
    let waited = wait_until(limit, "the child's server", async || {
        found = read_report(&file);
        found.is_some() || !matches!(child.try_wait(), Ok(None))
    })
    .await;
    child.kill()?;
    child.wait()?;
    waited?;
    let (directory, pid) = found.context("the child ended without a server")?;
    let gone = async || !directory.exists() && !is_alive(pid);
    wait_until(DEADLINE, "the server of the killed process to vanish", gone).await
}

/// While `initdb` is at work there is no server yet; what it writes must vanish all the same.
#[tokio::test]
async fn a_kill_during_initdb_leaves_nothing() -> Result<()> {
    let own = tempfile::tempdir()?;
    // The servers' user must be able to enter.
    std::fs::set_permissions(own.path(), Permissions::from_mode(0o755))?;
    let entries = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(own.path()).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    };
    let mut child =
        starts_a_server(&own.path().join("report"))?.env("TMPDIR", own.path()).spawn()?;
    let initdb = async || entries().iter().any(|entry| entry.join("data/base").is_dir());
    let waited = wait_until(Duration::from_secs(120), "initdb", initdb).await;
    child.kill()?;
    child.wait()?;
    waited?;
    ensure!(!own.path().join("report").exists(), "the server was there already");
    wait_until(DEADLINE, "the directory to vanish", async || entries().is_empty()).await
}

/// This test binary as a child that starts a server and tells it in `report`.
fn starts_a_server(report: &Path) -> Result<Command> {
    let mut child = Command::new(std::env::current_exe()?);
    child
        .args(["--exact", "e2e::smoke_servers::child_that_is_killed", "--ignored"])
        .env(REPORT_VARIABLE, report)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(child)
}

const REPORT_VARIABLE: &str = "SMOKE_REPORT";

#[test]
#[ignore = "a part of the two tests above, which run and kill it"]
fn child_that_is_killed() -> Result<()> {
    let Some(file) = std::env::var_os(REPORT_VARIABLE).map(PathBuf::from) else { return Ok(()) };
    let server = Postgres::start(Version::Newest, &Options::default())?;
    let Backend::Local(process) = server.backend() else { return Ok(()) };
    let pid = process.pid().context("no pid")?;
    let partial = file.with_extension("partial");
    std::fs::write(&partial, format!("{}\n{pid}", process.directory().display()))?;
    std::fs::rename(partial, file)?;
    loop {
        std::thread::park();
    }
}

fn read_report(file: &Path) -> Option<(PathBuf, u32)> {
    let text = std::fs::read_to_string(file).ok()?;
    let (directory, pid) = text.split_once('\n')?;
    Some((PathBuf::from(directory), pid.parse().ok()?))
}

/// A zombie counts as gone: it waits only for whoever inherits it.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
