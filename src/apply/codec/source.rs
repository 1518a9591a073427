//! Where bytes to decode come from: each read checks that they are there.

use std::ops::Range;

use bytes::Bytes;

use super::CodecError;
use crate::auth::Caller;

/// Room that is reserved for a list before its items are read; longer ones grow as they come, so
/// that a lying count costs nothing.
const RESERVE_MAX: usize = 64;

/// A cursor over an entry's bytes.
pub(super) struct Source {
    bytes: Bytes,
    at: usize,
    depth: usize,
    /// The user that was read last: the commands of an entry are mostly of few, who share their names then.
    pub(super) user: Option<Caller>,
}

impl Source {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0, depth: 0, user: None }
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, CodecError> {
        let byte = *self.bytes.get(self.at).ok_or(CodecError::Truncated(what))?;
        self.at += 1;
        Ok(byte)
    }

    /// A byte of which only the bits in `known` may be set.
    pub(super) fn flags(&mut self, what: &'static str, known: u8) -> Result<u8, CodecError> {
        match self.byte(what)? {
            flags if flags & !known == 0 => Ok(flags),
            number => Err(CodecError::Unknown { what, number }),
        }
    }

    pub(super) fn bool(&mut self, what: &'static str) -> Result<bool, CodecError> {
        Ok(self.flags(what, 1)? == 1)
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(CodecError::NumberTooLong);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(CodecError::NumberTooLong)
    }

    pub(super) fn signed(&mut self, what: &'static str) -> Result<i64, CodecError> {
        let number = self.varint(what)?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn fixed(&mut self, what: &'static str) -> Result<u64, CodecError> {
        let end = self.at + 8;
        let bytes = self.bytes.get(self.at..end).and_then(|slice| slice.try_into().ok());
        self.at = end.min(self.bytes.len());
        bytes.map(u64::from_le_bytes).ok_or(CodecError::Truncated(what))
    }

    /// A byte string: a slice of the input that shares its memory.
    pub(super) fn bytes(&mut self, what: &'static str) -> Result<Bytes, CodecError> {
        let range = self.range(what)?;
        Ok(self.bytes.slice(range))
    }

    /// A name, as long as it is looked at.
    pub(super) fn name(&mut self) -> Result<&str, CodecError> {
        let range = self.range("a name")?;
        std::str::from_utf8(&self.bytes[range]).map_err(|_| CodecError::NoText)
    }

    /// Where a byte string stands; goes on behind it.
    fn range(&mut self, what: &'static str) -> Result<Range<usize>, CodecError> {
        let len = self.varint(what)?;
        if len > self.left() as u64 {
            return Err(CodecError::Truncated(what));
        }
        let start = self.at;
        self.at += len as usize;
        Ok(start..self.at)
    }

    /// A counted list whose items are at least `item_len_min` bytes long.
    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        item_len_min: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let count = self.varint(what)?;
        if count > (self.left() / item_len_min) as u64 {
            return Err(CodecError::CountTooLarge { what, count });
        }
        let mut items = Vec::with_capacity((count as usize).min(RESERVE_MAX));
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Runs `inner` one level deeper.
    pub(super) fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<T, CodecError> {
        if self.depth == super::TXN_DEPTH_MAX {
            return Err(CodecError::TooDeep);
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Checks that everything was read.
    pub(super) fn end(&self) -> Result<(), CodecError> {
        match self.left() {
            0 => Ok(()),
            left => Err(CodecError::Trailing(left)),
        }
    }
}
