//! The document `_id`: stable for ever, one row one id.
//!
//! From the key's columns in key order, each in the text Postgres prints. One column: that text with `~`
//! written `~0`, so row 42 is document `42`. Several: joined by `,`, in each part `~` written `~0` and `,`
//! written `~1`. An empty id, which Elasticsearch refuses, is `~`; one over 512 bytes, which it refuses with
//! the whole bulk, or one that is not UTF-8, is `~h` and the hexadecimal SHA-256 of what it would have been.
//! An encoded id never holds a `~` that is followed by neither `0` nor `1`, so the special forms collide
//! with none. The routing of a document is made in the same way. (Joining by `-` without escapes, as others do,
//! makes `("a-b","c")` and `("a","b-c")` one.)

use sha2::{Digest, Sha256};

/// The longest id that Elasticsearch takes.
const ID_BYTES_MAX: usize = 512;

/// Appends the id of the row with this key to `out`, which must be empty.
pub fn write_id<'a>(key: impl ExactSizeIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let is_composite = key.len() > 1;
    for (number, part) in key.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_part(part, is_composite, out);
    }
    bring_into_limits(out);
}

/// Appends a column's text as a routing to `out`, which must be empty: as one part of an id of several. Empty,
/// a routing counts as none; over 32,766 bytes it is refused; and `a,b` is two of them to whoever searches.
pub fn write_routing(column: &[u8], out: &mut Vec<u8>) {
    write_part(column, true, out);
    bring_into_limits(out);
}

fn write_part(part: &[u8], escapes_commas: bool, out: &mut Vec<u8>) {
    for &byte in part {
        match byte {
            b'~' => out.extend_from_slice(b"~0"),
            b',' if escapes_commas => out.extend_from_slice(b"~1"),
            byte => out.push(byte),
        }
    }
}

fn bring_into_limits(out: &mut Vec<u8>) {
    if out.is_empty() {
        out.push(b'~');
    } else if out.len() > ID_BYTES_MAX || std::str::from_utf8(out).is_err() {
        hash(out);
    }
}

/// The key of the row with this id, one text for each of `columns`; `None` if the id is not that of such a key,
/// or does not tell it: one that stands for a long key.
pub fn read_id(id: &str, columns: usize) -> Option<Vec<String>> {
    if id == "~" {
        return (columns == 1).then(|| vec![String::new()]);
    }
    let parts: Vec<&str> = if columns > 1 { id.split(',').collect() } else { vec![id] };
    if parts.len() != columns {
        return None;
    }
    parts.into_iter().map(read_part).collect()
}

fn read_part(part: &str) -> Option<String> {
    let mut out = String::with_capacity(part.len());
    let mut chars = part.chars();
    while let Some(char) = chars.next() {
        out.push(match char {
            '~' => match chars.next() {
                Some('0') => '~',
                Some('1') => ',',
                Some(_) | None => return None,
            },
            char => char,
        });
    }
    Some(out)
}

fn hash(id: &mut Vec<u8>) {
    let digest = Sha256::digest(&id);
    id.clear();
    id.extend_from_slice(b"~h");
    for byte in digest {
        id.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(key: &[&[u8]]) -> String {
        let mut out = Vec::new();
        write_id(key.iter().copied(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn as_documented() {
        assert_eq!(id(&[b"42"]), "42");
        assert_eq!(id(&[b"a,b~c"]), "a,b~0c");
        assert_eq!(id(&[b"a,b", b"~"]), "a~1b,~0");
        assert_eq!(id(&[b""]), "~");
        assert_eq!(id(&[b"", b""]), ",");
        assert_eq!(id(&[&[b'x'; 512]]), "x".repeat(512));
        let abc = "~hba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut out = b"abc".to_vec();
        hash(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), abc);
        assert!(id(&[&[b'x'; 513]]).starts_with("~h"));
        assert!(id(&[b"\xE9"]).starts_with("~h"));
        assert_ne!(id(&[b"\xE9"]), id(&[b"\xE8"]));
    }

    #[test]
    fn a_routing_is_one_value_that_is_taken() {
        let routing = |column: &[u8]| {
            let mut out = Vec::new();
            write_routing(column, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(routing(b"DE"), "DE");
        assert_eq!(routing(b""), "~");
        assert_eq!(routing(b"a,b~"), "a~1b~0");
        assert_eq!(routing(&[b'x'; 512]), "x".repeat(512));
        assert_eq!(routing(&[b'x'; 40_000]).len(), 66);
        assert!(routing(b"\xE9").starts_with("~h"));
    }

    #[test]
    fn a_hash_leads_nowhere() {
        assert_eq!(read_id(&id(&[&[b'x'; 513]]), 1), None);
        assert_eq!(read_id("a,b", 3), None);
        assert_eq!(read_id("~", 2), None);
        assert_eq!(read_id("a,b", 1), Some(vec!["a,b".to_owned()]));
    }

    /// Of the characters that could be confused.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop::sample::select(b"~,01ha\xFF".to_vec()), 0..4)
    }

    proptest! {
        #[test]
        fn two_keys_never_share_an_id(
            one in prop::collection::vec(part(), 2),
            other in prop::collection::vec(part(), 2),
        ) {
            let text = |key: &[Vec<u8>]| id(&key.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(text(&one) == text(&other), one == other);
            prop_assert_eq!(id(&[&one[0]]) == id(&[&other[0]]), one[0] == other[0]);
        }

        #[test]
        fn an_id_leads_back_to_its_key(
            key in prop::collection::vec("[~,01ha\u{e9}]{0,4}", 1..4),
        ) {
            let parts: Vec<&[u8]> = key.iter().map(String::as_bytes).collect();
            prop_assert_eq!(read_id(&id(&parts), key.len()), Some(key));
        }

        #[test]
        fn an_id_is_one_that_elasticsearch_takes(
            key in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 1..4),
        ) {
            let id = id(&key.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert!(!id.is_empty() && id.len() <= ID_BYTES_MAX);
        }
    }
}
