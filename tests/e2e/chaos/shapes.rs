//! The tables of a round whose rows are made of a key and of columns, and what their documents must be.

use super::dice::Dice;

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A few characters.
    Text,
    /// Text that is often stored out of line, and hardly compressed.
    Toast,
    /// The same within JSON.
    Json,
    /// The same as bytes.
    Bytea,
    /// Up to a megabyte.
    Large,
}

/// One table. Each has a column `n int` beside its key and these.
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// What follows `create table <name>`.
    pub(super) definition: &'static str,
    /// Further statements.
    pub(super) after: &'static str,
    /// The columns of the key that makes the document's id, in its order.
    pub(super) key: &'static [&'static str],
    /// The key with a number: SQL literals.
    pub(super) key_of: fn(u32) -> Vec<String>,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// Columns that documents have beside the key, `n` and `columns`.
    pub(super) others: &'static [&'static str],
    /// How many keys are in use.
    pub(super) keys: u32,
}

use Kind::{Bytea, Json, Large, Text, Toast};

const TOASTED: &[(&str, Kind)] = &[("a", Toast), ("b", Toast), ("j", Json), ("d", Bytea)];

pub(super) const SHAPES: &[Shape] = &[
    Shape {
        name: "plain",
        definition: "(id bigint primary key, n int, v text)",
        after: "",
        key: &["id"],
        key_of: number,
        columns: &[("v", Text)],
        others: &[],
        keys: 300,
    },
    Shape {
        name: "toasted",
        definition: "(id bigint primary key, n int, a text, b text, j jsonb, d bytea)",
        after: "alter table toasted alter b set storage external",
        key: &["id"],
        key_of: number,
        columns: TOASTED,
        others: &[],
        keys: 60,
    },
    Shape {
        name: "toasted_full",
        definition: "(id bigint primary key, n int, a text, b text, j jsonb, d bytea)",
        after: "alter table toasted_full replica identity full;
                alter table toasted_full alter a set storage external",
        key: &["id"],
        key_of: number,
        columns: TOASTED,
        others: &[],
        keys: 60,
    },
    Shape {
        name: "toasted_index",
        definition: "(serial bigserial primary key, k1 int not null, k2 text not null, n int,
                     a text, b text, j jsonb, d bytea)",
        after: "create unique index toasted_index_key on toasted_index (k1, k2);
                alter table toasted_index replica identity using index toasted_index_key",
        key: &["k1", "k2"],
        key_of: number_and_text,
        columns: TOASTED,
        others: &["serial"],
        keys: 60,
    },
    Shape {
        name: "composite",
        definition: "(a int, b text, n int, v text, body text, primary key (a, b))",
        after: "",
        key: &["a", "b"],
        key_of: number_and_text,
        columns: &[("v", Text), ("body", Toast)],
        others: &[],
        keys: 120,
    },
    Shape {
        name: "texts",
        definition: "(id text primary key, n int, body text)",
        after: "",
        key: &["id"],
        key_of: |number| vec![text(number)],
        columns: &[("body", Toast)],
        others: &[],
        keys: 120,
    },
    Shape {
        name: "parts",
        definition: "(region text, id int, n int, v text, body text, primary key (region, id))
                     partition by list (region)",
        after: "create table parts_a partition of parts for values in ('a');
                create table parts_b partition of parts for values in ('b');
                create table parts_rest partition of parts default",
        key: &["region", "id"],
        key_of: |number| {
            let region = ["'a'", "'b'", "'c,~'", "''"][usize::try_from(number % 4).unwrap_or(0)];
            vec![region.to_owned(), (number / 4).to_string()]
        },
        columns: &[("v", Text), ("body", Toast)],
        others: &[],
        keys: 160,
    },
    Shape {
        name: "large",
        definition: "(id int primary key, n int, v text, body text)",
        after: "",
        key: &["id"],
        key_of: number,
        columns: &[("v", Text), ("body", Large)],
        others: &[],
        keys: 12,
    },
];

