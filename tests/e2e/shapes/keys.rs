//! Keys of every type as `_id`: the same whether the row comes by the load, an insert, an update, or a change of
//! the key, and gone with its delete.

use anyhow::Result;

use super::{DOC_ID, assert_index};
use crate::support::servers::postgres::Postgres;
use crate::support::servers::search_node::SearchNode;
use crate::support::servers::{
    shared_elasticsearch, shared_opensearch, shared_postgres, shared_postgres_14,
};
use crate::support::stage::Stage;

/// A type and some of its values, as SQL, in no order and none equal to another.
const KEYS: &[(&str, &[&str])] = &[
    ("bool", &["true", "false"]),
    ("int2", &["32767", "-32768", "0", "7"]),
    ("int4", &["2147483647", "'-2147483648'", "0", "-1"]),
    ("int8", &["9223372036854775807", "'-9223372036854775808'", "9007199254740993", "0"]),
    ("float8", &["'NaN'", "'-Infinity'", "0.1", "'1e300'", "'5e-324'", "'-0'"]),
    (
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1.50",
            "-0.0001",
            "1e40",
            "0.00",
            "repeat('9', 600)",
        ],
    ),
    (
        "text",
        &[
            "''",
            "' '",
            "'a,b~c'",
            "'~'",
            "'~h'",
            "'~0'",
            "'/'",
            "'a/../b?c#d%2F&e'",
            "'é🦀'",
            "E'a\\nb\\tc\\r'",
            "'\"q\" \\ ''s'''",
            "E'\\x01\\x7f'",
            "'.'",
            "'..'",
            "'_id'",
            "'NULL'",
            "'\\N'",
            "'+ +'",
            "repeat('x', 512)",
            "repeat('x', 513)",
            "repeat('é', 256)",
            "repeat('é', 257)",
            "repeat('~', 256)",
            "repeat('~', 257)",
            "repeat('k', 2600)",
        ],
    ),
    ("varchar(9)", &["'ab'", "''", "'ab '"]),
    ("char(5)", &["'ab'", "''", "'a'"]),
    (
        "bytea",
        &[
            "'\\x'",
            "'\\x00ff10'",
            "'\\x0a0d'",
            "decode(repeat('ab', 254), 'hex')",
            "decode(repeat('ab', 256), 'hex')",
        ],
    ),
    ("uuid", &["'A0EEBC999C0B4EF8BB6D6BB9BD380A11'", "'00000000-0000-0000-0000-000000000000'"]),
    (
        "date",
        &[
            "'infinity'",
            "'-infinity'",
            "'2024-02-29'",
            "'0044-03-15 BC'",
            "'1582-10-10'",
            "'5874897-12-31'",
        ],
    ),
    (
        "timestamp",
        &[
            "'infinity'",
            "'-infinity'",
            "'2024-01-01 00:00:00.000001'",
            "'4714-11-24 BC'",
            "'294276-12-31 23:59:59'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'infinity'",
            "'2024-01-01 00:00:00+05:30'",
            "'0044-03-15 12:00+00 BC'",
            "'1883-11-18 12:00:00.5+00'",
        ],
    ),
    ("interval", &["'1 year 2 mons -3 days 04:05:06.789'", "'0'", "'-1 day'"]),
    ("mood", &["'it''s, \"fine\"'", "'ü'", "'~'"]),
    ("inet", &["'10.1.2.3'", "'10.1.2.3/8'", "'fe80::1/64'"]),
    ("int4[]", &["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[2:3]={1,2}'"]),
    ("text[]", &["'{}'", "array['a,b', '~', null, '\"', 'NULL']"]),
    ("int4range", &["'[1,5)'", "'empty'", "'(,)'"]),
    ("pair", &["row(1, 'a,b ~')", "row(null, '')"]),
    ("jsonb", &["'{\"a\": [1, \",~\"]}'", "'null'", "'\"\"'", "'1.50'"]),
];

/// Three columns, in another order than the table's, with all that parts them.
const COMPOSITE: &[&str] = &[
    "'', '', 0",
    "',', '', 1",
    "'', ',', 1",
    "'a,b', 'c', 2",
    "'a', 'b,c', 2",
    "'~', '~0', 3",
    "'~1', '~', 3",
    "'a-b', 'c', 4",
    "'é', E'\\n', 5",
    "repeat('x', 300), repeat('y', 300), 6",
    "'a', 'a', '-9223372036854775808'",
];

type Mixed = (&'static str, [&'static str; 2]);

/// Types and two values of each, all in one key.
const MIXED: &[Mixed] = &[
    ("oid", ["4294967295", "0"]),
    ("float4", ["'NaN'", "1.1"]),
    ("money", ["1234.5", "-1"]),
    ("\"char\"", ["'a'", "','"]),
    ("name", ["'x~y'", "''"]),
    ("time", ["'08:30'", "'24:00:00'"]),
    ("timetz", ["'08:30:00+02'", "'24:00:00-15:59:59'"]),
    ("cidr", ["'10/8'", "'2001:db8::/32'"]),
    ("macaddr", ["'08002b:010203'", "'ff:ff:ff:ff:ff:ff'"]),
    ("positive", ["12.5", "1"]),
    ("bit(3)", ["B'101'", "B'000'"]),
    ("varbit", ["B''", "B'1'"]),
    ("pg_lsn", ["'16/B374D848'", "'0/0'"]),
    ("xid8", ["'18446744073709551615'", "'0'"]),
    ("tsvector", ["'a fat:3 cat:2A'", "''"]),
];

