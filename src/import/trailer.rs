//! The checksum that a snapshot file from a server ends with: SHA-256 of everything before it.
//!
//! bbolt's pages are multiples of 512 bytes, so whether there is one can be told from the length.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ImportError;
use crate::env::{Access, Disk, DiskFile};

const SHA256_BYTES: u64 = 32;
const SECTOR_BYTES: u64 = 512;
const BUFFER_BYTES: usize = 1 << 20;

/// What a file ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailer {
    /// No checksum: a copy of a database, or cut short.
    Missing,
    /// The right one.
    Right,
    /// One that doesn't fit what is before it.
    Wrong,
}

/// Whether a file of this length has a checksum at its end.
pub fn is_trailed(len: u64) -> bool {
    len % SECTOR_BYTES == SHA256_BYTES
}

/// Reads a whole file and checks what it ends with; `progress` hears of bytes.
///
/// # Errors
/// The disk's.
pub fn check_trailer(disk: &dyn Disk, path: &Path, progress: &mut dyn FnMut(u64)) -> Result<Trailer, ImportError> {
    let file = disk.open(path, Access::Read).map_err(ImportError::io("open", path))?;
    trailer_of(file.as_ref(), progress).map_err(ImportError::io("read", path))
}

/// The same of a file that is open.
///
/// # Errors
/// The disk's.
pub fn trailer_of(file: &dyn DiskFile, progress: &mut dyn FnMut(u64)) -> io::Result<Trailer> {
    let len = file.size()?;
    if !is_trailed(len) {
        return Ok(Trailer::Missing);
    }
    let end = len - SHA256_BYTES;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut at = 0;
    while at < end {
        let count = (end - at).min(BUFFER_BYTES as u64) as usize;
        file.read_exact_at(&mut buffer[..count], at)?;
        hash.update(&buffer[..count]);
        at += count as u64;
        progress(count as u64);
    }
    let mut found = [0; SHA256_BYTES as usize];
    file.read_exact_at(&mut found, end)?;
    Ok(if hash.finalize()[..] == found { Trailer::Right } else { Trailer::Wrong })
}
