//! `json` and `jsonb` values, made fit for a line of a bulk body.
//!
//! `json` is stored as typed: raw newlines would break the whole bulk, a duplicate key is a 400 there. So
//! white space outside strings goes, and of equal keys the last stays, as `jsonb` has it. Numbers and
//! strings keep their text to the letter, lone surrogates included, which the clusters accept.
//!
//! They refuse some JSON even under `enabled: false`, because they read it before they pass it over: what is
//! beyond the limits below is written as a string of its text.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// Documents nested deeper than 1,000 are refused. A value is inside a document, and perhaps an array.
const DEPTH_MAX: usize = 900;
/// OpenSearch refuses more than 20 arrays directly inside one another at the top of a field
/// (`index.mapping.depth.limit`), six of which may be those of a `jsonb[]`.
const TOP_ARRAYS_MAX: usize = 14;
/// Numbers of more digits are refused. `jsonb` prints 1e1000 as 1,001 of them.
const NUMBER_BYTES_MAX: usize = 1000;
/// OpenSearch refuses longer names.
pub(super) const KEY_BYTES_MAX: usize = 50_000;

/// Who has seen to it that the keys of an object are all different.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// Postgres: `jsonb`.
    Unique,
    /// Nobody: `json`.
    AsTyped,
}

/// Appends the value; `false`, with nothing written, if it is not JSON or beyond what can be indexed.
pub(super) fn write_json(keys: Keys, text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if std::str::from_utf8(text).is_err() {
        return false;
    }
    let mut parser = Parser { rest: text, keys, objects: 0 };
    let sound = parser.value(out, 0).is_some() && parser.skip_white_space().is_empty();
    if !sound {
        out.truncate(start);
    }
    sound
}

struct Parser<'a> {
    rest: &'a [u8],
    keys: Keys,
    /// How many objects are open.
    objects: usize,
}

impl<'a> Parser<'a> {
    fn skip_white_space(&mut self) -> &'a [u8] {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        let length = self.rest.iter().take_while(space).count();
        self.rest = self.rest.get(length..).unwrap_or_default();
        self.rest
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.skip_white_space().strip_prefix(&[byte])?;
        Some(())
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        match self.skip_white_space().first()? {
            b'{' => self.object(out, depth),
            b'[' => self.array(out, depth),
            b'"' => {
                out.extend_from_slice(self.string()?);
                Some(())
            }
            b't' => self.word(b"true", out),
            b'f' => self.word(b"false", out),
            b'n' => self.word(b"null", out),
            _ => self.number(out),
        }
    }

    fn word(&mut self, word: &[u8], out: &mut Vec<u8>) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        out.extend_from_slice(word);
        Some(())
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        let depth_max = if self.objects == 0 { TOP_ARRAYS_MAX } else { DEPTH_MAX };
        self.take(b'[').filter(|()| depth < depth_max)?;
        out.push(b'[');
        if self.take(b']').is_none() {
            loop {
                self.value(out, depth + 1)?;
                if self.take(b',').is_none() {
                    break;
                }
                out.push(b',');
            }
            self.take(b']')?;
        }
        out.push(b']');
        Some(())
    }

    fn object(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.take(b'{').filter(|()| depth < DEPTH_MAX)?;
        self.objects += 1;
        let start = out.len();
        out.push(b'{');
        let mut members: Vec<Member<'a>> = Vec::new();
        if self.take(b'}').is_none() {
            loop {
                self.skip_white_space();
                let from = out.len();
                let key = self.string().filter(|key| key.len() <= KEY_BYTES_MAX)?;
                self.take(b':')?;
                out.extend_from_slice(key);
                out.push(b':');
                self.value(out, depth + 1)?;
                if self.keys == Keys::AsTyped {
                    members.push(Member { key, written: from..out.len() });
                }
                if self.take(b',').is_none() {
                    break;
                }
                out.push(b',');
            }
            self.take(b'}')?;
        }
        out.push(b'}');
        self.objects -= 1;
        drop_repeated(start, &members, out);
        Some(())
    }

    /// The string with its quotes, as it stands.
    fn string(&mut self) -> Option<&'a [u8]> {
        let text = self.rest;
        let mut bytes = text.iter().enumerate();
        if bytes.next()?.1 != &b'"' {
            return None;
        }
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    let (string, rest) = text.split_at_checked(at + 1)?;
                    self.rest = rest;
                    return Some(string);
                }
                b'\\' => match bytes.next()?.1 {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            bytes.next().filter(|(_, digit)| digit.is_ascii_hexdigit())?;
                        }
                    }
                    _ => return None,
                },
                0..=0x1F => return None,
                _ => {}
            }
        }
        None
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest.iter().take_while(part).count();
        let (number, rest) = self.rest.split_at_checked(length)?;
        super::value::is_json_number(number.strip_prefix(b"-").unwrap_or(number)).then_some(())?;
        self.rest = rest;
        if number.len() > NUMBER_BYTES_MAX {
            super::json::write_string(number, out);
        } else {
            out.extend_from_slice(number);
        }
        Some(())
    }
}

struct Member<'a> {
    /// With its quotes.
    key: &'a [u8],
    /// Where key and value were written.
    written: Range<usize>,
}

