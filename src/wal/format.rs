//! The bytes: segment header and record.
//!
//! ```text
//! header, 64 bytes
//!   0 magic "rusd-wal"   8 format u32        12 end of the previous segment u32
//!  16 sequence u64      24 first index u64   32 previous segment's last crc u32   36 flags u32 (1: the file was used before)
//!  40 salt u64          48 end of the first group u32     52 zero u64     60 crc32c of bytes 0..60
//!
//! record, 36 bytes and the payload, padded with zeros to a multiple of 4
//!   0 crc32c of all that follows, started from the segment's seed
//!   4 length of payload and node u32   8 crc of the record before u32   12 offset of its group's start u32
//!  16 kind u8   17 tag u8   18 flags u8 (1: a node id stands before the payload)   19 zero
//!  20 index u64   28 term u64   36 [node u64] payload
//! ```
//!
//! The seed is the crc32c of header bytes 0..48, salt included: bytes of any other segment, or a
//! payload that imitates a record, never pass. A record proves itself alone (crc), its predecessor
//! (chain) and which of its neighbours were synced with it (group). Numbers are little endian.

use crate::types::{MemberId, RaftIndex, Term};

use super::types::{EntryId, WalEntry};

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const HEADER_BYTES_U32: u32 = 64;
pub(super) const RECORD_BYTES: usize = 36;
pub(super) const ALIGN: usize = 4;
pub(super) const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"rusd-wal";
const SEEDED_BYTES: usize = 48;
const FLAG_NODE: u8 = 1;
const NODE_BYTES: usize = 8;

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) first_index: u64,
    pub(super) previous_crc: u32,
    pub(super) previous_end: u32,
    pub(super) salt: u64,
    /// Whether bytes of an older segment may stand behind the end.
    pub(super) is_recycled: bool,
    /// Where the group ends that was synced before the segment got its name.
    pub(super) head_end: u32,
}

/// Why a header was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    Damaged(&'static str),
    Format(u32),
}

/// What a record does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An entry.
    Entry,
    /// The vote, in the payload.
    Vote,
    /// Entries from `index` on are void.
    Truncate,
    /// Entries up to the id are gone.
    Purge,
    /// The entry known to be committed.
    Committed,
    /// Nothing; proves that what is before it was synced.
    Mark,
}

/// A record without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) crc: u32,
    pub(super) previous: u32,
    pub(super) group: u32,
    pub(super) kind: Kind,
    pub(super) tag: u8,
    pub(super) id: EntryId,
    /// Offset of the payload from the record's start.
    payload_at: usize,
    /// Offset of the payload's end.
    payload_end: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

impl Header {
    /// The bytes; `head_end` is set later by [`Header::finish`].
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.first_index.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.previous_crc.to_le_bytes());
        bytes[36..40].copy_from_slice(&u32::from(self.is_recycled).to_le_bytes());
        bytes[40..48].copy_from_slice(&self.salt.to_le_bytes());
        Self::finish(&mut bytes, self.head_end);
        bytes
    }

    /// Writes the end of the first group and the crc into an encoded header.
    pub(super) fn finish(bytes: &mut [u8], head_end: u32) {
        bytes[48..52].copy_from_slice(&head_end.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    }

    /// Where the crc of every record of this segment starts.
    pub(super) fn seed(bytes: &[u8; HEADER_BYTES]) -> u32 {
        crc32c::crc32c(&bytes[..SEEDED_BYTES])
    }

    /// The bytes as a header.
    ///
    /// # Errors
    /// When they aren't one, or one of another format.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadHeader> {
        if &bytes[0..8] != MAGIC {
            return Err(BadHeader::Damaged("no segment header"));
        }
        if crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(BadHeader::Damaged("the segment header's checksum is wrong"));
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(BadHeader::Format(format));
        }
        Ok(Self {
            sequence: u64_at(bytes, 16),
            first_index: u64_at(bytes, 24),
            previous_crc: u32_at(bytes, 32),
            previous_end: u32_at(bytes, 12),
            salt: u64_at(bytes, 40),
            is_recycled: u32_at(bytes, 36) & 1 != 0,
            head_end: u32_at(bytes, 48),
        })
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Entry,
            2 => Self::Vote,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Committed,
            6 => Self::Mark,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Vote => 2,
            Self::Truncate => 3,
            Self::Purge => 4,
            Self::Committed => 5,
            Self::Mark => 6,
        }
    }
}

