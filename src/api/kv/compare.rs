//! A transaction's conditions on a published state.

use crate::apply::{Compare, Compared, all_hold};
use crate::storage::{Disk, KeyMeta, ReadError, Snapshot};
use crate::types::KeyRange;

struct State<'a> {
    snapshot: &'a Snapshot,
    disk: Disk,
}

impl Compared for State<'_> {
    type Error = ReadError;

    fn meta_of(&self, key: &[u8]) -> Option<KeyMeta> {
        self.snapshot.meta_of(key)
    }

    fn visit(&self, range: &KeyRange, each: &mut dyn FnMut(&KeyMeta) -> bool) {
        self.snapshot.visit(range, |meta, _| each(meta));
    }

    fn each_value(&self, range: &KeyRange, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), ReadError> {
        if range.is_single() {
            // It may stay in memory: one that is compared is mostly asked for again.
            if let Some(pair) = self.snapshot.get(&range.start, self.disk)?.value {
                each(&pair.value);
            }
            return Ok(());
        }
        self.snapshot.each_value(range, self.disk, each)
    }
}

/// Whether all of `compares` hold.
///
/// # Errors
/// `NeedsDisk`; the disk's; `Compacted` if a compaction took a value away meanwhile: try again on
/// a newer state.
pub(super) fn all(snapshot: &Snapshot, compares: &[Compare], disk: Disk) -> Result<bool, ReadError> {
    all_hold(&State { snapshot, disk }, compares)
}
