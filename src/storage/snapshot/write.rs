//! Writing a snapshot.
//!
//! ```text
//! header chunk:  format u16 LE · index, term, revision, compact revision (u64/i64 LE) · membership
//! rows chunks:   table u8 · key length varint · key · value length varint · value, repeated
//! record chunks: main varint · sub varint · length varint · record (backend::codec), repeated
//! end chunk:     rows u64 LE · records u64 LE · BLAKE3 of everything before
//! ```

use std::io::Write;

use super::chunk::{CHUNK_BYTES, ChunkWriter, END, HEADER, RECORDS, ROWS};
use super::{SnapshotError, SnapshotHeader};
use crate::storage::backend::codec::{encode_record, put_varint};
use crate::storage::values::{Frozen, PageLimits, ValueReader};
use crate::storage::{Record, Table};
use crate::types::{Revision, StorageError};

pub(super) const FORMAT: u16 = 1;

/// What is read at a time; the last record may be as large as a request.
const PAGE: PageLimits = PageLimits { records: 1024, bytes: 2 << 20 };

/// Writes the state that `frozen` is of; gives its header and the bytes written.
///
/// The caller keeps compaction off until it returns
/// ([`StoreReader::snapshot_pinned`](crate::storage::StoreReader::snapshot_pinned), taken before
/// `frozen`). Blocks on the engine and on `out`.
///
/// # Errors
/// Those of the stream and of the engine.
pub fn write_snapshot(
    frozen: &Frozen,
    values: &ValueReader,
    out: impl Write,
) -> Result<(SnapshotHeader, u64), SnapshotError> {
    let mut out = SnapshotWriter::new(SnapshotHeader::of(frozen), out)?;
    for (table, key, value) in &frozen.rows {
        out.row(*table, key, value)?;
    }
    for_each_record(frozen, values, |at, record| out.record(at, record))?;
    out.finish()
}

/// Gives all records of a frozen state to `each`, in the order of their revisions; reads a page at a time. Blocks.
///
/// # Errors
/// Those of the engine and of `each`.
pub(super) fn for_each_record<E: From<StorageError>>(
    frozen: &Frozen,
    values: &ValueReader,
    mut each: impl FnMut(Revision, &Record) -> Result<(), E>,
) -> Result<(), E> {
    let (mut from, end) = (Some(Revision::default()), Revision::new(frozen.last_main.saturating_add(1), 0));
    while let Some(begin) = from {
        let page = values.page(begin, end, PAGE)?;
        page.records.iter().try_for_each(|(at, record)| each(*at, record))?;
        from = page.next;
    }
    Ok(())
}

/// Writes a snapshot piece by piece: all rows, then all records in the order of their revisions.
pub struct SnapshotWriter<W> {
    header: SnapshotHeader,
    out: ChunkWriter<W>,
    raw: Vec<u8>,
    encoded: Vec<u8>,
    rows: u64,
    records: u64,
}

impl<W: Write> SnapshotWriter<W> {
    /// Begins one; what `header` says must be so once all is written.
    ///
    /// # Errors
    /// The stream's.
    pub fn new(header: SnapshotHeader, out: W) -> Result<Self, SnapshotError> {
        let mut out = ChunkWriter::new(out)?;
        let mut raw = Vec::with_capacity(CHUNK_BYTES * 2);
        encode_header(&header, &mut raw);
        out.write(HEADER, &raw)?;
        raw.clear();
        Ok(Self { header, out, raw, encoded: Vec::new(), rows: 0, records: 0 })
    }

    /// Adds a row; none after the first record.
    ///
    /// # Errors
    /// The stream's.
    pub fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        debug_assert_eq!(self.records, 0, "rows come first");
        self.raw.push(table.id());
        put_varint(&mut self.raw, key.len() as u64);
        self.raw.extend_from_slice(key);
        put_varint(&mut self.raw, value.len() as u64);
        self.raw.extend_from_slice(value);
        self.rows += 1;
        flush(&mut self.out, ROWS, &mut self.raw, CHUNK_BYTES)
    }

    /// Adds a record; its revision is above those before.
    ///
    /// # Errors
    /// The stream's.
    pub fn record(&mut self, at: Revision, record: &Record) -> Result<(), SnapshotError> {
        if self.records == 0 {
            flush(&mut self.out, ROWS, &mut self.raw, 1)?;
        }
        self.encoded.clear();
        encode_record(at, record, &mut self.encoded);
        put_varint(&mut self.raw, at.main as u64);
        put_varint(&mut self.raw, at.sub as u64);
        put_varint(&mut self.raw, self.encoded.len() as u64);
        self.raw.extend_from_slice(&self.encoded);
        self.records += 1;
        flush(&mut self.out, RECORDS, &mut self.raw, CHUNK_BYTES)
    }

    /// Ends it; gives its header and the bytes written.
    ///
    /// # Errors
    /// The stream's.
    pub fn finish(mut self) -> Result<(SnapshotHeader, u64), SnapshotError> {
        let kind = if self.records == 0 { ROWS } else { RECORDS };
        flush(&mut self.out, kind, &mut self.raw, 1)?;
        self.raw.extend_from_slice(&self.rows.to_le_bytes());
        self.raw.extend_from_slice(&self.records.to_le_bytes());
        self.raw.extend_from_slice(&self.out.digest());
        self.out.write(END, &self.raw)?;
        Ok((self.header, self.out.finish()?))
    }
}

/// Writes a chunk if there are at least `bytes_min` for it.
fn flush(
    out: &mut ChunkWriter<impl Write>,
    kind: u8,
    raw: &mut Vec<u8>,
    bytes_min: usize,
) -> Result<(), SnapshotError> {
    if raw.len() >= bytes_min {
        out.write(kind, raw)?;
        raw.clear();
    }
    Ok(())
}

fn encode_header(header: &SnapshotHeader, out: &mut Vec<u8>) {
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&header.position.index.get().to_le_bytes());
    out.extend_from_slice(&header.position.term.get().to_le_bytes());
    out.extend_from_slice(&header.revision.to_le_bytes());
    out.extend_from_slice(&header.compact_revision.to_le_bytes());
    out.extend_from_slice(&header.membership);
}
