//! Segments: the heads of the records of 128 main revisions, packed into one value of `Index`.
//!
//! ```text
//! key:   main >> 7, big endian
//! value: crc32c u32 LE over key and the rest · layout u8 (1) · entries
//! entry: main - base (u8) · sub varint · kind u8 (1 tombstone, 2 version)
//!        version only: create, version, lease (varints, lease zigzag) · value length varint
//!                      · record digest u64 LE
//!        key length varint · key
//! ```
//!
//! A start rebuilds the index from these and reads no value. They are also the list of what must
//! be in `Kv`: a record that is listed and not found is damage, not absence.

use bytes::Bytes;

use super::RecordHead;
use super::state::Totals;
use crate::storage::Record;
use crate::storage::backend::codec::{CodecError, Cursor, put_varint, unzigzag, zigzag};
use crate::types::{LeaseId, Revision};

/// Main revisions of a segment, as a power of two.
pub(super) const SHIFT: u32 = 7;
const LAYOUT: u8 = 1;
const TOMBSTONE: u8 = 1;
const VERSION: u8 = 2;

/// The heads of main revisions `base * 128 ..= base * 128 + 127`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segment {
    base: u64,
    entries: Vec<u8>,
}

impl Segment {
    pub(super) fn new(base: u64) -> Self {
        Self { base, entries: Vec::new() }
    }

    /// The segment that a main revision belongs to.
    pub(super) fn base_of(main: i64) -> u64 {
        main.max(0) as u64 >> SHIFT
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn key(base: u64) -> [u8; 8] {
        base.to_be_bytes()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a record that is above all that are here, with its digest, and counts it.
    pub(super) fn push(&mut self, at: Revision, record: &Record, digest: u64, totals: &mut Totals) {
        let start = self.entries.len();
        let out = &mut self.entries;
        out.push((at.main & ((1 << SHIFT) - 1)) as u8);
        put_varint(out, at.sub as u64);
        match &record.version {
            None => out.push(TOMBSTONE),
            Some(version) => {
                out.push(VERSION);
                put_varint(out, version.create_revision as u64);
                put_varint(out, version.version as u64);
                put_varint(out, zigzag(version.lease.get()));
                put_varint(out, version.value.len() as u64);
                out.extend_from_slice(&digest.to_le_bytes());
            }
        }
        put_varint(out, record.key.len() as u64);
        out.extend_from_slice(&record.key);
        totals.add(super::record_bytes(record), self.digest(&self.entries[start..]));
    }

    /// Drops the entries that `keep` refuses, and counts them out.
    pub(super) fn retain(
        &mut self,
        totals: &mut Totals,
        mut keep: impl FnMut(Revision) -> bool,
    ) -> Result<(), CodecError> {
        let mut kept = Vec::with_capacity(self.entries.len());
        let mut cursor = Cursor::new(&self.entries);
        while !cursor.is_empty() {
            let start = cursor.at();
            let (at, head) = entry(self.base, &mut cursor)?;
            let bytes = &self.entries[start..cursor.at()];
            if keep(at) {
                kept.extend_from_slice(bytes);
            } else {
                totals.subtract(head.bytes(), self.digest(bytes));
            }
        }
        self.entries = kept;
        Ok(())
    }

    /// The value to store.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0, 0, 0, 0, LAYOUT]);
        out.extend_from_slice(&self.entries);
        let crc = checksum(self.base, &out[start + 4..]);
        out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The segment that was stored under `base`.
    pub(super) fn decode(base: u64, value: &[u8]) -> Result<Self, CodecError> {
        Ok(Self { base, entries: verified(base, value)?.to_vec() })
    }

    /// Calls `each` with every head of a stored segment, and counts it.
    pub(super) fn heads(
        base: u64,
        value: &[u8],
        totals: &mut Totals,
        mut each: impl FnMut(Revision, HeadRef<'_>),
    ) -> Result<(), CodecError> {
        let entries = verified(base, value)?;
        let mut cursor = Cursor::new(entries);
        while !cursor.is_empty() {
            let start = cursor.at();
            let (at, head) = entry(base, &mut cursor)?;
            totals.add(head.bytes(), digest(base, &entries[start..cursor.at()]));
            each(at, head);
        }
        Ok(())
    }

    fn digest(&self, entry: &[u8]) -> u64 {
        digest(self.base, entry)
    }
}

/// A head that borrows its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadRef<'a> {
    key: &'a [u8],
    version: Option<(i64, i64, LeaseId)>,
    value_len: u64,
    /// 0 for a tombstone.
    pub(super) record_digest: u64,
}

impl HeadRef<'_> {
    /// Its record's logical size.
    fn bytes(&self) -> u64 {
        super::RECORD_OVERHEAD_BYTES + self.key.len() as u64 + self.value_len
    }

    /// An own copy whose key is a slice of `arena` where it lies there.
    pub(super) fn to_head(self, arena: &Bytes) -> RecordHead {
        RecordHead {
            key: arena.slice_ref(self.key),
            version: self.version.map(|(create_revision, version, lease)| super::VersionHead {
                create_revision,
                version,
                lease,
                value_bytes: self.value_len,
                digest: self.record_digest,
            }),
        }
    }
}

fn entry<'a>(base: u64, cursor: &mut Cursor<'a>) -> Result<(Revision, HeadRef<'a>), CodecError> {
    let low = cursor.byte()?;
    if low >> SHIFT != 0 {
        return Err(CodecError::Number);
    }
    let main = i64::try_from(base << SHIFT).map_err(|_| CodecError::Number)? | i64::from(low);
    let at = Revision::new(main, cursor.signed()?);
    let mut head = HeadRef { key: &[], version: None, value_len: 0, record_digest: 0 };
    match cursor.byte()? {
        TOMBSTONE => {}
        VERSION => {
            head.version = Some((cursor.signed()?, cursor.signed()?, LeaseId(unzigzag(cursor.varint()?))));
            head.value_len = cursor.varint()?;
            let digest = cursor.take(8)?.try_into().map_err(|_| CodecError::Short)?;
            head.record_digest = u64::from_le_bytes(digest);
        }
        kind => return Err(CodecError::Kind(kind)),
    }
    let key_len = cursor.length()?;
    head.key = cursor.take(key_len)?;
    Ok((at, head))
}

