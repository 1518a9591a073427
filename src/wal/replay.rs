//! What the records of a log add up to. Pure: records in, state out.

use bytes::Bytes;

use super::format::{Head, Kind};
use super::places::{Place, Places, Terms};
use super::types::EntryId;

/// The state after the records read so far.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) places: Places,
    pub(super) terms: Terms,
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<EntryId>,
    pub(super) committed: Option<EntryId>,
    /// The index that the next entry must have; any if nothing is known to come before it.
    next: Option<u64>,
}

impl Replay {
    /// Starts at a segment whose header names this first index (0: none yet).
    pub(super) fn new(first_index: u64) -> Self {
        Self { next: (first_index > 0).then_some(first_index), ..Self::default() }
    }

    /// Takes one record; the error says what can't be.
    pub(super) fn record(&mut self, head: &Head, record: &[u8], place: Place) -> Result<(), String> {
        let id = head.id(record);
        let index = id.index.get();
        match head.kind {
            Kind::Entry => {
                if let Some(next) = self.next.filter(|next| *next != index) {
                    return Err(format!("entry {index} where entry {next} must be"));
                }
                self.places.push(index, place);
                self.terms.push(&id);
                self.next = Some(index.checked_add(1).ok_or("an index beyond every log")?);
            }
            Kind::Vote => self.vote = Some(Bytes::copy_from_slice(head.payload(record))),
            Kind::Truncate => {
                self.places.truncate_from(index);
                self.terms.truncate_from(index);
                if index == 0 {
                    self.next = None;
                } else if self.next.is_some_and(|next| index < next) {
                    self.next = Some(index);
                }
            }
            Kind::Purge => {
                if index == u64::MAX {
                    return Err("a purge of every index there is".to_owned());
                }
                self.purged = Some(id);
                self.places.purge_to(index);
                self.terms.purge_to(index);
                // Entries of removed segments aren't in `places`, but `next` knows of them.
                if self.next.is_none_or(|next| next <= index + 1) {
                    self.terms.clear();
                    self.next = Some(index + 1);
                }
            }
            Kind::Committed => self.committed = Some(id),
            Kind::Mark => {}
        }
        Ok(())
    }

    /// The last entry; the purged one if there is none after it.
    pub(super) fn last(&self) -> Option<EntryId> {
        self.places.last().and_then(|last| self.terms.id(last)).or(self.purged)
    }
}
