//! `hstore` (`"a"=>"1", "b"=>NULL`) becomes a JSON object of strings and nulls.

use super::json::write_string;
use super::json_text::KEY_BYTES_MAX;
use super::quoted::{InnerQuote, take_quoted};

/// Appends the object; `false`, with nothing written, if it is not one or has a key that is too long.
pub(super) fn write_hstore(text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut parser = Parser { rest: text };
    let is_sound = parser.pairs(out).is_some();
    if !is_sound {
        out.truncate(start);
    }
    is_sound
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl Parser<'_> {
    fn take(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn pairs(&mut self, out: &mut Vec<u8>) -> Option<()> {
        out.push(b'{');
        while !self.rest.is_empty() {
            let key = self.quoted().filter(|key| key.len() <= KEY_BYTES_MAX)?;
            write_string(&key, out);
            self.take(b"=>")?;
            out.push(b':');
            if self.take(b"NULL").is_some() {
                out.extend_from_slice(b"null");
            } else {
                write_string(&self.quoted()?, out);
            }
            if self.take(b", ").is_some() {
                (!self.rest.is_empty()).then_some(())?;
                out.push(b',');
            } else if !self.rest.is_empty() {
                return None;
            }
        }
        out.push(b'}');
        Some(())
    }

    fn quoted(&mut self) -> Option<Vec<u8>> {
        take_quoted(&mut self.rest, InnerQuote::Escaped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write_hstore(text.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn pairs_become_members() {
        assert_eq!(written("").as_deref(), Some("{}"));
        let text = r#""a"=>"1", "b"=>NULL, "NULL"=>"NULL", ""=>"", "q\"\\"=>"x=>y, \"z\"""#;
        let expected = r#"{"a":"1","b":null,"NULL":"NULL","":"","q\"\\":"x=>y, \"z\""}"#;
        assert_eq!(written(text).as_deref(), Some(expected));
    }

    #[test]
    fn what_is_no_hstore_is_left_alone() {
        let long = format!("\"{}\"=>NULL", "k".repeat(KEY_BYTES_MAX + 1));
        for other in ["a", "\"a\"", "\"a\"=>", "\"a\"=>1", "\"a\"=>\"1", "\"a\"=>NULL, ", &long] {
            assert_eq!(written(other), None, "{other}");
        }
    }
}
