//! Text in double quotes, as Postgres prints it inside arrays, ranges and `hstore`: a backslash stands before
//! a character that is meant as it is.

/// How a quote inside of the quotes is printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InnerQuote {
    /// `\"`.
    Escaped,
    /// `""`, beside `\"`.
    Doubled,
}

/// Takes what stands in quotes from the start of `rest`; `None` if that is no whole quoted text.
pub(super) fn take_quoted(rest: &mut &[u8], inner: InnerQuote) -> Option<Vec<u8>> {
    let mut next = || {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        Some((byte, after))
    };
    next().filter(|(byte, _)| *byte == b'"')?;
    let mut text = Vec::new();
    loop {
        match next()? {
            (b'"', [b'"', ..]) if inner == InnerQuote::Doubled => text.push(next()?.0),
            (b'"', _) => return Some(text),
            (b'\\', _) => text.push(next()?.0),
            (byte, _) => text.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &[u8], inner: InnerQuote) -> Option<(Vec<u8>, &[u8])> {
        let mut rest = text;
        take_quoted(&mut rest, inner).map(|quoted| (quoted, rest))
    }

    #[test]
    fn escapes_doubled_quotes_and_the_end() {
        let expected = |text: &[u8], rest: &'static [u8]| Some((text.to_vec(), rest));
        assert_eq!(taken(br#""a\"\\",x"#, InnerQuote::Escaped), expected(br#"a"\"#, b",x"));
        assert_eq!(taken(br#""a""b")"#, InnerQuote::Doubled), expected(br#"a"b"#, b")"));
        assert_eq!(taken(br#""a""b""#, InnerQuote::Escaped), expected(b"a", br#""b""#));
        assert_eq!(taken(br#""""#, InnerQuote::Doubled), expected(b"", b""));
        for cut in [&b""[..], b"a", b"\"", b"\"a", b"\"a\\", b"\"\"\""] {
            assert_eq!(taken(cut, InnerQuote::Doubled), None, "{cut:?}");
        }
    }
}
