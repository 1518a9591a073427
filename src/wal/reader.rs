//! Reads entries that have left the cache from their segments, neighbours in one read.

use std::io;

use super::format::{Head, Kind, RECORD_BYTES};
use super::log::OnDisk;
use super::places::Place;
use super::types::{WalEntry, WalError};
use bytes::Bytes;

/// The most bytes of one read, unless a single record is longer.
const READ_BYTES: u32 = 1024 * 1024;

/// The entries at these places.
///
/// # Errors
/// Those of the disk; `InvalidData` with file and offset where the bytes aren't the entry's.
pub(super) fn read(on_disk: &OnDisk) -> io::Result<Vec<WalEntry>> {
    let mut entries = Vec::with_capacity(on_disk.places.len());
    let mut places = on_disk.places.as_slice();
    while let Some(first) = places.first() {
        let (count, span) = run(places);
        let (file, segment) = on_disk.segment(first)?;
        let mut bytes = vec![0; span as usize];
        file.read_exact_at(&mut bytes, first.offset.into()).map_err(WalError::io("read", &segment.path))?;
        let bytes = Bytes::from(bytes);
        for place in &places[..count] {
            let start = (place.offset - first.offset) as usize;
            let record = bytes.slice(start..start + place.len as usize);
            let entry = decode(&record, segment.seed).ok_or_else(|| WalError::Damaged {
                path: segment.path.clone(),
                offset: place.offset.into(),
                what: "a record that was valid before".to_owned(),
            })?;
            entries.push(entry);
        }
        places = &places[count..];
    }
    Ok(entries)
}

/// How many places from the first on lie close together, and the bytes they span.
fn run(places: &[Place]) -> (usize, u32) {
    let first = places[0];
    let mut span = first.len;
    let mut count = 1;
    for place in &places[1..] {
        let is_near = place.segment == first.segment && place.offset > first.offset;
        let reach = place.offset.saturating_sub(first.offset).saturating_add(place.len);
        if !is_near || reach > READ_BYTES {
            break;
        }
        span = reach;
        count += 1;
    }
    (count, span)
}

fn decode(record: &Bytes, seed: u32) -> Option<WalEntry> {
    let head = Head::parse(record.get(..RECORD_BYTES)?)?;
    if head.total() != record.len() || head.kind != Kind::Entry || !head.is_intact(record, seed) {
        return None;
    }
    // A copy of its own, so that one entry kept doesn't keep a whole read.
    Some(WalEntry { id: head.id(record), kind: head.tag, payload: Bytes::copy_from_slice(head.payload(record)) })
}
