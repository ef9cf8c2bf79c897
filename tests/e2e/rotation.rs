//! Secrets that are replaced while waldex runs: it waits with the reason, holds the position, reads the file again,
//! and goes on by itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::support::proxy::http::{Fault, SearchProxy};
use crate::support::refusal::CommandLine;
use crate::support::servers::{shared_opensearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Running, Waldex};

const REFUSED: &str =
    r#"{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}"#;
const FORBIDDEN: &str =
    r#"{"error":{"type":"security_exception","reason":"action is unauthorized"},"status":403}"#;

async fn stage(label: &str) -> Result<Stage<'static>> {
    let mut stage = Stage::new(label, shared_postgres()?, shared_opensearch()?).await?;
    stage.table("t", "id int primary key, v text", "").await?;
    stage.execute("insert into t values (1, 'loaded')").await?;
    Ok(stage)
}

fn put(files: &TempDir, name: &str, text: &str) -> Result<PathBuf> {
    let path = files.path().join(name);
    std::fs::write(&path, format!("{text}\n"))?;
    Ok(path)
}

async fn ends_well(stage: &Stage<'_>, running: Running) -> Result<()> {
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.assert_equal("t", "id", &["id", "v"]).await
}

/// A cluster that takes one `Authorization`, which can be changed: a proxy before one that asks for none.
struct Guarded {
    proxy: SearchProxy,
    accepted: Arc<Mutex<String>>,
}

impl Guarded {
    async fn new(accepted: &str) -> Result<Self> {
        let proxy = SearchProxy::before(shared_opensearch()?).await?;
        let accepted = Arc::new(Mutex::new(accepted.to_owned()));
        let asked = Arc::clone(&accepted);
        proxy.rule(move |request| {
            let accepted = asked.lock().unwrap_or_else(PoisonError::into_inner);
            let is_right = request.authorization.as_ref() == Some(&*accepted);
            if is_right { Fault::Pass } else { Fault::Answer(401, REFUSED) }
        });
        Ok(Self { proxy, accepted })
    }

    fn accept(&self, accepted: &str) {
        accepted.clone_into(&mut self.accepted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn run(&self, stage: &Stage<'_>, flags: &[(&str, &str)]) -> Result<Running> {
        let (url, node) = (&stage.database.url, self.proxy.node());
        let mut program = Waldex::new("run")?.between(url, stage.name(), node);
        for (flag, value) in flags {
            program = program.arg(flag).arg(value);
        }
        program.config(&stage.config()).spawn()
    }
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("u:{password}")))
}

