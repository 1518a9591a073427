//! `Sectors`: appends that go past the page cache, in whole sectors.
//!
//! ```text
//! append ─► what the last sector holds already · the bytes · zeros up to a sector's end ─► one write of the disk
//! ```
//! A page cache gives the disk whole pages, and folios of many pages where a file was written in larger pieces: an
//! append of a kilobyte was one of 4 to 64 KiB. So that readers see the same bytes, the cache forgets what is written here.
//! The sector that an append begins in is written again with what it held, as a page would be.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;

/// The largest sector that is taken; it is a page, and the cache gains nothing above it.
pub const SECTOR_BYTES_MAX: usize = 4096;
/// The most bytes of one write, which is the memory that it takes.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// A handle whose writes go past the page cache.
#[derive(Debug)]
pub struct Direct {
    /// Writes begin and end at multiples of `align` bytes, and so does the memory that they come from. One that
    /// doesn't, or that the file system can't do after all, is refused as `InvalidInput` before any byte is written.
    pub file: Arc<dyn DiskFile>,
    /// A power of two, at most [`SECTOR_BYTES_MAX`].
    pub align: usize,
}

/// Appends to one file.
#[derive(Debug)]
pub struct Sectors {
    direct: Direct,
    /// What the file holds between the last sector's start and the end of the last append.
    tail: Vec<u8>,
    buffer: Vec<u8>,
}

impl Sectors {
    /// Appends from the file's start on.
    pub fn new(direct: Direct) -> Self {
        Self { direct, tail: Vec::new(), buffer: Vec::new() }
    }

    /// Appends from `end` on; what is before it in its sector is read from `file`, another handle of the same file.
    ///
    /// # Errors
    /// The disk's.
    pub fn at(direct: Direct, file: &dyn DiskFile, end: u64) -> io::Result<Self> {
        let start = end - end % direct.align as u64;
        let mut tail = vec![0; (end - start) as usize];
        file.read_exact_at(&mut tail, start)?;
        Ok(Self { tail, ..Self::new(direct) })
    }

    /// Where the write of an append that ends at `end` ends.
    pub fn padded(&self, end: u64) -> u64 {
        end.next_multiple_of(self.direct.align as u64)
    }

    /// Writes `bytes` at `offset`, which is the end of the last append, and zeros up to [`Sectors::padded`].
    ///
    /// # Errors
    /// `InvalidInput` if the file system can't; nothing of this append counts as written then. The disk's.
    pub fn append(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let align = self.direct.align;
        let mut at = offset - self.tail.len() as u64;
        if !at.is_multiple_of(align as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (mut old, mut rest) = (&self.tail[..], bytes);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(WRITE_BYTES_MAX - old.len()));
            let len = (old.len() + now.len()).next_multiple_of(align);
            let sectors = aligned(&mut self.buffer, len, align)?;
            let (before, new) = sectors.split_at_mut(old.len());
            before.copy_from_slice(old);
            new[..now.len()].copy_from_slice(now);
            new[now.len()..].fill(0);
            self.direct.file.write_at(sectors, at)?;
            (old, rest, at) = (&[], later, at + len as u64);
        }
        let kept = (self.tail.len() + bytes.len()) % align;
        let from_bytes = kept.min(bytes.len());
        // Less than a sector was added to less than a sector: what was there stays.
        self.tail.drain(..if from_bytes < kept { 0 } else { self.tail.len() });
        self.tail.extend_from_slice(&bytes[bytes.len() - from_bytes..]);
        Ok(())
    }
}

/// Writes zeros from `from` to `to`, both multiples of the sector.
///
/// # Errors
/// As [`Sectors::append`].
pub fn write_zeros(direct: &Direct, from: u64, to: u64) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut at = from;
    while at < to {
        let len = (to - at).min(WRITE_BYTES_MAX as u64) as usize;
        let zeros = aligned(&mut buffer, len, direct.align)?;
        direct.file.write_at(zeros, at)?;
        at += len as u64;
    }
    Ok(())
}

/// A part of the buffer of this length that begins at a multiple of `align` in memory; zeros where it is new.
fn aligned(buffer: &mut Vec<u8>, len: usize, align: usize) -> io::Result<&mut [u8]> {
    if buffer.len() < len + align {
        buffer.resize(len + align, 0);
    }
    let shift = buffer.as_ptr().align_offset(align);
    buffer.get_mut(shift..shift.saturating_add(len)).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::{Access, Disk, MemDisk, RealDisk, Rng, SeededRng};

    /// Appends of all kinds of lengths, some of them by a handle that was opened anew, leave the same bytes as plain writes.
    fn appends(disk: &dyn Disk, path: &Path, longest: usize) {
        const ROOM: usize = 4 << 20;
        let file = disk.open(path, Access::CreateNew).unwrap();
        file.allocate(0, ROOM as u64).unwrap();
        file.write_at(&[7; 3 * SECTOR_BYTES_MAX], ROOM as u64 - 3 * SECTOR_BYTES_MAX as u64).unwrap();
        file.sync_all().unwrap();
        let Some(direct) = disk.open_direct(path).unwrap() else { return };
        let (align, mut sectors) = (direct.align, Sectors::new(direct));
        let (rng, mut expected) = (SeededRng::new(3), Vec::new());
        for round in 0..200 {
            let lengths = [1, 4, align - 1, align, align + 1, longest];
            let len = match rng.next_u64() % 8 {
                pick @ 0..6 => lengths[pick as usize],
                _ => rng.next_u64() as usize % (3 * align) + 1,
            };
            if expected.len() + len > ROOM {
                break;
            }
            let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8 | 1).collect();
            sectors.append(&bytes, expected.len() as u64).unwrap();
            expected.extend(bytes);
            let mut found = vec![0; expected.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == expected, "round {round}, {len} bytes");
            if rng.next_u64().is_multiple_of(5) {
                let direct = disk.open_direct(path).unwrap().unwrap();
                sectors = Sectors::at(direct, &*file, expected.len() as u64).unwrap();
            }
        }
        assert!(expected.len() > longest);
        let end = sectors.padded(expected.len() as u64) as usize;
        let mut behind = vec![1; end - expected.len()];
        file.read_exact_at(&mut behind, expected.len() as u64).unwrap();
        assert!(behind.iter().all(|byte| *byte == 0), "the last sector is filled with zeros");
        assert_eq!(sectors.append(b"x", expected.len() as u64 + 1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn appends_leave_what_plain_writes_would() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        appends(&disk, Path::new("/d/f"), WRITE_BYTES_MAX + 1000);
        let temp = tempfile::tempdir().unwrap();
        appends(&RealDisk, &temp.path().join("f"), 100_000);
    }

    #[test]
    fn zeros_take_the_place_of_what_was_there() {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        let path = Path::new("/d/f");
        disk.open(path, Access::Create).unwrap().write_at(&[9; 4 * 512], 0).unwrap();
        let direct = disk.open_direct(path).unwrap().unwrap();
        write_zeros(&direct, 512, 1536).unwrap();
        let bytes = disk.bytes(path).unwrap();
        assert!(bytes[..512].iter().chain(&bytes[1536..]).all(|byte| *byte == 9));
        assert!(bytes[512..1536].iter().all(|byte| *byte == 0));
    }
}
