//! The digests of stored records, from their heads: the index has that of a key's newest version only.

use super::ValueReader;
use super::segment::Segment;
use super::state::Totals;
use crate::storage::backend::Table;
use crate::storage::digest::of_record;
use crate::types::{Revision, StorageError};

impl ValueReader {
    /// The sum of the digests of the records of these revisions, which ascend; `None` if one of them was
    /// removed. Reads each segment of heads once, and no value. May block on the disk.
    ///
    /// # Errors
    /// I/O errors, and [`StorageError::Damaged`].
    pub(in crate::storage) fn digests(&self, revisions: &[Revision]) -> Result<Option<u64>, StorageError> {
        let mut sum = 0_u64;
        for part in revisions.chunk_by(|a, b| Segment::base_of(a.main) == Segment::base_of(b.main)) {
            let Some(more) = self.digests_in_segment(part)? else { return Ok(None) };
            sum = sum.wrapping_add(more);
        }
        Ok(Some(sum))
    }

    fn digests_in_segment(&self, revisions: &[Revision]) -> Result<Option<u64>, StorageError> {
        let (mut sum, mut stored) = (0_u64, Vec::new());
        // Those first: what leaves the pending map is on the engine by then.
        for at in revisions {
            match self.shared.pending.get(*at) {
                Some(record) => sum = sum.wrapping_add(of_record(*at, &record)),
                None => stored.push(*at),
            }
        }
        let Some(first) = stored.first() else { return Ok(Some(sum)) };
        let base = Segment::base_of(first.main);
        let Some(value) = self.shared.read(|engine| engine.get(Table::Index, &Segment::key(base)))? else {
            return Ok(None);
        };
        let mut left = stored.iter().peekable();
        Segment::heads(base, &value, &mut Totals::default(), |at, head| {
            if left.next_if(|wanted| **wanted == at).is_some() {
                sum = sum.wrapping_add(head.record_digest);
            }
        })
        .map_err(|error| self.shared.undecodable(format_args!("segment {base}"), error))?;
        Ok(left.peek().is_none().then_some(sum))
    }
}
