//! etcd's log: the entries that its database lacks.
//!
//! ```text
//! member/wal/SEQUENCE-INDEX.wal:  record …, zeros
//! record: length u56 LE, padding u8 (with its highest bit, and the count in the lowest three) · bytes · padding
//! bytes:  type 1, crc 2, data 3      type: 1 metadata, 2 entry, 3 hard state, 4 checksum, 5 snapshot
//! entry:  type 1, term 2, index 3, data 4          hard state: term 1, vote 2, commit 3
//! ```
//! The checksum (CRC-32C) runs on over all records and all files; the first record of each file says where it stands. An
//! entry that comes again takes the place of the first one and of all after it. The last file may end in a record that
//! was never finished; damage anywhere else is told, and nothing is guessed.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use super::ImportError;
use crate::env::{Access, Disk};
use crate::storage::snapshot::FileStream;

/// A request is smaller by far, and so is everything else that the log holds.
const RECORD_BYTES_MAX: u64 = 512 << 20;
/// Entries that are kept in memory: a member that is stopped leaves a tenth of a second of them behind.
const TAIL_BYTES_MAX: usize = 2 << 30;
/// The disk writes whole sectors: one of a record that was never finished is all zeros.
const SECTOR_BYTES: u64 = 512;

/// An entry of etcd's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Whether it is a request; others change the membership.
    pub is_request: bool,
    /// A request's bytes.
    pub data: Bytes,
}

/// What the log holds beyond the database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The entries after the one asked for, without a gap.
    pub entries: Vec<LogEntry>,
    /// The last entry that this member knew to be committed.
    pub committed: u64,
}

