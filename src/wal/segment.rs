//! Segment files: names, making one ahead, the one that is written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::env::{Access, Direct, Disk, DiskFile, Sectors, write_zeros};

use super::format::{ALIGN, Chain};
use super::types::WalOptions;

/// Ends the name of a file that isn't part of the log yet.
pub(super) const DRAFT_SUFFIX: &str = ".tmp";
const SUFFIX: &str = ".wal";
/// Length of the first segments of a log; after each few it doubles, up to the option's.
pub(super) const FIRST_BYTES: u32 = 4 * 1024 * 1024;
/// Segments of one length before longer ones: what is zeroed ahead is a part of what the log has, not more than all of it.
const OF_ONE_LENGTH: u64 = 4;

/// A segment that can be read.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) seed: u32,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) path: PathBuf,
    /// The name it still has, until its first group is synced.
    pub(super) draft: Option<PathBuf>,
    pub(super) sequence: u64,
    pub(super) chain: Chain,
    pub(super) offset: u32,
    pub(super) capacity: u32,
    /// The way past the page cache, where there is one.
    pub(super) sectors: Option<Sectors>,
}

/// A file with its room allocated, durable but not yet a part of the log.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) capacity: u32,
    /// It holds bytes of a segment that is gone; else zeros.
    pub(super) is_recycled: bool,
    /// A handle past the page cache, where one was opened already.
    pub(super) direct: Option<Direct>,
}

impl Active {
    /// Writes a group at the end: past the page cache where the file system can and the last sector lies within the file.
    pub(super) fn write(&mut self, group: &[u8]) -> io::Result<()> {
        let offset = u64::from(self.offset);
        if let Some(sectors) = &mut self.sectors {
            if sectors.padded(offset + group.len() as u64) <= self.capacity.into() {
                match sectors.append(group, offset) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
                    written => return written,
                }
            }
            // Not again for this segment: what the sectors hold at its end isn't known any more.
            self.sectors = None;
        }
        self.file.write_at(group, offset)
    }
}

/// The name of a segment.
pub(super) fn name(sequence: u64) -> String {
    format!("{sequence:016x}{SUFFIX}")
}

/// The sequence in a segment's name.
pub(super) fn parse_name(text: &str) -> Option<u64> {
    let digits = text.strip_suffix(SUFFIX)?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (sequence > 0 && name(sequence) == text).then_some(sequence)
}

impl Spare {
    /// Makes one of `wanted` bytes; on a disk that is nearly full, the longest that fits and has at least `least`.
    ///
    /// # Errors
    /// `StorageFull` if not even `least` bytes fit; others of the disk.
    pub(super) fn make(
        disk: &dyn Disk,
        path: &Path,
        wanted: u32,
        least: u32,
        options: &WalOptions,
    ) -> io::Result<Self> {
        let file = disk.open(path, Access::CreateNew)?;
        let mut capacity = wanted.max(least);
        while let Err(error) = file.allocate(0, capacity.into()) {
            if error.kind() != io::ErrorKind::StorageFull || capacity == least {
                drop(file);
                // What was taken is given back; the error that counts is the first.
                let _ = disk.remove(path);
                return Err(error);
            }
            capacity = (capacity / 2).max(least);
        }
        file.sync_all().inspect_err(|_| drop(disk.remove(path)))?;
        let direct = open_direct(disk, path, options);
        Ok(Self { path: path.to_owned(), file, capacity, is_recycled: false, direct })
    }

