//! Random values of many types, told to a real Postgres: each document is what Postgres itself makes of its row,
//! whether that came by the stream or by a load. The edges of every type are in `values`.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::assert_index;
use crate::support::seed::seed;
use crate::support::servers::{shared_elasticsearch, shared_postgres};
use crate::support::stage::{LIMIT, Stage};

const DAY_MICROS: i64 = 86_400_000_000;

/// Rows are made and changed for so long; then everything is compared twice.
const BUDGET: Duration = Duration::from_secs(6);
const ROWS_OF_ROUND: u32 = 150;

/// A column: name, type, the JSON that Postgres is asked to make of it.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("b", "bool", "b"),
    ("i2", "int2", "i2"),
    ("i8", "int8", "i8"),
    ("f4", "float4", "f4"),
    ("f8", "float8", "f8"),
    ("n", "numeric", "n::text"),
    ("t", "text", "t"),
    ("c", "char(6)", "case when c is not null then format('%s', c) end"),
    ("by", "bytea", "replace(encode(by, 'base64'), E'\\n', '')"),
    ("u", "uuid", "u"),
    ("d", "date", "to_char(d, 'YYYY-MM-DD')"),
    (
        "ts",
        "timestamp",
        "to_char(ts, 'YYYY-MM-DD\"T\"HH24:MI:SS') || regexp_replace(to_char(ts, '.US'), '\\.?0+$', '') || 'Z'",
    ),
    ("iv", "interval", "iv::text"),
    ("j", "jsonb", "j"),
    ("js", "json", "js::jsonb"),
    ("ai", "int4[]", "to_jsonb(ai)"),
    ("at", "text[]", "to_jsonb(at)"),
    (
        "r",
        "int4range",
        "case when r is null then null when isempty(r) then '{\"empty\": true}'::jsonb \
         else jsonb_strip_nulls(jsonb_build_object('gte', lower(r), 'lt', upper(r))) end",
    ),
    ("ip", "inet", "case when ip is not null then format('%s', ip) end"),
    ("vb", "varbit", "vb::text"),
    ("m", "mood", "m"),
];

struct Source(StdRng);

impl Source {
    fn below(&mut self, end: u32) -> u32 {
        self.0.random_range(0..end)
    }

    fn one_in(&mut self, several: u32) -> bool {
        self.below(several) == 0
    }

    fn text(&mut self, characters_max: u32) -> String {
        let odd = [
            '\'', '"', '\\', '\n', '\r', '\t', '\u{1}', '\u{7f}', ',', '{', '}', '~', '%', 'é',
            '\u{2028}', '🦀', '\u{ffff}',
        ];
        let mut text = String::new();
        for _ in 0..self.below(characters_max + 1) {
            let place = self.below(3);
            text.push(match place {
                0 => odd[self.below(17) as usize],
                1 => char::from_u32(self.below(0x11_0000))
                    .filter(|char| *char != '\0')
                    .unwrap_or('x'),
                _ => self.0.random_range('a'..='z'),
            });
        }
        if self.one_in(40) { text.repeat(3000 / (text.len() + 1)) } else { text }
    }

    fn number(&mut self) -> String {
        let digits = |source: &mut Self, max| -> String {
            (0..=source.below(max)).map(|_| source.0.random_range('0'..='9')).collect()
        };
        // Not -0, which json keeps and jsonb does not.
        let sign = if self.one_in(2) { "-1" } else { "" };
        let whole = digits(self, 30);
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        if self.one_in(2) {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{}", digits(self, 20))
        }
    }

