//! Postgres' array text (`{1,NULL,"a b"}`, nested, with or without `[2:4]=` bounds) becomes a JSON array.
//!
//! Bounds are dropped: JSON arrays have none. Elasticsearch flattens nested arrays when it indexes them.

use super::quoted::{InnerQuote, take_quoted};
use super::types::Kind;
use super::value::write_value;

/// Arrays have at most six dimensions (`MAXDIM`); a server that prints more is not one we know.
const DEPTH_MAX: usize = 6;

/// Appends the array; `false`, with nothing written, if it is not one.
pub(super) fn write_array(element: &Kind, delimiter: u8, text: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut parser = Parser { rest: without_bounds(text), delimiter, element };
    let sound = parser.array(out, 0).is_some() && parser.rest.is_empty();
    if !sound {
        out.truncate(start);
    }
    sound
}

fn without_bounds(text: &[u8]) -> &[u8] {
    match (text.first(), text.iter().position(|&byte| byte == b'=')) {
        (Some(b'['), Some(at)) => text.get(at + 1..).unwrap_or_default(),
        (_, _) => text,
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    delimiter: u8,
    element: &'a Kind,
}

impl Parser<'_> {
    fn take(&mut self, byte: u8) -> Option<()> {
        self.rest = self.rest.strip_prefix(&[byte])?;
        Some(())
    }

    fn array(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        self.take(b'{').filter(|()| depth < DEPTH_MAX)?;
        out.push(b'[');
        if self.take(b'}').is_none() {
            loop {
                match self.rest.first()? {
                    b'{' => self.array(out, depth + 1)?,
                    b'"' => self.quoted(out)?,
                    _ => self.plain(out)?,
                }
                if self.take(self.delimiter).is_none() {
                    break;
                }
                out.push(b',');
            }
            self.take(b'}')?;
        }
        out.push(b']');
        Some(())
    }

    fn quoted(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let text = take_quoted(&mut self.rest, InnerQuote::Escaped)?;
        write_value(self.element, &text, out);
        Some(())
    }

    fn plain(&mut self, out: &mut Vec<u8>) -> Option<()> {
        let ends =
            |&byte: &u8| byte == self.delimiter || matches!(byte, b'{' | b'}' | b'"' | b'\\');
        let length = self.rest.iter().position(ends)?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        match text {
            [] => return None,
            // Only unquoted; the text "NULL" is printed in quotes.
            b"NULL" => out.extend_from_slice(b"null"),
            text => write_value(self.element, text, out),
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(element: &Kind, text: &str) -> Option<String> {
        let mut out = Vec::new();
        let sound = write_array(element, b',', text.as_bytes(), &mut out);
        sound.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn nulls_quotes_nesting_and_bounds() {
        let text = |array: &str| written(&Kind::Text, array);
        assert_eq!(text("{}").as_deref(), Some("[]"));
        assert_eq!(text(r#"{NULL,"NULL","",a b}"#).as_deref(), Some(r#"[null,"NULL","","a b"]"#));
        assert_eq!(text(r#"{"a\"b","c\\d","{,}"}"#).as_deref(), Some(r#"["a\"b","c\\d","{,}"]"#));
        let numbers = |array: &str| written(&Kind::Integer(32), array);
        assert_eq!(numbers("{{1,2},{3,NULL}}").as_deref(), Some("[[1,2],[3,null]]"));
        assert_eq!(numbers("[2:4]={1,2,3}").as_deref(), Some("[1,2,3]"));
        assert_eq!(numbers("[0:0][1:1]={{7}}").as_deref(), Some("[[7]]"));
    }

    #[test]
    fn what_is_no_array_is_left_alone() {
        for other in
            ["", "{", "}", "{1", "{1,}", "{,1}", "{1}x", "{\"a}", "{{{{{{{1}}}}}}}", "{a\\"]
        {
            assert_eq!(written(&Kind::Text, other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn arrays_of_text_come_back(texts: Vec<Option<String>>) {
            let quoted: Vec<String> = texts
                .iter()
                .map(|text| match text {
                    None => "NULL".to_owned(),
                    Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
                })
                .collect();
            let array = format!("{{{}}}", quoted.join(","));
            let back = written(&Kind::Text, &array).unwrap();
            prop_assert_eq!(serde_json::from_str::<Vec<Option<String>>>(&back).unwrap(), texts);
        }
    }
}
