//! Reads one segment from its start and judges its end.
//!
//! ```text
//! header ─► record ─► record ─► … ─► bad or zero at B
//!                                     │ B lies in the first group (synced before the file had its name) ─► damage
//!                                     │ only zeros follow ─► clean end
//!                                     │ a valid record follows whose group starts after B ─► damage
//!                                     │ a used file, and nothing of this segment's own follows ─► clean end
//!                                     └ else ─► torn: the last, unsynced write; cut at B
//! ```
//! A group is written only after the one before was synced. So a valid record of a group that starts
//! after B proves that B was synced, and losing it is damage; valid records of B's own group prove
//! nothing, since a power cut keeps any of a write's sectors.

use std::io;
use std::path::Path;

use crate::env::DiskFile;

use super::format::{ALIGN, BadHeader, FORMAT, HEADER_BYTES, HEADER_BYTES_U32, Head, Header, RECORD_BYTES};
use super::sums::Sums;
use super::types::WalError;

const CHUNK_BYTES: usize = 256 * 1024;

/// A file seen through a buffer.
pub(super) struct Window<'a> {
    file: &'a dyn DiskFile,
    size: u64,
    start: u64,
    buffer: Vec<u8>,
}

/// What one segment held.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Where the valid part ends.
    pub(super) end: u32,
    /// Where the last group starts.
    pub(super) last_group: u32,
    /// The last record's crc.
    pub(super) chain: u32,
    /// Bytes that are not zero behind `end`, to the last one that isn't; 0 for a clean end.
    pub(super) torn_bytes: u64,
}

/// A segment's header, read and checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) header: Header,
    pub(super) seed: u32,
}

impl<'a> Window<'a> {
    pub(super) fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Self { file, size: file.size()?, start: 0, buffer: Vec::new() })
    }

    /// The file's length in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// These bytes, or `None` where the file is shorter.
    pub(super) fn get(&mut self, offset: u64, len: usize) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len as u64).filter(|end| *end <= self.size) else {
            return Ok(None);
        };
        if offset < self.start || end > self.start + self.buffer.len() as u64 {
            let wanted = (len.max(CHUNK_BYTES) as u64).min(self.size - offset);
            self.buffer.resize(usize::try_from(wanted).map_err(io::Error::other)?, 0);
            self.start = offset;
            self.file.read_exact_at(&mut self.buffer, offset)?;
        }
        let at = usize::try_from(offset - self.start).map_err(io::Error::other)?;
        Ok(Some(&self.buffer[at..at + len]))
    }

    /// How many bytes from `from` on are needed to hold all that aren't zero.
    fn occupied(&mut self, from: u64) -> io::Result<u64> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut occupied = 0;
        let mut offset = from;
        while offset < self.size {
            let len = usize::try_from(self.size - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            if let Some(bytes) = self.get(offset, len)?
                && *bytes != ZEROS[..len]
                && let Some(last) = bytes.iter().rposition(|byte| *byte != 0)
            {
                occupied = offset - from + last as u64 + 1;
            }
            offset += len as u64;
        }
        Ok(occupied)
    }
}

fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> WalError {
    WalError::Damaged { path: path.to_owned(), offset, what: what.into() }
}

/// Reads and checks a segment's header.
///
/// # Errors
/// Those of the disk; damage; another format.
pub(super) fn open(path: &Path, file: &dyn DiskFile) -> Result<Opening, WalError> {
    let size = file.size().map_err(WalError::io("read the size of", path))?;
    if size < HEADER_BYTES as u64 || size > u64::from(u32::MAX) {
        return Err(damaged(path, size, "the file is too short or too long for a segment"));
    }
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact_at(&mut bytes, 0).map_err(WalError::io("read", path))?;
    match Header::decode(&bytes) {
        Ok(header) => Ok(Opening { header, seed: Header::seed(&bytes) }),
        Err(BadHeader::Damaged(what)) => Err(damaged(path, 0, what)),
        Err(BadHeader::Format(found)) => Err(WalError::Format { path: path.to_owned(), found, supported: FORMAT }),
    }
}

