//! Values that are long, deep or large: what they become is said by code. See `table.rs`.

/// A type, an SQL expression, and the JSON it becomes.
pub(super) type Long = (&'static str, String, String);

/// With those of the extension hstore if it is there.
pub(super) fn long(has_hstore: bool) -> Vec<Long> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut values = texts();
    values.extend(numbers());
    values.extend(json(quoted));
    if has_hstore {
        let sql = "hstore(repeat('k', 50001), 'v')".to_owned();
        // As the text of the whole, like a JSON object with such a key.
        values.push(("hstore", sql, quoted(&format!("\"{}\"=>\"v\"", "k".repeat(50_001)))));
        let sql = "hstore('k', repeat('v', 70000))".to_owned();
        values.push(("hstore", sql, format!("{{\"k\":\"{}\"}}", "v".repeat(70_000))));
    }
    values
}

fn texts() -> Vec<Long> {
    let word = "x".repeat(40_000);
    let crabs = "🦀".repeat(8191);
    vec![
        ("text", "repeat('x', 40000)".to_owned(), format!("\"{word}\"")),
        ("text", "repeat('🦀', 8191)".to_owned(), format!("\"{crabs}\"")),
        ("text", "repeat('€', 8192)".to_owned(), format!("\"{}\"", "€".repeat(8192))),
        ("text[]", "array[repeat('x', 40000), 'y']".to_owned(), format!("[\"{word}\",\"y\"]")),
        (
            "xml",
            "('<a>' || repeat('x', 40000) || '</a>')::xml".to_owned(),
            format!("\"<a>{word}</a>\""),
        ),
        ("varbit", "repeat('1', 40000)::varbit".to_owned(), format!("\"{}\"", "1".repeat(40_000))),
        (
            "bytea",
            "decode(repeat('00ff10', 20000), 'hex')".to_owned(),
            format!("\"{}\"", "AP8Q".repeat(20_000)),
        ),
    ]
}

fn numbers() -> Vec<Long> {
    let zeros = |count| "0".repeat(count);
    vec![
        ("numeric", "1e400".to_owned(), format!("\"1{}\"", zeros(400))),
        ("numeric", "1e-16383".to_owned(), format!("\"0.{}1\"", zeros(16_382))),
        (
            "numeric",
            "repeat('9', 131072)::numeric".to_owned(),
            format!("\"{}\"", "9".repeat(131_072)),
        ),
        (
            "numrange",
            "numrange(1e400, null)".to_owned(),
            format!("{{\"gte\":\"1{}\"}}", zeros(400)),
        ),
    ]
}

fn json(quoted: impl Fn(&str) -> String) -> Vec<Long> {
    let zeros = "0".repeat(1000);
    let (deep, arrays) = (nested("{\"a\":", "}", 900), nested("[", "]", 14));
    let too_deep = nested("{\"a\":", "}", 2000);
    let too_many_arrays = nested("[", "]", 15);
    let inner = format!("{{\"a\":{}}}", nested("[", "]", 500));
    let long_key = format!("{{\"{}\":1}}", "k".repeat(50_001));
    vec![
        // A number of more than 1,000 digits: both clusters refuse it as a number.
        ("jsonb", "'[1e1000]'".to_owned(), format!("[\"1{zeros}\"]")),
        ("jsonb", "'{\"a\": 1e999}'".to_owned(), format!("{{\"a\":1{}}}", "0".repeat(999))),
        ("json", format!("'{{\"a\": -1.{zeros}}}'"), format!("{{\"a\":\"-1.{zeros}\"}}")),
        ("json", format!("'{deep}'"), deep),
        ("json", format!("'{too_deep}'"), quoted(&too_deep)),
        ("json", format!("'{arrays}'"), arrays.clone()),
        ("json", format!("'{too_many_arrays}'"), quoted(&too_many_arrays)),
        ("json", format!("'{inner}'"), inner.clone()),
        ("json", format!("'{long_key}'"), quoted(&long_key)),
        ("jsonb", format!("'{too_many_arrays}'"), quoted(&too_many_arrays)),
        ("jsonb", format!("'{inner}'"), inner),
        ("json[]", format!("array['{arrays}'::json]"), format!("[{arrays}]")),
        ("jsonb", "to_jsonb(repeat('y', 50000))".to_owned(), format!("\"{}\"", "y".repeat(50_000))),
    ]
}

fn nested(open: &str, close: &str, depth: usize) -> String {
    let inner = if open == "[" { "" } else { "1" };
    format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
}
