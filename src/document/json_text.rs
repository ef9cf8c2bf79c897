//! `json` and `jsonb` values, made fit for a line of a bulk body.
//!
//! `json` is stored as typed: raw newlines would break the whole bulk, a duplicate key is a 400 there. So
//! white space outside strings goes, and of equal keys the last stays, as `jsonb` has it. Numbers and
//! strings keep their text to the letter, lone surrogates included, which Elasticsearch accepts.

use std::collections::HashMap;

/// Elasticsearch refuses a document nested deeper than 1,000, even under `enabled: false`; deeper values
/// are written as a string of their text.
const DEPTH_MAX: usize = 900;

/// Appends the value; `false`, with nothing written, if it is not JSON or nested too deep.
pub(super) fn write_json(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    if std::str::from_utf8(text).is_err() {
        return false;
    }
    let mut parser = Parser { rest: text };
    let sound = parser.value(out, 0).is_some() && parser.skip_white_space().is_empty();
    if !sound {
        out.truncate(start);
    }
    sound
}

struct Parser<'a> {
    rest: &'a [u8],
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
        self.take(b'[').filter(|()| depth < DEPTH_MAX)?;
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
        let start = out.len();
        let mut members: Vec<Member<'a>> = Vec::new();
        if self.take(b'}').is_none() {
            loop {
                self.skip_white_space();
                let key = self.string()?;
                self.take(b':')?;
                let from = out.len();
                self.value(out, depth + 1)?;
                members.push(Member { key, value: from..out.len() });
                if self.take(b',').is_none() {
                    break;
                }
            }
            self.take(b'}')?;
        }
        write_members(start, &members, out);
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
        out.extend_from_slice(number);
        Some(())
    }
}

struct Member<'a> {
    /// With its quotes.
    key: &'a [u8],
    /// Where its value was written.
    value: std::ops::Range<usize>,
}

/// Puts the members, whose values stand in `out` from `start`, in their place as one object.
fn write_members(start: usize, members: &[Member<'_>], out: &mut Vec<u8>) {
    let last: HashMap<String, usize> =
        members.iter().enumerate().map(|(at, member)| (unescaped(member.key), at)).collect();
    let values = out.split_off(start);
    out.push(b'{');
    let mut is_first = true;
    for (at, member) in members.iter().enumerate() {
        if last.get(&unescaped(member.key)) != Some(&at) {
            continue;
        }
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        out.extend_from_slice(member.key);
        out.push(b':');
        let value = member.value.start - start..member.value.end - start;
        out.extend_from_slice(values.get(value).unwrap_or_default());
    }
    out.push(b'}');
}

/// What the key says: `"a"` and `"\u0061"` are the same. One with a lone surrogate is only like itself.
fn unescaped(key: &[u8]) -> String {
    serde_json::from_slice(key).unwrap_or_else(|_| String::from_utf8_lossy(key).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(text: &str) -> Option<String> {
        let mut out = b"before".to_vec();
        let sound = write_json(text.as_bytes(), &mut out);
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
    fn too_deep_or_not_json_is_left_alone() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(written(&deep(DEPTH_MAX)).is_some());
        assert_eq!(written(&deep(DEPTH_MAX + 1)), None);
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
