//! The only functions that put a name or a value into SQL text.
//!
//! Replication commands and COPY take no parameters, so names and key values are written into their
//! text; nothing outside this file may do so by hand.

/// A name as a quoted identifier: `we"ird` becomes `"we""ird"`.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table's full name: `"schema"."table"`.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// Text as a string literal that means the same whatever `standard_conforming_strings` is: with a
/// backslash in it, it is written as `E'…'`.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// The bytes of a text as a string literal. Those that are not UTF-8, which only a database in `SQL_ASCII` can
/// hold, are written as escapes.
pub(super) fn bytes_literal(text: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(text) {
        return literal(text);
    }
    let mut quoted = "E'".to_owned();
    for &byte in text {
        match byte {
            b'\'' | b'\\' => quoted.extend([char::from(byte); 2]),
            byte if byte.is_ascii() => quoted.push(char::from(byte)),
            byte => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('\'');
    quoted
}

/// Text as a dollar-quoted string, with a tag that does not stand in the text.
pub(super) fn dollar_quoted(text: &str) -> String {
    let mut tag = "$waldex$".to_owned();
    while text.contains(&tag) {
        tag.insert(1, 'x');
    }
    format!("{tag}\n{text}\n{tag}")
}

/// Text as a string of a replication command, whose grammar knows no `E'…'` and takes a backslash
/// as it stands.
pub(super) fn replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_are_doubled_and_backslashes_escaped() {
        assert_eq!(identifier("we\"ird .Täble"), "\"we\"\"ird .Täble\"");
        assert_eq!(qualified("a.b", "c"), "\"a.b\".\"c\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("\\'; drop"), "E'\\\\''; drop'");
        assert_eq!(bytes_literal(b"it's"), "'it''s'");
        assert_eq!(bytes_literal(b"\\'\xE9a"), "E'\\\\''\\xe9a'");
        assert_eq!(dollar_quoted("a$waldex$b"), "$xwaldex$\na$waldex$b\n$xwaldex$");
        assert_eq!(replication_literal("\"p\\'\""), "'\"p\\''\"'");
    }

    proptest! {
        #[test]
        fn no_quote_of_the_text_ends_the_literal(text in "['\\\\a\"é]{0,20}") {
            let quoted = literal(&text);
            let inner = quoted.trim_start_matches('E');
            let inner = &inner[1..inner.len() - 1];
            let mut bytes = inner.bytes().peekable();
            let mut read = Vec::new();
            while let Some(byte) = bytes.next() {
                let doubled = byte == b'\'' || (byte == b'\\' && quoted.starts_with('E'));
                if doubled {
                    prop_assert_eq!(bytes.next(), Some(byte));
                }
                read.push(byte);
            }
            prop_assert_eq!(read, text.as_bytes());
        }
    }
}
