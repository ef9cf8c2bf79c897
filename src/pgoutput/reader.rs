//! Reads the parts of one message, front to back, and never past its end.
//!
//! Assumes nothing of the bytes. Every method names the part it reads, so that an error says where the
//! message is damaged without showing what was in it.

use super::decode::{DecodeError, Fault};

/// What is left of one message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    message: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'static str, rest: &'a [u8]) -> Self {
        Self { message, rest }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn damaged(&self, part: &'static str, fault: Fault) -> DecodeError {
        DecodeError::Damaged { message: self.message, part, fault }
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) =
            self.rest.split_first_chunk().ok_or_else(|| self.damaged(part, Fault::Short))?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, part: &'static str) -> Result<u8, DecodeError> {
        self.array(part).map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self, part: &'static str) -> Result<u32, DecodeError> {
        self.array(part).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, part: &'static str) -> Result<i32, DecodeError> {
        self.array(part).map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self, part: &'static str) -> Result<i64, DecodeError> {
        self.array(part).map(i64::from_be_bytes)
    }

    pub(super) fn lsn(&mut self, part: &'static str) -> Result<crate::lsn::Lsn, DecodeError> {
        self.array(part).map(|bytes| crate::lsn::Lsn::new(u64::from_be_bytes(bytes)))
    }

    /// A count of columns: 16 bits, signed on the wire, at most what a Postgres row can have.
    pub(super) fn columns(&mut self, part: &'static str) -> Result<usize, DecodeError> {
        let columns = self.array(part).map(i16::from_be_bytes)?;
        match usize::try_from(columns) {
            Ok(columns) if columns <= super::tuple::COLUMNS_MAX => Ok(columns),
            Ok(_) | Err(_) => Err(self.damaged(part, Fault::Columns(columns))),
        }
    }

    /// A length of 32 bits, signed on the wire, and as many bytes.
    pub(super) fn counted(&mut self, part: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.i32(part)?;
        let short = self.damaged(part, Fault::Length(length));
        let length = usize::try_from(length).map_err(|_| short.clone())?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A string up to its zero byte.
    pub(super) fn text(&mut self, part: &'static str) -> Result<&'a str, DecodeError> {
        let mut halves = self.rest.splitn(2, |&byte| byte == 0);
        let (Some(text), Some(rest)) = (halves.next(), halves.next()) else {
            return Err(self.damaged(part, Fault::Unterminated));
        };
        let text = str::from_utf8(text).map_err(|_| self.damaged(part, Fault::NotUtf8))?;
        self.rest = rest;
        Ok(text)
    }

    /// Flags of which only those in `known` are defined; others would change the meaning unseen.
    pub(super) fn flags(&mut self, part: &'static str, known: u8) -> Result<u8, DecodeError> {
        let flags = self.u8(part)?;
        if flags & !known == 0 { Ok(flags) } else { Err(self.damaged(part, Fault::Unknown(flags))) }
    }

    /// `count` OIDs, which must be all that is left.
    pub(super) fn oids(
        &mut self,
        part: &'static str,
        count: i32,
    ) -> Result<&'a [[u8; 4]], DecodeError> {
        let (oids, rest) = self.rest.as_chunks();
        if !rest.is_empty() || usize::try_from(count) != Ok(oids.len()) {
            return Err(self.damaged(part, Fault::Count(count)));
        }
        self.rest = rest;
        Ok(oids)
    }

    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(self.damaged("end", Fault::Trailing(left))),
        }
    }
}