/// Of the members with one name, leaves only the last in the object, which stands in `out` from `start`.
fn drop_repeated(start: usize, members: &[Member<'_>], out: &mut Vec<u8>) {
    if members.len() < 2 {
        return;
    }
    let names: Vec<Cow<'_, [u8]>> = members.iter().map(|member| name(member.key)).collect();
    let last: HashMap<&[u8], usize> =
        names.iter().enumerate().map(|(at, name)| (name.as_ref(), at)).collect();
    if last.len() == members.len() {
        return;
    }
    let object = out.split_off(start);
    out.push(b'{');
    for (at, (member, name)) in members.iter().zip(&names).enumerate() {
        if last.get(name.as_ref()) != Some(&at) {
            continue;
        }
        if out.len() > start + 1 {
            out.push(b',');
        }
        let written = member.written.start - start..member.written.end - start;
        out.extend_from_slice(object.get(written).unwrap_or_default());
    }
    out.push(b'}');
}

/// What a key says: `"a"` and `"\u0061"` are the same. Each surrogate that is alone keeps its code.
fn name(key: &[u8]) -> Cow<'_, [u8]> {
    if !key.contains(&b'\\') {
        return Cow::Borrowed(key);
    }
    let mut units: Vec<u16> = Vec::with_capacity(key.len());
    let text = String::from_utf8_lossy(key);
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let plain = match char {
            '\\' => match chars.next() {
                Some('u') => {
                    let hex: String = chars.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&hex, 16).unwrap_or_default());
                    continue;
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            plain => plain,
        };
        units.extend_from_slice(plain.encode_utf16(&mut [0; 2]));
    }
    match String::from_utf16(&units) {
        Ok(name) => Cow::Owned(name.into_bytes()),
        // No text has such bytes, so it is like no name that has no lone surrogate.
        Err(_) => Cow::Owned(
            units.iter().flat_map(|unit| [0xFF].into_iter().chain(unit.to_be_bytes())).collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> Option<String> {
        let mut out = b"before".to_vec();
        let sound = write_json(Keys::AsTyped, text.as_bytes(), &mut out);
        let out = String::from_utf8(out).unwrap();
        let out = out.strip_prefix("before").unwrap().to_owned();
        assert!(sound || out.is_empty());
        sound.then_some(out)
    }

    #[test]
    fn newlines_go_and_the_last_of_equal_keys_stays() {
        let text = "{ \"a\" : 1,\r\n\t\"b\": {\"x\":[ ],\"x\" : 2.50},\n\"\\u0061\":3e0 }";
        assert_eq!(written(text).as_deref(), Some(r#"{"b":{"x":2.50},"\u0061":3e0}"#));
        assert_eq!(written(" \"a b\" ").as_deref(), Some("\"a b\""));
        assert_eq!(written("{}").as_deref(), Some("{}"));
        let exact = "[123456789012345678901234567890.10,\"\\ud800\"]";
        assert_eq!(written(exact).as_deref(), Some(exact));
    }

    #[test]
    fn a_number_that_no_cluster_reads_is_a_string() {
        let long = format!("1{}", "0".repeat(NUMBER_BYTES_MAX));
        assert_eq!(written(&format!("[{long}]")), Some(format!("[\"{long}\"]")));
        let just = &long[1..];
        assert_eq!(
            written(&format!("{{\"a\":1{}}}", &just[1..])),
            Some(format!("{{\"a\":1{}}}", &just[1..]))
        );
    }

    #[test]
    fn names_are_the_same_by_what_they_say() {
        let text = r#"{"\ud800":1,"\uD800":2,"\ud83e\udd80":3,"🦀":4,"a\/\n":5,"a/\u000A":6}"#;
        let expected = r#"{"\uD800":2,"🦀":4,"a/\u000A":6}"#;
        assert_eq!(written(text).as_deref(), Some(expected));
        let nested = r#"{"a":{"x":1,"x":2},"b":0,"a":{"y":1,"y":2}}"#;
        assert_eq!(written(nested).as_deref(), Some(r#"{"b":0,"a":{"y":2}}"#));
    }

    #[test]
    fn too_deep_or_not_json_is_left_alone() {
        let deep = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        assert!(written(&deep(DEPTH_MAX)).is_some());
        assert_eq!(written(&deep(DEPTH_MAX + 1)), None);
        let arrays = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(written(&arrays(TOP_ARRAYS_MAX)).is_some());
        assert_eq!(written(&arrays(TOP_ARRAYS_MAX + 1)), None);
        let inside =
            format!("[{{\"a\":{}}},{}]", arrays(DEPTH_MAX - 2), arrays(TOP_ARRAYS_MAX - 1));
        assert_eq!(written(&inside).as_ref(), Some(&inside));
        assert_eq!(written(&format!("[{{}},{}]", arrays(TOP_ARRAYS_MAX))), None);
        assert_eq!(written(&format!("{{\"{}\":1}}", "k".repeat(KEY_BYTES_MAX))), None);
        for other in
            ["", "{", "nul", "{a:1}", "[1,]", "01", "1 2", "\"a\nb\"", "\"\\q\"", "{\"a\" 1}"]
        {
            assert_eq!(written(other), None, "{other}");
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            ".*".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_keeps_its_meaning(value in json()) {
            let typed = serde_json::to_string_pretty(&value).unwrap();
            let line = written(&typed).unwrap();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
        }
    }
}