struct Table {
    name: String,
    columns: String,
    /// As SQL compares it with a row.
    key: String,
    rows: Vec<String>,
    /// Makes the document's id of a row.
    id: String,
}

fn tables() -> Vec<Table> {
    let single = KEYS.iter().enumerate().map(|(number, (of, values))| Table {
        name: format!("k{number}"),
        columns: format!("k {of} primary key, n int"),
        key: "k".to_owned(),
        rows: values.iter().map(|value| format!("({value})::{of}")).collect(),
        id: "doc_id(format('%s', k))".to_owned(),
    });
    single.chain([composite(), mixed()]).collect()
}

fn composite() -> Table {
    Table {
        name: "composite".to_owned(),
        columns: "a text, b text, c int8, n int, primary key (b, c, a)".to_owned(),
        key: "(a, b, c)".to_owned(),
        rows: COMPOSITE.iter().map(|row| (*row).to_owned()).collect(),
        id: "doc_id(b, c::text, a)".to_owned(),
    }
}

/// Every second row differs from the one before it in one column more.
fn mixed() -> Table {
    let list = |item: &dyn Fn((usize, &Mixed)) -> String| {
        MIXED.iter().enumerate().map(item).collect::<Vec<_>>().join(", ")
    };
    let names = list(&|(number, _)| format!("c{number}"));
    let row = |changed: usize| {
        list(&|(number, (of, [one, other]))| {
            format!("({})::{of}", if number < changed { other } else { one })
        })
    };
    let columns = list(&|(number, (of, _))| format!("c{number} {of}"));
    Table {
        name: "mixed".to_owned(),
        columns: format!("{columns}, n int, primary key ({names})"),
        key: format!("({names})"),
        rows: (0..=MIXED.len()).map(row).collect(),
        id: format!("doc_id({})", list(&|(number, _)| format!("format('%s', c{number})"))),
    }
}

impl Table {
    fn inserts(&self, n: u32) -> String {
        let insert = |row: &String| format!("insert into {} values ({row}, {n});\n", self.name);
        self.rows.iter().map(insert).collect()
    }

    /// Within one transaction, each row but the last takes the key of the one after it; the last is gone.
    fn moves(&self) -> String {
        let (name, key) = (&self.name, &self.key);
        let row = |row: &str| if key == "k" { row.to_owned() } else { format!("({row})") };
        let mut sql = String::from("begin;\n");
        for pair in self.rows.windows(2) {
            if let [to, from] = pair {
                let (to, from) = (row(to), row(from));
                sql.push_str(&format!("delete from {name} where {key} = {to};\n"));
                sql.push_str(&format!(
                    "update {name} set {key} = {to}, n = n + 1 where {key} = {from};\n"
                ));
            }
        }
        sql + "commit;\n"
    }
}

async fn the_same_id_every_way(label: &str, postgres: &Postgres, node: &SearchNode) -> Result<()> {
    let mut stage = Stage::new(label, postgres, node).await?;
    stage.execute(DOC_ID).await?;
    stage
        .execute(
            "set timezone = 'UTC'; set intervalstyle = 'iso_8601'; set extra_float_digits = 3; \
             create type mood as enum ('it''s, \"fine\"', 'ü', '~'); create type pair as (a int, b text); \
             create domain positive as numeric(10,2) check (value > 0)",
        )
        .await?;
    let tables = tables();
    for table in &tables {
        stage.table(&table.name, &table.columns, "columns: [n]").await?;
    }
    let all = |sql: &dyn Fn(&Table) -> String| tables.iter().map(sql).collect::<String>();
    let steps = [
        ("loaded", all(&|table| table.inserts(0))),
        ("updated", all(&|table| format!("update {} set n = 1;", table.name))),
        ("deleted and inserted", all(&|it| format!("delete from {};\n{}", it.name, it.inserts(2)))),
        ("moved", all(&Table::moves)),
        (
            "moved with the old row",
            all(&|table| {
                let name = &table.name;
                format!(
                    "alter table {name} replica identity full; delete from {name};\n{}{}",
                    table.inserts(3),
                    table.moves()
                )
            }),
        ),
        ("deleted", all(&|table| format!("delete from {};", table.name))),
    ];
    for (step, sql) in steps {
        stage.execute(&sql).await?;
        stage.catch_up().await?;
        for table in &tables {
            let query =
                format!("select {}, json_build_object('n', n)::text from {}", table.id, table.name);
            let compared = assert_index(&stage, &table.name, query).await;
            compared.map_err(|error| error.context(format!("{step}: {}", table.columns)))?;
        }
    }
    stage.remove_indices().await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_from_the_newest_postgres_to_elasticsearch() -> Result<()> {
    the_same_id_every_way("keys_es", shared_postgres()?, shared_elasticsearch()?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type_from_postgres_14_to_opensearch() -> Result<()> {
    the_same_id_every_way("keys_os", shared_postgres_14()?, shared_opensearch()?).await
}
