//! Row filters and column lists of the publication: the load applies them as the stream does.

use anyhow::{Result, ensure};

use super::assert_index;
use crate::support::servers::{shared_elasticsearch, shared_opensearch, shared_postgres_since};
use crate::support::stage::{LIMIT, Stage};

/// Filters and lists came with it.
const SINCE: u32 = 15;

const FILTERED: &str = "
    create table by_key (id int primary key, n int, v text, big text);
    create table by_row (id int primary key, n int, v text, big text);
    alter table by_row replica identity full;
    create table by_index (id int primary key, n int not null unique, v text, big text);
    alter table by_index replica identity using index by_index_n_key;
    alter table by_key alter big set storage external;
    alter table by_row alter big set storage external;
    alter table by_index alter big set storage external;";

/// Table, key of its documents, filter.
const FILTERS: [(&str, &str, &str); 3] = [
    ("by_key", "id", "id > 10"),
    ("by_row", "id", "n > 10 and v is distinct from 'hidden' or id = 1"),
    ("by_index", "n", "n % 2 = 0"),
];

/// In and out by the key, by another column, by a NULL; in one transaction there and back.
const CROSSINGS: &str = "
    update by_key set id = id + 100 where id in (1, 2, 3);
    update by_key set id = id - 20 where id in (21, 22);
    update by_key set v = 'left alone' where id in (5, 25);
    delete from by_key where id in (6, 26);
    update by_row set n = n + 50 where id < 5;
    update by_row set n = null where id in (20, 21);
    update by_row set v = 'hidden' where id in (22, 23);
    update by_row set v = 'shown' where id in (24, 9);
    update by_row set id = id + 1000 where id in (1, 12, 13);
    delete from by_row where id in (7, 17);
    begin;
    update by_row set n = 99 where id = 8;
    update by_row set n = 1 where id = 8;
    update by_row set n = 0 where id = 28;
    update by_row set n = 98 where id = 28;
    commit;
    update by_index set n = n + 1001 where id between 3 and 8;
    update by_index set v = 'left alone' where id in (10, 11);
    delete from by_index where id in (14, 15);
    begin;
    update by_index set n = -1 where id = 16;
    update by_index set n = -2 where id = 16;
    commit;";

fn filtered(filters: &[(&str, &str, &str)]) -> String {
    let table = |(table, _, filter): &(&str, &str, &str)| format!("{table} where ({filter})");
    filters.iter().map(table).collect::<Vec<_>>().join(", ")
}

/// Rows enter and leave the filter by updates of theirs and of their keys, with every way of telling the old row.
#[tokio::test(flavor = "multi_thread")]
async fn rows_enter_and_leave_a_row_filter() -> Result<()> {
    let postgres = shared_postgres_since(SINCE)?;
    let mut stage = Stage::new("filter", postgres, shared_elasticsearch()?).await?;
    let name = stage.name().to_owned();
    stage.execute(FILTERED).await?;
    stage.execute(&format!("create publication {name} for table {}", filtered(&FILTERS))).await?;
    for (table, _, _) in FILTERS {
        stage.keep(table, &format!("public.{table}"), "");
        let columns =
            "i, i, case when i % 3 = 0 then 'hidden' else 'v' end, repeat('b' || i, 3000)";
        stage
            .execute(&format!("insert into {table} select {columns} from generate_series(1, 30) i"))
            .await?;
    }
    let assert_equal = async |filters: &[(&str, &str, &str)]| -> Result<()> {
        for (table, key, filter) in filters {
            let json = "json_build_object('id', id, 'n', n, 'v', v, 'big', big)::text";
            let query = format!("select {key}::text, {json} from {table} where {filter}");
            assert_index(&stage, table, query).await?;
        }
        Ok(())
    };
    stage.catch_up().await?;
    assert_equal(&FILTERS).await?;
    stage.execute(CROSSINGS).await?;
    stage.catch_up().await?;
    assert_equal(&FILTERS).await?;
    // Another filter is another membership: the table is loaded again.
    let [_, by_row, by_index] = FILTERS;
    let others = [("by_key", "id", "id < 10"), by_row, by_index];
    stage.execute(&format!("alter publication {name} set table {}", filtered(&others))).await?;
    stage.catch_up().await?;
    assert_equal(&others).await
}

