//! The engine's own account of what it holds: the position, and totals to check the content by.
//!
//! It is one row of `Meta`, written in the batch that changes the rest, so that it is always
//! exactly as old as the content.

use crate::storage::backend::codec::{CodecError, Cursor, put_varint};
use crate::storage::{AppliedPosition, Table};
use crate::types::{RaftIndex, Revision, Term};

/// The row's key in `Meta`. Keys that begin with a zero byte are the engine side's own.
pub(super) const STATE_KEY: &[u8] = b"\0state";

/// The row of removals that may not be through: what a start does again.
pub(super) const REMOVING_KEY: &[u8] = b"\0removing";

/// Whether a row of `Meta` is one of these.
pub(super) fn is_own_row(table: Table, key: &[u8]) -> bool {
    table == Table::Meta && key.first() == Some(&0)
}

const LAYOUT: u8 = 1;
const LEN: usize = 1 + 8 * 8 + 4;

/// A count of things, their bytes, and a sum of their digests that doesn't depend on the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) sum: u64,
}

impl Totals {
    pub(super) fn add(&mut self, bytes: u64, digest: u64) {
        self.count = self.count.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(bytes);
        self.sum = self.sum.wrapping_add(digest);
    }

    pub(super) fn subtract(&mut self, bytes: u64, digest: u64) {
        self.count = self.count.wrapping_sub(1);
        self.bytes = self.bytes.wrapping_sub(bytes);
        self.sum = self.sum.wrapping_sub(digest);
    }

    /// Adds a row of a small table.
    pub(super) fn add_row(&mut self, table: u8, key: &[u8], value: &[u8]) {
        self.add((key.len() + value.len()) as u64, row_digest(table, key, value));
    }

    /// Takes a row of a small table out.
    pub(super) fn subtract_row(&mut self, table: u8, key: &[u8], value: &[u8]) {
        self.subtract((key.len() + value.len()) as u64, row_digest(table, key, value));
    }
}

fn row_digest(table: u8, key: &[u8], value: &[u8]) -> u64 {
    let key_crc = crc32c::crc32c_append(u32::from(table), key);
    let value_crc = crc32c::crc32c_append(key_crc, value);
    (u64::from(key_crc) << 32 | u64::from(value_crc)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What the row says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) position: AppliedPosition,
    /// The last main revision that was ever written; it stays when its records are removed.
    pub(super) last_main: i64,
    /// Of the records.
    pub(super) records: Totals,
    /// Of the rows in `Meta`, `Lease` and `Auth`, without this one.
    pub(super) rows: Totals,
}

impl State {
    pub(super) fn encode(&self) -> [u8; LEN] {
        let numbers = [
            self.position.index.get(),
            self.position.term.get(),
            self.records.count,
            self.records.bytes,
            self.records.sum,
            self.rows.count,
            self.rows.sum,
            self.last_main as u64,
        ];
        let mut out = [0; LEN];
        out[0] = LAYOUT;
        for (slot, number) in out[1..].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[..LEN - 4]);
        out[LEN - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let bytes: &[u8; LEN] = bytes.try_into().map_err(|_| CodecError::Short)?;
        let (body, crc) = bytes.split_at(LEN - 4);
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return Err(CodecError::Checksum);
        }
        if body[0] != LAYOUT {
            return Err(CodecError::Kind(body[0]));
        }
        let mut numbers = [0; 8];
        for (number, slot) in numbers.iter_mut().zip(body[1..].chunks_exact(8)) {
            let mut le = [0; 8];
            le.copy_from_slice(slot);
            *number = u64::from_le_bytes(le);
        }
        let [index, term, count, bytes, sum, rows, rows_sum, last_main] = numbers;
        Ok(Self {
            position: AppliedPosition { index: RaftIndex(index), term: Term(term) },
            last_main: i64::try_from(last_main).map_err(|_| CodecError::Number)?,
            records: Totals { count, bytes, sum },
            rows: Totals { count: rows, bytes: 0, sum: rows_sum },
        })
    }

    /// Whether counted rows are the ones that this state stands for.
    pub(super) fn rows_match(&self, counted: Totals) -> bool {
        (self.rows.count, self.rows.sum) == (counted.count, counted.sum)
    }
}

/// The row of removals: crc32c of the rest, layout, and the ascending revisions, main as a
/// difference to the one before.
pub(super) fn encode_removing(revisions: &[Revision]) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, LAYOUT];
    let mut last = 0;
    for at in revisions {
        put_varint(&mut out, (at.main - last) as u64);
        put_varint(&mut out, at.sub as u64);
        last = at.main;
    }
    let crc = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

/// The inverse of [`encode_removing`].
pub(super) fn decode_removing(bytes: &[u8]) -> Result<Vec<Revision>, CodecError> {
    let (crc, rest) = bytes.split_first_chunk::<4>().ok_or(CodecError::Short)?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(rest) {
        return Err(CodecError::Checksum);
    }
    let mut cursor = Cursor::new(rest);
    match cursor.byte()? {
        LAYOUT => {}
        layout => return Err(CodecError::Kind(layout)),
    }
    let mut revisions = Vec::new();
    let mut main = 0i64;
    while !cursor.is_empty() {
        main = main.checked_add(cursor.signed()?).ok_or(CodecError::Number)?;
        revisions.push(Revision::new(main, cursor.signed()?));
    }
    Ok(revisions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_comes_back_and_every_flipped_bit_is_seen() {
        let state = State {
            position: AppliedPosition { index: RaftIndex(9), term: Term(2) },
            last_main: 77,
            records: Totals { count: 3, bytes: 300, sum: u64::MAX },
            rows: Totals { count: 1, bytes: 0, sum: 5 },
        };
        let bytes = state.encode();
        assert_eq!(State::decode(&bytes), Ok(state));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(State::decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn removals_come_back_and_every_flipped_bit_is_seen() {
        let revisions = [Revision::new(2, 0), Revision::new(2, 3), Revision::new(i64::MAX, 1)];
        let bytes = encode_removing(&revisions);
        assert_eq!(decode_removing(&bytes).as_deref(), Ok(&revisions[..]));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_removing(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn any_removals_are_refused_or_read_without_a_panic() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|rest| {
            let mut bytes = crc32c::crc32c(rest).to_le_bytes().to_vec();
            bytes.extend_from_slice(rest);
            let _ = decode_removing(&bytes);
        });
    }
}
