//! Large values in pieces, so that a leaf of 128 entries stays small.
//!
//! ```text
//! key                      ─► 0 · value
//! key of a large value     ─► 1 · length u64 LE · crc32c u32 LE
//! 0xf0 · key · number u32 BE ─► piece
//! ```

use sled::{Batch, Tree};

use super::{Bytes, FANOUT, damaged, failure};
use crate::storage::backend::BackendConfig;
use crate::types::StorageError;

/// Larger values are cut into pieces of this many bytes: a leaf is then 2 MiB at most.
const PIECE_BYTES: usize = 16 << 10;
const INLINE: u8 = 0;
const LARGE: u8 = 1;
/// Above every table's number.
const PIECES: u8 = 0xf0;
const HEAD_LEN: usize = 13;

/// A value's length and checksum.
type Head = (usize, u32);

/// The value, if it is not in pieces.
pub(super) fn inline(stored: &[u8]) -> Option<&[u8]> {
    match stored.split_first() {
        Some((&INLINE, value)) => Some(value),
        _ => None,
    }
}

/// Adds a put to a batch.
pub(super) fn put(key: &[u8], value: &[u8], batch: &mut Batch) {
    if value.len() <= PIECE_BYTES {
        batch.insert(key, stored_inline(value));
        return;
    }
    let mut head = Vec::with_capacity(HEAD_LEN);
    head.push(LARGE);
    head.extend_from_slice(&(value.len() as u64).to_le_bytes());
    head.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
    batch.insert(key, head);
    for (number, piece) in value.chunks(PIECE_BYTES).enumerate() {
        batch.insert(piece_key(key, number), piece);
    }
}

/// The value of a key, put together.
pub(super) fn get(tree: &Tree<FANOUT>, config: &BackendConfig, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
    let mut before: Option<Bytes> = None;
    loop {
        let Some(stored) = look(tree, config, key)? else {
            return Ok(None);
        };
        if let Some(value) = inline(&stored) {
            return Ok(Some(value.to_vec()));
        }
        let (len, crc) = head(config, &stored)?;
        let mut value = Vec::new();
        for number in 0..len.div_ceil(PIECE_BYTES) {
            if let Some(piece) = look(tree, config, &piece_key(key, number))? {
                value.extend_from_slice(&piece);
            }
        }
        if value.len() == len && crc32c::crc32c(&value) == crc {
            return Ok(Some(value));
        }
        // The writer may have replaced the value between two looks; the same head twice is damage.
        if before.is_some_and(|before| before == stored) {
            return Err(damaged(config, "the pieces of a large value don't make it up"));
        }
        before = Some(stored);
    }
}

/// Adds the removal of the pieces that `new` won't overwrite.
pub(super) fn drop_old(
    tree: &Tree<FANOUT>,
    config: &BackendConfig,
    key: &[u8],
    new: Option<&[u8]>,
    batch: &mut Batch,
) -> Result<(), StorageError> {
    let Some(stored) = look(tree, config, key)? else {
        return Ok(());
    };
    if inline(&stored).is_none() {
        let (len, _) = head(config, &stored)?;
        let kept = new.filter(|new| new.len() > PIECE_BYTES).map_or(0, |new| new.len().div_ceil(PIECE_BYTES));
        for number in kept..len.div_ceil(PIECE_BYTES) {
            batch.remove(piece_key(key, number));
        }
    }
    Ok(())
}

/// Removes a value so that its leaves can be merged away.
pub(super) fn remove(tree: &Tree<FANOUT>, config: &BackendConfig, key: &[u8]) -> Result<(), StorageError> {
    let take = |key: &[u8]| tree.remove(key).map_err(|error| failure(config, "remove from", error));
    if let Some(stored) = take(key)?
        && inline(&stored).is_none()
    {
        let (len, _) = head(config, &stored)?;
        for number in 0..len.div_ceil(PIECE_BYTES) {
            take(&piece_key(key, number))?;
        }
    }
    Ok(())
}

fn look(tree: &Tree<FANOUT>, config: &BackendConfig, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
    tree.get(key).map_err(|error| failure(config, "read", error))
}

fn head(config: &BackendConfig, stored: &[u8]) -> Result<Head, StorageError> {
    let wrong = || damaged(config, "a value's head is not one");
    let head: &[u8; HEAD_LEN] = stored.try_into().map_err(|_| wrong())?;
    let mut len = [0; 8];
    len.copy_from_slice(&head[1..9]);
    let mut crc = [0; 4];
    crc.copy_from_slice(&head[9..]);
    let len = usize::try_from(u64::from_le_bytes(len)).map_err(|_| wrong())?;
    // A piece's number has 32 bits.
    if head[0] != LARGE || len.div_ceil(PIECE_BYTES) > u32::MAX as usize {
        return Err(wrong());
    }
    Ok((len, u32::from_le_bytes(crc)))
}

fn stored_inline(value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(value.len() + 1);
    stored.push(INLINE);
    stored.extend_from_slice(value);
    stored
}

fn piece_key(key: &[u8], number: usize) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 5);
    full.push(PIECES);
    full.extend_from_slice(key);
    full.extend_from_slice(&(number as u32).to_be_bytes());
    full
}
