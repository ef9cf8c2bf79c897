//! Ranges and multiranges: `[1,10)` becomes `{"gte":1,"lt":10}`, `{[1,3),[5,9)}` a JSON array of those.
//!
//! A bound that is not there is left out; `empty` is `{"empty":true}`. The names are those of the search
//! clusters' own range types, but each bound is mapped as a field of its own: those types refuse a document
//! for `infinity`, for a year they cannot index, and for a range that is empty in milliseconds or doubles.
//! Always an object, so that the mapping holds: text in no form we know is `{"text":"…"}`.

use std::borrow::Cow;

use super::json::write_string;
use super::quoted::{InnerQuote, take_quoted};
use super::types::Kind;
use super::value::write_value;

/// Appends the range as an object.
pub(super) fn write_range(subtype: &Kind, text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut parser = Parser { rest: text, subtype };
    let is_sound = parser.range(out).is_some() && parser.rest.is_empty();
    if !is_sound {
        out.truncate(start);
        write_as_text(text, out);
    }
}

/// Appends the ranges of a multirange as an array of objects.
pub(super) fn write_multirange(subtype: &Kind, text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut parser = Parser { rest: text, subtype };
    let is_sound = parser.multirange(out).is_some() && parser.rest.is_empty();
    if !is_sound {
        out.truncate(start);
        out.push(b'[');
        write_as_text(text, out);
        out.push(b']');
    }
}

fn write_as_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"text\":");
    write_string(text, out);
    out.push(b'}');
}

struct Parser<'a> {
    rest: &'a [u8],
    subtype: &'a Kind,
}

impl Parser<'_> {
    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn multirange(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.take(b'{')?;
        out.push(b'[');
        if self.take(b'}').is_none() {
            loop {
                self.range(out)?;
                if self.take(b',').is_none() {
                    break;
                }
                out.push(b',');
            }
            self.take(b'}')?;
        }
        out.push(b']');
        Some(())
    }

    fn range(&mut self, out: &mut Vec<u8>) -> Option<()> {
        if let Some(rest) = self.rest.strip_prefix(b"empty") {
            self.rest = rest;
            out.extend_from_slice(b"{\"empty\":true}");
            return Some(());
        }
        let lower_name = match self.take(b'[') {
            Some(()) => "gte",
            None => self.take(b'(').map(|()| "gt")?,
        };
        let lower = self.bound()?;
        self.take(b',')?;
        let upper = self.bound()?;
        let upper_name = match self.take(b']') {
            Some(()) => "lte",
            None => self.take(b')').map(|()| "lt")?,
        };
        out.push(b'{');
        if let Some(text) = &lower {
            self.write_bound(lower_name, text, out);
        }
        if let Some(text) = &upper {
            if lower.is_some() {
                out.push(b',');
            }
            self.write_bound(upper_name, text, out);
        }
        out.push(b'}');
        Some(())
    }

    fn write_bound(&self, name: &str, text: &[u8], out: &mut Vec<u8>) {
        write_string(name.as_bytes(), out);
        out.push(b':');
        write_value(self.subtype, text, out);
    }
}

impl<'a> Parser<'a> {
    /// The text of a bound; `Some(None)` if there is none.
    fn bound(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        match self.rest.first()? {
            b',' | b']' | b')' => return Some(None),
            b'"' => {
                return take_quoted(&mut self.rest, InnerQuote::Doubled)
                    .map(|text| Some(Cow::Owned(text)));
            }
            _ => {}
        }
        let ends = |byte: &u8| matches!(byte, b',' | b']' | b')' | b'[' | b'(' | b'"' | b'\\');
        let (text, rest) = self.rest.split_at_checked(self.rest.iter().position(ends)?)?;
        self.rest = rest;
        Some(Some(Cow::Borrowed(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(subtype: &Kind, text: &str) -> String {
        let mut out = b"before".to_vec();
        write_range(subtype, text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
    }

    #[test]
    fn every_kind_of_bound() {
        let cases = [
            ("[1,10)", r#"{"gte":1,"lt":10}"#),
            ("(1,10]", r#"{"gt":1,"lte":10}"#),
            ("(,10)", r#"{"lt":10}"#),
            ("[1,)", r#"{"gte":1}"#),
            ("(,)", "{}"),
            ("empty", r#"{"empty":true}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(range(&Kind::Integer(32), text), expected, "{text}");
        }
        let time = r#"["2024-01-01 00:00:00+00",infinity]"#;
        let expected = r#"{"gte":"2024-01-01T00:00:00Z","lte":"infinity"}"#;
        assert_eq!(range(&Kind::Timestamp, time), expected);
        assert_eq!(range(&Kind::Numeric, "[1.10,NaN]"), r#"{"gte":"1.10","lte":"NaN"}"#);
        let text = r#"["a ""b"" \\ ,)",""]"#;
        assert_eq!(range(&Kind::Text, text), r#"{"gte":"a \"b\" \\ ,)","lte":""}"#);
    }

    #[test]
    fn a_multirange_is_an_array_of_ranges() {
        let mut out = Vec::new();
        write_multirange(&Kind::Integer(64), b"{[1,3),[5,)}", &mut out);
        assert_eq!(out, br#"[{"gte":1,"lt":3},{"gte":5}]"#);
        out.clear();
        write_multirange(&Kind::Integer(64), b"{}", &mut out);
        assert_eq!(out, b"[]");
        out.clear();
        write_multirange(&Kind::Integer(64), b"{[1,3)", &mut out);
        assert_eq!(out, br#"[{"text":"{[1,3)"}]"#);
    }

    #[test]
    fn what_is_no_range_is_an_object_all_the_same() {
        for other in ["", "[1", "[1,", "[1,2", "1,2)", "[1,2)x", "[\"1,2)", "[1,2,3)", "emptyx"] {
            let expected = serde_json::json!({ "text": other }).to_string();
            assert_eq!(range(&Kind::Integer(32), other), expected, "{other}");
        }
    }
}