fn verified(base: u64, value: &[u8]) -> Result<&[u8], CodecError> {
    let (crc, rest) = value.split_first_chunk::<4>().ok_or(CodecError::Short)?;
    if u32::from_le_bytes(*crc) != checksum(base, rest) {
        return Err(CodecError::Checksum);
    }
    match rest.split_first() {
        Some((&LAYOUT, entries)) => Ok(entries),
        Some((&layout, _)) => Err(CodecError::Kind(layout)),
        None => Err(CodecError::Short),
    }
}

fn checksum(base: u64, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&Segment::key(base)), rest)
}

/// 64 bits for the totals' sum; it finds damage, it resists no one.
fn digest(base: u64, entry: &[u8]) -> u64 {
    let crc = u64::from(crc32c::crc32c(entry)) | (entry.len() as u64) << 32;
    let mixed = (crc ^ base.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    mixed ^ mixed >> 29
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::VersionRecord;

    fn record(name: &str, value: &str) -> Record {
        let version = VersionRecord {
            value: Bytes::copy_from_slice(value.as_bytes()),
            create_revision: 2,
            version: 3,
            lease: LeaseId(-1),
        };
        Record { key: Bytes::copy_from_slice(name.as_bytes()), version: Some(version) }
    }

    fn sample(totals: &mut Totals) -> Segment {
        let mut segment = Segment::new(1);
        segment.push(Revision::new(128, 0), &record("a", "1"), 11, totals);
        segment.push(Revision::new(128, 1), &record("b", "22"), 12, totals);
        segment.push(Revision::new(255, 0), &Record { key: Bytes::from_static(b"a"), version: None }, 0, totals);
        segment
    }

    fn read(base: u64, value: &[u8]) -> Result<(Vec<(Revision, RecordHead)>, Totals), CodecError> {
        let arena = Bytes::copy_from_slice(value);
        let (mut heads, mut totals) = (Vec::new(), Totals::default());
        Segment::heads(base, &arena, &mut totals, |at, head| heads.push((at, head.to_head(&arena))))?;
        Ok((heads, totals))
    }

    #[test]
    fn heads_come_back_with_the_totals_that_went_in() {
        let mut totals = Totals::default();
        let segment = sample(&mut totals);
        let mut value = Vec::new();
        segment.encode(&mut value);
        assert_eq!(Segment::decode(1, &value), Ok(segment));
        let (heads, counted) = read(1, &value).expect("intact");
        assert_eq!(counted, totals);
        assert_eq!(heads.len(), 3);
        assert_eq!(heads[1].0, Revision::new(128, 1));
        assert_eq!(heads[1].1.key, "b");
        let version = heads[1].1.version.expect("a version");
        assert_eq!((version.create_revision, version.version, version.value_bytes), (2, 3, 2));
        assert_eq!(version.digest, 12);
        assert_eq!(version.lease, LeaseId(-1));
        assert!(heads[2].1.version.is_none());
    }

    #[test]
    fn what_is_dropped_is_counted_out() {
        let mut totals = Totals::default();
        let mut segment = sample(&mut totals);
        segment.retain(&mut totals, |at| at.main == 255).expect("intact");
        let mut value = Vec::new();
        segment.encode(&mut value);
        let (heads, counted) = read(1, &value).expect("intact");
        assert_eq!((heads.len(), counted), (1, totals));
        segment.retain(&mut totals, |_| false).expect("intact");
        assert!(segment.is_empty());
        assert_eq!(totals, Totals::default());
    }

    #[test]
    fn every_flipped_bit_and_a_wrong_place_are_seen() {
        let mut value = Vec::new();
        sample(&mut Totals::default()).encode(&mut value);
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(1, &damaged).is_err(), "bit {bit}");
        }
        assert!(read(2, &value).is_err());
    }

    #[test]
    fn any_entries_are_refused_or_read_without_a_panic() {
        bolero::check!().with_type::<(u64, Vec<u8>)>().for_each(|(base, bytes)| {
            let mut value = checksum(*base, bytes).to_le_bytes().to_vec();
            value.extend_from_slice(bytes);
            let _ = read(*base, &value);
        });
    }
}