    fn json(&mut self, depth: u32) -> String {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => "null".to_owned(),
            1 => self.one_in(2).to_string(),
            2 | 3 => self.number(),
            4 => Value::from(self.text(12)).to_string(),
            5 => {
                let items: Vec<String> = (0..self.below(4)).map(|_| self.json(depth - 1)).collect();
                format!("[ {}]", items.join(" ,\n"))
            }
            _ => {
                let field = |source: &mut Self| {
                    format!("{}\t: {}", Value::from(source.text(5)), source.json(depth - 1))
                };
                let fields: Vec<String> = (0..self.below(5)).map(|_| field(self)).collect();
                format!("{{\r\n{}}}", fields.join(","))
            }
        }
    }

    fn array(&mut self, of: &str, item: impl Fn(&mut Self) -> String) -> String {
        let null =
            |source: &mut Self| if source.one_in(5) { "null".to_owned() } else { item(source) };
        let (outer, inner) = (self.below(4), self.below(4));
        let row = |source: &mut Self| -> String {
            let items: Vec<String> = (0..inner).map(|_| null(source)).collect();
            format!("array[{}]::{of}[]", items.join(","))
        };
        if self.one_in(3) && inner > 0 && outer > 0 {
            let rows: Vec<String> = (0..outer).map(|_| row(self)).collect();
            return format!("array[{}]", rows.join(","));
        }
        row(self)
    }

    /// An SQL expression.
    fn value(&mut self, of: &str) -> String {
        if self.one_in(7) {
            return "null".to_owned();
        }
        let micros = self.0.random_range(-50_000_000_000_000_000_i64..200_000_000_000_000_000);
        match of {
            "bool" => self.one_in(2).to_string(),
            "int2" => format!("({})", self.0.random::<i16>()),
            "int8" => format!("'{}'", self.0.random::<i64>()),
            "float4" => finite(f64::from(f32::from_bits(self.0.random::<u32>()))),
            "float8" => finite(f64::from_bits(self.0.random::<u64>())),
            "numeric" => self.number(),
            "text" => literal(&self.text(30)),
            "char(6)" => literal(&self.text(6).chars().take(6).collect::<String>()),
            "bytea" => {
                let bytes: String =
                    (0..self.below(40)).map(|_| format!("{:02x}", self.below(256))).collect();
                format!("'\\x{bytes}'")
            }
            "uuid" => format!("'{:032x}'", self.0.random::<u128>()),
            "date" => format!("date '2000-01-01' + ({})", micros / DAY_MICROS),
            // PostgreSQL 14 takes 32 bits of microseconds.
            "timestamp" => format!(
                "timestamp '2000-01-01' + interval '{} days {} seconds {} microseconds'",
                micros / DAY_MICROS,
                micros % DAY_MICROS / 1_000_000,
                micros % 1_000_000
            ),
            "interval" => format!(
                "make_interval(months => {}, days => {}, secs => {})",
                self.0.random_range(-90..90),
                self.0.random_range(-90..90),
                self.0.random_range(-1e6..1e6)
            ),
            "jsonb" | "json" => literal(&self.json(4)),
            "int4[]" => self.array("int4", |source| format!("({})", source.0.random::<i32>())),
            "text[]" => self.array("text", |source| literal(&source.text(8))),
            "int4range" => {
                let low = self.0.random_range(-50..50);
                let bound = |source: &mut Self, value: i32| {
                    if source.one_in(6) { "null".to_owned() } else { value.to_string() }
                };
                let high = low + self.0.random_range(0..9);
                let (low, high) = (bound(self, low), bound(self, high));
                let kind = ["[)", "[]", "(]", "()"][self.below(4) as usize];
                format!("int4range({low}, {high}, '{kind}')")
            }
            "inet" => {
                let mask =
                    if self.one_in(2) { String::new() } else { format!("/{}", self.below(33)) };
                let [a, b, c, d] = self.0.random::<[u8; 4]>();
                format!("'{a}.{b}.{c}.{d}{mask}'")
            }
            "varbit" => {
                let bits: String =
                    (0..self.below(20)).map(|_| if self.one_in(2) { '1' } else { '0' }).collect();
                format!("B'{bits}'")
            }
            _ => ["'sad'", "'o,k'", "'h\"appy'"][self.below(3) as usize].to_owned(),
        }
    }

    fn row(&mut self, id: u32) -> String {
        let value = |(_, of, _): &(&str, &str, &str)| format!(", ({})::{of}", self.value(of));
        format!("({id}{})", COLUMNS.iter().map(value).collect::<String>())
    }

    /// Other values in some columns.
    fn update(&mut self, condition: &str) -> String {
        let mut sets = vec!["id = id".to_owned()];
        for (name, of, _) in COLUMNS {
            if self.one_in(4) {
                sets.push(format!("{name} = ({})::{of}", self.value(of)));
            }
        }
        format!("update t set {} where {condition};\n", sets.join(", "))
    }

    /// Rows that come, change, move and go.
    fn round(&mut self, first: u32) -> String {
        let rows: Vec<String> = (first..first + ROWS_OF_ROUND).map(|id| self.row(id)).collect();
        let mut sql = format!("insert into t values {};\n", rows.join(",\n"));
        for _ in 0..30 {
            let id = self.below(first + ROWS_OF_ROUND);
            sql.push_str(&match self.below(8) {
                0 => format!("update t set id = id + 1000000 where id = {id};\n"),
                1 => format!("delete from t where id = {id};\n"),
                2 => self.update(&format!("id between {id} and {}", id + 5)),
                _ => self.update(&format!("id = {id}")),
            });
        }
        sql
    }
}

fn finite(value: f64) -> String {
    if value.is_finite() { format!("'{value:e}'") } else { "'1.5'".to_owned() }
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_what_postgres_makes_of_their_rows() -> Result<()> {
    let mut source = Source(StdRng::seed_from_u64(seed()?));
    let mut stage = Stage::new("random", shared_postgres()?, shared_elasticsearch()?).await?;
    stage
        .execute("create type mood as enum ('sad', 'o,k', 'h\"appy'); set intervalstyle = iso_8601")
        .await?;
    let columns: String = COLUMNS.iter().map(|(name, of, _)| format!(", {name} {of}")).collect();
    stage.table("t", &format!("id int primary key{columns}"), "").await?;
    let mut id = 1;
    stage.execute(&source.round(id)).await?;
    let mut running = stage.run()?;
    running.wait_for_line(LIMIT, "catching_up").await?;
    let end = Instant::now() + BUDGET;
    while Instant::now() < end {
        id += ROWS_OF_ROUND;
        stage.execute(&source.round(id)).await?;
    }
    println!("{id} rows");
    running.terminate();
    running.finish(LIMIT).await?.expect_code(0)?;
    stage.catch_up().await?;
    let pairs: String =
        COLUMNS.iter().map(|(name, _, json)| format!(", '{name}', {json}")).collect();
    let query = format!("select id::text, json_build_object('id', id{pairs})::text from t");
    assert_index(&stage, "t", query.clone()).await.map_err(|error| error.context("streamed"))?;
    let reload = stage.waldex("run")?.arg("--reload").arg("--until").arg("current");
    reload.run_to_end(LIMIT).await?.expect_code(0)?;
    assert_index(&stage, "t", query).await.map_err(|error| error.context("loaded"))
}
