//! Text of values, whatever Postgres or a type that calls itself something sends.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use waldex::document::types::Kind;
use waldex::document::value::write_value;

use super::{SplitMix, fuzz};

/// A control character becomes six bytes; a bound of a range brings its name.
const GROWTH_MAX: usize = 8;
const GROWTH_BASE: usize = 16;
/// `serde_json` reads no deeper.
const NESTING_MAX: usize = 120;

const COMPOUND: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ",",
    ";",
    "\"",
    "\\",
    "\"\"",
    "\\\"",
    "NULL",
    "empty",
    "=>",
    ", ",
    "[1:2]=",
    "[-1:0][5:5]=",
    "{}",
    "(,)",
    "\"a\"=>\"1\"",
    "infinity",
    "2024-01-01",
    "\\x00",
    "1.5",
];
const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\"a\":",
    "\"\\u0061\":",
    "\\ud800",
    "\\uD83E\\uDD80",
    "null",
    "true",
    "1e400",
    "-0.0",
    " ",
    "\n",
    "\r",
    "\t",
    "\"\\",
    "{\"a\":",
    "[[[[[[[[[[[[[[[[",
    "11111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111111",
];
const SCALAR: &[&str] = &[
    "-",
    "+",
    ".",
    "e",
    "0",
    "00",
    "9",
    ":",
    " ",
    "T",
    "Z",
    " BC",
    "+00",
    "+00:30",
    "infinity",
    "NaN",
    "\\x",
    "ff",
    "FF",
    "t",
    "f",
    "2024-01-01",
    "00:00:00",
    ".000001",
    "99999999999999999999",
];

#[test]
fn compound_values() {
    let elements = [Kind::Text, Kind::Integer(32), Kind::Timestamp, Kind::Bytea, Kind::Json];
    let kinds: Vec<Kind> = elements
        .into_iter()
        .map(Arc::new)
        .flat_map(|element| {
            let range = Kind::Range(Arc::clone(&element));
            let ranges = Kind::Array(Arc::new(range.clone()), b',');
            let (array, boxes) =
                (Kind::Array(Arc::clone(&element), b','), Kind::Array(Arc::clone(&element), b';'));
            [range, ranges, array, boxes, Kind::Multirange(element)]
        })
        .chain([Kind::Hstore])
        .collect();
    fuzz(
        "compound-values",
        COMPOUND,
        |random| generated(random, COMPOUND),
        |text| {
            for kind in &kinds {
                let line = written(kind, text);
                if matches!(kind, Kind::Range(_)) {
                    assert!(line.starts_with('{'), "a range is an object: {line}");
                }
                if matches!(kind, Kind::Multirange(_)) {
                    assert!(line.starts_with('['), "ranges are an array: {line}");
                }
            }
        },
    );
}

#[test]
fn json_values() {
    fuzz(
        "json-values",
        JSON,
        |random| generated(random, JSON),
        |text| {
            written(&Kind::Jsonb, text);
            let line = written(&Kind::Json, text);
            // Of equal keys the last stays there, too.
            let Ok(meant) = serde_json::from_slice::<Value>(text) else { return };
            let Ok(read) = serde_json::from_str::<Value>(&line) else { return };
            let is_text = read.as_str().map(str::as_bytes) == Some(text);
            assert!(read == meant || is_text || has_long_number(text), "{line}");
        },
    );
}

#[test]
fn scalar_values() {
    fuzz(
        "scalar-values",
        SCALAR,
        |random| generated(random, SCALAR),
        |text| {
            let is_as_sent = |line: &str| {
                serde_json::from_str::<Value>(line).unwrap().as_str()
                    == Some(&String::from_utf8_lossy(text))
            };
            for kind in [Kind::Bool, Kind::Numeric, Kind::Uuid, Kind::Enum, Kind::Inet, Kind::Other]
            {
                let line = written(&kind, text);
                assert!(is_as_sent(&line) || line == "true" || line == "false", "{line}");
            }
            for kind in [Kind::Integer(64), Kind::Float(64)] {
                let line = written(&kind, text);
                assert!(line.as_bytes() == text || is_as_sent(&line), "{line}");
            }
            for kind in [Kind::Date, Kind::Timestamp] {
                let line = written(&kind, text);
                let digits =
                    |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
                let sent = String::from_utf8_lossy(text);
                let sent = sent.strip_suffix("+00").unwrap_or(&sent);
                let is_same = digits(sent) == digits(&line) || sent.ends_with("BC");
                assert!(is_same || is_as_sent(&line), "{line}");
            }
            let line = written(&Kind::Bytea, text);
            let back = STANDARD.decode(line.trim_matches('"'));
            let hex =
                |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let is_same = back.is_ok_and(|bytes| {
                format!("\\x{}", hex(bytes)).into_bytes() == text.to_ascii_lowercase()
            });
            assert!(is_same || is_as_sent(&line), "{line}");
        },
    );
}

fn generated(random: &mut SplitMix, tokens: &[&str]) -> Vec<u8> {
    (0..random.below(16)).flat_map(|_| random.of(tokens).bytes()).collect()
}

/// What a value becomes, after a look at it.
fn written(kind: &Kind, text: &[u8]) -> String {
    let mut out = b"before".to_vec();
    write_value(kind, text, &mut out);
    let out = String::from_utf8(out).unwrap();
    let line = out.strip_prefix("before").unwrap().to_owned();
    assert!(line.bytes().all(|byte| byte >= b' '), "{kind:?}: {line:?}");
    assert!(line.len() <= GROWTH_MAX * text.len() + GROWTH_BASE, "{kind:?}: {line:?}");
    let nesting = line.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count();
    if nesting < NESTING_MAX {
        let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&line);
        assert!(parsed.is_ok(), "{kind:?} {:?} -> {line}", String::from_utf8_lossy(text));
    }
    line
}

/// One that is written as a string.
fn has_long_number(text: &[u8]) -> bool {
    text.split(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
        .any(|number| number.len() > 1000)
}