/// What the list leaves out is in no document, whatever way the row came.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_list_leaves_out_columns() -> Result<()> {
    let mut stage = Stage::new("list", shared_postgres_since(SINCE)?, shared_opensearch()?).await?;
    let name = stage.name().to_owned();
    stage
        .execute(&format!(
            "create table t (secret text, id int, v text, big text, hidden int default 1, code text not null, \
             primary key (code, id)); alter table t alter big set storage external; \
             alter table t alter secret set storage external; \
             create publication {name} for table t (code, id, big, v) where (id < 100); \
             insert into t select repeat('s', 9000), i, 'v', repeat('b' || i, 3000), i, 'c' || i
                from generate_series(1, 20) i"
        ))
        .await?;
    stage.keep("t", "public.t", "");
    let equal = async |columns: &str| {
        let json = format!("json_build_object('code', code, 'id', id, 'big', big{columns})::text");
        assert_index(&stage, "t", format!("select code || ',' || id, {json} from t where id < 100"))
            .await
    };
    stage.catch_up().await?;
    equal(", 'v', v").await?;
    stage
        .execute(
            "update t set secret = 'another'; update t set v = 'w' where id < 5; \
             update t set id = id + 20 where id < 3; \
             update t set hidden = 7, id = 100 where id = 9; delete from t where id = 10; \
             insert into t values ('s', 50, null, null, null, 'new')",
        )
        .await?;
    stage.catch_up().await?;
    equal(", 'v', v").await?;
    // Another list is another membership, also while it runs.
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    stage
        .execute(&format!(
            "alter publication {name} set table t (code, id, big, hidden) where (id < 100)"
        ))
        .await?;
    running.wait_for_line(LIMIT, "readers see the new generation").await?;
    stage.execute("update t set hidden = 8 where id = 11").await?;
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.catch_up().await?;
    equal(", 'hidden', hidden").await
}

/// Changes that the publication left out for a while are in no stream: the tables are loaded again.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_left_out_changes_for_a_while() -> Result<()> {
    let mut stage =
        Stage::new("left_out", shared_postgres_since(SINCE)?, shared_elasticsearch()?).await?;
    let name = stage.name().to_owned();
    stage
        .execute(&format!(
            "create schema s; create table s.t (id int primary key, v text); \
             insert into s.t select i, 'v' from generate_series(1, 30) i; \
             create publication {name} for tables in schema s"
        ))
        .await?;
    stage.keep("t", "s.t", "");
    stage.catch_up().await?;
    let equal = async || {
        let query = "select id::text, json_build_object('id', id, 'v', v)::text from s.t";
        assert_index(&stage, "t", query.to_owned()).await
    };
    for (number, (away, back)) in [
        (
            "set (publish = 'insert, update, truncate')",
            "set (publish = 'insert, update, delete, truncate')",
        ),
        ("drop tables in schema s", "add tables in schema s"),
        ("rename to elsewhere", ""),
    ]
    .into_iter()
    .enumerate()
    {
        stage.execute(&format!("alter publication {name} {away}")).await?;
        stage
            .execute(&format!(
                "delete from s.t where id = {number} + 1; \
                 update s.t set v = 'missed {number}' where id = {number} + 10"
            ))
            .await?;
        let back = match back {
            "" => format!("alter publication elsewhere rename to {name}"),
            back => format!("alter publication {name} {back}"),
        };
        stage.execute(&back).await?;
        if away.starts_with("rename") {
            // The stream cannot pass the time without it, or says that it left something out.
            let refused =
                stage.waldex("run")?.arg("--until").arg("current").run_to_end(LIMIT).await?;
            let log = refused.expect_code(1)?.stderr.join("\n");
            ensure!(log.contains("waldex run --reload"), "{log}");
            let reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current");
            reload.run_to_end(LIMIT).await?.expect_code(0)?;
        } else {
            stage.catch_up().await?;
        }
        equal().await.map_err(|error| error.context(away))?;
    }
    Ok(())
}
