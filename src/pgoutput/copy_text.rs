//! One line of `COPY … TO STDOUT` in text format, which prints values exactly as the stream does.

use crate::document::Field;

/// A line that does not fit the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// Too few or too many columns.
    #[error("a copied row has {found} columns, not {expected}")]
    Columns {
        /// Columns asked for.
        expected: usize,
        /// Columns found.
        found: usize,
    },
    /// A backslash with nothing behind it.
    #[error("a copied row ends inside an escape")]
    Escape,
}

/// The columns of a line, with or without its newline. Unescaped text lives in `scratch`.
///
/// # Errors
/// Another number of columns than `columns`, or a dangling escape.
pub fn decode_copy_line<'a>(
    line: &'a [u8],
    scratch: &'a mut Vec<u8>,
    columns: usize,
) -> Result<Vec<Field<'a>>, CopyError> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if columns == 0 && line.is_empty() {
        return Ok(Vec::new());
    }
    scratch.clear();
    // Unescaping only ever shortens.
    scratch.reserve(line.len());
    let mut ends = Vec::with_capacity(columns);
    for field in line.split(|&byte| byte == b'\t') {
        if field == b"\\N" {
            ends.push(None);
        } else {
            unescape(field, scratch)?;
            ends.push(Some(scratch.len()));
        }
    }
    if ends.len() != columns {
        return Err(CopyError::Columns { expected: columns, found: ends.len() });
    }
    let text: &'a [u8] = scratch;
    let mut start = 0;
    Ok(ends
        .into_iter()
        .map(|end| match end {
            None => Field::Null,
            Some(end) => {
                let field = text.get(start..end).unwrap_or_default();
                start = end;
                Field::Text(field)
            }
        })
        .collect())
}

fn unescape(field: &[u8], out: &mut Vec<u8>) -> Result<(), CopyError> {
    let mut rest = field;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let (plain, escaped) = rest.split_at(at);
        out.extend_from_slice(plain);
        let [_, code, tail @ ..] = escaped else { return Err(CopyError::Escape) };
        rest = match code {
            b'b' => push(out, 0x08, tail),
            b'f' => push(out, 0x0C, tail),
            b'n' => push(out, b'\n', tail),
            b'r' => push(out, b'\r', tail),
            b't' => push(out, b'\t', tail),
            b'v' => push(out, 0x0B, tail),
            b'0'..=b'7' => number(out, escaped.get(1..).unwrap_or_default(), 3, 8),
            b'x' if tail.first().is_some_and(u8::is_ascii_hexdigit) => number(out, tail, 2, 16),
            other => push(out, *other, tail),
        };
    }
    out.extend_from_slice(rest);
    Ok(())
}

fn push<'a>(out: &mut Vec<u8>, byte: u8, tail: &'a [u8]) -> &'a [u8] {
    out.push(byte);
    tail
}

/// Up to `digits_max` digits; COPY keeps the low eight bits.
fn number<'a>(out: &mut Vec<u8>, text: &'a [u8], digits_max: usize, radix: u32) -> &'a [u8] {
    let digit = |byte: &u8| char::from(*byte).to_digit(radix);
    let digits = text.iter().take(digits_max).map_while(digit);
    let (count, value) =
        digits.fold((0, 0), |(count, value), digit| (count + 1, value * radix + digit));
    out.push(u8::try_from(value & 0xFF).unwrap_or(0));
    text.get(count..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &[u8], columns: usize) -> Result<Vec<Option<Vec<u8>>>, CopyError> {
        let mut scratch = Vec::new();
        let fields = decode_copy_line(line, &mut scratch, columns)?;
        Ok(fields
            .into_iter()
            .map(|field| match field {
                Field::Text(text) => Some(text.to_vec()),
                Field::Null | Field::Absent => None,
            })
            .collect())
    }

    #[test]
    fn escapes_nulls_and_empty_text() {
        let line = b"a\\tb\t\\N\t\t\\\\N\tx\\n\\r\\b\\f\\v\\101\\x42y\n";
        let expected = vec![
            Some(b"a\tb".to_vec()),
            None,
            Some(Vec::new()),
            Some(b"\\N".to_vec()),
            Some(b"x\n\r\x08\x0C\x0BABy".to_vec()),
        ];
        assert_eq!(texts(line, 5), Ok(expected));
    }

    #[test]
    fn another_number_of_columns_is_refused() {
        assert_eq!(texts(b"a\tb", 3), Err(CopyError::Columns { expected: 3, found: 2 }));
        assert_eq!(texts(b"", 0), Ok(vec![]));
        assert_eq!(texts(b"", 1), Ok(vec![Some(Vec::new())]));
        assert_eq!(texts(b"a\\", 1), Err(CopyError::Escape));
    }
}
