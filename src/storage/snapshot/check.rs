//! Whether a snapshot's bytes are still those that were written, a chunk at a time.

use std::io::Read;

use super::SnapshotError;
use super::chunk::{ChunkReader, END};

/// A check under way. It looks at checksums and the digest at the end, not at what the chunks say.
pub struct SnapshotCheck<R> {
    chunks: ChunkReader<R>,
}

impl<R> std::fmt::Debug for SnapshotCheck<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotCheck").finish_non_exhaustive()
    }
}

impl<R: Read> SnapshotCheck<R> {
    /// Begins with the first byte of `input`.
    ///
    /// # Errors
    /// Those of the stream, and `Damaged` if it doesn't begin as a snapshot does.
    pub fn new(input: R) -> Result<Self, SnapshotError> {
        Ok(Self { chunks: ChunkReader::new(input)? })
    }

    /// Checks the next chunk; gives its bytes in the stream, and `None` once all of it is found whole.
    ///
    /// # Errors
    /// Those of the stream, and damage: any byte that is not as it was written. The check is over then.
    pub fn step(&mut self) -> Result<Option<u64>, SnapshotError> {
        let begun = self.chunks.offset();
        let (kind, raw, digest) = self.chunks.next()?;
        if kind != END {
            return Ok(Some(self.chunks.offset() - begun));
        }
        if !raw.ends_with(&digest) {
            return Err(self.chunks.damaged("the digest at its end doesn't fit"));
        }
        if !self.chunks.is_at_end()? {
            return Err(self.chunks.damaged("something after its end"));
        }
        Ok(None)
    }
}
