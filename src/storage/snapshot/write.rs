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
use crate::storage::values::{Frozen, ValueReader, record_bytes};
use crate::types::Revision;

pub(super) const FORMAT: u16 = 1;

/// About what is read at a time; records are as large as a request may be.
const PAGE_BYTES: u64 = 2 << 20;
/// Records of the first page, before their size is known, and of any page.
const PAGE_RECORDS: (usize, usize) = (16, 1024);

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
    let header = SnapshotHeader::of(frozen);
    let mut out = ChunkWriter::new(out)?;
    let mut raw = Vec::with_capacity(CHUNK_BYTES * 2);
    encode_header(&header, &mut raw);
    out.write(HEADER, &raw)?;

    raw.clear();
    for (table, key, value) in &frozen.rows {
        raw.push(table.id());
        put_varint(&mut raw, key.len() as u64);
        raw.extend_from_slice(key);
        put_varint(&mut raw, value.len() as u64);
        raw.extend_from_slice(value);
        flush(&mut out, ROWS, &mut raw, CHUNK_BYTES)?;
    }
    flush(&mut out, ROWS, &mut raw, 1)?;

    let mut records = 0u64;
    let mut encoded = Vec::new();
    let (mut from, end) = (Revision::default(), Revision::new(frozen.last_main.saturating_add(1), 0));
    let mut count = PAGE_RECORDS.0;
    while from < end {
        let page = values.scan(from, end, count)?;
        from = match page.last() {
            Some((last, _)) if page.len() == count => Revision::new(last.main, last.sub + 1),
            _ => end,
        };
        let bytes: u64 = page.iter().map(|(_, record)| record_bytes(record)).sum();
        let fitting = PAGE_BYTES * page.len() as u64 / bytes.max(1);
        count = (fitting as usize).clamp(1, PAGE_RECORDS.1).min(count * 4);
        for (at, record) in page {
            encoded.clear();
            encode_record(at, &record, &mut encoded);
            put_varint(&mut raw, at.main as u64);
            put_varint(&mut raw, at.sub as u64);
            put_varint(&mut raw, encoded.len() as u64);
            raw.extend_from_slice(&encoded);
            records += 1;
            flush(&mut out, RECORDS, &mut raw, CHUNK_BYTES)?;
        }
    }
    flush(&mut out, RECORDS, &mut raw, 1)?;

    raw.extend_from_slice(&(frozen.rows.len() as u64).to_le_bytes());
    raw.extend_from_slice(&records.to_le_bytes());
    raw.extend_from_slice(&out.digest());
    out.write(END, &raw)?;
    Ok((header, out.finish()?))
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
