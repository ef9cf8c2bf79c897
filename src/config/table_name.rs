//! `public.users`, `users`, `"My Schema"."T.x"`: a table as it is named in the configuration.
//!
//! An unquoted name with upper-case letters is refused: SQL would fold it to lower case, readers of the
//! file would not expect that, and either guess can pick the wrong table.

use super::Given;

/// Names in PostgreSQL are cut off at `NAMEDATALEN - 1` bytes.
const NAME_BYTES_MAX: usize = 63;

/// Schema and table; the schema is `public` if none is written.
pub(super) fn parse(given: &Given) -> Result<(String, String), String> {
    let parts = split(&given.text).map_err(|complaint| given.complain(complaint))?;
    if let Some(long) = parts.iter().find(|part| part.len() > NAME_BYTES_MAX) {
        return Err(format!("\"{long}\" is longer than a PostgreSQL name can be (63 bytes)"));
    }
    match parts.as_slice() {
        [table] => Ok(("public".to_owned(), table.clone())),
        [schema, table] => Ok((schema.clone(), table.clone())),
        _ => Err(given.complain("must be schema.table")),
    }
}

fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_name(quoted)?,
            None => plain_name(rest)?,
        };
        parts.push(part);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err("has text after a closing quote"),
        }
    }
}

fn quoted_name(text: &str) -> Result<(String, &str), &'static str> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"').ok_or("has no closing quote")?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None if name.is_empty() => return Err("has an empty name"),
            None => return Ok((name, after)),
        }
    }
}

fn plain_name(text: &str) -> Result<(String, &str), &'static str> {
    let (name, after) = text.split_at(text.find('.').unwrap_or(text.len()));
    if name.is_empty() {
        return Err("has an empty name");
    }
    if name.chars().any(char::is_uppercase) {
        return Err("has upper-case letters: put a name that really has them in double quotes \
                    ('public.\"Users\"'), else write it in lower case");
    }
    if name.contains(|c: char| c == '"' || c.is_whitespace() || c.is_control()) {
        return Err("has a quote or a blank in a name without double quotes");
    }
    Ok((name.to_owned(), after))
}

#[cfg(test)]
mod tests {
    use super::super::{Layer, Place};
    use super::*;

    fn given(text: &str) -> Given {
        let (text, shown) = (text.to_owned(), Some(text.to_owned()));
        Given { text, shown, place: Place::Nowhere, layer: Layer::File }
    }

    #[test]
    fn names() {
        for (text, schema, table) in [
            ("users", "public", "users"),
            ("crm.users", "crm", "users"),
            (r#""My Schema"."T.x""#, "My Schema", "T.x"),
            (r#"crm."a""b""#, "crm", "a\"b"),
            (r#""Users""#, "public", "Users"),
        ] {
            let expected = (schema.to_owned(), table.to_owned());
            assert_eq!(parse(&given(text)), Ok(expected), "{text}");
        }
        for text in
            ["", ".", "a.", ".a", "a.b.c", "Users", r#""a"#, r#""a"b"#, r#""""#, "a b", r#"a"b"#]
        {
            assert!(parse(&given(text)).is_err(), "{text}");
        }
    }
}
