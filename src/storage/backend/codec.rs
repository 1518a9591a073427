//! A record's bytes on disk, with a checksum of our own.
//!
//! ```text
//! kind u8 (1 tombstone, 2 version) · crc32c u32 LE over revision, kind and body · body
//! body of a tombstone: key
//! body of a version:   create, version, lease (varints, lease zigzag) · key length varint · key · value
//! ```
//!
//! The revision is part of the checksum, so that a record read from another record's place is
//! seen as damaged. The layout is versioned by `kind`: a new layout takes new numbers.

use bytes::Bytes;

use crate::storage::{Record, VersionRecord};
use crate::types::{LeaseId, Revision};

const TOMBSTONE: u8 = 1;
const VERSION: u8 = 2;
const HEAD: usize = 5;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Fewer bytes than their head says.
    #[error("cut short")]
    Short,
    /// A kind that this version doesn't know.
    #[error("unknown kind {0}")]
    Kind(u8),
    /// The checksum doesn't fit.
    #[error("checksum mismatch")]
    Checksum,
    /// A number out of its range.
    #[error("number out of range")]
    Number,
}

/// Appends the record of `at` to `out`.
pub fn encode_record(at: Revision, record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[if record.version.is_some() { VERSION } else { TOMBSTONE }, 0, 0, 0, 0]);
    match &record.version {
        None => out.extend_from_slice(&record.key),
        Some(version) => {
            put_varint(out, version.create_revision as u64);
            put_varint(out, version.version as u64);
            put_varint(out, zigzag(version.lease.get()));
            put_varint(out, record.key.len() as u64);
            out.extend_from_slice(&record.key);
            out.extend_from_slice(&version.value);
        }
    }
    let crc = checksum(at, out[start], &out[start + HEAD..]);
    out[start + 1..start + HEAD].copy_from_slice(&crc.to_le_bytes());
}

/// The record of `at`; key and value share `bytes`.
///
/// # Errors
/// Anything that [`encode_record`] didn't write for this revision.
pub fn decode_record(at: Revision, bytes: &Bytes) -> Result<Record, CodecError> {
    let (&kind, rest) = bytes.split_first().ok_or(CodecError::Short)?;
    let (crc, body) = rest.split_first_chunk::<4>().ok_or(CodecError::Short)?;
    if kind != TOMBSTONE && kind != VERSION {
        return Err(CodecError::Kind(kind));
    }
    if u32::from_le_bytes(*crc) != checksum(at, kind, body) {
        return Err(CodecError::Checksum);
    }
    if kind == TOMBSTONE {
        return Ok(Record { key: bytes.slice(HEAD..), version: None });
    }
    let mut cursor = Cursor::new(body);
    let create_revision = cursor.signed()?;
    let version = cursor.signed()?;
    let lease = LeaseId(unzigzag(cursor.varint()?));
    let key_len = cursor.length()?;
    let key_start = HEAD + cursor.at();
    cursor.take(key_len)?;
    let value_start = HEAD + cursor.at();
    Ok(Record {
        key: bytes.slice(key_start..value_start),
        version: Some(VersionRecord { value: bytes.slice(value_start..), create_revision, version, lease }),
    })
}

fn checksum(at: Revision, kind: u8, body: &[u8]) -> u32 {
    let mut head = [0; 17];
    head[..16].copy_from_slice(&at.to_bytes());
    head[16] = kind;
    crc32c::crc32c_append(crc32c::crc32c(&head), body)
}

/// Appends `value` as LEB128.
pub(in crate::storage) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(in crate::storage) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(in crate::storage) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// A bounds-checked walk over bytes.
pub(in crate::storage) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(in crate::storage) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(in crate::storage) fn at(&self) -> usize {
        self.at
    }

    pub(in crate::storage) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(in crate::storage) fn take(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let end = self.at.checked_add(len).ok_or(CodecError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(CodecError::Short)?;
        self.at = end;
        Ok(taken)
    }

    pub(in crate::storage) fn byte(&mut self) -> Result<u8, CodecError> {
        Ok(self.take(1)?[0])
    }

    pub(in crate::storage) fn varint(&mut self) -> Result<u64, CodecError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(CodecError::Number);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(CodecError::Number)
    }

    /// A varint that is never negative as a signed number.
    pub(in crate::storage) fn signed(&mut self) -> Result<i64, CodecError> {
        i64::try_from(self.varint()?).map_err(|_| CodecError::Number)
    }

    pub(in crate::storage) fn length(&mut self) -> Result<usize, CodecError> {
        usize::try_from(self.varint()?).map_err(|_| CodecError::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Revision, Record) {
        let version =
            VersionRecord { value: Bytes::from_static(b"value"), create_revision: 3, version: 2, lease: LeaseId(-7) };
        (Revision::new(5, 1), Record { key: Bytes::from_static(b"key"), version: Some(version) })
    }

    fn encoded(at: Revision, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        encode_record(at, record, &mut out);
        out
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let (at, record) = sample();
        assert_eq!(decode_record(at, &encoded(at, &record).into()), Ok(record.clone()));
        let tombstone = Record { key: record.key, version: None };
        assert_eq!(decode_record(at, &encoded(at, &tombstone).into()), Ok(tombstone));
    }

    #[test]
    fn every_flipped_bit_and_a_wrong_place_are_seen() {
        let (at, record) = sample();
        let bytes = encoded(at, &record);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_record(at, &damaged.into()).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(decode_record(at, &bytes[..len].to_vec().into()).is_err(), "length {len}");
        }
        assert_eq!(decode_record(Revision::new(5, 2), &bytes.into()), Err(CodecError::Checksum));
    }

    #[test]
    fn any_bytes_are_refused_or_read_without_a_panic() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            let _ = decode_record(Revision::new(1, 0), &bytes.clone().into());
            let mut cursor = Cursor::new(bytes);
            while cursor.varint().is_ok() {}
        });
    }

    #[test]
    fn numbers_survive_zigzag_and_varint() {
        for value in [0, 1, -1, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varint(&mut out, zigzag(value));
            assert_eq!(Cursor::new(&out).varint().map(unzigzag), Ok(value));
        }
    }
}
