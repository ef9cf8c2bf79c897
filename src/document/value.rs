//! One Postgres value in text form becomes JSON.
//!
//! Infallible: text that is not what its type promises (`NaN`, `infinity`, or a type of another database
//! version) is written as a JSON string of exactly that text, which the derived mapping ignores when it
//! cannot index it; `_source` keeps it. Nothing is clamped and nothing is lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::array::write_array;
use super::datetime::{write_date, write_timestamp};
use super::hstore::write_hstore;
use super::json::write_string;
use super::json_text::{Keys, write_json};
use super::range::{write_multirange, write_range};
use super::types::Kind;

/// Appends the value as one line of JSON.
pub fn write_value(kind: &Kind, text: &[u8], out: &mut Vec<u8>) {
    let written = match kind {
        Kind::Bool => write_bool(text, out),
        Kind::Integer(_) => write_integer(text, out),
        Kind::Float(_) => write_float(text, out),
        Kind::Date => write_date(text, out),
        Kind::Timestamp => write_timestamp(text, out),
        Kind::Json => write_json(Keys::AsTyped, text, out),
        Kind::Jsonb => write_json(Keys::Unique, text, out),
        Kind::Hstore => write_hstore(text, out),
        Kind::Bytea => write_bytea(text, out),
        Kind::Array(element, delimiter) => write_array(element, *delimiter, text, out),
        Kind::Range(subtype) => return write_range(subtype, text, out),
        Kind::Multirange(subtype) => return write_multirange(subtype, text, out),
        // Exact decimals travel as strings: a JSON number would pass through a double on its way.
        Kind::Numeric | Kind::Text | Kind::Uuid | Kind::Enum | Kind::Inet | Kind::Other => false,
    };
    if !written {
        write_string(text, out);
    }
}

fn write_bool(text: &[u8], out: &mut Vec<u8>) -> bool {
    let word: &[u8] = match text {
        b"t" => b"true",
        b"f" => b"false",
        _ => return false,
    };
    out.extend_from_slice(word);
    true
}

fn write_integer(text: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let plain = match digits {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if plain {
        out.extend_from_slice(text);
    }
    plain
}

/// Postgres prints finite floats in a form that is JSON's: `1e+20`, `-0`, `1.5e-07`.
fn write_float(text: &[u8], out: &mut Vec<u8>) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_json = is_json_number(digits);
    if is_json {
        out.extend_from_slice(text);
    }
    is_json
}

pub(super) fn is_json_number(unsigned: &[u8]) -> bool {
    let digits_of = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits_of(unsigned);
    if whole == 0 || (whole > 1 && unsigned.first() == Some(&b'0')) {
        return false;
    }
    let mut rest = unsigned.get(whole..).unwrap_or_default();
    if let [b'.', fraction @ ..] = rest {
        let length = digits_of(fraction);
        if length == 0 {
            return false;
        }
        rest = fraction.get(length..).unwrap_or_default();
    }
    match rest {
        [] => true,
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => {
            !exponent.is_empty() && digits_of(exponent) == exponent.len()
        }
        _ => false,
    }
}

fn write_bytea(text: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(hex) = text.strip_prefix(b"\\x") else { return false };
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(hex.len() / 2);
    let (pairs, odd) = hex.as_chunks::<2>();
    for [high, low] in pairs {
        match (digit(high), digit(low)) {
            (Some(high), Some(low)) => bytes.push(high << 4 | low),
            (None, _) | (_, None) => return false,
        }
    }
    if !odd.is_empty() {
        return false;
    }
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
    true
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn written(kind: &Kind, text: &[u8]) -> String {
        let mut out = Vec::new();
        write_value(kind, text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_kind_as_documented() {
        let cases: &[(Kind, &str, &str)] = &[
            (Kind::Bool, "t", "true"),
            (Kind::Bool, "f", "false"),
            (Kind::Integer(64), "-9223372036854775808", "-9223372036854775808"),
            (Kind::Integer(64), "9007199254740993", "9007199254740993"),
            (Kind::Integer(16), "0", "0"),
            (Kind::Float(64), "1e+308", "1e+308"),
            (Kind::Float(64), "-0", "-0"),
            (Kind::Float(64), "1.5e-07", "1.5e-07"),
            (Kind::Float(32), "NaN", "\"NaN\""),
            (Kind::Float(64), "-Infinity", "\"-Infinity\""),
            (
                Kind::Numeric,
                "1234567890123456789012345678901234567890.5",
                "\"1234567890123456789012345678901234567890.5\"",
            ),
            (Kind::Numeric, "NaN", "\"NaN\""),
            (Kind::Text, "a\nb", "\"a\\nb\""),
            (Kind::Date, "infinity", "\"infinity\""),
            (Kind::Date, "2024-01-31", "\"2024-01-31\""),
            (Kind::Timestamp, "2024-01-31 01:02:03.5+00", "\"2024-01-31T01:02:03.5Z\""),
            (Kind::Bytea, "\\x", "\"\""),
            (Kind::Bytea, "\\x00ff10", "\"AP8Q\""),
            (Kind::Bytea, "\\x0", "\"\\\\x0\""),
            (Kind::Enum, "happy", "\"happy\""),
            (Kind::Other, "(1,2)", "\"(1,2)\""),
            (Kind::Array(Arc::new(Kind::Integer(32)), b','), "{1,NULL,3}", "[1,null,3]"),
            (Kind::Jsonb, r#"{"a": [1, 2.50]}"#, r#"{"a":[1,2.50]}"#),
        ];
        for (kind, text, expected) in cases {
            assert_eq!(&written(kind, text.as_bytes()), expected, "{kind:?} {text}");
        }
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        let plain = prop::sample::select(vec![
            Kind::Bool,
            Kind::Integer(64),
            Kind::Float(64),
            Kind::Numeric,
            Kind::Text,
            Kind::Uuid,
            Kind::Date,
            Kind::Timestamp,
            Kind::Json,
            Kind::Jsonb,
            Kind::Bytea,
            Kind::Enum,
            Kind::Inet,
            Kind::Hstore,
            Kind::Other,
        ]);
        (plain, 0..4).prop_map(|(kind, outer)| match outer {
            0 => kind,
            1 => Kind::Array(Arc::new(kind), b','),
            2 => Kind::Range(Arc::new(kind)),
            _ => Kind::Multirange(Arc::new(kind)),
        })
    }

    proptest! {
        #[test]
        fn any_text_of_any_kind_is_one_line_of_json(
            kind in kinds(),
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "[{}\\[\\]\",:\\\\ 0-9eE+.truefalsn\\n-]{0,40}".prop_map(String::into_bytes),
            ],
        ) {
            let line = written(&kind, &text);
            prop_assert!(!line.contains('\n') && !line.contains('\r'));
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(&line);
            prop_assert!(parsed.is_ok(), "{:?} {:?} -> {}", kind, text, line);
        }

        #[test]
        fn finite_floats_stay_what_they_are(number: f64) {
            prop_assume!(number.is_finite());
            let line = written(&Kind::Float(64), format!("{number:e}").as_bytes());
            prop_assert_eq!(line.parse::<f64>().unwrap(), number);
        }
    }
}
