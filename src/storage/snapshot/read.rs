//! Reading a snapshot: every length is checked before it is believed.

use std::io::Read;

use bytes::Bytes;

use super::chunk::{ChunkReader, END, HEADER, RECORDS, ROWS};
use super::write::FORMAT;
use super::{SnapshotError, SnapshotHeader, SnapshotItem};
use crate::storage::backend::codec::{CodecError, Cursor, decode_record};
use crate::storage::{AppliedPosition, Table};
use crate::types::{RaftIndex, Revision, StorageError, Term};

/// The header alone, from the beginning of a stream; nothing after it is checked.
///
/// # Errors
/// Those of the stream, and damage.
pub fn read_header(input: impl Read) -> Result<SnapshotHeader, SnapshotError> {
    header(&mut ChunkReader::new(input)?)
}

/// Reads a whole snapshot and gives its items to `take` in order.
///
/// Items are given before the end is seen: what `take` builds counts only if this returns without
/// an error. [`values::Replacement`](crate::storage::values::Replacement) works like that.
///
/// # Errors
/// Those of the stream and of `take`, and damage: any byte that is not as it was written.
pub fn read_snapshot(
    input: impl Read,
    mut take: impl FnMut(SnapshotItem) -> Result<(), StorageError>,
) -> Result<SnapshotHeader, SnapshotError> {
    let mut chunks = ChunkReader::new(input)?;
    let header = header(&mut chunks)?;
    let (mut rows, mut records) = (0u64, 0u64);
    let mut last: Option<Revision> = None;
    loop {
        let offset = chunks.offset();
        let damaged = |what| SnapshotError::Damaged { offset, what };
        let (kind, raw, digest) = chunks.next()?;
        let raw = Bytes::from(raw);
        match kind {
            ROWS if records == 0 => {
                let mut cursor = Cursor::new(&raw);
                while !cursor.is_empty() {
                    take(row(&raw, &mut cursor).map_err(|_| damaged("a row that can't be read"))?)?;
                    rows += 1;
                }
            }
            RECORDS => {
                let mut cursor = Cursor::new(&raw);
                while !cursor.is_empty() {
                    let item = record(&raw, &mut cursor).map_err(|_| damaged("a record that can't be read"))?;
                    let SnapshotItem::Record(at, _) = &item else {
                        continue;
                    };
                    if last.is_some_and(|last| last >= *at) || at.main > header.revision {
                        return Err(damaged("a record out of order"));
                    }
                    last = Some(*at);
                    take(item)?;
                    records += 1;
                }
            }
            END => {
                let expected = [&rows.to_le_bytes()[..], &records.to_le_bytes(), &digest].concat();
                if raw != expected {
                    return Err(damaged("the counts or the digest at its end don't fit"));
                }
                return if chunks.is_at_end()? { Ok(header) } else { Err(chunks.damaged("something after its end")) };
            }
            _ => return Err(damaged("a chunk in a wrong place")),
        }
    }
}

fn header(chunks: &mut ChunkReader<impl Read>) -> Result<SnapshotHeader, SnapshotError> {
    let (kind, raw, _) = chunks.next()?;
    let (format, rest) = raw.split_first_chunk::<2>().ok_or_else(|| chunks.damaged("a header cut short"))?;
    if kind != HEADER {
        return Err(chunks.damaged("no header"));
    }
    let format = u16::from_le_bytes(*format);
    if format != FORMAT {
        return Err(SnapshotError::Format(format));
    }
    let mut numbers = [0u64; 4];
    let mut rest = rest;
    for number in &mut numbers {
        let (bytes, after) = rest.split_first_chunk::<8>().ok_or_else(|| chunks.damaged("a header cut short"))?;
        (*number, rest) = (u64::from_le_bytes(*bytes), after);
    }
    let [index, term, revision, compact_revision] = numbers;
    Ok(SnapshotHeader {
        position: AppliedPosition { index: RaftIndex(index), term: Term(term) },
        revision: revision as i64,
        compact_revision: compact_revision as i64,
        membership: Bytes::copy_from_slice(rest),
    })
}

fn row(raw: &Bytes, cursor: &mut Cursor<'_>) -> Result<SnapshotItem, CodecError> {
    let id = cursor.byte()?;
    let table = Table::ALL.into_iter().find(|table| table.id() == id).ok_or(CodecError::Kind(id))?;
    let mut field = || {
        let len = cursor.length()?;
        cursor.take(len).map(|bytes| raw.slice_ref(bytes))
    };
    Ok(SnapshotItem::Row(table, field()?, field()?))
}

fn record(raw: &Bytes, cursor: &mut Cursor<'_>) -> Result<SnapshotItem, CodecError> {
    let at = Revision::new(cursor.signed()?, cursor.signed()?);
    let len = cursor.length()?;
    let bytes = cursor.take(len)?;
    Ok(SnapshotItem::Record(at, decode_record(at, &raw.slice_ref(bytes))?))
}
