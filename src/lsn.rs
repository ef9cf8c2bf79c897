//! Positions in the write-ahead log.
//!
//! `Lsn` is the only integer in this crate that may mean a WAL position. It is printed and parsed in
//! Postgres' own form, `XXXXXXXX/XXXXXXXX` in hexadecimal.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// `0/0`: Postgres' "invalid" position; as a start position it means "where the slot stands".
    pub const ZERO: Self = Self(0);

    /// The position `bytes` bytes into the log.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The position as a number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many bytes of WAL lie between `earlier` and this position; 0 if `earlier` is later.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a WAL position of the form `16/B374D848`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an LSN: expected two hexadecimal numbers joined by '/', as in 16/B374D848")]
pub struct ParseLsnError;

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if plain { u64::from_str_radix(digits, 16).ok() } else { None }
        };
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        match (half(high), half(low)) {
            (Some(high), Some(low)) => Ok(Self(high << 32 | low)),
            (None, _) | (_, None) => Err(ParseLsnError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_the_form_of_postgres() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().map(|lsn| lsn.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn refuses_what_postgres_would_not_print() {
        for text in ["", "0", "/", "0/", "/0", "0/0/0", "+1/0", "1/ 2", "123456789/0", "0/G"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError), "{text}");
        }
    }
}
