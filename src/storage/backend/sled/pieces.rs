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
pub(super) const PIECE_BYTES: usize = 16 << 10;
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

/// What a removal took out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes beside the key.
    pub(super) stored: usize,
    /// Bytes of the pieces, elsewhere.
    pub(super) pieces: usize,
}

/// Removes a value so that its leaves can be merged away; says what it was, if it was there.
///
/// The head goes first: a reader that finds it must find the pieces, too.
pub(super) fn remove(tree: &Tree<FANOUT>, config: &BackendConfig, key: &[u8]) -> Result<Option<Taken>, StorageError> {
    let Some(stored) = take(tree, config, key)? else { return Ok(None) };
    if inline(&stored).is_some() {
        return Ok(Some(Taken { stored: stored.len(), pieces: 0 }));
    }
    let (len, _) = head(config, &stored)?;
    for number in 0..len.div_ceil(PIECE_BYTES) {
        take(tree, config, &piece_key(key, number))?;
    }
    Ok(Some(Taken { stored: stored.len(), pieces: len }))
}

/// Removes pieces that a removal left behind which was cut short after the head; `keys` ascend. It
/// iterates, which flushes.
pub(super) fn remove_orphans(
    tree: &Tree<FANOUT>,
    config: &BackendConfig,
    keys: &[Vec<u8>],
) -> Result<(), StorageError> {
    let Some((first, last)) = keys.first().zip(keys.last()) else { return Ok(()) };
    let mut orphans = Vec::new();
    for pair in tree.range(piece_key(first, 0)..=piece_key(last, u32::MAX as usize)) {
        let (piece, _) = pair.map_err(|error| failure(config, "read", error))?;
        let key = piece.get(1..piece.len().saturating_sub(4)).unwrap_or_default();
        if keys.binary_search_by(|known| known.as_slice().cmp(key)).is_ok() {
            orphans.push(piece);
        }
    }
    orphans.iter().try_for_each(|piece| take(tree, config, piece).map(drop))
}

fn take(tree: &Tree<FANOUT>, config: &BackendConfig, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
    tree.remove(key).map_err(|error| failure(config, "remove from", error))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::Engine;

    /// A removal that was cut short after the head left the pieces, which nothing could find any more.
    #[test]
    fn what_a_removal_left_behind_goes_with_the_next_try() {
        let dir = tempfile::tempdir().unwrap();
        let db: sled::Db<FANOUT> = sled::Config::new().path(dir.path()).flush_every_ms(None).open().unwrap();
        let config = BackendConfig::new(Engine::Sled, dir.path());
        let keys = [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()];
        let mut batch = Batch::default();
        for key in &keys {
            put(key, &[7; 3 * PIECE_BYTES], &mut batch);
        }
        db.apply_batch(batch).unwrap();
        for key in &keys {
            db.remove(key).unwrap();
        }
        db.remove(piece_key(&keys[0], 1)).unwrap();
        assert_eq!(remove(&db, &config, &keys[0]).unwrap(), None);
        remove_orphans(&db, &config, &[keys[0].clone(), keys[2].clone()]).unwrap();
        let left: Vec<_> = db.iter().map(|pair| pair.unwrap().0.to_vec()).collect();
        assert_eq!(left, (0..3).map(|number| piece_key(&keys[1], number)).collect::<Vec<_>>());
    }
}