impl Head {
    /// Reads the fixed part; `None` if it can't be the start of a record. `bytes` has [`RECORD_BYTES`].
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = Kind::from_byte(bytes[16])?;
        let flags = bytes[18];
        let has_node = flags & FLAG_NODE != 0;
        let len = usize::try_from(u32_at(bytes, 4)).ok()?;
        let node_bytes = if has_node { NODE_BYTES } else { 0 };
        if flags & !FLAG_NODE != 0 || bytes[19] != 0 || len < node_bytes {
            return None;
        }
        if len > WalEntry::PAYLOAD_BYTES_MAX + NODE_BYTES {
            return None;
        }
        Some(Self {
            crc: u32_at(bytes, 0),
            previous: u32_at(bytes, 8),
            group: u32_at(bytes, 12),
            kind,
            tag: bytes[17],
            id: EntryId {
                term: Term(u64_at(bytes, 28)),
                index: RaftIndex(u64_at(bytes, 20)),
                node: has_node.then_some(MemberId(0)),
            },
            payload_at: RECORD_BYTES + node_bytes,
            payload_end: RECORD_BYTES + len,
        })
    }

    /// The whole record's length, padding included.
    pub(super) fn total(&self) -> usize {
        self.payload_end.next_multiple_of(ALIGN)
    }

    /// Whether bytes that are no valid record may still be the start of one that was to follow
    /// `chain` in a write that started at one of `groups`.
    pub(super) fn is_trace(bytes: &[u8], chain: u32, groups: [u32; 2]) -> bool {
        u32_at(bytes, 8) == chain || groups.iter().any(|group| *group > 0 && u32_at(bytes, 12) == *group)
    }

    /// Whether `record`, [`Head::total`] bytes long, is what was written.
    pub(super) fn is_intact(&self, record: &[u8], seed: u32) -> bool {
        crc32c::crc32c_append(seed, &record[4..]) == self.crc
    }

    /// The id, with the node read from the record.
    pub(super) fn id(&self, record: &[u8]) -> EntryId {
        let node = self.id.node.map(|_| MemberId(u64_at(record, RECORD_BYTES)));
        EntryId { node, ..self.id }
    }

    /// The payload in the record.
    pub(super) fn payload<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[self.payload_at..self.payload_end]
    }
}

/// The length that [`encode`] adds for this payload.
pub(super) fn encoded_len(id: &EntryId, payload: usize) -> usize {
    let node = if id.node.is_some() { NODE_BYTES } else { 0 };
    (RECORD_BYTES + node + payload).next_multiple_of(ALIGN)
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    pub(super) seed: u32,
    /// The crc of the record before; the seed for the first one.
    pub(super) previous: u32,
}

/// Appends a record and moves the chain on. The payload is at most
/// [`WalEntry::PAYLOAD_BYTES_MAX`] long, which `Wal` has checked.
pub(super) fn encode(
    out: &mut Vec<u8>,
    chain: &mut Chain,
    group: u32,
    kind: Kind,
    tag: u8,
    id: &EntryId,
    payload: &[u8],
) {
    let start = out.len();
    let node_bytes = if id.node.is_some() { NODE_BYTES } else { 0 };
    let len = u32::try_from(node_bytes + payload.len()).unwrap_or(u32::MAX);
    let mut head = [0; RECORD_BYTES];
    head[4..8].copy_from_slice(&len.to_le_bytes());
    head[8..12].copy_from_slice(&chain.previous.to_le_bytes());
    head[12..16].copy_from_slice(&group.to_le_bytes());
    head[16] = kind.byte();
    head[17] = tag;
    head[18] = if id.node.is_some() { FLAG_NODE } else { 0 };
    head[20..28].copy_from_slice(&id.index.get().to_le_bytes());
    head[28..36].copy_from_slice(&id.term.get().to_le_bytes());
    out.extend_from_slice(&head);
    if let Some(node) = id.node {
        out.extend_from_slice(&node.get().to_le_bytes());
    }
    out.extend_from_slice(payload);
    out.resize(start + (out.len() - start).next_multiple_of(ALIGN), 0);
    let crc = crc32c::crc32c_append(chain.seed, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    chain.previous = crc;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(node: Option<u64>) -> EntryId {
        EntryId { term: Term(7), index: RaftIndex(9), node: node.map(MemberId) }
    }

    #[test]
    fn a_record_comes_back_and_no_bit_may_change() {
        for node in [None, Some(0xabcd)] {
            for payload in [&b""[..], b"x", b"twelve bytes"] {
                let mut chain = Chain { seed: 11, previous: 22 };
                let mut out = Vec::new();
                encode(&mut out, &mut chain, 64, Kind::Entry, 3, &id(node), payload);
                assert_eq!(out.len(), encoded_len(&id(node), payload.len()));
                let head = Head::parse(&out[..RECORD_BYTES]).unwrap();
                assert_eq!((head.total(), head.previous, head.group, head.tag), (out.len(), 22, 64, 3));
                assert_eq!((head.id(&out), head.payload(&out)), (id(node), payload));
                assert!(head.is_intact(&out, 11));
                assert!(!head.is_intact(&out, 12), "another segment's record");
                assert_eq!(chain.previous, head.crc);
                for bit in 0..out.len() * 8 {
                    let mut flipped = out.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    let passes = Head::parse(&flipped)
                        .is_some_and(|head| head.total() == flipped.len() && head.is_intact(&flipped, 11));
                    assert!(!passes, "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_header_comes_back_and_no_bit_may_change() {
        let header = Header {
            sequence: 5,
            first_index: 77,
            previous_crc: 8,
            previous_end: 640,
            salt: u64::MAX - 3,
            is_recycled: true,
            head_end: 200,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&flipped).is_err(), "bit {bit}");
        }
        let mut newer = bytes;
        newer[8] = 9;
        Header::finish(&mut newer, 200);
        assert_eq!(Header::decode(&newer), Err(BadHeader::Format(9)));
    }

    #[test]
    fn zeros_are_no_record_whatever_the_seed() {
        assert_eq!(Head::parse(&[0; RECORD_BYTES]), None);
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
                let _ = Header::decode(header);
            }
            if bytes.len() >= RECORD_BYTES
                && let Some(head) = Head::parse(&bytes[..RECORD_BYTES])
                && let Some(record) = bytes.get(..head.total())
            {
                let _ = (head.is_intact(record, 0), head.id(record), head.payload(record));
            }
        });
    }
}
