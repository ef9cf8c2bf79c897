//! Column values: through load and stream, every kind of change, refusals of either server, and every command.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Heard, talkative};
use crate::support::admin::{get, metric};
use crate::support::proxy::http::{Fault, Request, SearchProxy};
use crate::support::servers::ports;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::sql;
use crate::support::stage::{LIMIT, Stage};
use crate::support::wait::wait_until;
use crate::support::waldex::{Finished, Waldex};

/// In every value.
const VALUE: &str = "c4n4ry";
/// In every key; `dead-letters list` shows ids, by which the rows are found.
const KEY: &str = "k3y0fr0w";
/// As a number.
const NUMBER: &str = "420420424242";

const COLUMNS: &str =
    "id text primary key, v text, big text, doc jsonb, odd json, raw bytea, n bigint, tags text[]";
/// `v` is text in the table and a number in the index; a key of `doc` is a field, which refusals name.
const SETTINGS: &str = "mappings:
  properties:
    v: {type: integer}
    doc: {type: object, enabled: true, dynamic: true, properties: {c4n4ry: {type: keyword}}}
    tags: {type: keyword, ignore_above: 40000}";

/// Bodies above this are refused by the proxy.
const BODY_BYTES_MAX: usize = 300_000;
/// What a gateway says that quotes the request.
const QUOTING: [Fault; 9] = [
    Fault::Answer(400, r#"{"error":{"type":"no c4n4ry here","reason":"c4n4ry"},"status":400}"#),
    Fault::Answer(400, r#"{"error":"cannot read c4n4ry"}"#),
    Fault::Answer(429, r#"{"error":"too much c4n4ry"}"#),
    Fault::Answer(500, "<html>c4n4ry</html>"),
    Fault::Answer(503, r#"{"error":{"type":"c4n4ry"}}"#),
    Fault::Answer(403, r#"{"error":{"type":"c4n4ry not allowed","reason":"c4n4ry"}}"#),
    Fault::Answer(200, "c4n4ry"),
    Fault::Answer(200, r#"{"items":[{"index":{"status":"c4n4ry"}}]}"#),
    Fault::CutAnswer(40),
];

struct Scene {
    stage: Stage<'static>,
    proxy: SearchProxy,
    format: &'static str,
    heard: Heard,
}

impl Scene {
    async fn new(label: &str, format: &'static str) -> Result<Self> {
        let mut stage = Stage::new(label, shared_postgres()?, shared_elasticsearch()?).await?;
        stage.table("t", COLUMNS, SETTINGS).await?;
        // Out of line whatever its size, so that an update that leaves it alone does not bring it.
        stage.execute("alter table t alter big set storage external").await?;
        let proxy = SearchProxy::before(shared_elasticsearch()?).await?;
        Ok(Self { stage, proxy, format, heard: Heard::default() })
    }

    fn waldex(&self, subcommand: &str) -> Result<Waldex> {
        let (url, node) = (&self.stage.database.url, self.proxy.node());
        let program = Waldex::new(subcommand)?.between(url, self.stage.name(), node);
        Ok(talkative(program.config(&self.stage.config()), self.format))
    }

    async fn command(&mut self, words: &[&str]) -> Result<Finished> {
        let [subcommand, rest @ ..] = words else { anyhow::bail!("no command") };
        let mut program = self.waldex(subcommand)?;
        for word in rest {
            program = program.arg(word);
        }
        program.run_to_end(LIMIT).await
    }

    /// Runs a command, and hears all that it says.
    async fn hear(&mut self, words: &[&str], code: i32) -> Result<Finished> {
        let finished = self.command(words).await?;
        self.heard.finished(&words.join(" "), &finished);
        finished.expect_code(code)?;
        Ok(finished)
    }

    async fn confirms(&self, mark: &str) -> Result<()> {
        self.stage.confirms(mark, 2 * LIMIT).await
    }
}

/// A row whose every value has the word in it, and is taken.
fn row(key: &str) -> String {
    format!(
        "('{KEY} {key}', '1', repeat('{VALUE} ', 800), '{{\"{VALUE}\": \"{VALUE}\"}}',
          '{{\"{VALUE}\":1,\n\"{VALUE}\":2}}', '{VALUE}'::bytea, {NUMBER}, array['{VALUE}', null])"
    )
}

/// Rows that the index refuses: for a number, for a key within the JSON, for a term that is too long.
fn refused_rows(key: &str) -> String {
    format!(
        "insert into t (id, v) values ('{KEY} {key} 1', '{VALUE}');
         insert into t (id, doc) values ('{KEY} {key} 2', '{{\"{VALUE}\": {{\"{VALUE}\": 1}}}}');
         insert into t (id, tags) values ('{KEY} {key} 3', array[repeat('{VALUE}', 6000)]);"
    )
}

fn changes() -> String {
    let (a, b) = (row("a"), row("b"));
    format!(
        "insert into t values {a}, {b};
         update t set n = n + 1 where id = '{KEY} a';
         begin; update t set id = '{KEY} moved' where id = '{KEY} a'; update t set n = 0; commit;
         delete from t where id = '{KEY} b';
         insert into t (id, odd) select '{KEY} deep', (repeat('[\"{VALUE}\",', 2000) || '1' || repeat(']', 2000))::json;
         insert into t (id, odd) values ('{KEY} lone', '{{\"{VALUE}\\ud800\":\"\\ud800 {VALUE}\"}}');
         insert into t (id, big) values ('{KEY} large', repeat('{VALUE}', 100000));"
    )
}

async fn no_value_is_told(label: &str, format: &'static str) -> Result<()> {
    let mut scene = Scene::new(label, format).await?;
    scene.stage.execute(&format!("insert into t values {}", row("loaded"))).await?;
    scene.stage.execute(&refused_rows("loaded")).await?;
    let port = ports::free()?;
    scene.proxy.rule(|request: &Request| match request.body_bytes > BODY_BYTES_MAX {
        true => Fault::Answer(413, "c4n4ry"),
        false => Fault::Pass,
    });
    let run = scene.waldex("run")?.arg("--admin-listen").arg(&format!("127.0.0.1:{port}"));
    // Each failure is told, the first one too, and the circuit opens for moments only.
    let run = run.arg("--max-retries").arg("0").arg("--circuit-breaker-open-for").arg("200ms");
    let mut running = run.spawn()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let mark = scene.stage.execute_and_mark(&changes()).await?;
    scene.confirms(&mark).await?;
    scene.heard.admin(port).await?;
    let (_, metrics) = get(port, "/metrics").await?;
    ensure!(metric(&metrics, "waldex_rows_reselected_total")? > 0, "nothing was read again");

    let mut faults = QUOTING.into_iter();
    scene.proxy.rule(move |request: &Request| match request.is_bulk() {
        true => faults.next().unwrap_or(Fault::Pass),
        false => Fault::Pass,
    });
    let more = refused_rows("streamed");
    let mark = scene.stage.execute_and_mark(&format!("{more} update t set n = 7")).await?;
    wait_until(2 * LIMIT, "the odd answers", async || scene.proxy.faults() >= 9).await?;
    scene.heard.admin(port).await?;
    scene.confirms(&mark).await?;
    scene.heard.admin(port).await?;
    let mark = scene.stage.execute_and_mark("truncate t").await?;
    scene.confirms(&mark).await?;
    running.terminate();
    let finished = running.finish(LIMIT).await?;
    finished.expect_code(0)?;
    scene.heard.finished("run", &finished);
    commands(&mut scene).await?;

    let heard = &scene.heard;
    for told in ["refuses documents", "the expected JSON", "truncate: ", "status 500", "status 429"]
    {
        ensure!(heard.mentions(told), "\"{told}\" was never said");
    }
    heard.never_mentions(VALUE)?;
    heard.never_mentions(KEY)?;
    heard.never_mentions(NUMBER)
}

/// What is left to be called, with letters of all kinds lying there.
async fn commands(scene: &mut Scene) -> Result<()> {
    scene.stage.execute(&refused_rows("halts")).await?;
    scene.hear(&["run", "--on-rejected", "halt"], 1).await?;
    scene.hear(&["run", "--until", "current", "--dead-letters-max", "1"], 1).await?;
    let keep = ["run", "--until", "current", "--dead-letters-keep-document"];
    scene.hear(&keep, 0).await?;
    for words in [&["status"][..], &["status", "--json"], &["check"], &["setup"]] {
        scene.hear(words, 0).await?;
    }
    let listed = scene.command(&["dead-letters", "list", "--json"]).await?;
    let letters: Value = serde_json::from_str(&listed.expect_code(0)?.stdout.join(""))?;
    let letters = letters.as_array().context("no array")?.len();
    ensure!(letters >= 3, "{letters} letters");
    // The keys of refused rows are shown here and nowhere else; other values are not.
    let mut of_letters = Heard::default();
    of_letters.finished("list --json", &listed);
    of_letters.finished("list", &scene.command(&["dead-letters", "list"]).await?);
    of_letters.finished("retry", &scene.command(&["dead-letters", "retry", "--all"]).await?);
    of_letters.finished("drop", &scene.command(&["dead-letters", "drop", "--all"]).await?);
    ensure!(of_letters.mentions(KEY), "the letters' ids are not shown");
    of_letters.never_mentions(VALUE)?;
    of_letters.never_mentions(NUMBER)?;

    scene.stage.execute(&format!("insert into t values {}", row("dry"))).await?;
    let dry = scene.command(&["run", "--dry-run", "--until", "current"]).await?;
    dry.expect_code(0)?;
    ensure!(dry.stdout.join("").contains(VALUE), "the bulk lines are not printed");
    scene.heard.log("run --dry-run", &dry);
    scene.hear(&["run", "--reload", "--until", "current"], 0).await?;
    scene.stage.execute("alter table t alter v type varchar(9)").await?;
    scene.hear(&["run", "--until", "current"], 0).await?;
    scene.hear(&["teardown", "--yes"], 0).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_value_is_told_in_a_human_log() -> Result<()> {
    no_value_is_told("canary", "human").await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_column_value_is_told_in_a_json_log() -> Result<()> {
    no_value_is_told("canary_json", "json").await
}

/// Postgres quotes a value in the message of an error, over either connection: here of a publication's row
/// filter that cannot be computed for one row.
#[tokio::test(flavor = "multi_thread")]
async fn no_column_value_is_told_with_an_error_of_postgres() -> Result<()> {
    let stage = Stage::new("canary_pg", shared_postgres()?, shared_elasticsearch()?).await?;
    let name = stage.name();
    stage
        .execute(&format!(
            "create table f (id int primary key, v text);
             create publication {name} for table f where (make_date(id, 1, 1) > '1000-01-01')"
        ))
        .await?;
    let config = format!("tables:\n  - table: public.f\n    index: {}\n", stage.index("f"));
    let run = |more: &[&str]| -> Result<Waldex> {
        let mut program = Waldex::new("run")?.between(&stage.database.url, name, stage.node);
        for arg in more {
            program = program.arg(arg);
        }
        Ok(talkative(program.config(&config), "json"))
    };
    run(&["--until", "current"])?.run_to_end(LIMIT).await?.expect_code(0)?;
    let mut heard = Heard::default();
    stage.execute("insert into f values (424242424, 'c4n4ry')").await?;
    let streamed = run(&[])?.run_to_end(LIMIT).await?;
    heard.finished("stream", streamed.expect_code(1)?);
    let loaded = run(&["--reload"])?.run_to_end(LIMIT).await?;
    heard.finished("load", loaded.expect_code(1)?);
    ensure!(heard.mentions("22008") && heard.mentions("make_date"), "{streamed:?} {loaded:?}");
    let message = sql::value(&stage.sql, "select make_date(424242424, 1, 1)").await;
    ensure!(
        format!("{message:?}").contains("424242424"),
        "Postgres does not quote it: {message:?}"
    );
    heard.never_mentions("424242424")?;
    heard.never_mentions(VALUE)
}
