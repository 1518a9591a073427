//! Reading a snapshot: every length is checked before it is believed.

use std::io::Read;

use bytes::Bytes;

use super::chunk::{ChunkReader, END, HEADER, RECORDS, ROWS};
use super::write::FORMAT;
use super::{SnapshotError, SnapshotHeader, SnapshotItem};
use crate::storage::backend::codec::{CodecError, Cursor, decode_record};
use crate::storage::{AppliedPosition, Record, Table};
use crate::types::{RaftIndex, Revision, StorageError, Term};

/// The header alone, from the beginning of a stream; nothing after it is checked.
///
/// # Errors
/// Those of the stream, and damage.
pub fn read_header(input: impl Read) -> Result<SnapshotHeader, SnapshotError> {
    SnapshotReader::new(input).map(|reader| reader.header)
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
    let mut reader = SnapshotReader::new(input)?;
    while reader.next(&mut take)? {}
    Ok(reader.header)
}

/// Reads a snapshot chunk by chunk, for who has to pause between them.
pub struct SnapshotReader<R> {
    chunks: ChunkReader<R>,
    header: SnapshotHeader,
    rows: u64,
    records: u64,
    last: Option<Revision>,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Those of the stream, and damage.
    pub fn new(input: R) -> Result<Self, SnapshotError> {
        let mut chunks = ChunkReader::new(input)?;
        let header = header(&mut chunks)?;
        Ok(Self { chunks, header, rows: 0, records: 0, last: None })
    }

    /// What the snapshot says that it is of.
    pub fn header(&self) -> &SnapshotHeader {
        &self.header
    }

    /// Gives the next chunk's items to `take` in order; false once the end was seen and all was whole. It must not
    /// be called again then, nor after an error.
    ///
    /// # Errors
    /// As [`read_snapshot`].
    pub fn next(
        &mut self,
        take: &mut impl FnMut(SnapshotItem) -> Result<(), StorageError>,
    ) -> Result<bool, SnapshotError> {
        let offset = self.chunks.offset();
        let damaged = |what| SnapshotError::Damaged { offset, what };
        let (kind, raw, digest) = self.chunks.next()?;
        let raw = Bytes::from(raw);
        let mut cursor = Cursor::new(&raw);
        match kind {
            ROWS if self.records == 0 => {
                while !cursor.is_empty() {
                    take(row(&raw, &mut cursor).map_err(|_| damaged("a row that can't be read"))?)?;
                    self.rows += 1;
                }
            }
            RECORDS => {
                while !cursor.is_empty() {
                    let (at, record) = record(&raw, &mut cursor).map_err(|_| damaged("a record that can't be read"))?;
                    if self.last.is_some_and(|last| last >= at) || at.main > self.header.revision {
                        return Err(damaged("a record out of order"));
                    }
                    self.last = Some(at);
                    take(SnapshotItem::Record(at, record))?;
                    self.records += 1;
                }
            }
            END => {
                let expected = [&self.rows.to_le_bytes()[..], &self.records.to_le_bytes(), &digest].concat();
                if raw != expected {
                    return Err(damaged("the counts or the digest at its end don't fit"));
                }
                return if self.chunks.is_at_end()? {
                    Ok(false)
                } else {
                    Err(self.chunks.damaged("something after its end"))
                };
            }
            _ => return Err(damaged("a chunk in a wrong place")),
        }
        Ok(true)
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

fn record(raw: &Bytes, cursor: &mut Cursor<'_>) -> Result<(Revision, Record), CodecError> {
    let at = Revision::new(cursor.signed()?, cursor.signed()?);
    let len = cursor.length()?;
    let bytes = cursor.take(len)?;
    Ok((at, decode_record(at, &raw.slice_ref(bytes))?))
}
