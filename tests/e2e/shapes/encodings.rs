//! Databases that are not UTF-8: LATIN1, which Postgres converts, and `SQL_ASCII`, which may hold any byte.

use anyhow::{Result, ensure};

use super::{DOC_ID, assert_index};
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn latin1_is_converted() -> Result<()> {
    let (postgres, node) = (shared_postgres()?, shared_elasticsearch()?);
    let mut stage = Stage::in_encoding("latin1", postgres, node, "LATIN1").await?;
    stage.execute(DOC_ID).await?;
    stage.table("t", "k text primary key, \"ähm\" text, n int", "").await?;
    stage
        .execute("insert into t select 'é' || i, 'loadé ÿ', 0 from generate_series(1, 20) i")
        .await?;
    stage.catch_up().await?;
    stage
        .execute(
            "update t set \"ähm\" = 'ünï' where k = 'é3'; update t set k = 'ß' where k = 'é4'; \
             delete from t where k = 'é5'; insert into t values ('naïve', null, 1)",
        )
        .await?;
    stage.catch_up().await?;
    let json = "json_build_object('k', k, 'ähm', \"ähm\", 'n', n)::text";
    assert_index(&stage, "t", format!("select doc_id(k), {json} from t")).await
}

/// Rows of one chunk of a load and some more, so that the second begins behind a key that is not UTF-8.
const ROWS: u32 = 50_010;

/// Each byte that is not UTF-8 is U+FFFD in the document; the stream lives, and so does a load of several chunks.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_utf_8_in_sql_ascii() -> Result<()> {
    let (postgres, node) = (shared_postgres()?, shared_elasticsearch()?);
    let mut stage = Stage::in_encoding("ascii", postgres, node, "SQL_ASCII").await?;
    stage.table("t", "k text, i int, v text, big text, primary key (k, i)", "").await?;
    stage.execute("alter table t alter big set storage external").await?;
    let key = r"E'\xE9''\\' || lpad(i::text, 9, '0')";
    stage
        .execute(&format!(
            "insert into t select {key}, i, E'caf\\xE9' from generate_series(1, {ROWS}) i"
        ))
        .await?;
    stage
        .execute("insert into t values ('plain', 0, 'plain'), (E'\\xC3\\xA9', 0, E'\\xC3\\xA9')")
        .await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage
        .execute(
            r"update t set v = E'\xE9\xE8', big = repeat(E'\xE9', 9000) where i < 6;
              update t set v = 'again' where i = 3;
              update t set k = E'moved\xE9' where i = 4;
              delete from t where i = 5;
              insert into t values (E'\xFF', 1, E'\xFF');",
        )
        .await?;
    running.terminate();
    let log = running.finish(LIMIT).await?.expect_code(0)?.stderr.join("\n");
    ensure!(!log.contains("22021"), "{log}");
    stage.catch_up().await?;
    // Nothing of it can be read as UTF-8 from here before it is replaced.
    let shown = |column: &str| {
        let mut text = column.to_owned();
        for byte in ["E9", "E8", "FF"] {
            text = format!(r"replace({text}, E'\x{byte}', E'\xEF\xBF\xBD')");
        }
        // The one value that holds such a byte within a character.
        format!("case when {column} = E'\\xC3\\xA9' then {column} else {text} end")
    };
    let id = "convert_to(k, 'SQL_ASCII') || convert_to(',' || i, 'SQL_ASCII')";
    let is_text = r"k !~ E'[\x80-\xFF]' or k = E'\xC3\xA9'";
    let id = format!(
        "case when {is_text} then k || ',' || i else '~h' || encode(sha256({id}), 'hex') end"
    );
    let json = format!(
        "json_build_object('k', {}, 'i', i, 'v', {}, 'big', {})::text",
        shown("k"),
        shown("v"),
        shown("big")
    );
    assert_index(&stage, "t", format!("select {id}, {json} from t")).await
}
