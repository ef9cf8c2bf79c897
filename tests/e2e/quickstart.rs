//! The quickstart as a newcomer runs it, on servers that are here already: its ends and what it leaves.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use elasticsearch::http::Method;
use rustix::process::Signal;

use crate::support::search::Search;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::waldex::Waldex;

const LIMIT: Duration = Duration::from_secs(120);
const EQUAL: &str = "Table and index are equal: ";

/// The example that Cargo built beside this test, pointed at the shared search server.
fn quickstart(argument: &str) -> Result<Waldex> {
    let test = std::env::current_exe()?;
    let directory = test.parent().and_then(|deps| deps.parent()).context("no target directory")?;
    let program = directory.join("examples/quickstart");
    ensure!(program.is_file(), "not built, as `cargo test` does: cargo build --example quickstart");
    let url = shared_elasticsearch()?.url_with_credentials();
    let example = Waldex::at(program, argument).env("WALDEX_TEST_ELASTICSEARCH_URL", &url);
    Ok(match std::env::var("WALDEX_TEST_CACHE") {
        Ok(cache) => example.env("WALDEX_TEST_CACHE", &cache),
        Err(_) => example,
    })
}

async fn no_index_is_left(pid: u32) -> Result<()> {
    let search = Search::of(shared_elasticsearch()?)?;
    let path = format!("/_resolve/index/quickstart-{pid}-*");
    let found = search.expect(Method::Get, &path, None).await?;
    let none = found["indices"] == serde_json::json!([]) && found["aliases"] == found["indices"];
    ensure!(none, "left behind: {found}");
    let path = format!("/waldex-state/_doc/quickstart_{pid}_1");
    let (status, _) = search.request(Method::Get, &path, None).await?;
    ensure!(status == 404, "the state was left behind");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn quickstart_once_ends_equal_and_leaves_nothing_on_given_servers() -> Result<()> {
    let postgres = shared_postgres()?;
    let running = quickstart("--once")?.env("WALDEX_TEST_POSTGRES_URL", postgres.url()).spawn()?;
    let pid = running.pid();
    let finished = running.finish(LIMIT).await?;
    finished.expect_code(0)?;
    let said = finished.stdout.join("\n");
    for verb in ["insert  ", "update  ", "delete  ", EQUAL] {
        ensure!(said.contains(&format!("\n{verb}")), "no \"{verb}\" in:\n{said}");
    }
    ensure!(finished.stderr.is_empty(), "warnings: {:?}", finished.stderr);
    no_index_is_left(pid).await?;
    let client = sql::connect(postgres.url()).await?;
    let mine = format!("like 'quickstart\\_{pid}\\_%'");
    let left = format!(
        "select datname from pg_database where datname {mine}
         union all select slot_name from pg_replication_slots where slot_name {mine}
         union all select rolname from pg_roles where rolname {mine}"
    );
    let left = sql::rows(&client, &left).await?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn quickstart_compares_at_ctrl_c_and_its_own_server_vanishes() -> Result<()> {
    let directory = tempfile::tempdir()?;
    // The servers' user must be able to enter.
    set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let own = directory.path().to_str().context("no UTF-8")?;
    let mut running = quickstart("--log")?.env("TMPDIR", own).spawn()?;
    let pid = running.pid();
    running.wait_for_line(LIMIT, "update  ").await?;
    running.signal(Signal::INT);
    let finished = running.finish(LIMIT).await?;
    finished.expect_code(0)?;
    let is_equal = finished.stdout.iter().any(|line| line.starts_with(EQUAL));
    ensure!(is_equal, "{:?}", finished.stdout);
    let left: Vec<_> = directory.path().read_dir()?.collect::<Result<_, _>>()?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    no_index_is_left(pid).await
}
