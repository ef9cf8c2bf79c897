//! A cursor over one message. Every read is checked against the message's end.

use super::decode::DecodeError;

/// What is left of a message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A name: bytes up to a NUL, in the connection's encoding.
    pub(super) fn name(&mut self) -> Result<&'a str, DecodeError> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(DecodeError::Truncated)?;
        let bytes = self.bytes(end)?;
        self.u8()?;
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Name)
    }

    /// Flags of which only those in `known` have a meaning.
    pub(super) fn flags(&mut self, known: u8) -> Result<u8, DecodeError> {
        match self.u8()? {
            flags if flags & !known == 0 => Ok(flags),
            flags => Err(DecodeError::Flags(flags)),
        }
    }

    /// A count that must be neither negative nor above `max`.
    pub(super) fn count(read: i32, max: usize) -> Result<usize, DecodeError> {
        match usize::try_from(read) {
            Ok(count) if count <= max => Ok(count),
            Ok(_) | Err(_) => Err(DecodeError::Count(read)),
        }
    }
}