fn number(number: u32) -> Vec<String> {
    vec![number.to_string()]
}

fn number_and_text(number: u32) -> Vec<String> {
    vec![(number % 3).to_string(), text(number)]
}

/// Texts that are hard to write as an id, in SQL.
fn text(number: u32) -> String {
    match number % 9 {
        0 => format!("'key {number}'"),
        1 => format!("'~{number}'"),
        2 => format!("'{number},~0'"),
        3 => format!("'ключ {number} 🦀'"),
        4 => format!("repeat('long {number} ', 100)"),
        5 => format!("'{number}\"\\''/'"),
        6 => format!("' {number} '"),
        7 => format!("'a/b?{number}#%2F'"),
        _ if number == 8 => "''".to_owned(),
        _ => format!("E'\\n{number}\\t'"),
    }
}

impl Shape {
    fn pairs(&self, number: u32, separator: &str) -> String {
        let pairs = self.key.iter().zip((self.key_of)(number));
        let pairs: Vec<String> =
            pairs.map(|(column, value)| format!("{column} = {value}")).collect();
        pairs.join(separator)
    }

    /// A condition that only the row with this key meets.
    pub(super) fn is(&self, number: u32) -> String {
        self.pairs(number, " and ")
    }

    /// What makes a row the one with this key, after `set`.
    pub(super) fn becomes(&self, number: u32) -> String {
        self.pairs(number, ", ")
    }

    /// An expression for the document's id.
    fn id(&self) -> String {
        let escaped = |column: &&str| format!("replace({column}::text, '~', '~0')");
        let id = match self.key {
            [column] => escaped(column),
            columns => {
                let parts: Vec<String> = columns
                    .iter()
                    .map(|column| format!("replace({}, ',', '~1')", escaped(column)))
                    .collect();
                parts.join(" || ',' || ")
            }
        };
        format!(
            "case when octet_length({id}) > 512 \
             then '~h' || encode(sha256(convert_to({id}, 'UTF8')), 'hex') \
             when {id} = '' then '~' else {id} end"
        )
    }

    /// A query of every document's id and source.
    pub(super) fn expectation(&self) -> String {
        let mut pairs: Vec<String> = Vec::new();
        for column in self.key.iter().chain(self.others).chain(&["n"]) {
            pairs.push(format!("'{column}', {column}"));
        }
        for (column, kind) in self.columns {
            let value = match kind {
                Bytea => format!("translate(encode({column}, 'base64'), E'\\n', '')"),
                Text | Toast | Json | Large => (*column).to_owned(),
            };
            pairs.push(format!("'{column}', {value}"));
        }
        let source = format!("json_build_object({})", pairs.join(", "));
        format!("select {}, {source}::text from {}", self.id(), self.name)
    }
}

/// Functions that make values.
pub(super) const FUNCTIONS: &str = "
    create function noise(seed bigint, kib int) returns text language sql immutable as
    $$ select string_agg(md5((seed * 1000 + i)::text), '') from generate_series(1, kib * 32) i $$;";

/// A new value of a column, as SQL.
pub(super) fn value(kind: Kind, dice: &mut Dice) -> String {
    let seed = dice.below(1_000_000_000);
    if dice.chance(12) {
        return "null".to_owned();
    }
    let is_short = dice.chance(15);
    let kib = if is_short { 0 } else { dice.between(2, 14) };
    match kind {
        Text => format!("'v{seed}'"),
        Toast if is_short => format!("'short {seed}'"),
        Toast => format!("noise({seed}, {kib})"),
        Json if is_short => format!("'[{seed}]'"),
        Json => format!("jsonb_build_object('s', {seed}, 't', noise({seed}, {kib}))"),
        Bytea if is_short => format!("'\\x{seed:08x}'"),
        Bytea => format!("decode(noise({seed}, {kib}), 'hex')"),
        Large => {
            format!("noise({seed}, {})", if dice.chance(25) { 1000 } else { dice.between(20, 400) })
        }
    }
}