/// Reads the records, giving each with its offset to `visit`, which answers with what is wrong with
/// it. `end` is where a segment that has a successor must end, with `chain` as its last crc.
///
/// # Errors
/// Those of the disk, and damage.
pub(super) fn scan(
    path: &Path,
    file: &dyn DiskFile,
    opening: &Opening,
    successor: Option<&Header>,
    mut visit: impl FnMut(&Head, &[u8], u32) -> Result<(), String>,
) -> Result<Scanned, WalError> {
    let mut window = Window::new(file).map_err(WalError::io("read", path))?;
    let mut scanned = Scanned { end: HEADER_BYTES_U32, last_group: 0, chain: opening.seed, torn_bytes: 0 };
    loop {
        let offset = scanned.end;
        let Some((head, record)) = record_at(&mut window, offset, opening.seed).map_err(WalError::io("read", path))?
        else {
            break;
        };
        if head.previous != scanned.chain {
            return Err(damaged(path, offset.into(), "a valid record that does not follow the one before it"));
        }
        if head.group != scanned.last_group && head.group != offset {
            return Err(damaged(path, offset.into(), "a valid record of a group that does not start there"));
        }
        visit(&head, record, offset).map_err(|what| damaged(path, offset.into(), what))?;
        scanned.last_group = head.group;
        scanned.chain = head.crc;
        // The record lies within the file, whose size fits (checked in `open`).
        scanned.end += u32::try_from(head.total()).unwrap_or(0);
    }
    let end = u64::from(scanned.end);
    if let Some(next) = successor {
        if next.previous_end != scanned.end || next.previous_crc != scanned.chain {
            let what = format!(
                "a bad record, though segment {:016x} says that valid ones go on to byte {}",
                next.sequence, next.previous_end
            );
            return Err(damaged(path, end, what));
        }
        return Ok(scanned);
    }
    if scanned.end < opening.header.head_end {
        return Err(damaged(path, end, "a bad record in what was synced when the segment was made"));
    }
    let occupied = window.occupied(end).map_err(WalError::io("read", path))?;
    let mut checker = Checker::new(end, window.size(), opening.seed);
    let is_torn = match later(&mut window, &scanned, end + occupied, &mut checker)
        .map_err(WalError::io("read", path))?
    {
        Behind::NextWrite(at) => {
            return Err(damaged(path, end, format!("a bad record, with a valid one of a later write at byte {at}")));
        }
        Behind::OwnWrite => true,
        Behind::Nothing if opening.header.is_recycled => {
            let start = window.get(end, RECORD_BYTES).map_err(WalError::io("read", path))?;
            start.is_some_and(|start| Head::is_trace(start, scanned.chain, [scanned.last_group, scanned.end]))
        }
        Behind::Nothing => true,
    };
    scanned.torn_bytes = if is_torn { occupied } else { 0 };
    Ok(scanned)
}

/// The record that starts at `offset`, if a valid one does.
pub(super) fn record_at<'w>(
    window: &'w mut Window<'_>,
    offset: u32,
    seed: u32,
) -> io::Result<Option<(Head, &'w [u8])>> {
    let Some(fixed) = window.get(offset.into(), RECORD_BYTES)? else { return Ok(None) };
    let Some(head) = Head::parse(fixed) else { return Ok(None) };
    let record = window.get(offset.into(), head.total())?;
    Ok(record.filter(|record| head.is_intact(record, seed)).map(|record| (head, record)))
}

/// What stands behind the end.
#[derive(Debug, PartialEq, Eq)]
enum Behind {
    Nothing,
    /// Valid records of the write that the end lies in.
    OwnWrite,
    /// A valid record of a write that came after it.
    NextWrite(u32),
}

/// Checks what may be records, and never reads more than a few times what there is: behind the end of
/// a used file lie clients' old values, which may claim a long record at every step.
struct Checker {
    seed: u32,
    /// Where the checked part begins.
    start: u64,
    /// Bytes that were checked one by one, and how many may be.
    direct_bytes: u64,
    direct_bytes_max: u64,
    /// Made when those are used up; from then on each check takes constant time.
    sums: Option<Sums>,
}

impl Checker {
    /// How many times the whole part is checked before it is read for good.
    const PASSES: u64 = 4;

    fn new(start: u64, end: u64, seed: u32) -> Self {
        let direct_bytes_max = Self::PASSES.saturating_mul(end.saturating_sub(start));
        Self { seed, start, direct_bytes: 0, direct_bytes_max, sums: None }
    }