/// Revoked first and replaced later, and the other way round.
async fn rotates(label: &str, file_flag: &str, sent: fn(&str) -> String) -> Result<()> {
    let stage = stage(label).await?;
    let files = tempfile::tempdir()?;
    let path = put(&files, "secret", "b25l")?.display().to_string();
    let guarded = Guarded::new(&sent("b25l")).await?;
    let mut flags = vec![(file_flag, path.as_str())];
    if file_flag.contains("password") {
        flags.push(("--elasticsearch-username", "u"));
    }
    let mut running = guarded.run(&stage, &flags)?;
    running.wait_for_line(LIMIT, "catching_up").await?;

    guarded.accept(&sent("dHdv"));
    let mark = stage.execute_and_mark("insert into t values (2, 'revoked')").await?;
    running.wait_for_line(LIMIT, "es_auth").await?;
    ensure!(!stage.has_confirmed(&mark).await?, "confirmed though nobody let us in");
    put(&files, "secret", "dHdv")?;
    stage.confirms(&mark, LIMIT).await?;

    // The file first: then the first refusal is the last.
    put(&files, "secret", "dGhyZWU=")?;
    guarded.accept(&sent("dGhyZWU="));
    let before = running.lines().iter().filter(|line| line.contains("es_auth")).count();
    let mark = stage.execute_and_mark("update t set v = v || '!'").await?;
    stage.confirms(&mark, LIMIT).await?;
    let after = running.lines().iter().filter(|line| line.contains("es_auth")).count();
    // The write that saw the state end says so once.
    ensure!(after <= before + 1, "it waited although the new secret was there");
    let missing = stage.search.count(&stage.index("t")).await?;
    ensure!(missing == Some(2), "{missing:?} documents");
    ends_well(&stage, running).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_password_is_replaced() -> Result<()> {
    rotates("rotate_pw", "--elasticsearch-password-file", basic).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_is_replaced() -> Result<()> {
    rotates("rotate_key", "--elasticsearch-api-key-file", |key| format!("ApiKey {key}")).await
}

/// Nothing is written but the state document: what others write in the source moves the position.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_password_is_replaced_while_no_row_comes() -> Result<()> {
    let stage = stage("rotate_idle").await?;
    let files = tempfile::tempdir()?;
    let path = put(&files, "secret", "one")?.display().to_string();
    let guarded = Guarded::new(&basic("one")).await?;
    let flags =
        [("--elasticsearch-password-file", path.as_str()), ("--elasticsearch-username", "u")];
    let mut running = guarded.run(&stage, &flags)?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage.execute("create table others (n int)").await?;
    put(&files, "secret", "two")?;
    guarded.accept(&basic("two"));
    let mark = stage.execute_and_mark("insert into others values (1)").await?;
    stage.confirms(&mark, LIMIT).await?;
    ends_well(&stage, running).await
}

/// Let in, and not allowed to write.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_away_is_waited_for() -> Result<()> {
    let stage = stage("forbidden").await?;
    let guarded = Guarded::new("").await?;
    guarded.proxy.clear();
    let mut running = guarded.run(&stage, &[])?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    guarded.proxy.rule(|request| match request.is_bulk() {
        true => Fault::Answer(403, FORBIDDEN),
        false => Fault::Pass,
    });
    let mark = stage.execute_and_mark("insert into t values (2, 'forbidden')").await?;
    let told = running.wait_for_line(LIMIT, "es_auth").await?;
    ensure!(told.contains("403"), "{told}");
    ensure!(!stage.has_confirmed(&mark).await?, "confirmed though we may not write");
    guarded.proxy.clear();
    stage.confirms(&mark, LIMIT).await?;
    let letters = stage.search.documents("waldex-dead-letters").await?;
    let ours = letters.values().filter(|letter| letter.source["slot"] == stage.name()).count();
    ensure!(ours == 0, "{ours} dead letters");
    ends_well(&stage, running).await
}

/// All connections of a role end, as a restart ends them.
async fn disconnect(stage: &Stage<'_>, role: &str) -> Result<()> {
    let ended = "select pg_terminate_backend(pid) from pg_stat_activity where usename";
    stage.execute(&format!("{ended} = '{role}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_postgres_is_replaced() -> Result<()> {
    let stage = stage("rotate_pg").await?;
    let role = format!("r_{}", stage.name());
    stage.execute(&format!("create role {role} superuser login password 'one'")).await?;
    let files = tempfile::tempdir()?;
    let path = put(&files, "secret", "one")?;
    let running = run_as(&stage, &role, &path)?;
    let is_there = async || {
        let query = format!(
            "select 1 from pg_stat_replication s where usename = '{role}' and state = 'streaming'"
        );
        sql::value(&stage.sql, &query).await.is_ok_and(|found| found.is_some())
    };
    let mut running = running;
    wait_until(LIMIT, "the stream", is_there).await?;

    stage.execute(&format!("alter role {role} password 'two'")).await?;
    disconnect(&stage, &role).await?;
    let told = running.wait_for_line(LIMIT, "28P01").await?;
    ensure!(told.contains("password_file"), "no advice in {told}");
    let mark = stage.execute_and_mark("insert into t values (2, 'meanwhile')").await?;
    ensure!(running.is_running(), "it gave up");
    put(&files, "secret", "two")?;
    stage.confirms(&mark, LIMIT).await?;

    // The file first: nothing is refused at all.
    let refused = || running.lines().iter().filter(|line| line.contains("28P01")).count();
    let before = refused();
    stage.execute(&format!("alter role {role} password 'three'")).await?;
    put(&files, "secret", "three")?;
    disconnect(&stage, &role).await?;
    let mark = stage.execute_and_mark("update t set v = v || '!'").await?;
    stage.confirms(&mark, LIMIT).await?;
    ensure!(refused() == before, "refused although the new password was there");
    ends_well(&stage, running).await
}

fn run_as(stage: &Stage<'_>, role: &str, password_file: &Path) -> Result<Running> {
    let mut line = CommandLine::of(stage).with_role(role, "")?;
    let path = password_file.display().to_string();
    line.flags.extend(["--postgres-password-file".to_owned(), path]);
    line.waldex(&["run"])?.spawn()
}
