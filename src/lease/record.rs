//! `LeaseRecord`: what is stored for a lease. Its keys aren't: each key's record names its lease.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::LeaseId;

/// A lease as it lies in the lease table: the key is the id, 8 bytes big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Granted time to live, in seconds.
    pub ttl_secs: i64,
    /// What was left at the last checkpoint, in seconds; 0 if none was made since the last renewal.
    pub remaining_secs: i64,
}

impl LeaseRecord {
    const VERSION: u8 = 1;

    /// The table's key for a lease.
    pub fn key(id: LeaseId) -> Bytes {
        Bytes::copy_from_slice(&id.get().to_be_bytes())
    }

    /// The lease that a key of the table is for; `None` if it isn't 8 bytes long.
    pub fn id(key: &[u8]) -> Option<LeaseId> {
        key.try_into().ok().map(|bytes| LeaseId(i64::from_be_bytes(bytes)))
    }

    /// Its bytes: version, time to live, remaining.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(17);
        out.put_u8(Self::VERSION);
        out.put_i64(self.ttl_secs);
        out.put_i64(self.remaining_secs);
        out.freeze()
    }

    /// Reads what [`LeaseRecord::encode`] made; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&Self::VERSION, fields) = bytes.split_first()? else { return None };
        let (ttl, remaining) = fields.split_at_checked(8)?;
        Some(Self {
            ttl_secs: i64::from_be_bytes(ttl.try_into().ok()?),
            remaining_secs: i64::from_be_bytes(remaining.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_damage_does_not() {
        let record = LeaseRecord { ttl_secs: 9_000_000_000, remaining_secs: 5 };
        let bytes = record.encode();
        assert_eq!(LeaseRecord::decode(&bytes), Some(record));
        for len in 0..bytes.len() {
            assert_eq!(LeaseRecord::decode(&bytes[..len]), None);
        }
        assert_eq!(LeaseRecord::decode(&[2; 17]), None);
        assert_eq!(LeaseRecord::id(&LeaseRecord::key(LeaseId(-7))), Some(LeaseId(-7)));
        assert_eq!(LeaseRecord::id(b"short"), None);
    }
}