    fn is_intact(&mut self, window: &mut Window<'_>, offset: u32, head: &Head) -> io::Result<bool> {
        let end = u64::from(offset).saturating_add(head.total() as u64);
        if end > window.size() {
            return Ok(false);
        }
        self.direct_bytes = self.direct_bytes.saturating_add(head.total() as u64);
        if self.direct_bytes <= self.direct_bytes_max {
            let record = window.get(offset.into(), head.total())?;
            return Ok(record.is_some_and(|record| head.is_intact(record, self.seed)));
        }
        let sums = match &self.sums {
            Some(sums) => sums,
            None => self.sums.insert(Sums::read(window, self.start)?),
        };
        Ok(sums.crc(self.seed, u64::from(offset) + 4, end) == Some(head.crc))
    }
}

/// Looks for valid records of this segment behind the end of the valid part.
fn later(window: &mut Window<'_>, scanned: &Scanned, end: u64, checker: &mut Checker) -> io::Result<Behind> {
    let step = u32::try_from(ALIGN).unwrap_or(4);
    let bad = scanned.end;
    let mut found = Behind::Nothing;
    let mut offset = bad.saturating_add(step);
    while u64::from(offset) < end {
        if let Some(fixed) = window.get(offset.into(), RECORD_BYTES)?
            && let Some(head) = Head::parse(fixed)
            && head.group <= offset
            && (head.group >= bad || head.group == scanned.last_group)
            && checker.is_intact(window, offset, &head)?
        {
            if head.group > bad {
                return Ok(Behind::NextWrite(offset));
            }
            found = Behind::OwnWrite;
        }
        offset = offset.saturating_add(step);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::{Access, Disk, MemDisk};
    use crate::types::{RaftIndex, Term};
    use crate::wal::EntryId;
    use crate::wal::format::{Chain, Kind, encode};

    const SEED: u32 = 99;

    /// A file full of heads of records as long as half of it, one in every 16 bytes, and `last` at its end.
    fn hostile(size: usize, last: &[u8]) -> Vec<u8> {
        let words = [1u32, u32::try_from(size / 2).unwrap(), 7, HEADER_BYTES_U32 + 4];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).cycle().take(size).collect();
        bytes[size - last.len()..].copy_from_slice(last);
        bytes
    }

    fn look(bytes: &[u8]) -> (Behind, Checker) {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let file = disk.open(Path::new("/d/f"), Access::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
        let mut window = Window::new(&*file).unwrap();
        let scanned = Scanned { end: HEADER_BYTES_U32, last_group: 0, chain: SEED, torn_bytes: 0 };
        let mut checker = Checker::new(HEADER_BYTES as u64, bytes.len() as u64, SEED);
        let found = later(&mut window, &scanned, bytes.len() as u64, &mut checker).unwrap();
        (found, checker)
    }

    /// Cause: every step behind the end was checked for a record as long as the bytes there claimed.
    /// Symptom: values that looked like heads of long records made a start read the file a million
    /// times: hours. Holds: a few passes, whatever the bytes are.
    #[test]
    fn hostile_bytes_behind_the_end_cost_a_few_passes() {
        let size = 1 << 20;
        let (found, checker) = look(&hostile(size, &[]));
        assert_eq!(found, Behind::Nothing);
        let asked = checker.direct_bytes / size as u64;
        assert!(asked > 10_000, "the file's bytes would have been checked {asked} times");
        assert!(checker.sums.is_some(), "but all after the first {} were looked up", Checker::PASSES);
    }

    #[test]
    fn a_record_is_found_behind_hostile_bytes() {
        let size: usize = 1 << 20;
        let mut record = Vec::new();
        let id = EntryId { term: Term(1), index: RaftIndex(5), node: None };
        let payload = vec![3; 5000];
        let at = u32::try_from(size - 5036).unwrap();
        encode(&mut record, &mut Chain { seed: SEED, previous: 8 }, at, Kind::Entry, 0, &id, &payload);
        assert_eq!(record.len(), 5036);
        assert_eq!(look(&hostile(size, &record)).0, Behind::NextWrite(at));
        record[2000] ^= 1;
        assert_eq!(look(&hostile(size, &record)).0, Behind::Nothing);
    }
}
