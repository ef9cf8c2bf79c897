//! Large values that an update leaves alone and Postgres therefore does not send, with every replica identity,
//! while keys move through chains and swaps in one transaction.

use anyhow::Result;

use super::{DOC_ID, assert_index};
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::{LIMIT, Stage};

/// One for each replica identity; `k` is the key of the document in each.
const TABLES: [&str; 3] = ["by_default", "by_index", "by_full"];

/// For `{t}`: single moves, a chain through several keys, swaps, a move onto a key that a delete or a move
/// has freed, moves with and without a change of one of the large values.
const MOVES: &str = "
    update {t} set n = n + 1;
    update {t} set k = k + 100 where k <= 5;
    update {t} set k = k + 100, big = repeat('moved', 5000) where k in (6, 7);
    begin;
    update {t} set k = 1000 where k = 10;
    update {t} set n = -1 where k = 1000;
    update {t} set k = 1001 where k = 1000;
    update {t} set other = repeat('chain', 4000), k = 1002 where k = 1001;
    update {t} set n = -2, k = 10 where k = 1002;
    commit;
    begin;
    update {t} set k = -1 where k = 11;
    update {t} set k = 11 where k = 12;
    update {t} set k = 12 where k = -1;
    commit;
    begin;
    update {t} set k = -1 where k = 13;
    update {t} set k = 13, n = 77 where k = 14;
    update {t} set k = 14, n = 78 where k = 15;
    update {t} set k = 15, n = 79 where k = -1;
    update {t} set n = n + 1 where k in (13, 14, 15);
    commit;
    begin;
    delete from {t} where k = 16;
    update {t} set k = 16 where k = 17;
    insert into {t} values (17, 'u17b', 0, repeat('new17', 4000), null);
    update {t} set k = 1017 where k = 17;
    update {t} set k = 17 where k = 16;
    commit;
    begin;
    update {t} set big = repeat('first', 5000) where k = 18;
    update {t} set k = 1018 where k = 18;
    savepoint s;
    update {t} set big = null, k = 18 where k = 1018;
    rollback to s;
    update {t} set n = 5 where k = 1018;
    commit;
    begin;
    update {t} set big = repeat('gone', 5000), k = 1019 where k = 19;
    delete from {t} where k = 1019;
    update {t} set k = 19 where k = 20;
    commit;";

async fn every_identity(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, postgres, node).await?;
    stage.execute(DOC_ID).await?;
    for table in TABLES {
        let columns = match table {
            "by_index" => "k int not null unique, u text primary key, n int, big text, other text",
            _ => "k int primary key, u text, n int, big text, other text",
        };
        stage.table(table, columns, "").await?;
        let external =
            ["big", "other"].map(|it| format!("alter {it} set storage external")).join(", ");
        stage.execute(&format!("alter table {table} {external}")).await?;
        stage.execute(&fill(table, "loaded", 1)).await?;
    }
    stage
        .execute(
            "alter table by_index replica identity using index by_index_k_key; \
             alter table by_full replica identity full",
        )
        .await?;
    // Moved while the load runs, in a backlog, and while the stream runs.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "loading").await?;
    moves(&stage, 1).await?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    running.kill()?;
    stage.execute(&TABLES.map(|table| fill(table, "backlog", 2)).concat()).await?;
    moves(&stage, 2).await?;
    stage.catch_up().await?;
    assert_equal(&stage).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage.execute(&TABLES.map(|table| fill(table, "streamed", 3)).concat()).await?;
    moves(&stage, 3).await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.catch_up().await?;
    assert_equal(&stage).await
}

/// Twenty rows; keys are freed of an earlier round first.
fn fill(table: &str, word: &str, round: u32) -> String {
    format!(
        "delete from {table} where k % 3 = 0; update {table} set k = k + {round}0000 where k < 10000;
         insert into {table} select i, 'u{round}-' || i, 0, repeat('{word}' || i, 3000), repeat('o' || i, 5000)
            from generate_series(1, 20) i;"
    )
}

/// Each statement outside of a block is a transaction of its own.
async fn moves(stage: &Stage<'_>, round: u32) -> Result<()> {
    for table in TABLES {
        let moves = MOVES.replace("{t}", table).replace("u17b", &format!("u17b{round}"));
        for statements in moves.split_inclusive("commit;") {
            let (alone, together) = statements.split_at(statements.find("begin;").unwrap_or(0));
            for statement in alone.split(';').map(str::trim).filter(|text| !text.is_empty()) {
                stage.execute(statement).await?;
            }
            stage.execute(together).await?;
        }
    }
    Ok(())
}

async fn assert_equal(stage: &Stage<'_>) -> Result<()> {
    let json = "json_build_object('k', k, 'u', u, 'n', n, 'big', big, 'other', other)::text";
    for table in TABLES {
        assert_index(stage, table, format!("select k::text, {json} from {table}")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_identity_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    every_identity("toast_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_identity_from_postgres_14_to_opensearch() -> Result<()> {
    every_identity("toast_os", shared_postgres_14()?, shared_opensearch()?).await
}

/// The key itself is stored out of line: an update that leaves it alone does not send it either.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_out_of_line_itself() -> Result<()> {
    let mut stage = Stage::new("toast_key", shared_postgres()?, shared_elasticsearch()?).await?;
    stage.execute(DOC_ID).await?;
    for table in ["t", "f"] {
        stage.table(table, "k text primary key, n int, big text", "").await?;
        let external = "alter k set storage external, alter big set storage external";
        stage.execute(&format!("alter table {table} {external}")).await?;
        let fill = "select repeat(chr(64 + i), 2500), 0, repeat('b' || i, 3000) from generate_series(1, 9) i";
        stage.execute(&format!("insert into {table} {fill}")).await?;
    }
    stage.execute("alter table f replica identity full").await?;
    stage.catch_up().await?;
    for table in ["t", "f"] {
        stage
            .execute(&format!(
                "update {table} set n = 1; update {table} set k = k || 'moved' where k like 'A%' or k like 'B%'; \
                 update {table} set n = 2 where k like 'B%'; delete from {table} where k like 'C%'; \
                 update {table} set big = 'short' where k like 'D%'"
            ))
            .await?;
    }
    stage.catch_up().await?;
    for table in ["t", "f"] {
        let json = "json_build_object('k', k, 'n', n, 'big', big)::text";
        assert_index(&stage, table, format!("select doc_id(k), {json} from {table}")).await?;
    }
    Ok(())
}
