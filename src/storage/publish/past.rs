//! The digest of the state at an older revision: of the index where a key's version of then is still its newest,
//! of the stored heads where it was superseded since.

use super::Published;
use crate::storage::ReadError;
use crate::storage::values::ValueReader;
use crate::types::{KeyRange, RequestError, Revision};

/// Superseded versions that are gathered and then read in order, which bounds the memory for it to 16 MiB.
const GATHERED_MAX: usize = 1 << 20;

/// The sum of the digests of what lives at main revision `at`. May block on the engine.
///
/// # Errors
/// `Compacted` if a compaction passed this state meanwhile; those of the disk.
pub(super) fn digest_at(state: &Published, values: &ValueReader, at: i64) -> Result<u64, ReadError> {
    let all = KeyRange::all();
    let (mut sum, mut older) = (0_u64, Vec::new());
    for (_, version) in state.index.range(&all, Some(at)) {
        // One in 2⁶⁴ of the newest versions has the digest 0 too, and its head says so.
        match version.hash() {
            0 => older.push(version.modified()),
            digest => sum = sum.wrapping_add(digest),
        }
        if older.len() >= GATHERED_MAX {
            sum = sum.wrapping_add(stored(values, &mut older)?);
        }
    }
    Ok(sum.wrapping_add(stored(values, &mut older)?))
}

/// The sum of the digests of these records; takes them out of the list.
fn stored(values: &ValueReader, revisions: &mut Vec<Revision>) -> Result<u64, ReadError> {
    revisions.sort_unstable();
    let sum = values.digests(revisions)?.ok_or(RequestError::Compacted)?;
    revisions.clear();
    Ok(sum)
}
