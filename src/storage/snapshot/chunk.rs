//! The stream's frames.
//!
//! ```text
//! stream: magic (8 bytes) · chunk …  · end chunk
//! chunk:  kind u8 · raw length u32 LE · stored length u32 LE · crc32c u32 LE · stored bytes
//! ```
//!
//! The checksum covers kind, lengths and stored bytes; the stored bytes are the raw ones
//! compressed with zstd. The end chunk holds the counts and the BLAKE3 of everything before it.

use std::io::{self, Read, Write};

use super::SnapshotError;

pub(super) const MAGIC: &[u8; 8] = b"RUSDSNAP";
pub(super) const HEADER: u8 = 1;
pub(super) const ROWS: u8 = 2;
pub(super) const RECORDS: u8 = 3;
pub(super) const END: u8 = 4;

/// Raw bytes after which a chunk is closed.
pub(super) const CHUNK_BYTES: usize = 256 << 10;
/// No chunk is larger: the largest record there can be, with room to spare.
const CHUNK_BYTES_MAX: usize = 64 << 20;
const HEAD_LEN: usize = 13;

/// Writes chunks and hashes what it wrote.
pub(super) struct ChunkWriter<W> {
    out: W,
    compressor: zstd::bulk::Compressor<'static>,
    hash: blake3::Hasher,
    written: u64,
}

impl<W: Write> ChunkWriter<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let mut hash = blake3::Hasher::new();
        hash.update(MAGIC);
        Ok(Self { out, compressor: zstd::bulk::Compressor::new(1)?, hash, written: MAGIC.len() as u64 })
    }

    pub(super) fn write(&mut self, kind: u8, raw: &[u8]) -> io::Result<()> {
        let stored = self.compressor.compress(raw)?;
        let (Ok(raw_len), Ok(stored_len)) = (u32::try_from(raw.len()), u32::try_from(stored.len())) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        if raw.len() > CHUNK_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut head = [0; HEAD_LEN];
        head[0] = kind;
        head[1..5].copy_from_slice(&raw_len.to_le_bytes());
        head[5..9].copy_from_slice(&stored_len.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..9]), &stored);
        head[9..].copy_from_slice(&crc.to_le_bytes());
        for bytes in [&head[..], &stored] {
            self.out.write_all(bytes)?;
            self.hash.update(bytes);
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    /// The digest of everything so far.
    pub(super) fn digest(&self) -> [u8; 32] {
        *self.hash.finalize().as_bytes()
    }

    /// Bytes written, and the stream.
    pub(super) fn finish(mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.written)
    }
}

/// Reads chunks, checks each, and hashes what it read.
pub(super) struct ChunkReader<R> {
    input: R,
    decompressor: zstd::bulk::Decompressor<'static>,
    stored: Vec<u8>,
    hash: blake3::Hasher,
    read: u64,
}

impl<R: Read> ChunkReader<R> {
    pub(super) fn new(input: R) -> Result<Self, SnapshotError> {
        let decompressor = zstd::bulk::Decompressor::new()?;
        let mut reader = Self { input, decompressor, stored: Vec::new(), hash: blake3::Hasher::new(), read: 0 };
        let mut magic = [0; MAGIC.len()];
        reader.fill(&mut magic)?;
        if magic != *MAGIC {
            return Err(SnapshotError::Damaged { offset: 0, what: "it doesn't begin as one" });
        }
        reader.hash.update(&magic);
        Ok(reader)
    }

    /// Where the next chunk begins.
    pub(super) fn offset(&self) -> u64 {
        self.read
    }

    pub(super) fn damaged(&self, what: &'static str) -> SnapshotError {
        SnapshotError::Damaged { offset: self.read, what }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SnapshotError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is cut short"),
            _ => error.into(),
        })?;
        self.read += bytes.len() as u64;
        Ok(())
    }

    /// The next chunk's kind and raw bytes, and the digest of everything before it.
    pub(super) fn next(&mut self) -> Result<(u8, Vec<u8>, [u8; 32]), SnapshotError> {
        let before = *self.hash.finalize().as_bytes();
        let mut head = [0; HEAD_LEN];
        self.fill(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (raw_len, stored_len) = (number(1) as usize, number(5) as usize);
        // Zstd makes what it can't compress a little longer.
        if raw_len > CHUNK_BYTES_MAX || stored_len > CHUNK_BYTES_MAX + CHUNK_BYTES_MAX / 128 + 1024 {
            return Err(self.damaged("a chunk's length can't be"));
        }
        // In pieces, so that a wrong length alone takes no memory.
        let mut stored = std::mem::take(&mut self.stored);
        stored.clear();
        while stored.len() < stored_len {
            let start = stored.len();
            stored.resize(stored_len.min(start + (1 << 20)), 0);
            self.fill(&mut stored[start..])?;
        }
        if number(9) != crc32c::crc32c_append(crc32c::crc32c(&head[..9]), &stored) {
            return Err(self.damaged("a chunk's checksum doesn't fit"));
        }
        self.hash.update(&head);
        self.hash.update(&stored);
        let raw = self.decompressor.decompress(&stored, raw_len);
        let raw = raw.map_err(|_| self.damaged("a chunk can't be unpacked"))?;
        self.stored = stored;
        if raw.len() != raw_len {
            return Err(self.damaged("a chunk's length doesn't fit"));
        }
        Ok((head[0], raw, before))
    }

    /// Whether the stream ends here.
    pub(super) fn is_at_end(&mut self) -> Result<bool, SnapshotError> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(count) => return Ok(count == 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