    /// Writes zeros over the next part from `from` on and gives where it ends. Blocks that were
    /// written before cost the log's syncs no change of the file system's metadata. That showed on a
    /// busy ext4 and not on an idle one (`docs/adr/0001`).
    ///
    /// Through the page cache page by page: it keeps what one call writes as one folio, and gives the disk the whole
    /// folio again at every later append into it (`docs/adr/0041`).
    ///
    /// # Errors
    /// Those of the disk.
    pub(super) fn fill(&mut self, from: u32) -> io::Result<u32> {
        const PART_BYTES: u32 = 1024 * 1024;
        const PAGE_BYTES: usize = 4096;
        static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        let end = from.saturating_add(PART_BYTES).min(self.capacity);
        match &self.direct {
            Some(direct) if end.is_multiple_of(direct.align as u32) => {
                match write_zeros(direct, from.into(), end.into()) {
                    Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                    written => {
                        written?;
                        self.file.sync_data()?;
                        return Ok(end);
                    }
                }
            }
            _ => {}
        }
        for start in (from..end).step_by(PAGE_BYTES) {
            let len = PAGE_BYTES.min((end - start) as usize);
            self.file.write_at(&ZEROS[..len], start.into())?;
        }
        self.file.sync_data()?;
        Ok(end)
    }
}

/// A handle of the file whose writes go past the page cache, unless the options say no; it is never missed, only dearer
/// to be without.
pub(super) fn open_direct(disk: &dyn Disk, path: &Path, options: &WalOptions) -> Option<Direct> {
    if !options.direct_io {
        return None;
    }
    disk.open_direct(path).unwrap_or_else(|error| {
        tracing::debug!(path = %path.display(), %error, "no writes past the page cache");
        None
    })
}

/// The length of the segment of this sequence: the first ones are short, so that a new log takes
/// little room and is made quickly; less, too, where it would be much of what is free.
pub(super) fn fitting_bytes(disk: &dyn Disk, dir: &Path, sequence: u64, options: &WalOptions) -> u32 {
    const SHARE: u64 = 16;
    let grown = FIRST_BYTES.saturating_mul(1 << (sequence.saturating_sub(1) / OF_ONE_LENGTH).min(16));
    let whole = options.segment_bytes.min(grown);
    let least = WalOptions::SEGMENT_BYTES_MIN.min(whole);
    let free = disk.free_bytes(dir).unwrap_or(u64::MAX);
    let share = u32::try_from(free / SHARE).unwrap_or(u32::MAX);
    let bytes = whole.min(share.max(least));
    bytes - bytes % u32::try_from(ALIGN).unwrap_or(4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemDisk;

    #[test]
    fn only_exact_names_are_segments() {
        assert_eq!(parse_name(&name(0x2f)), Some(0x2f));
        for text in ["0.wal", "0000000000000000.wal", "+000000000000001.wal", "000000000000002F.wal", "x", "1.tmp"] {
            assert_eq!(parse_name(text), None, "{text}");
        }
    }

    #[test]
    fn a_small_disk_gets_small_segments() {
        let disk = MemDisk::new();
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        let options = WalOptions::default();
        assert_eq!(fitting_bytes(&disk, dir, 1, &options), FIRST_BYTES);
        assert_eq!(fitting_bytes(&disk, dir, 2 * OF_ONE_LENGTH, &options), 2 * FIRST_BYTES);
        assert_eq!(fitting_bytes(&disk, dir, 2 * OF_ONE_LENGTH + 1, &options), 4 * FIRST_BYTES);
        assert_eq!(fitting_bytes(&disk, dir, u64::MAX, &options), options.segment_bytes);
        disk.set_capacity(Some(16 * 1024 * 1024));
        assert_eq!(fitting_bytes(&disk, dir, 9, &options), 1024 * 1024);
        disk.set_capacity(Some(1000));
        assert_eq!(fitting_bytes(&disk, dir, 9, &options), WalOptions::SEGMENT_BYTES_MIN);
    }

    #[test]
    fn a_spare_shrinks_to_what_fits() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.set_capacity(Some(300));
        let options = WalOptions::default();
        let path = Path::new("/d/a.tmp");
        assert_eq!(Spare::make(&disk, path, 1024, 100, &options).unwrap().capacity, 256);
        assert!(Spare::make(&disk, path, 10, 10, &options).is_err(), "a draft is never made in another's place");
        let error = Spare::make(&disk, Path::new("/d/b.tmp"), 1024, 100, &options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(!disk.exists(Path::new("/d/b.tmp")).unwrap());
    }
}