#[derive(Clone, PartialEq, Message)]
struct WalRecord {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(uint32, tag = "2")]
    crc: u32,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct RaftEntry {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
    #[prost(bytes = "bytes", tag = "4")]
    data: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct WalSnapshot {
    #[prost(uint64, tag = "1")]
    index: u64,
}

#[derive(Clone, PartialEq, Message)]
struct HardState {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    vote: u64,
    #[prost(uint64, tag = "3")]
    commit: u64,
}

const METADATA: i64 = 1;
const ENTRY: i64 = 2;
const STATE: i64 = 3;
const CHECKSUM: i64 = 4;
const SNAPSHOT: i64 = 5;
/// A request, and two kinds of changes of the membership.
const ENTRY_KINDS: std::ops::RangeInclusive<i32> = 0..=2;

impl Log {
    /// Reads the log in `dir`: all entries after `after`, which must be of `term` if the log still holds it.
    ///
    /// # Errors
    /// Damage, a gap after `after`, a log that doesn't belong to the database, and one of a member that was killed
    /// between noting a snapshot that it was sent and taking it in.
    pub fn read(disk: &dyn Disk, dir: &Path, after: u64, term: u64) -> Result<Self, ImportError> {
        let mut files = files(disk, dir)?;
        files.sort_unstable();
        let mut tail =
            Tail { log: Self::default(), after, term, bytes: 0, last: 0, strange: None, snapshots: Vec::new() };
        let mut crc = None;
        for (at, (_, path)) in files.iter().enumerate() {
            let is_last = at + 1 == files.len();
            read_file(disk, path, is_last, &mut crc, &mut tail)?;
        }
        tail.check().map_err(|why| ImportError::Refused(format!("{}: {why}", dir.display())))?;
        Ok(tail.log)
    }
}

/// The log's files with their numbers.
fn files(disk: &dyn Disk, dir: &Path) -> Result<Vec<(u64, PathBuf)>, ImportError> {
    let names = disk.list(dir).map_err(ImportError::io("list", dir))?;
    let number = |name: &str| u64::from_str_radix(name.strip_suffix(".wal")?.split_once('-')?.0, 16).ok();
    let files: Vec<_> = names.into_iter().filter_map(|name| Some((number(name.to_str()?)?, dir.join(&name)))).collect();
    let numbers: Vec<_> = files.iter().map(|(number, _)| *number).collect();
    if numbers.windows(2).any(|pair| pair[0].checked_add(1) != Some(pair[1])) {
        return Err(ImportError::Refused(format!("{}: a file of the log is missing", dir.display())));
    }
    Ok(files)
}

/// The entries so far.
struct Tail {
    log: Log,
    after: u64,
    term: u64,
    bytes: usize,
    /// The last entry that there is, or that a snapshot stands for.
    last: u64,
    /// The term of the entry that the database ends with, if that is another one there.
    strange: Option<u64>,
    /// Snapshots later than the database.
    snapshots: Vec<u64>,
}

impl Tail {
    /// Looks at the whole: the log has to go on where the database ends.
    fn check(&self) -> Result<(), String> {
        if let Some(term) = self.strange {
            return Err(format!(
                "entry {} is of term {term}, that in the database of term {}: they don't belong together",
                self.after, self.term
            ));
        }
        if self.last < self.after {
            return Err(format!(
                "the log ends at entry {}, and the database holds up to {}: they don't belong together, or files of \
                 the log are missing",
                self.last, self.after
            ));
        }
        if self.log.committed > self.last {
            return Err(format!(
                "entry {} was committed, and the log ends at {}: its end is missing",
                self.log.committed, self.last
            ));
        }
        match self.snapshots.iter().find(|index| **index <= self.log.committed) {
            Some(index) => Err(format!(
                "a snapshot up to entry {index} was received, and the database holds up to {} only: start etcd once, and \
                 stop it",
                self.after
            )),
            None => Ok(()),
        }
    }

    fn note_snapshot(&mut self, index: u64) {
        self.last = self.last.max(index);
        if index > self.after {
            self.snapshots.push(index);
        }
    }

    /// What a record is isn't covered by its checksum, so an entry has to look like one.
    fn take(&mut self, entry: RaftEntry) -> Result<(), String> {
        if !ENTRY_KINDS.contains(&entry.kind) || entry.index == 0 || entry.term == 0 {
            return Err("an entry that can't be".into());
        }
        if entry.index <= self.after {
            // One that comes again takes the place of the first.
            self.strange = (entry.index == self.after && entry.term != self.term).then_some(entry.term);
        }
        self.last = entry.index;
        let Some(place) = entry.index.checked_sub(self.after + 1) else {
            // What comes after it is void, too.
            self.log.entries.clear();
            self.bytes = 0;
            return Ok(());
        };
        let place = usize::try_from(place).ok().filter(|place| *place <= self.log.entries.len());
        let place = place.ok_or_else(|| {
            format!(
                "entry {} comes after entry {}: those between are missing, and the database holds up to {}",
                entry.index,
                self.after + self.log.entries.len() as u64,
                self.after
            )
        })?;
        if place.checked_sub(1).is_some_and(|before| self.log.entries[before].term > entry.term) {
            return Err(format!("entry {} is of an earlier term than the one before it", entry.index));
        }
        self.bytes += entry.data.len();
        for replaced in self.log.entries.drain(place..) {
            self.bytes -= replaced.data.len();
        }
        if self.bytes > TAIL_BYTES_MAX {
            return Err("the database lacks more than 2 GiB of the log: start etcd once, and stop it".into());
        }
        let RaftEntry { kind, term, index, data } = entry;
        self.log.entries.push(LogEntry { index, term, is_request: kind == 0, data });
        Ok(())
    }
}

fn read_file(
    disk: &dyn Disk,
    path: &Path,
    is_last: bool,
    crc: &mut Option<u32>,
    tail: &mut Tail,
) -> Result<(), ImportError> {
    let io = |error| ImportError::io("read", path)(error);
    let file = disk.open(path, Access::Read).map_err(ImportError::io("open", path))?;
    let size = file.size().map_err(io)?;
    let mut input = BufReader::with_capacity(1 << 20, FileStream::new(file));
    let mut at = 0;
    loop {
        let damaged = |what: String| ImportError::Log { path: path.to_owned(), offset: at, what };
        let Some(frame) = frame(&mut input, size - at).map_err(io)? else { return Ok(()) };
        let Frame { bytes, taken } = match frame {
            Ok(frame) => frame,
            // The last write of all was cut short.
            Err(_) if is_last => return Ok(()),
            Err(what) => return Err(damaged(what.into())),
        };
        let record = WalRecord::decode(bytes.clone());
        let is_whole = match &record {
            Err(_) => false,
            Ok(record) if record.kind == CHECKSUM => crc.is_none_or(|crc| crc == record.crc),
            Ok(record) => crc32c::crc32c_append(crc.unwrap_or(0), &record.data) == record.crc,
        };
        let record = match record {
            Ok(record) if is_whole => record,
            _ if is_last && is_torn(at + 8, &bytes) => return Ok(()),
            _ => return Err(damaged("a record's checksum doesn't fit".into())),
        };
        *crc = Some(record.crc);
        match record.kind {
            ENTRY => {
                let entry = RaftEntry::decode(record.data).map_err(|error| damaged(format!("an entry: {error}")))?;
                tail.take(entry).map_err(damaged)?;
            }
            STATE => {
                let state = HardState::decode(record.data).map_err(|error| damaged(format!("a state: {error}")))?;
                if state.term == 0 {
                    return Err(damaged("a state of no term".into()));
                }
                tail.log.committed = tail.log.committed.max(state.commit);
            }
            SNAPSHOT => {
                let snapshot = WalSnapshot::decode(record.data);
                let snapshot = snapshot.map_err(|error| damaged(format!("a snapshot's note: {error}")))?;
                tail.note_snapshot(snapshot.index);
            }
            METADATA | CHECKSUM => {}
            other => return Err(damaged(format!("a record of kind {other}"))),
        }
        at += taken;
    }
}

struct Frame {
    bytes: Bytes,
    taken: u64,
}

/// The next record; `None` at the end of what was written, `Err` inside for one that can't be there.
fn frame(input: &mut impl Read, left: u64) -> io::Result<Option<Result<Frame, &'static str>>> {
    if left == 0 {
        return Ok(None);
    }
    if left < 8 {
        return Ok(Some(Err("a record's length is cut short")));
    }
    let mut head = [0; 8];
    input.read_exact(&mut head)?;
    let head = u64::from_le_bytes(head);
    if head == 0 {
        return Ok(None);
    }
    let len = head & 0x00ff_ffff_ffff_ffff;
    let padding = if head >> 63 == 1 { head >> 56 & 7 } else { 0 };
    if len > RECORD_BYTES_MAX || len + padding > left - 8 {
        return Ok(Some(Err("a record is longer than the file, or than any")));
    }
    // In pieces, so that a wrong length alone takes no memory.
    let mut bytes = Vec::new();
    let total = (len + padding) as usize;
    while bytes.len() < total {
        let start = bytes.len();
        bytes.resize(total.min(start + (1 << 20)), 0);
        input.read_exact(&mut bytes[start..])?;
    }
    bytes.truncate(len as usize);
    Ok(Some(Ok(Frame { bytes: bytes.into(), taken: 8 + len + padding })))
}

/// Whether one of the sectors that a record lies in was never written.
fn is_torn(at: u64, bytes: &[u8]) -> bool {
    let first = (SECTOR_BYTES - at % SECTOR_BYTES) as usize;
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    std::iter::once(head)
        .chain(rest.chunks(SECTOR_BYTES as usize))
        .any(|sector| !sector.is_empty() && sector.iter().all(|byte| *byte == 0))
}
